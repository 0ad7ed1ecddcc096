#include "engine/api/preprocess.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>

namespace vlr {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;

class Stopwatch {
 public:
  explicit Stopwatch(double& seconds)
      : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_;
};

bool has_text(const Content& c) {
  return std::any_of(c.texts.begin(), c.texts.end(),
                     [](const std::string& t) { return !t.empty(); });
}
bool is_empty(const Content& c) { return c.images.empty() && c.videos.empty() && !has_text(c); }

void fail(Pair& pair, DocumentStatus status, std::string message) {
  pair.result.status = status;
  pair.result.message = std::move(message);
}

/// A name for the content of patches: their grid and two 64-bit hashes of their bytes.
std::string content_key(const Patches& p) {
  uint64_t a = 0x9e3779b97f4a7c15, b = 0xc2b2ae3d27d4eb4f;
  const size_t words = p.data.size() / 8;
  for (size_t i = 0; i < words; ++i) {
    uint64_t v;
    std::memcpy(&v, p.data.data() + 8 * i, 8);
    a = (a ^ v) * 0xbf58476d1ce4e5b9;
    a ^= a >> 29;
    b = (b + v) * 0x94d049bb133111eb;
    b ^= b >> 31;
  }
  return fmt::format("|{}x{}x{}:{:016x}{:016x}", p.grid_t, p.grid_h, p.grid_w, a, b);
}

}  // namespace

Preprocessor::Preprocessor(const Tokenizer& tokenizer, const ModelConfig& config,
                           const Options& options, ThreadPool& threads, bool want_text)
    : config_(config),
      options_(options),
      threads_(threads),
      want_text_(want_text),
      encoders_(static_cast<size_t>(threads.num_threads()), Encoder(tokenizer)) {
  media_options_.frame_factor = options.frame_factor;
}

Preprocessor::SideMedia Preprocessor::add_media(const Content& content, const Request& request,
                                                Wave& wave) {
  const std::string& root = request.media_root.empty() ? options_.media_root : request.media_root;
  const auto resolve = [&](const Media& m) {
    const std::filesystem::path path(m.path);
    return root.empty() || path.is_absolute() || m.bytes
               ? m.path
               : (std::filesystem::path(root) / path).string();
  };
  const auto key_of = [&](const Media& m) {
    return m.bytes ? fmt::format("@{}", static_cast<const void*>(m.bytes.get())) : resolve(m);
  };
  const auto add = [&](std::string key, LoadJob job, std::string name) {
    const auto [it, is_new] = wave.media_by_key.try_emplace(std::move(key), wave.media.size());
    if (is_new) {
      wave.media.emplace_back().name = std::move(name);
      job.media = it->second;
      jobs_.push_back(std::move(job));
    }
    return it->second;
  };
  SideMedia out;
  for (const Media& m : content.images) {
    out.images.push_back(
        add(key_of(m), {.media = 0, .files = {&m}, .paths = {resolve(m)}, .video = false}, m.path));
  }
  for (const Video& v : content.videos) {
    std::string key = "frames";
    LoadJob job{.media = 0, .files = {}, .paths = {}, .video = true};
    for (const Media& m : v.frames) {
      key += '\n' + key_of(m);
      job.files.push_back(&m);
      job.paths.push_back(resolve(m));
    }
    const std::string name =
        v.frames.empty() ? "video" : fmt::format("video of {}", v.frames.front().path);
    out.videos.push_back(add(std::move(key), std::move(job), name));
  }
  return out;
}

void Preprocessor::load(const LoadJob& job, Wave& wave) const {
  LoadedMedia& media = wave.media[job.media];
  const auto bytes_of = [&](int64_t i) -> Result<std::vector<std::byte>> {
    const auto index = static_cast<size_t>(i);
    if (job.files[index]->bytes) return *job.files[index]->bytes;
    return read_file(job.paths[index], kMaxFileBytes);
  };
  const auto load_one = [&]() -> Result<Patches> {
    if (job.video)
      return load_frames(static_cast<int64_t>(job.files.size()), bytes_of, media_options_);
    if (job.files[0]->bytes) return load_image(*job.files[0]->bytes, media_options_);
    VLR_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, bytes_of(0));
    return load_image(bytes, media_options_);
  };
  media.patches = load_one();
  media.loaded = true;
}

Result<PromptSide> Preprocessor::prompt_side(const Content& content, const SideMedia& media,
                                             const Wave& wave) const {
  PromptSide side;
  side.texts = content.texts;
  for (size_t m : media.images) {
    const LoadedMedia& loaded = wave.media[m];
    if (!loaded.patches) return loaded.patches.error().with_context(loaded.name);
    side.images.push_back({.grid_h = loaded.patches->grid_h, .grid_w = loaded.patches->grid_w});
  }
  for (size_t m : media.videos) {
    const LoadedMedia& loaded = wave.media[m];
    if (!loaded.patches) return loaded.patches.error().with_context(loaded.name);
    side.videos.push_back({.grid_t = loaded.patches->grid_t,
                           .grid_h = loaded.patches->grid_h,
                           .grid_w = loaded.patches->grid_w,
                           .seconds = loaded.patches->seconds});
  }
  return side;
}

void Preprocessor::build(const Request& request, const PairRef& ref, const SideMedia& query,
                         const SideMedia& document, Wave& wave, Encoder& encoder,
                         Pair& pair) const {
  const Content& content = request.documents[static_cast<size_t>(ref.index)];
  DocumentResult& result = pair.result;
  result.status = DocumentStatus::kOk;
  if (!content.error.empty()) return fail(pair, DocumentStatus::kInvalid, content.error);
  if (is_empty(content)) {
    fail(pair, DocumentStatus::kEmpty,
         content.texts.empty() ? "the document is empty: scored as the word NULL"
                               : "the document's text is empty");
  } else if (is_empty(request.query)) {
    fail(pair, DocumentStatus::kEmpty,
         request.query.texts.empty() ? "the query is empty: scored as the word NULL"
                                     : "the query's text is empty");
  }

  const auto has_media = [](const Content& c) { return !c.images.empty() || !c.videos.empty(); };
  if (!config_.vision_config && (has_media(content) || has_media(request.query))) {
    return fail(pair, DocumentStatus::kInvalid,
                "this checkpoint has no vision tower: it scores text only");
  }

  // Media first: a pair that lacks one is not scored, or as the official pipeline's fallback.
  const Result<PromptSide> query_side = prompt_side(request.query, query, wave);
  const Result<PromptSide> document_side = prompt_side(content, document, wave);
  if (!query_side || !document_side) {
    const Status& error = query_side ? document_side.error() : query_side.error();
    const std::string where = query_side ? "" : "query: ";
    if (!options_.compat_null)
      return fail(pair, DocumentStatus::kBadMedia, where + error.message());
    fail(pair, DocumentStatus::kEmpty,
         where + error.message() + " (scored as the fallback prompt NULL)");
    pair.prompt = null_prompt(encoder);
  } else {
    const Result<PromptBuilder>& builder = wave.builders.at(ref.request);
    if (!builder) return fail(pair, DocumentStatus::kInvalid, builder.error().message());
    Result<Prompt> prompt = builder->build(*document_side, encoder);
    if (!prompt) return fail(pair, DocumentStatus::kInvalid, prompt.error().message());
    pair.prompt = *std::move(prompt);
    pair.images = query.images;
    pair.images.insert(pair.images.end(), document.images.begin(), document.images.end());
    pair.videos = query.videos;
    pair.videos.insert(pair.videos.end(), document.videos.begin(), document.videos.end());
  }
  result.num_tokens = static_cast<int64_t>(pair.prompt.ids.size());
  result.truncated = pair.prompt.truncated;
  if (pair.prompt.specials_exceed_limit && !options_.compat_null) {
    return fail(pair, DocumentStatus::kTooLong,
                fmt::format("special and media tokens alone exceed the limit: {} tokens of {}",
                            pair.prompt.num_tokens_before_truncation, options_.max_length));
  }

  pair.media = pair.images;
  pair.media.insert(pair.media.end(), pair.videos.begin(), pair.videos.end());
  std::vector<VisualRun> images, videos;
  for (size_t m : pair.images) {
    images.push_back(
        {.rows = wave.media[m].patches->grid_h / 2, .columns = wave.media[m].patches->grid_w / 2});
  }
  for (size_t m : pair.videos) {
    const Patches& p = *wave.media[m].patches;
    videos.insert(videos.end(), static_cast<size_t>(p.grid_t),
                  {.rows = p.grid_h / 2, .columns = p.grid_w / 2});
  }
  Result<SequencePositions> where = mrope_positions(pair.prompt.ids, config_, images, videos);
  if (!where) return fail(pair, DocumentStatus::kInvalid, where.error().message());
  pair.where = *std::move(where);

  // Pairs share a prefix when its ids are equal and so are the pictures that its pads stand for.
  const auto prefix = std::span(pair.prompt.ids).first(static_cast<size_t>(pair.prompt.prefix_len));
  pair.prefix_key.assign(reinterpret_cast<const char*>(prefix.data()), prefix.size_bytes());
  size_t last = wave.media.size();
  for (size_t t = 0; t < prefix.size(); ++t) {
    int64_t index = pair.where.visual_index[t];
    if (index < 0) continue;
    auto m = pair.media.begin();
    for (; index >= wave.media[*m].tokens(); ++m) index -= wave.media[*m].tokens();
    if (*m != last) pair.prefix_key += wave.media[*m].content_key;
    last = *m;
  }
}

void Preprocessor::prepare(std::span<const Request> requests, std::span<const PairRef> refs,
                           Wave& wave) {
  std::map<int64_t, SideMedia> queries;
  std::vector<SideMedia> documents;
  jobs_.clear();
  for (const PairRef& ref : refs) {
    const Request& request = requests[static_cast<size_t>(ref.request)];
    const Content& content = request.documents[static_cast<size_t>(ref.index)];
    if (!queries.contains(ref.request))
      queries[ref.request] = add_media(request.query, request, wave);
    documents.push_back(content.error.empty() ? add_media(content, request, wave) : SideMedia{});
  }
  {
    const Stopwatch watch(wave.seconds.media);
    threads_.parallel_for(std::ssize(jobs_),
                          [&](int64_t i, int) { load(jobs_[static_cast<size_t>(i)], wave); });
    for (const auto& [index, media] : queries) {
      for (const auto* list : {&media.images, &media.videos}) {
        for (size_t m : *list) {
          LoadedMedia& loaded = wave.media[m];
          if (loaded.content_key.empty() && loaded.patches)
            loaded.content_key = content_key(*loaded.patches);
        }
      }
    }
  }
  const Stopwatch watch(wave.seconds.prompt);
  const PromptOptions prompt_options{.max_length = options_.max_length,
                                     .allow_special = options_.allow_special,
                                     .want_text = want_text_};
  for (const auto& [index, media] : queries) {
    if (wave.builders.contains(index)) continue;
    const Request& request = requests[static_cast<size_t>(index)];
    Result<PromptSide> side = prompt_side(request.query, media, wave);
    wave.builders.emplace(index, side ? PromptBuilder::create(request.instruction, *std::move(side),
                                                              prompt_options, encoders_[0])
                                      : Result<PromptBuilder>(side.error()));
  }
  const size_t first = wave.pairs.size();
  wave.pairs.resize(first + refs.size());
  threads_.parallel_for(std::ssize(refs), [&](int64_t i, int thread) {
    const auto n = static_cast<size_t>(i);
    Pair& pair = wave.pairs[first + n];
    pair.result.request = refs[n].request;
    pair.result.index = refs[n].index;
    build(requests[static_cast<size_t>(refs[n].request)], refs[n], queries.at(refs[n].request),
          documents[n], wave, encoders_[static_cast<size_t>(thread)], pair);
  });
  wave.visual_tokens = 0;
  for (const LoadedMedia& m : wave.media) wave.visual_tokens += m.tokens();
  for (size_t i = first; i < wave.pairs.size(); ++i) {
    if (wave.pairs[i].result.scored()) wave.tokens += wave.pairs[i].result.num_tokens;
  }
}

}  // namespace vlr
