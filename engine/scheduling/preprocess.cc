#include "engine/scheduling/preprocess.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <set>

#include "kernels/core/clock.h"
#include "kernels/core/text.h"
#include "multimodal/source.h"

namespace vlr {
namespace {

class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds), start_(seconds_now()) {}
  ~Stopwatch() { seconds_ += seconds_now() - start_; }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  double start_;
};

bool has_text(const Content& c) {
  return std::any_of(c.texts.begin(), c.texts.end(),
                     [](const std::string& t) { return !t.empty(); });
}
int64_t text_bytes(const Content& c) {
  int64_t sum = 0;
  for (const std::string& t : c.texts) sum += std::ssize(t);
  return sum;
}
bool is_empty(const Content& c) { return c.images.empty() && c.videos.empty() && !has_text(c); }

std::string name_of(const Media& m) { return m.path.empty() ? "image" : describe_source(m.path); }

void fail(Pair& pair, DocumentStatus status, std::string message) {
  pair.result.status = status;
  pair.result.message = std::move(message);
}

Hash128 content_hash(const Patches& p) {
  return Hasher()
      .add(p.grid_t)
      .add(p.grid_h)
      .add(p.grid_w)
      .add(std::as_bytes(std::span(p.data)))
      .digest();
}

/// Why a pair is scored as kEmpty; empty: it is not.
std::string_view empty_message(const Content& query, const Content& document) {
  if (is_empty(document)) {
    return document.texts.empty() ? "the document is empty: scored as the word NULL"
                                  : "the document's text is empty";
  }
  if (is_empty(query)) {
    return query.texts.empty() ? "the query is empty: scored as the word NULL"
                               : "the query's text is empty";
  }
  return {};
}

/// Where the pair's tokens are, among its own pictures.
Result<SequencePositions> positions_of(const Pair& pair, const Wave& wave,
                                       const ModelConfig& config) {
  std::vector<VisualRun> images, videos;
  for (size_t m : pair.images) {
    images.push_back({.rows = wave.media[m].patches->grid_h / kMergeSize,
                      .columns = wave.media[m].patches->grid_w / kMergeSize});
  }
  for (size_t m : pair.videos) {
    const Patches& p = *wave.media[m].patches;
    videos.insert(videos.end(), static_cast<size_t>(p.grid_t),
                  {.rows = p.grid_h / kMergeSize, .columns = p.grid_w / kMergeSize});
  }
  return mrope_positions(pair.prompt.ids, config, images, videos);
}

/// Pairs share a prefix when its ids are equal and so are the pictures that its pads stand for.
std::string prefix_key_of(const Pair& pair, const Wave& wave) {
  const auto prefix = std::span(pair.prompt.ids).first(static_cast<size_t>(pair.prompt.prefix_len));
  std::string key(reinterpret_cast<const char*>(prefix.data()), prefix.size_bytes());
  const std::vector<size_t> media = media_of_visual_tokens(pair, wave);
  size_t last = wave.media.size();
  for (size_t t = 0; t < prefix.size(); ++t) {
    const int32_t index = pair.where.visual_index[t];
    if (index < 0) continue;
    const size_t m = media[static_cast<size_t>(index)];
    if (m != last) key += '|' + wave.media[m].content.hex();
    last = m;
  }
  return key;
}

}  // namespace

std::vector<size_t> media_of_visual_tokens(const Pair& pair, const Wave& wave) {
  std::vector<size_t> out;
  for (const size_t m : pair.media)
    out.insert(out.end(), static_cast<size_t>(wave.media[m].tokens()), m);
  return out;
}

Preprocessor::Preprocessor(const Task& task, const Tokenizer& tokenizer, const ModelConfig& config,
                           const Options& options, ThreadPool& threads, bool want_text)
    : task_(task),
      config_(config),
      options_(options),
      threads_(threads),
      want_text_(want_text),
      encoders_(static_cast<size_t>(threads.num_threads()), Encoder(tokenizer)) {
  media_options_.min_pixels = options.min_pixels;
  media_options_.max_pixels = options.max_pixels;
  media_options_.total_pixels = options.total_pixels;
  media_options_.max_frames = options.max_frames;
  media_options_.frame_factor = options.frame_factor;
  media_options_.limits.max_pixels = options.max_decoded_pixels;
  media_options_.exif = options.exif;
  source_options_ = {.max_bytes = options.max_media_bytes,
                     .local_files = local_files_of(options.local_files),
                     .allow_remote = options.allow_remote,
                     .allow_private = options.allow_private_addresses,
                     .max_remote_bytes = options.max_remote_bytes,
                     .timeout_seconds = options.remote_timeout};
}

std::string_view Preprocessor::root_of(const Request& request) const {
  return request.media_root.empty() ? options_.media_root : request.media_root;
}

MediaOptions Preprocessor::media_options(const Request& request) const {
  MediaOptions out = media_options_;
  out.min_pixels = request.min_pixels.value_or(out.min_pixels);
  out.max_pixels = request.max_pixels.value_or(out.max_pixels);
  out.sample_fps = request.sample_fps.value_or(out.sample_fps);
  return out;
}

Preprocessor::SideMedia Preprocessor::add_media(const Content& content, const Request& request,
                                                Wave& wave) {
  // Equal keys are the same medium, decoded in the same way.
  const auto key_of = [&](const Media& m) {
    return m.bytes ? fmt::format("@{}", static_cast<const void*>(m.bytes.get()))
                   : fmt::format("{}\n{}", root_of(request), m.path);
  };
  const auto add = [&](const std::string& key, std::string name, LoadJob job) {
    job.decoding = decoding_key(job);
    const auto [it, is_new] = wave.media_by_key.try_emplace(job.decoding + key, wave.media.size());
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
        add(key_of(m), name_of(m), {.kind = Kind::kImage, .files = {&m}, .request = &request}));
  }
  for (const Video& v : content.videos) {
    if (v.file) {
      out.videos.push_back(add(key_of(*v.file), name_of(*v.file),
                               {.kind = Kind::kVideo, .files = {&*v.file}, .request = &request}));
      continue;
    }
    std::string key;
    LoadJob job{.kind = Kind::kFrames, .request = &request};
    for (const Media& m : v.frames) {
      key += '\n' + key_of(m);
      job.files.push_back(&m);
    }
    const std::string name = v.frames.empty() ? "video" : "video of " + name_of(v.frames.front());
    out.videos.push_back(add(key, name, std::move(job)));
  }
  return out;
}

Result<Preprocessor::Encoded> Preprocessor::read(const LoadJob& job, size_t file) const {
  const Media& m = *job.files[file];
  if (m.bytes) {
    const auto size = std::ssize(*m.bytes);
    if (size > 0 && size <= source_options_.max_bytes) return m.bytes;
    return {Code::kInvalidArgument, fmt::format("{}: has {} bytes, expected 1 to {}", name_of(m),
                                                size, source_options_.max_bytes)};
  }
  SourceOptions options = source_options_;
  options.deadline = load_times_.at(job.request).deadline;
  VLR_ASSIGN_OR_RETURN(std::vector<std::byte> bytes,
                       read_source(m.path, root_of(*job.request), options));
  return std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

VideoOptions Preprocessor::video_options(const Request& request) const {
  return {.sampling = options_.video_sampling == "official" ? VideoSampling::kOfficial
                                                            : VideoSampling::kUniformEnds,
          .fps = request.fps.value_or(options_.fps),
          .max_frames = request.max_frames.value_or(options_.max_frames),
          .num_frames = options_.num_frames};
}

/// Everything beside the bytes that the patches of a medium depend on.
std::string Preprocessor::decoding_key(const LoadJob& job) const {
  const MediaOptions o = media_options(*job.request);
  switch (job.kind) {
    case Kind::kImage:
      return fmt::format("image {} {} {} {}\n", o.min_pixels, o.max_pixels, o.exif,
                         o.limits.max_pixels);
    case Kind::kFrames:
      return fmt::format("frames {} {} {} {} {} {}{}\n", o.total_pixels, o.max_frames,
                         o.frame_factor, o.exif, o.limits.max_pixels, job.files.size(),
                         job.request->sample_fps ? fmt::format(" {}", o.sample_fps) : "");
    case Kind::kVideo: {
      const VideoOptions v = video_options(*job.request);
      return v.sampling == VideoSampling::kOfficial
                 ? fmt::format("video {} {} {}\n", v.fps, v.max_frames, o.limits.max_pixels)
                 : fmt::format("video uniform+ends {} {}\n", v.num_frames, o.limits.max_pixels);
    }
  }
  return {};
}

/// Bytes first: what was seen before is not even decoded.
Result<Patches> Preprocessor::load(const LoadJob& job, LoadedMedia& media, bool& decoded) const {
  const std::vector<int64_t> picked =
      thin_frames(std::ssize(job.files), job.kind == Kind::kFrames ? media_options_.max_frames : 1);
  std::map<int64_t, Encoded> files;
  Hasher hasher;
  hasher.add(std::string_view(job.decoding)).add(std::string_view(decoders_));
  for (const int64_t i : picked) {
    Result<Encoded> bytes = read(job, static_cast<size_t>(i));
    if (!bytes) {
      return job.kind == Kind::kFrames
                 ? bytes.error().with_context(fmt::format("{}: video frame {}", media.name, i))
                 : bytes.error();  // which has the name
    }
    if (cache_) hasher.add((*bytes)->size()).add(std::span(**bytes));
    files[i] = *std::move(bytes);
  }
  const Hash128 media_key = hasher.digest();
  const auto feature_bytes = [&](const Patches& p) {
    return p.grid_t * p.grid_h * p.grid_w / (kMergeSize * kMergeSize) * feature_row_bytes_;
  };
  if (cache_) {
    if (const auto record = cache_->find_media(media_key)) {
      Patches known{.grid_t = record->grid[0],
                    .grid_h = record->grid[1],
                    .grid_w = record->grid[2],
                    .data = {},
                    .owner = {},
                    .seconds = record->seconds};
      media.content = record->content;
      media.features = cache_->find(record->content, feature_bytes(known));
      if (media.features) return known;
    }
  }

  decoded = true;
  const auto frame = [&](int64_t i) -> Result<std::span<const std::byte>> {
    return std::span(*files.at(i));
  };
  const MediaOptions options = media_options(*job.request);
  Result<Patches> patches = job.kind == Kind::kImage ? load_image(*files.at(0), options)
                            : job.kind == Kind::kFrames
                                ? load_frames(std::ssize(job.files), frame, options)
                                : load_video(*files.at(0), video_options(*job.request), options);
  if (!patches) return patches.error().with_context(media.name);
  media.content = content_hash(*patches);
  if (cache_) {
    cache_->add_media(media_key, {.content = media.content,
                                  .grid = {patches->grid_t, patches->grid_h, patches->grid_w},
                                  .seconds = patches->seconds});
    // The same pixels out of another file.
    media.features = cache_->find(media.content, feature_bytes(*patches));
    if (media.features) {
      patches->data = {};
      patches->owner = {};
    }
  }
  return patches;
}

Result<PromptSide> Preprocessor::prompt_side(const Content& content, const SideMedia& media,
                                             const Wave& wave) const {
  PromptSide side;
  side.texts = content.texts;
  for (size_t m : media.images) {
    const LoadedMedia& loaded = wave.media[m];
    if (!loaded.patches) return loaded.patches.error();
    side.images.push_back({.grid_h = loaded.patches->grid_h, .grid_w = loaded.patches->grid_w});
  }
  for (size_t m : media.videos) {
    const LoadedMedia& loaded = wave.media[m];
    if (!loaded.patches) return loaded.patches.error();
    side.videos.push_back({.grid_t = loaded.patches->grid_t,
                           .grid_h = loaded.patches->grid_h,
                           .grid_w = loaded.patches->grid_w,
                           .seconds = loaded.patches->seconds});
  }
  return side;
}

bool Preprocessor::cut_texts(PromptSide& side, std::optional<int64_t> max_tokens,
                             Encoder& encoder) const {
  if (max_tokens.value_or(0) == 0) return false;
  auto text = first_tokens(side.texts, *max_tokens, options_.allow_special, encoder);
  if (!text) return false;
  side.texts = {*std::move(text)};
  return true;
}

void Preprocessor::build(const Request& request, const PairRef& ref, const SideMedia& query,
                         const SideMedia& document, int64_t max_length, Wave& wave,
                         Encoder& encoder, Pair& pair) const {
  const Content& content = request.documents[static_cast<size_t>(ref.index)];
  DocumentResult& result = pair.result;
  result.status = DocumentStatus::kOk;
  if (!content.error.empty()) return fail(pair, DocumentStatus::kInvalid, content.error);
  if (const std::string_view message = empty_message(request.query, content); !message.empty())
    fail(pair, DocumentStatus::kEmpty, std::string(message));

  const auto has_media = [](const Content& c) { return !c.images.empty() || !c.videos.empty(); };
  if (!config_.vision_config && (has_media(content) || has_media(request.query))) {
    return fail(pair, DocumentStatus::kInvalid,
                "this checkpoint has no vision tower: it scores text only");
  }

  if (const std::string wrong = not_utf8(content.texts); !wrong.empty())
    return fail(pair, DocumentStatus::kInvalid, wrong);
  for (const Content* side : {&request.query, &content}) {
    if (const int64_t bytes = text_bytes(*side); bytes > options_.max_text_bytes) {
      return fail(pair, DocumentStatus::kTooLong,
                  fmt::format("{}a text of {} bytes, max_text_bytes is {}",
                              side == &content ? "" : "query: ", bytes, options_.max_text_bytes));
    }
  }

  // Media first: a pair that lacks one is not scored, or as the official pipeline's fallback.
  const Result<PromptSide> query_side = prompt_side(request.query, query, wave);
  Result<PromptSide> document_side = prompt_side(content, document, wave);
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
    result.truncated = wave.query_cut.at(ref.request);
    if (cut_texts(*document_side, request.max_tokens_per_doc, encoder)) result.truncated = true;
    Result<Prompt> prompt = builder->build(*document_side, encoder);
    if (!prompt) return fail(pair, DocumentStatus::kInvalid, prompt.error().message());
    pair.prompt = *std::move(prompt);
    pair.images = query.images;
    pair.images.insert(pair.images.end(), document.images.begin(), document.images.end());
    pair.videos = query.videos;
    pair.videos.insert(pair.videos.end(), document.videos.begin(), document.videos.end());
  }
  result.num_tokens = static_cast<int64_t>(pair.prompt.ids.size());
  result.truncated |= pair.prompt.truncated;
  if (pair.prompt.specials_exceed_limit && !options_.compat_null) {
    return fail(pair, DocumentStatus::kTooLong,
                fmt::format("special and media tokens alone exceed the limit: {} tokens of {}",
                            pair.prompt.num_tokens_before_truncation, max_length));
  }

  if (pair.prompt.document_cut_whole && result.status == DocumentStatus::kOk) {
    fail(pair, DocumentStatus::kUnread,
         fmt::format("nothing of the document is left: the instruction and the query take {} "
                     "tokens, max_length is {}",
                     pair.prompt.num_head_tokens, max_length));
  }

  pair.media = pair.images;
  pair.media.insert(pair.media.end(), pair.videos.begin(), pair.videos.end());
  Result<SequencePositions> where = positions_of(pair, wave, config_);
  if (!where) return fail(pair, DocumentStatus::kInvalid, where.error().message());
  pair.where = *std::move(where);
  pair.prefix_key = prefix_key_of(pair, wave);
}

void Preprocessor::run_jobs(Wave& wave) {
  std::atomic<int64_t> decoded = 0;
  using Clock = std::chrono::steady_clock;
  constexpr double kDay = 24 * 60 * 60;
  const Clock::time_point start = Clock::now();
  std::set<LoadTime*> running;
  for (const LoadJob& job : jobs_) running.insert(&load_times_[job.request]);
  for (LoadTime* time : running) {
    const double left = std::min(options_.remote_request_timeout, kDay) - time->spent;
    time->deadline =
        start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(left));
  }
  threads_.parallel_for(std::ssize(jobs_), [&](int64_t i, int) {
    const LoadJob& job = jobs_[static_cast<size_t>(i)];
    LoadedMedia& media = wave.media[job.media];
    bool was_decoded = false;
    try {
      media.patches = load(job, media, was_decoded);
    } catch (const std::bad_alloc&) {
      media.patches = Status(Code::kOutOfMemory, media.name + ": no host memory");
    }
    if (was_decoded) ++decoded;
    if (want_text_ && media.patches) {  // who explains needs no pixels
      media.patches->data = {};
      media.patches->owner = {};
    }
  });
  for (LoadTime* time : running)
    time->spent += std::chrono::duration<double>(Clock::now() - start).count();
  wave.decoded += decoded;
  jobs_.clear();
}

std::vector<size_t> Preprocessor::load_media(const Content& content, const Request& request,
                                             Wave& wave) {
  const Stopwatch watch(wave.seconds.media);
  const SideMedia media = add_media(content, request, wave);
  run_jobs(wave);
  std::vector<size_t> out = media.videos;
  out.insert(out.end(), media.images.begin(), media.images.end());
  return out;
}

void Preprocessor::prepare(std::span<const Request> requests, std::span<const PairRef> refs,
                           int64_t max_length, Wave& wave) {
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
    run_jobs(wave);
  }
  const Stopwatch watch(wave.seconds.prompt);
  const PromptOptions prompt_options{
      .max_length = max_length, .allow_special = options_.allow_special, .want_text = want_text_};
  for (const auto& [index, media] : queries) {
    if (wave.builders.contains(index)) continue;
    const Request& request = requests[static_cast<size_t>(index)];
    Result<PromptSide> side = prompt_side(request.query, media, wave);
    if (text_bytes(request.query) > options_.max_text_bytes) side = PromptSide();  // of no pair
    wave.query_cut[index] = side && cut_texts(*side, request.max_tokens_per_query, encoders_[0]);
    wave.builders.emplace(
        index, side ? PromptBuilder::create(task_.prompt, request.instruction, *std::move(side),
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
          documents[n], max_length, wave, encoders_[static_cast<size_t>(thread)], pair);
  });
  wave.visual_tokens = 0;
  for (const LoadedMedia& m : wave.media) wave.visual_tokens += m.tokens();
  for (size_t i = first; i < wave.pairs.size(); ++i) {
    if (wave.pairs[i].result.scored()) wave.tokens += wave.pairs[i].result.num_tokens;
  }
}

}  // namespace vlr
