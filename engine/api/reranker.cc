/// score() from top to bottom: waves of pairs are prepared (media, prompts) while the wave before
/// is scored (wave_scorer.h).
#include "vlr/reranker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <mutex>
#include <utility>

#include "engine/api/guard.h"
#include "engine/api/options.h"
#include "engine/api/prefetch.h"
#include "engine/placement/memory_planner.h"
#include "engine/placement/memory_watch.h"
#include "engine/runtime/purposes.h"
#include "engine/scheduling/preprocess.h"
#include "engine/scheduling/replica.h"
#include "engine/scheduling/vision_cache.h"
#include "engine/scheduling/vision_key.h"
#include "engine/scheduling/wave_scorer.h"
#include "engine/tasks/pair_score.h"
#include "kernels/core/clock.h"
#include "kernels/core/text.h"
#include "kernels/core/thread_start.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

constexpr int64_t kChunkDocuments =
    64;  // prepared at a time, so that a wave does not overshoot by much

/// Every special token that the config names has to be the tokenizer's; the ids of the task's head.
Result<HeadTokens> check_tokenizer(const Tokenizer& tokenizer, const ModelConfig& config,
                                   const Task& task) {
  for (const auto& [text, id] :
       {std::pair<std::string_view, int32_t>{"<|image_pad|>", config.image_token_id},
        {"<|video_pad|>", config.video_token_id},
        {"<|vision_start|>", config.vision_start_token_id},
        {"<|vision_end|>", config.vision_end_token_id}}) {
    const std::optional<int32_t> found = tokenizer.token_to_id(text);
    if (config.vision_config && found != id) {
      return {Code::kInvalidArgument,
              fmt::format("tokenizer.json: {} must be id {} as in config.json, got {}", text, id,
                          found ? std::to_string(*found) : "none")};
    }
  }
  if (tokenizer.num_ids() > config.text_config.vocab_size) {
    return {Code::kInvalidArgument,
            fmt::format("tokenizer.json: ids up to {}, but the model has {} rows",
                        tokenizer.num_ids() - 1, config.text_config.vocab_size)};
  }
  const std::optional<int32_t> yes = tokenizer.token_to_id(task.positive_token),
                               no = tokenizer.token_to_id(task.negative_token);
  if (!yes || !no) {
    return {Code::kInvalidArgument,
            fmt::format("tokenizer.json: no tokens '{}' and '{}' to score with",
                        task.positive_token, task.negative_token)};
  }
  const Status prompt = PromptBuilder::check_tokens(task.prompt, tokenizer);
  if (!prompt.ok()) return prompt.with_context("tokenizer.json");
  return HeadTokens{.yes = *yes, .no = *no};
}

/// What all documents of a request share.
Status check_query(const Request& request) {
  std::string wrong = request.query.error;
  if (wrong.empty()) wrong = not_utf8(request.query.texts);
  if (!wrong.empty()) return {Code::kInvalidArgument, "query: " + wrong};
  wrong = not_utf8({&request.instruction, 1});
  if (!wrong.empty()) return {Code::kInvalidArgument, "instruction: " + wrong};
  return {};
}

}  // namespace

std::string_view document_status_name(DocumentStatus status) {
  switch (status) {
    case DocumentStatus::kOk:
      return "ok";
    case DocumentStatus::kEmpty:
      return "empty";
    case DocumentStatus::kBadMedia:
      return "bad_media";
    case DocumentStatus::kTooLong:
      return "too_long";
    case DocumentStatus::kInvalid:
      return "invalid";
    case DocumentStatus::kCancelled:
      return "cancelled";
    case DocumentStatus::kError:
      return "error";
    case DocumentStatus::kUnread:
      return "unread";
  }
  return "error";
}

/// The front: everything that belongs to no device, and the replica that scores.
class Reranker::Impl {
 public:
  ~Impl() {
    if (replica) (void)replica->device().activate();  // what goes away is this device's
  }
  static Result<std::unique_ptr<Impl>> open(const std::string& path, const Options& options);

  /// Texts are cut to `max_length` tokens of a pair.
  Result<std::vector<Response>> score(std::span<const Request> requests, const OnResult& on_result,
                                      int64_t max_length);
  Result<std::vector<Explanation>> explain(const Request& request);
  Result<PrefetchResult> prefetch(const Request& request);

  /// Runs a public call: with a model, in the process that opened it, alone if it is `exclusive`.
  template <class F>
  static auto call(Impl* impl, bool exclusive, F&& body) -> decltype(body(*impl));
  /// After fork(), a child has none of the threads that work here, nor any GPU.
  bool forked() const {
    return process != getpid() && (threads.num_threads() > 1 || replica->device().is_gpu());
  }

  const Task& task = pair_score();
  Options options;
  std::atomic<bool> cancelled{false};
  std::atomic<bool> busy{false};  // score() or prefetch() is running
  const pid_t process = getpid();
  std::string name, device_name, dtype_name, quant_name;
  ModelConfig config;
  Tokenizer tokenizer;
  ThreadPool threads;
  ImplChoices choices;
  std::unique_ptr<Replica> replica;  // uses what stands above
  std::unique_ptr<Preprocessor> preprocessor;
  std::unique_ptr<VisionCache> vision_cache;  // null: off
  double load_seconds = 0;

 private:
  Impl(const Options& o, ModelConfig c, Tokenizer t)
      : options(o), config(std::move(c)), tokenizer(std::move(t)), threads(o.num_threads) {
    choices.insert(o.impls.begin(), o.impls.end());
    if (!options.log) return;
    if (!threads.shortage().empty()) options.log(threads.shortage());
    options.log = [log = options.log, one = std::make_shared<std::mutex>()](std::string_view line) {
      const std::lock_guard lock(*one);
      log(line);
    };
  }
  Status check_relevance();
  Status open_vision_cache(const std::string& path);

  /// Moves `next` forward over all documents until the wave is full.
  std::shared_ptr<Wave> prepare_wave(std::span<const Request> requests, int64_t max_length,
                                     PairRef& next);
};

Result<std::unique_ptr<Reranker::Impl>> Reranker::Impl::open(const std::string& path,
                                                             const Options& options) {
  const double start = seconds_now();
  VLR_RETURN_IF_ERROR(check_options(options));
  const std::filesystem::path folder(path);
  VLR_ASSIGN_OR_RETURN(ModelFolder files, ModelFolder::open(path, ModelFolder::Weights::kNeeded));
  ModelConfig config = files.config;
  VLR_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::open((folder / "tokenizer.json").string()));
  VLR_ASSIGN_OR_RETURN(const HeadTokens head, check_tokenizer(tokenizer, config, pair_score()));
  VLR_ASSIGN_OR_RETURN(ModelSource source,
                       ModelSource::of_folder(std::move(files), head, options.log));
  std::unique_ptr<Impl> impl(new Impl(options, std::move(config), std::move(tokenizer)));
  Impl& m = *impl;
  VLR_ASSIGN_OR_RETURN(m.replica, Replica::open(m.task, std::move(source), m.options, m.threads,
                                                m.choices, m.cancelled));
  m.preprocessor =
      std::make_unique<Preprocessor>(m.task, m.tokenizer, m.config, m.options, m.threads);
  VLR_RETURN_IF_ERROR(m.replica->device().host_budget().take(
      purposes::kTexts, Preprocessor::scratch_bytes(m.threads)));
  std::error_code unresolved;
  m.name = std::filesystem::weakly_canonical(folder, unresolved).filename().string();
  if (unresolved) m.name = folder.filename().string();
  m.device_name = m.replica->device().name();
  m.dtype_name = vlr::dtype_name(m.replica->runner().dtype());
  m.quant_name = vlr::quant_name(m.replica->model().modes);
  VLR_RETURN_IF_ERROR(m.open_vision_cache(path));
  VLR_RETURN_IF_ERROR(m.check_relevance());
  m.replica->opened();
  m.load_seconds = seconds_now() - start;
  return impl;
}

/// Scores the built-in probe where that says something: a quantised checkpoint. What is quantised
/// here was whole before. The caller sees none of it, and cannot cut its texts short.
Status Reranker::Impl::check_relevance() {
  const LoadedModel& model = replica->model();
  if (!options.self_check || !model.stored_quantized) return {};
  const ObserverScope unobserved(replica->runner().passes(), {});
  VLR_ASSIGN_OR_RETURN(const std::vector<Response> scored,
                       score(task.probe(), nullptr, Options().max_length));
  std::vector<float> log_odds;
  for (const Response& response : scored) {
    for (const DocumentResult& r : response.results) {
      if (!r.scored()) return {Code::kDataLoss, "relevance probe: " + r.message};
      log_odds.push_back(r.log_odds);
    }
  }
  return task.check_probe(log_odds, model.stored.probe, model.modes);
}

Result<std::vector<Response>> Reranker::Impl::score(std::span<const Request> requests,
                                                    const OnResult& callback, int64_t max_length) {
  const double start = seconds_now();
  OpenDevice& device = replica->device();
  WaveScorer& scorer = replica->scorer();
  const TextPass& pass = replica->runner().score();
  VLR_RETURN_IF_ERROR(device.activate());
  cancelled = false;
  preprocessor->begin_call();
  Usage usage;
  usage.seconds.load = load_seconds;
  const int64_t replays = pass.num_replays();
  std::vector<Response> out(requests.size());
  for (size_t r = 0; r < requests.size(); ++r) {
    if (const Status s = check_query(requests[r]); !s.ok())
      return s.with_context(fmt::format("request {}", r));
    out[r].results.resize(requests[r].documents.size());
  }
  const auto on_done = [&](const Pair& pair) {
    const DocumentResult& result = pair.result;
    out[static_cast<size_t>(result.request)].results[static_cast<size_t>(result.index)] = result;
    if (callback) callback(result);
  };
  const ScoringCall call{.usage = usage, .on_done = on_done};
  // Whatever leaves this function early, an exception of the callback's among it.
  struct Abandon {
    WaveScorer& scorer;
    ~Abandon() { scorer.abandon(); }
  } const abandon_at_the_end{scorer};

  // A GPU works on one wave while the threads prepare the next one. On the CPU both want the same
  // threads.
  PairRef next;
  const auto more = [&] { return next.request < std::ssize(requests); };
  // Deferred too if there can be no other thread.
  const auto policy =
      device.is_gpu() ? std::launch::async | std::launch::deferred : std::launch::deferred;
  const auto prepare = [&] {
    const BlockSignals inherited;
    return std::async(policy, [&] { return prepare_wave(requests, max_length, next); });
  };
  std::future<std::shared_ptr<Wave>> coming;
  if (more()) coming = prepare();
  while (coming.valid()) {
    const std::shared_ptr<Wave> wave = coming.get();
    if (more()) coming = prepare();
    usage.seconds.media += wave->seconds.media;
    usage.seconds.prompt += wave->seconds.prompt;
    usage.decoded_media += wave->decoded;
    scorer.score(wave, call);
  }
  VLR_RETURN_IF_ERROR(scorer.finish(call));
  usage.replayed_batches = pass.num_replays() - replays;
  usage.seconds.total = seconds_now() - start;
  for (Response& response : out) response.usage = usage;
  return out;
}

std::shared_ptr<Wave> Reranker::Impl::prepare_wave(std::span<const Request> requests,
                                                   int64_t max_length, PairRef& next) {
  auto out = std::make_shared<Wave>();
  Wave& wave = *out;
  while (next.request < std::ssize(requests) && wave.tokens < kWaveTokens &&
         wave.visual_tokens < kWaveVisualTokens) {
    std::vector<PairRef> chunk;
    int64_t media = 0;
    while (next.request < std::ssize(requests) && std::ssize(chunk) < kChunkDocuments &&
           media < kChunkMedia) {
      const Request& request = requests[static_cast<size_t>(next.request)];
      if (next.index == std::ssize(request.documents)) {
        next = {.request = next.request + 1, .index = 0};
        continue;
      }
      const Content& document = request.documents[static_cast<size_t>(next.index)];
      media += std::ssize(document.images) + std::ssize(document.videos);
      chunk.push_back(next);
      ++next.index;
    }
    if (cancelled) {  // not even prepared
      for (const PairRef& ref : chunk) {
        Pair& pair = wave.pairs.emplace_back();
        pair.result.request = ref.request;
        pair.result.index = ref.index;
        pair.result.status = DocumentStatus::kCancelled;
        pair.result.message = "cancelled before it was reached";
      }
      continue;
    }
    preprocessor->prepare(requests, chunk, max_length, wave);
  }
  return out;
}

/// Memory for decoded patches, and a cache where the options want one.
Status Reranker::Impl::open_vision_cache(const std::string& path) {
  if (!config.vision_config) return {};
  if (PatchMemory memory = replica->patch_memory()) preprocessor->set_memory(std::move(memory));
  if (options.on_value) return {};  // who looks at values wants them computed
  if (options.vision_cache_bytes == 0) {
    if (options.vision_cache_dir.empty()) return {};
    return {Code::kInvalidArgument,
            "options: a vision_cache_dir needs some vision_cache_bytes to copy features through"};
  }
  std::unique_ptr<VisionCacheFolder> folder;
  if (!options.vision_cache_dir.empty()) {
    VLR_ASSIGN_OR_RETURN(
        folder, VisionCacheFolder::open(options.vision_cache_dir, options.vision_cache_dir_bytes,
                                        options.log));
    VLR_ASSIGN_OR_RETURN(const Hash128 key, vision_key(path, options.exact, *replica));
    folder->set_model(key);
  }
  vision_cache = std::make_unique<VisionCache>(replica->device(), options.vision_cache_bytes,
                                               std::move(folder));
  preprocessor->set_cache(vision_cache.get(), replica->runner().feature_row_bytes());
  replica->scorer().features().set_cache(vision_cache.get());
  return {};
}

Result<PrefetchResult> Reranker::Impl::prefetch(const Request& request) {
  const double start = seconds_now();
  VLR_RETURN_IF_ERROR(replica->device().activate());
  if (!config.vision_config)
    return {Code::kInvalidArgument, "prefetch: this checkpoint has no vision tower"};
  if (!vision_cache)
    return {Code::kInvalidArgument, "prefetch: there is no vision cache: vision_cache_bytes is 0"};
  Prefetch call(request, *preprocessor, *replica, *vision_cache, options.vision_cache_bytes);
  VLR_ASSIGN_OR_RETURN(PrefetchResult out, call.run());
  out.usage.seconds.load = load_seconds;
  out.usage.seconds.total = seconds_now() - start;
  return out;
}

Result<std::vector<Explanation>> Reranker::Impl::explain(const Request& request) {
  VLR_RETURN_IF_ERROR(check_query(request));
  Preprocessor with_text(task, tokenizer, config, options, threads, true);
  std::vector<PairRef> refs;
  for (int64_t i = 0; i < std::ssize(request.documents); ++i)
    refs.push_back({.request = 0, .index = i});
  Wave wave;
  with_text.prepare({&request, 1}, refs, options.max_length, wave);
  std::vector<Explanation> out;
  for (Pair& pair : wave.pairs) {
    Explanation& e = out.emplace_back();
    e.result = pair.result;
    e.prompt = std::move(pair.prompt.text);
    e.token_ids = std::move(pair.prompt.ids);
    e.positions = std::move(pair.where.positions);
    e.num_tokens_before_truncation = pair.prompt.num_tokens_before_truncation;
    e.prefix_tokens = pair.prompt.prefix_len;
    const auto grid = [&](size_t m) {
      const Patches& p = *wave.media[m].patches;
      return std::array<int64_t, 3>{p.grid_t, p.grid_h, p.grid_w};
    };
    for (size_t m : pair.images) e.image_grids.push_back(grid(m));
    for (size_t m : pair.videos) e.video_grids.push_back(grid(m));
  }
  return out;
}

template <class F>
auto Reranker::Impl::call(Impl* impl, bool exclusive, F&& body) -> decltype(body(*impl)) {
  return guarded([&]() -> decltype(body(*impl)) {
    if (!impl) return Status(Code::kInvalidArgument, "this Reranker was moved from");
    if (impl->forked())
      return Status(Code::kInvalidArgument, "a Reranker works in the process that opened it only");
    if (!exclusive) return body(*impl);
    if (impl->busy.exchange(true)) {
      return Status(Code::kInvalidArgument,
                    "score() or prefetch() is running: one call of these at a time, and none from "
                    "its callback");
    }
    struct Done {
      std::atomic<bool>& busy;
      ~Done() { busy = false; }
    } const done{impl->busy};
    return body(*impl);
  });
}

Reranker::Reranker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Reranker::Reranker(Reranker&&) noexcept = default;
Reranker& Reranker::operator=(Reranker&& other) noexcept {
  Reranker old(std::move(other));
  impl_.swap(old.impl_);
  return *this;
}
Reranker::~Reranker() {
  // Whoever waited for threads that a forked child does not have would wait for ever.
  if (impl_ && impl_->forked()) (void)impl_.release();
}

Result<Reranker> Reranker::open(const std::string& path, const Options& options) {
  return guarded([&]() -> Result<Reranker> {
    VLR_ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, Impl::open(path, options));
    return Reranker(std::move(impl));
  });
}

Result<Response> Reranker::score(const Request& request, const OnResult& on_result) {
  VLR_ASSIGN_OR_RETURN(std::vector<Response> responses, score({&request, 1}, on_result));
  return std::move(responses[0]);
}

Result<std::vector<Response>> Reranker::score(std::span<const Request> requests,
                                              const OnResult& on_result) {
  return Impl::call(impl_.get(), true,
                    [&](Impl& m) { return m.score(requests, on_result, m.options.max_length); });
}

Result<std::vector<Explanation>> Reranker::explain(const Request& request) {
  return Impl::call(impl_.get(), false, [&](Impl& m) { return m.explain(request); });
}
Result<PrefetchResult> Reranker::prefetch(const Request& request) {
  return Impl::call(impl_.get(), true, [&](Impl& m) { return m.prefetch(request); });
}
void Reranker::cancel() {
  if (impl_) impl_->cancelled = true;
}
std::string_view Reranker::model_name() const { return impl_ ? impl_->name : std::string_view(); }
std::string_view Reranker::device() const {
  return impl_ ? impl_->device_name : std::string_view();
}
std::string_view Reranker::dtype() const { return impl_ ? impl_->dtype_name : std::string_view(); }
std::string_view Reranker::quant() const { return impl_ ? impl_->quant_name : std::string_view(); }
std::string_view Reranker::preset() const {
  return impl_ ? impl_->replica->preset() : std::string_view();
}
MemoryPlan Reranker::memory() const {
  if (!impl_) return {};
  MemoryPlan out = memory_of(impl_->replica->device());
  out.layers = impl_->replica->model().layers;
  return out;
}
int64_t Reranker::peak_memory() const {
  return impl_ ? impl_->replica->device().budget().peak() : 0;
}

}  // namespace vlr
