/// score() from top to bottom. Waves of pairs are prepared (media, prompts), pictures go through
/// the vision tower, shared query prefixes through the decoder once, then documents in packed
/// batches.
#include "vlr/reranker.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <deque>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "engine/api/device_options.h"
#include "engine/api/loaded_model.h"
#include "engine/api/memory_plan.h"
#include "engine/api/memory_planner.h"
#include "engine/api/memory_watch.h"
#include "engine/api/model_runner.h"
#include "engine/api/prefix_cache.h"
#include "engine/api/preprocess.h"
#include "engine/api/preset.h"
#include "engine/api/self_check.h"
#include "engine/api/vision_cache.h"
#include "engine/runtime/arena_picture.h"
#include "engine/runtime/host_pool.h"
#include "engine/runtime/packer.h"
#include "engine/runtime/safetensors.h"
#include "model/weight_names.h"

namespace vlr {
namespace {

constexpr int64_t kChunkDocuments =
    64;  // prepared at a time, so that a wave does not overshoot by much
// Pinned memory for decoded patches that is kept between waves: a wave and a chunk of the largest
// pictures take half of it, and one wave is decoded while another one is on the GPU.
constexpr int64_t kKeptPatchBytes = int64_t{512} << 20;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Status check_options(const Options& o) {
  const auto wrong = [](std::string message) {
    return Status(Code::kInvalidArgument, "options: " + message);
  };
  if (o.dtype != "auto" && o.dtype != "f32" && o.dtype != "bf16" && o.dtype != "f16")
    return wrong(fmt::format("dtype must be auto, f32, bf16 or f16, got '{}'", o.dtype));
  for (const auto& [name, bytes] : {std::pair{"gpu_memory", o.gpu_memory},
                                    {"prefix_cache_bytes", o.prefix_cache_bytes},
                                    {"vision_cache_bytes", o.vision_cache_bytes},
                                    {"vision_cache_dir_bytes", o.vision_cache_dir_bytes}}) {
    if (bytes < 0) return wrong(fmt::format("{} must be 0 or more, got {}", name, bytes));
  }
  for (const std::string& fusion : o.no_fuse) {
    if (fusion != "residual" && fusion != "qk" && fusion != "gelu" && fusion != "quantize")
      return wrong(fmt::format("no_fuse knows residual, qk, gelu and quantize, got '{}'", fusion));
  }
  if (o.num_threads < 0)
    return wrong(fmt::format("num_threads must be 0 or more, got {}", o.num_threads));
  if (o.max_length < 1)
    return wrong(fmt::format("max_length must be at least 1, got {}", o.max_length));
  if (o.batch_tokens < 0)
    return wrong(fmt::format("batch_tokens must be 0 or more, got {}", o.batch_tokens));
  if (o.frame_factor != 32 && o.frame_factor != 64) {
    return wrong(fmt::format("frame_factor must be 32 or 64, got {}", o.frame_factor));
  }
  for (const auto& [name, count] : {std::pair{"min_pixels", o.min_pixels},
                                    {"max_pixels", o.max_pixels},
                                    {"total_pixels", o.total_pixels},
                                    {"max_decoded_pixels", o.max_decoded_pixels},
                                    {"max_frames", o.max_frames},
                                    {"num_frames", o.num_frames},
                                    {"max_media_bytes", o.max_media_bytes}}) {
    if (count < 1) return wrong(fmt::format("{} must be 1 or more, got {}", name, count));
  }
  if (!(o.fps > 0) || !std::isfinite(o.fps))
    return wrong(fmt::format("fps must be above 0, got {}", o.fps));
  if (!(o.remote_timeout > 0))
    return wrong(fmt::format("remote_timeout must be above 0, got {}", o.remote_timeout));
  if (o.video_sampling != "official" && o.video_sampling != "uniform+ends") {
    return wrong(
        fmt::format("video_sampling must be official or uniform+ends, got '{}'", o.video_sampling));
  }
  if (const auto rules = quant_rules(o); !rules) return wrong(rules.error().message());
  return {};
}

/// Every special token that the config names has to be the tokenizer's; the ids of "yes" and "no".
Result<HeadTokens> check_tokenizer(const Tokenizer& tokenizer, const ModelConfig& config) {
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
  const std::optional<int32_t> yes = tokenizer.token_to_id("yes"), no = tokenizer.token_to_id("no");
  if (!yes || !no)
    return {Code::kInvalidArgument, "tokenizer.json: no tokens 'yes' and 'no' to score with"};
  return HeadTokens{.yes = *yes, .no = *no};
}

float sigmoid(float log_odds) {
  return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(log_odds))));
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
  }
  return "error";
}

class Reranker::Impl {
 public:
  static Result<std::unique_ptr<Impl>> open(const std::string& path, const Options& options);

  Result<std::vector<Response>> score(std::span<const Request> requests, const OnResult& on_result);
  Result<std::vector<Explanation>> explain(const Request& request);
  Result<std::vector<MediaResult>> prefetch(const Request& request);

  std::atomic<bool> cancelled{false};
  std::string name, device_name, dtype_name, quant_name, preset;
  Usage usage;
  std::unique_ptr<OpenDevice> device;
  const std::vector<MemoryPlan::Layer>& layers() const { return model->layers; }

 private:
  Impl(const Options& o, ModelConfig c, Tokenizer t)
      : options(o), config(std::move(c)), tokenizer(std::move(t)), threads(o.num_threads) {
    choices.insert(o.impls.begin(), o.impls.end());
    if (!options.log) return;
    options.log = [log = options.log, one = std::make_shared<std::mutex>()](std::string_view line) {
      const std::lock_guard lock(*one);
      log(line);
    };
  }
  Status check_relevance();
  Status open_vision_cache(const std::string& path);
  Result<Hash128> vision_key(const std::string& path);

  /// Moves `next` forward over all documents until the wave is full.
  std::shared_ptr<Wave> prepare_wave(std::span<const Request> requests, PairRef& next);
  void abandon();
  std::vector<std::vector<Pair*>> group_pairs(Wave& wave);
  Status run_group(std::shared_ptr<Wave> wave, std::span<Pair*> group);
  struct NewPrefix {
    const Pair* pair = nullptr;
    int64_t row = -1;
  };
  Result<std::vector<std::vector<NewPrefix>>> plan_prefixes(std::span<Pair*> group);
  Status run_vision(Wave& wave, std::span<Pair*> group,
                    std::span<const std::vector<NewPrefix>> new_prefixes);
  Status see(Wave& wave, const std::vector<bool>& needed);
  Status keep_on_disk();
  Status run_prefixes(std::span<const std::vector<NewPrefix>> batches);
  Status start_batch(std::shared_ptr<Wave> wave, std::vector<Pair*> batch);
  void finish_oldest();
  void finish_all() {
    while (!in_flight.empty()) finish_oldest();
  }
  TextInput text_input(const Pair& pair) const;
  void report(Pair& pair);
  void report_failed(Pair& pair, DocumentStatus status, std::string message) {
    pair.result.status = status;
    pair.result.message = std::move(message);
    report(pair);
  }

  Options options;
  ModelConfig config;
  Tokenizer tokenizer;
  ThreadPool threads;
  ImplChoices choices;
  std::optional<HostPool> patch_memory;
  std::unique_ptr<LoadedModel> model;
  ModelRunner* runner = nullptr;  // the model's
  std::unique_ptr<Preprocessor> preprocessor;
  BatchLimits limits;
  double load_seconds = 0;

  std::unique_ptr<VisionCache> vision_cache;  // null: off
  VisionFeatures features;                    // of the current group
  struct New {
    Hash128 content;
    std::shared_ptr<const CachedFeatures> features;
  };
  std::vector<New> unwritten;  // on their way into memory, then to the cache's folder
  PrefixCache prefix_cache;
  std::map<std::string, PrefixCache::Entry, std::less<>> shared;  // of the current group, by key

  /// A batch that was given to the device; its pairs live as long as the wave.
  struct InFlight {
    ModelRunner::Ticket ticket;
    std::shared_ptr<Wave> wave;
    std::vector<Pair*> pairs;
  };
  std::deque<InFlight> in_flight;

  /// Before a group's vision tower, after it, after its last batch.
  struct Timing {
    OpenDevice::Mark start, seen, end;
  };
  std::vector<Timing> timings;  // of the current call

  // Of the current call:
  std::vector<Response>* responses = nullptr;
  const OnResult* on_result = nullptr;
};

Result<std::unique_ptr<Reranker::Impl>> Reranker::Impl::open(const std::string& path,
                                                             const Options& options) {
  const double start = now();
  VLR_RETURN_IF_ERROR(check_options(options));
  VLR_ASSIGN_OR_RETURN(const DeviceSpec spec, DeviceSpec::parse(options.device));
  const std::filesystem::path folder(path);
  VLR_ASSIGN_OR_RETURN(ModelConfig config, read_config((folder / "config.json").string()));
  VLR_ASSIGN_OR_RETURN(const DType dtype, activation_dtype(options, spec, config));
  VLR_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::open((folder / "tokenizer.json").string()));
  VLR_ASSIGN_OR_RETURN(const HeadTokens head, check_tokenizer(tokenizer, config));
  VLR_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(path));
  VLR_ASSIGN_OR_RETURN(const WeightPlan plan, make_weight_plan(config, checkpoint.tensors(), head));
  if (options.log) {
    const std::vector<std::string> unexpected =
        compare_names(config, checkpoint.tensors()).unexpected;
    if (!unexpected.empty()) {
      options.log(fmt::format("{}: {} tensors are not used, {} is the first", path,
                              unexpected.size(), unexpected.front()));
    }
  }

  WeightSource source{.plan = plan};
  VLR_ASSIGN_OR_RETURN(source.stored, read_stored_quantization((folder / "config.json").string()));
  source.checkpoint = std::move(checkpoint);

  std::unique_ptr<Impl> impl(new Impl(options, std::move(config), std::move(tokenizer)));
  VLR_ASSIGN_OR_RETURN(impl->device,
                       OpenDevice::open(spec, options.exact, impl->threads, impl->choices));
  const auto card = impl->device->card_memory();
  VLR_ASSIGN_OR_RETURN(
      ResolvedPreset preset,
      resolve_preset(impl->options, stored_quantized(source.plan), card ? card->total : 0));
  impl->preset = std::move(preset.explanation);
  if (options.log && !impl->preset.empty()) impl->options.log(impl->preset);
  std::shared_ptr<MemoryWatch> watch;
  if (options.on_memory) watch = MemoryWatch::start(*impl->device, options.on_memory);
  VLR_ASSIGN_OR_RETURN(
      impl->model,
      LoadedModel::load(impl->options, impl->config, dtype, std::move(source), *impl->device,
                        {options.on_value, options.wants_value, options.on_node}));
  if (watch) watch->layers(impl->model->layers);
  impl->runner = impl->model->runner.get();
  impl->limits = impl->model->placed.limits;
  impl->prefix_cache.reset(impl->limits.prefix_rows);
  impl->preprocessor =
      std::make_unique<Preprocessor>(impl->tokenizer, impl->config, impl->options, impl->threads);
  std::error_code unresolved;
  impl->name = std::filesystem::weakly_canonical(folder, unresolved).filename().string();
  if (unresolved) impl->name = folder.filename().string();
  impl->device_name = impl->device->name();
  impl->dtype_name = vlr::dtype_name(dtype);
  impl->quant_name = vlr::quant_name(impl->model->modes);
  VLR_RETURN_IF_ERROR(impl->open_vision_cache(path));
  VLR_RETURN_IF_ERROR(impl->check_relevance());
  if (watch) watch->set_phase(MemoryEvent::Phase::kScore);
  impl->load_seconds = now() - start;
  return impl;
}

/// Scores the built-in probe where that says something: a quantised checkpoint. What is quantised
/// here was whole before. The caller sees none of it, and cannot cut its texts short.
Status Reranker::Impl::check_relevance() {
  if (!options.self_check || !model->stored_quantized) return {};
  runner->set_observers({});
  const int64_t max_length = std::exchange(options.max_length, Options().max_length);
  VLR_ASSIGN_OR_RETURN(const std::vector<Response> scored, score(probe_requests(), nullptr));
  options.max_length = max_length;
  usage = {};
  runner->set_observers({options.on_value, options.wants_value, options.on_node});
  std::vector<float> log_odds;
  for (const Response& response : scored) {
    for (const DocumentResult& r : response.results) {
      if (!r.scored()) return {Code::kDataLoss, "relevance probe: " + r.message};
      log_odds.push_back(r.log_odds);
    }
  }
  return check_probe(log_odds, model->stored.probe, model->modes);
}

Result<std::vector<Response>> Reranker::Impl::score(std::span<const Request> requests,
                                                    const OnResult& callback) {
  const double start = now();
  VLR_RETURN_IF_ERROR(device->activate());
  cancelled = false;
  usage = {};
  usage.seconds.load = load_seconds;
  const int64_t replays = runner->num_replays();
  std::vector<Response> out(requests.size());
  for (size_t r = 0; r < requests.size(); ++r) {
    if (!requests[r].query.error.empty()) {
      return {Code::kInvalidArgument,
              fmt::format("request {}: query: {}", r, requests[r].query.error)};
    }
    out[r].results.resize(requests[r].documents.size());
  }
  responses = &out;
  on_result = &callback;
  // Whatever leaves this function early, an exception of the callback's among it.
  struct Abandon {
    Impl& impl;
    ~Abandon() { impl.abandon(); }
  } const abandon_at_the_end{*this};

  // A GPU works on one wave while the threads prepare the next one. On the CPU both want the same
  // threads.
  PairRef next;
  const auto more = [&] { return next.request < std::ssize(requests); };
  const auto policy = device->is_gpu() ? std::launch::async : std::launch::deferred;
  const auto prepare = [&] {
    return std::async(policy, [&] { return prepare_wave(requests, next); });
  };
  std::future<std::shared_ptr<Wave>> coming;
  if (more()) coming = prepare();
  while (coming.valid()) {
    const std::shared_ptr<Wave> wave = coming.get();
    if (more()) coming = prepare();
    usage.seconds.media += wave->seconds.media;
    usage.seconds.prompt += wave->seconds.prompt;
    usage.decoded_media += wave->decoded;
    for (Pair& pair : wave->pairs) {
      if (!pair.result.scored()) report(pair);
    }
    for (std::vector<Pair*>& group : group_pairs(*wave)) {
      if (const Status s = run_group(wave, group); !s.ok()) {
        // What has its result by now keeps it.
        for (Pair* pair : group) {
          if (!pair->done) report_failed(*pair, DocumentStatus::kError, s.message());
        }
      }
    }
  }
  finish_all();
  VLR_RETURN_IF_ERROR(device->synchronize());
  for (const Timing& t : timings) {
    VLR_ASSIGN_OR_RETURN(const double vision, device->seconds_between(t.start, t.seen));
    VLR_ASSIGN_OR_RETURN(const double text, device->seconds_between(t.seen, t.end));
    usage.seconds.vision += vision;
    usage.seconds.text += text;
  }
  timings.clear();
  usage.replayed_batches = runner->num_replays() - replays;
  usage.seconds.total = now() - start;
  return out;
}

/// Forgets what a call has left on the device.
void Reranker::Impl::abandon() {
  if (!in_flight.empty()) (void)device->synchronize();
  in_flight.clear();
  timings.clear();
  unwritten.clear();
  prefix_cache.unpin_all();
  responses = nullptr;
  on_result = nullptr;
}

void Reranker::Impl::report(Pair& pair) {
  const DocumentResult& result = pair.result;
  pair.done = true;
  (*responses)[static_cast<size_t>(result.request)].results[static_cast<size_t>(result.index)] =
      result;
  if (*on_result) (*on_result)(result);
}

std::shared_ptr<Wave> Reranker::Impl::prepare_wave(std::span<const Request> requests,
                                                   PairRef& next) {
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
    preprocessor->prepare(requests, chunk, wave);
  }
  return out;
}

/// Pairs that run together: their pictures' features have to be in memory at once.
std::vector<std::vector<Pair*>> Reranker::Impl::group_pairs(Wave& wave) {
  std::vector<std::vector<Pair*>> groups;
  std::set<size_t> media;
  int64_t rows = 0;
  for (Pair& pair : wave.pairs) {
    if (!pair.result.scored()) continue;
    int64_t own = 0, added = 0;
    for (size_t m : std::set<size_t>(pair.media.begin(), pair.media.end())) {
      own += wave.media[m].tokens();
      if (!media.contains(m)) added += wave.media[m].tokens();
    }
    int64_t frame = 0;
    for (size_t m : pair.media) {
      const Patches* p = wave.media[m].features ? nullptr : &*wave.media[m].patches;
      if (p) frame = std::max(frame, p->grid_h * p->grid_w);
    }
    if (frame > limits.frame_patches) {
      report_failed(pair, DocumentStatus::kTooLong,
                    fmt::format("a picture of {} patches, the memory cap allows {}", frame,
                                limits.frame_patches));
      continue;
    }
    if (own > limits.visual_rows) {
      report_failed(pair, DocumentStatus::kTooLong,
                    fmt::format("{} visual tokens, the memory cap allows {} at once", own,
                                limits.visual_rows));
      continue;
    }
    if (groups.empty() || rows + added > limits.visual_rows) {
      groups.emplace_back();
      media.clear();
      rows = 0;
      added = own;
    }
    groups.back().push_back(&pair);
    media.insert(pair.media.begin(), pair.media.end());
    rows += added;
  }
  return groups;
}

Status Reranker::Impl::run_group(std::shared_ptr<Wave> wave, std::span<Pair*> group) {
  VLR_ASSIGN_OR_RETURN(OpenDevice::Mark start, device->mark(true));
  VLR_ASSIGN_OR_RETURN(const auto new_prefixes, plan_prefixes(group));
  VLR_RETURN_IF_ERROR(run_vision(*wave, group, new_prefixes));
  VLR_ASSIGN_OR_RETURN(OpenDevice::Mark seen, device->mark(true));
  if (const Status s = run_prefixes(new_prefixes); !s.ok()) {
    prefix_cache.reset(prefix_cache.capacity());
    return s;
  }
  std::vector<Pair*> ready;
  std::vector<int64_t> lengths;
  for (Pair* pair : group) {
    const int64_t length = std::ssize(text_input(*pair).ids);
    if (length > limits.max_sequence) {
      report_failed(*pair, DocumentStatus::kTooLong,
                    fmt::format("{} tokens beside a shared prefix, the memory cap allows {}",
                                length, limits.max_sequence));
      continue;
    }
    ready.push_back(pair);
    lengths.push_back(length);
  }
  for (const std::vector<size_t>& members :
       pack_batches(lengths, limits.tokens, limits.sequences)) {
    std::vector<Pair*> batch;
    for (size_t i : members) batch.push_back(ready[i]);
    if (cancelled) {
      for (Pair* pair : batch) {
        report_failed(*pair, DocumentStatus::kCancelled, "cancelled before it was reached");
      }
      continue;
    }
    if (const Status s = start_batch(wave, batch); !s.ok()) {
      for (Pair* pair : batch) report_failed(*pair, DocumentStatus::kError, s.message());
    }
  }
  prefix_cache.unpin_all();
  VLR_RETURN_IF_ERROR(keep_on_disk());
  VLR_ASSIGN_OR_RETURN(OpenDevice::Mark end, device->mark(true));
  if (!device->is_gpu() || options.on_node) finish_all();
  timings.push_back({std::move(start), std::move(seen), std::move(end)});
  return {};
}

/// Which prefixes stand in the cache, and which are computed now: those that at least two pairs of
/// the group have. Fills `shared`; batches of the new ones have their rows already.
Result<std::vector<std::vector<Reranker::Impl::NewPrefix>>> Reranker::Impl::plan_prefixes(
    std::span<Pair*> group) {
  std::vector<std::vector<NewPrefix>> batches;
  shared.clear();
  if (!options.share_prefix) return batches;
  struct User {
    const Pair* first = nullptr;
    int64_t count = 0;
  };
  std::map<std::string_view, User> users;
  for (const Pair* pair : group) {
    if (pair->prompt.prefix_len == 0) continue;
    User& user = users[pair->prefix_key];
    if (user.count++ == 0) user.first = pair;
  }
  std::vector<const Pair*> wanted;
  std::vector<int64_t> lengths;
  int64_t rows = 0;
  for (const auto& [key, user] : users) {
    const int64_t length = user.first->prompt.prefix_len;
    if (const auto entry = prefix_cache.find(key)) {
      shared.emplace(key, *entry);
      ++usage.prefix_cache_hits;
      usage.shared_prefix_tokens += length * user.count;
    } else if (user.count >= 2 && length <= limits.max_sequence) {
      wanted.push_back(user.first);
      lengths.push_back(length);
      rows += length;
    }
  }
  if (rows > prefix_cache.capacity() && rows <= limits.max_prefix_rows && shared.empty()) {
    finish_all();  // they read the memory that is about to move
    VLR_RETURN_IF_ERROR(runner->reserve_prefixes(rows));
    prefix_cache.reset(rows);
  }
  for (const std::vector<size_t>& members :
       pack_batches(lengths, limits.tokens, limits.sequences)) {
    std::vector<PrefixCache::Prefix> block;
    for (size_t i : members) block.push_back({.key = wanted[i]->prefix_key, .tokens = lengths[i]});
    std::optional<int64_t> row = prefix_cache.add(block);
    if (!row) continue;  // no room: these pairs run whole
    std::vector<NewPrefix>& batch = batches.emplace_back();
    for (size_t i : members) {
      batch.push_back({.pair = wanted[i], .row = *row});
      shared.emplace(wanted[i]->prefix_key, PrefixCache::Entry{.row = *row, .tokens = lengths[i]});
      usage.shared_prefix_tokens += lengths[i] * (users[wanted[i]->prefix_key].count - 1);
      *row += lengths[i];
    }
  }
  return batches;
}

/// The tower over the pictures that some token of the group's batches needs.
Status Reranker::Impl::run_vision(Wave& wave, std::span<Pair*> group,
                                  std::span<const std::vector<NewPrefix>> new_prefixes) {
  std::vector<bool> needed(wave.media.size(), false);
  // Marks the pictures of tokens [begin, end) of a pair.
  const auto need = [&](const Pair& pair, int64_t begin, int64_t end) {
    if (pair.media.empty()) return;
    for (int64_t t = begin; t < end; ++t) {
      int64_t index = pair.where.visual_index[static_cast<size_t>(t)];
      if (index < 0) continue;
      auto m = pair.media.begin();
      for (; index >= wave.media[*m].tokens(); ++m) index -= wave.media[*m].tokens();
      needed[*m] = true;
    }
  };
  for (const Pair* pair : group) {
    const auto it = shared.find(pair->prefix_key);
    need(*pair, it == shared.end() ? 0 : it->second.tokens, std::ssize(pair->prompt.ids));
  }
  for (const auto& batch : new_prefixes) {
    for (const NewPrefix& p : batch) need(*p.pair, 0, p.pair->prompt.prefix_len);
  }
  VLR_RETURN_IF_ERROR(see(wave, needed));
  for (Pair* pair : group) {
    // From "token i of this sequence's pictures" to a row of the features. Tokens of a prefix that
    // stands in the cache have none and need none.
    pair->visual_rows.assign(pair->where.visual_index.size(), -1);
    std::vector<int32_t> row_of;
    for (size_t m : pair->media) {
      const int64_t first = wave.media[m].first_row;
      for (int64_t i = 0; i < wave.media[m].tokens(); ++i)
        row_of.push_back(first < 0 ? -1 : static_cast<int32_t>(first + i));
    }
    for (size_t t = 0; t < pair->visual_rows.size(); ++t) {
      const int32_t index = pair->where.visual_index[t];
      if (index >= 0) pair->visual_rows[t] = row_of[static_cast<size_t>(index)];
    }
  }
  return {};
}

/// Features of every medium that is needed, one after the other: the tower's for those that were
/// not seen before, copies of the cached ones behind them.
Status Reranker::Impl::see(Wave& wave, const std::vector<bool>& needed) {
  std::vector<VisionInput> inputs;
  std::vector<LoadedMedia*> unseen, seen;
  for (size_t m = 0; m < wave.media.size(); ++m) {
    LoadedMedia& media = wave.media[m];
    media.first_row = -1;
    if (!needed[m]) continue;
    // An earlier group may have run it since it was decoded.
    if (vision_cache && !media.features && vision_cache->in_memory(media.content))
      media.features =
          vision_cache->find(media.content, media.tokens() * runner->feature_row_bytes());
    (media.features ? seen : unseen).push_back(&media);
  }
  int64_t row = 0;
  std::map<Hash128, int64_t> rows;  // of what is in `inputs`
  for (LoadedMedia* media : unseen) {
    const auto [same, is_new] = rows.try_emplace(media->content, row);
    media->first_row = same->second;
    if (!is_new) continue;
    const Patches& p = *media->patches;
    inputs.push_back({.grid_t = p.grid_t,
                      .grid_h = p.grid_h,
                      .grid_w = p.grid_w,
                      .patches = p.data,
                      .owner = patch_memory ? p.owner : nullptr});
    row += media->tokens();
  }
  usage.image_tokens += row;
  const int64_t seen_from = row;
  for (LoadedMedia* media : seen) {
    media->first_row = row;
    row += media->tokens();
  }
  VLR_ASSIGN_OR_RETURN(const int64_t batches,
                       runner->run_vision(inputs, limits.patches, features, row - seen_from));
  usage.vision_batches += batches;
  usage.vision_cache_hits += std::ssize(seen);
  for (const LoadedMedia* media : seen) {
    VLR_RETURN_IF_ERROR(runner->load_features(media->features->pieces, media->first_row,
                                              media->tokens(), features));
  }
  if (!vision_cache) return {};
  // What came from the folder gets a place in memory too.
  for (const std::vector<LoadedMedia*>* list : {&unseen, &seen}) {
    for (const LoadedMedia* media : *list) {
      if (vision_cache->in_memory(media->content)) continue;
      const int64_t bytes = media->tokens() * runner->feature_row_bytes();
      auto kept = vision_cache->add(media->content, bytes);
      if (!kept && !unwritten.empty()) {  // what waits for the disk cannot make room
        VLR_RETURN_IF_ERROR(keep_on_disk());
        kept = vision_cache->add(media->content, bytes);
      }
      if (!kept) continue;
      if (const Status s =
              runner->save_features(features, media->first_row, media->tokens(), kept->pieces);
          !s.ok()) {
        vision_cache->forget(media->content);
        return s;
      }
      if (list == &unseen && vision_cache->folder()) unwritten.push_back({media->content, kept});
    }
  }
  return {};
}

/// Writes what see() saved to the cache's folder, once it is there.
Status Reranker::Impl::keep_on_disk() {
  if (unwritten.empty()) return {};
  VLR_RETURN_IF_ERROR(device->synchronize());
  threads.parallel_for(std::ssize(unwritten), [&](int64_t i, int) {
    const New& n = unwritten[static_cast<size_t>(i)];
    if (!vision_cache->folder()->has_features(n.content))
      vision_cache->folder()->write_features(n.content, n.features->pieces);
  });
  unwritten.clear();
  return {};
}

/// A cache where the options want one.
Status Reranker::Impl::open_vision_cache(const std::string& path) {
  if (!config.vision_config) return {};
  if (device->is_gpu()) {
    patch_memory.emplace(*device, "decoded patches", kKeptPatchBytes);
    preprocessor->set_memory([this](size_t bytes) -> std::shared_ptr<uint8_t[]> {
      if (auto pinned = patch_memory->take(bytes)) return pinned;
      return std::make_unique_for_overwrite<uint8_t[]>(bytes);  // copies then wait for the device
    });
  }
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
    VLR_ASSIGN_OR_RETURN(const Hash128 key, vision_key(path));
    folder->set_model(key);
  }
  vision_cache =
      std::make_unique<VisionCache>(*device, options.vision_cache_bytes, std::move(folder));
  preprocessor->set_cache(vision_cache.get(), runner->feature_row_bytes());
  return {};
}

/// A name for everything that the bits of features depend on: the tower's weights, and how this
/// machine computes with them, told by what becomes of a picture of noise.
Result<Hash128> Reranker::Impl::vision_key(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(path));
  Hasher hasher;
  hasher.add(std::string_view(VLR_VERSION)).add(std::string_view(dtype_name)).add(options.exact);
  for (const auto& [stored_name, tensor] : checkpoint.tensors()) {
    const std::string tensor_name = canonical_name(stored_name);
    if (tensor_name.find("visual.") == std::string::npos) continue;
    hasher.add(std::string_view(tensor_name))
        .add(std::span(tensor.data, static_cast<size_t>(tensor.bytes())));
  }
  constexpr int64_t kRows = 8, kColumns = 12;  // patches
  std::vector<uint8_t> noise(kRows * kColumns * kPatchValues);
  uint32_t state = 1;
  for (uint8_t& v : noise) {
    state = state * 1664525 + 1013904223;  // Numerical Recipes' generator
    v = static_cast<uint8_t>(state >> 24);
  }
  const VisionInput input{.grid_t = 1, .grid_h = kRows, .grid_w = kColumns, .patches = noise};
  runner->set_observers({});
  VLR_RETURN_IF_ERROR(runner->run_vision({&input, 1}, limits.patches, features).error());
  runner->set_observers({options.on_value, options.wants_value, options.on_node});
  Buffer host = device->staging("vision features");
  VLR_RETURN_IF_ERROR(host.reserve(features.rows * runner->feature_row_bytes()));
  const std::span<std::byte> bytes =
      host.bytes().first(static_cast<size_t>(features.rows * runner->feature_row_bytes()));
  VLR_RETURN_IF_ERROR(runner->save_features(features, 0, features.rows, {&bytes, 1}));
  VLR_RETURN_IF_ERROR(device->synchronize());
  return hasher.add(bytes).digest();
}

Result<std::vector<MediaResult>> Reranker::Impl::prefetch(const Request& request) {
  const double start = now();
  VLR_RETURN_IF_ERROR(device->activate());
  if (!config.vision_config)
    return {Code::kInvalidArgument, "prefetch: this checkpoint has no vision tower"};
  if (!vision_cache)
    return {Code::kInvalidArgument, "prefetch: there is no vision cache: vision_cache_bytes is 0"};
  usage = {};
  usage.seconds.load = load_seconds;
  std::vector<MediaResult> out;
  // A few at a time go through the tower, as many as the cache has room for.
  const int64_t most =
      std::min(limits.visual_rows, options.vision_cache_bytes / runner->feature_row_bytes());
  const auto load = [&](const Content& part) -> Status {
    Wave wave;
    const std::vector<size_t> loaded = preprocessor->load_media(part, request, wave);
    usage.seconds.media += wave.seconds.media;
    usage.decoded_media += wave.decoded;
    std::vector<bool> needed(wave.media.size(), false);
    std::vector<std::pair<size_t, size_t>> flushed;  // into wave.media, out
    int64_t rows = 0;
    const auto flush = [&]() -> Status {
      VLR_RETURN_IF_ERROR(see(wave, needed));
      VLR_RETURN_IF_ERROR(keep_on_disk());
      for (const auto& [m, index] : flushed) {
        const Hash128& content = wave.media[m].content;
        if (vision_cache->in_memory(content) ||
            (vision_cache->folder() && vision_cache->folder()->has_features(content)))
          continue;
        out[index].status = DocumentStatus::kError;
        out[index].message = wave.media[m].name + ": its features could not be kept";
      }
      needed.assign(wave.media.size(), false);
      flushed.clear();
      rows = 0;
      return {};
    };
    for (const size_t m : loaded) {
      const LoadedMedia& medium = wave.media[m];
      MediaResult& result = out.emplace_back();
      result.name = medium.name;
      if (!medium.patches) {
        result.message = medium.patches.error().message();
        continue;
      }
      result.tokens = medium.tokens();
      if (result.tokens > most) {
        result.status = DocumentStatus::kTooLong;
        result.message =
            fmt::format("{}: {} visual tokens, the cache and the memory cap have room for {}",
                        medium.name, result.tokens, most);
        continue;
      }
      result.status = DocumentStatus::kOk;
      result.was_cached = medium.features != nullptr;
      if (rows + result.tokens > most) VLR_RETURN_IF_ERROR(flush());
      needed[m] = true;
      flushed.emplace_back(m, out.size() - 1);
      rows += result.tokens;
    }
    VLR_RETURN_IF_ERROR(flush());
    return device->synchronize();  // the wave's patches go away
  };
  const auto load_all = [&](const Content& content) -> Status {
    Content part;
    const auto add = [&](auto& list, const auto& item) -> Status {
      list.push_back(item);
      if (std::ssize(part.images) + std::ssize(part.videos) < kChunkMedia) return {};
      return load(std::exchange(part, {}));
    };
    for (const Video& v : content.videos) VLR_RETURN_IF_ERROR(add(part.videos, v));
    for (const Media& m : content.images) VLR_RETURN_IF_ERROR(add(part.images, m));
    return part.images.empty() && part.videos.empty() ? Status() : load(part);
  };
  VLR_RETURN_IF_ERROR(load_all(request.query));
  for (const Content& document : request.documents) VLR_RETURN_IF_ERROR(load_all(document));
  usage.seconds.total = now() - start;
  return out;
}

Status Reranker::Impl::run_prefixes(std::span<const std::vector<NewPrefix>> batches) {
  for (const std::vector<NewPrefix>& batch : batches) {
    std::vector<TextInput> inputs;
    for (const NewPrefix& p : batch) {
      const auto length = static_cast<size_t>(p.pair->prompt.prefix_len);
      inputs.push_back({.ids = std::span(p.pair->prompt.ids).first(length),
                        .positions = p.pair->where.positions,
                        .positions_stride = std::ssize(p.pair->prompt.ids),
                        .offset = 0,
                        .visual_rows = std::span(p.pair->visual_rows).first(length),
                        .prefix_row = 0,
                        .prefix_len = 0});
      usage.tokens += p.pair->prompt.prefix_len;
    }
    VLR_RETURN_IF_ERROR(runner->run_prefixes(inputs, features, batch.front().row));
    ++usage.batches;
  }
  return {};
}

/// The tokens of a pair that its batch runs: all, or those behind its shared prefix.
TextInput Reranker::Impl::text_input(const Pair& pair) const {
  TextInput input{.ids = pair.prompt.ids,
                  .positions = pair.where.positions,
                  .positions_stride = std::ssize(pair.prompt.ids),
                  .offset = 0,
                  .visual_rows = pair.visual_rows,
                  .prefix_row = 0,
                  .prefix_len = 0};
  if (const auto it = shared.find(pair.prefix_key); it != shared.end()) {
    const auto prefix = static_cast<size_t>(it->second.tokens);
    input.ids = input.ids.subspan(prefix);
    input.visual_rows = input.visual_rows.subspan(prefix);
    input.offset = it->second.tokens;
    input.prefix_row = it->second.row;
    input.prefix_len = it->second.tokens;
  }
  return input;
}

Status Reranker::Impl::start_batch(std::shared_ptr<Wave> wave, std::vector<Pair*> batch) {
  while (in_flight.size() >= ModelRunner::kInFlight) finish_oldest();
  std::vector<TextInput> inputs;
  for (const Pair* pair : batch) {
    inputs.push_back(text_input(*pair));
    usage.tokens += std::ssize(inputs.back().ids);
  }
  ++usage.batches;
  VLR_ASSIGN_OR_RETURN(const ModelRunner::Ticket ticket, runner->start_scores(inputs, features));
  in_flight.push_back({.ticket = ticket, .wave = std::move(wave), .pairs = std::move(batch)});
  if (!device->is_gpu()) finish_oldest();  // it is done: its results stream now
  return {};
}

void Reranker::Impl::finish_oldest() {
  InFlight oldest = std::move(in_flight.front());
  in_flight.pop_front();
  const Result<std::vector<float>> log_odds = runner->finish(oldest.ticket);
  for (size_t i = 0; i < oldest.pairs.size(); ++i) {
    Pair& pair = *oldest.pairs[i];
    if (pair.done) continue;  // its group failed
    if (!log_odds) {
      report_failed(pair, DocumentStatus::kError, log_odds.error().message());
    } else if (!std::isfinite((*log_odds)[i])) {
      report_failed(pair, DocumentStatus::kError,
                    fmt::format("log-odds is {}: {}", (*log_odds)[i],
                                dtype_name == "f16"
                                    ? "a value is beyond 65504, the largest of f16; bf16 has room"
                                    : "the weights or an activation are out of range"));
    } else {
      pair.result.log_odds = (*log_odds)[i];
      pair.result.score = sigmoid((*log_odds)[i]);
      report(pair);
    }
  }
}

Result<std::vector<Explanation>> Reranker::Impl::explain(const Request& request) {
  if (!request.query.error.empty())
    return {Code::kInvalidArgument, "query: " + request.query.error};
  Preprocessor with_text(tokenizer, config, options, threads, true);
  std::vector<PairRef> refs;
  for (int64_t i = 0; i < std::ssize(request.documents); ++i)
    refs.push_back({.request = 0, .index = i});
  Wave wave;
  with_text.prepare({&request, 1}, refs, wave);
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

Result<MemoryPlan> Reranker::plan(const std::string& path, const Options& given,
                                  const Workload& workload) {
  VLR_RETURN_IF_ERROR(check_options(given));
  Options options = given;
  const std::string config_path = (std::filesystem::path(path) / "config.json").string();
  VLR_ASSIGN_OR_RETURN(const ModelConfig config, read_config(config_path));
  if (workload.documents < 1 || workload.tokens_per_document < 1 ||
      workload.images_per_document < 0 || workload.images_per_query < 0 ||
      workload.patches_per_image < 4) {
    return {Code::kInvalidArgument,
            "workload: at least one document of one token, and four patches an image"};
  }
  // The checkpoint as it would be on disk, without its data.
  StoredTensors stored;
  for (const NamedShape& t : checkpoint_tensors(config, config.dtype.value_or(DType::kBF16))) {
    StoredTensor& s = stored[t.name];
    s.dtype = t.dtype;
    s.shape = t.shape;
  }
  VLR_ASSIGN_OR_RETURN(WeightPlan plan, make_weight_plan(config, stored, {.yes = 0, .no = 1}));
  ThreadPool threads(options.num_threads);
  const ImplChoices choices(options.impls.begin(), options.impls.end());
  VLR_ASSIGN_OR_RETURN(const DeviceSpec spec, DeviceSpec::parse_for_planning(options.device));
  VLR_ASSIGN_OR_RETURN(const std::unique_ptr<OpenDevice> device,
                       OpenDevice::for_planning(spec, threads, choices));
  VLR_ASSIGN_OR_RETURN(const DType dtype, activation_dtype(options, spec, config));
  VLR_ASSIGN_OR_RETURN(const StoredQuantization stored_quant,
                       read_stored_quantization(config_path));
  // What the files are quantised in, by the rules that they were made with.
  for (WeightSpec& weight : plan) {
    for (WeightPart& part : weight.parts) {
      const auto mode = mode_of(canonical_name(part.source), stored_quant.rules);
      part.stored = stored_format(mode.value_or(QuantMode::kNone));
    }
  }
  VLR_ASSIGN_OR_RETURN(ResolvedPreset preset, resolve_preset(options, stored_quantized(plan), 0));
  VLR_ASSIGN_OR_RETURN(QuantModes modes, prepare_plan(plan, options, stored_quant));
  const GraphOptions graph = graph_options(options, *device, dtype, std::move(modes));
  VLR_ASSIGN_OR_RETURN(const std::unique_ptr<MemoryPlanner> planner,
                       MemoryPlanner::create(options, config, std::move(plan), graph, *device));
  VLR_RETURN_IF_ERROR(check_impls(choices, planner->runner()));
  constexpr int64_t kNoCap = int64_t{1} << 40;  // there is no card to ask
  VLR_ASSIGN_OR_RETURN(const int64_t cap,
                       cap_of(*device, options.gpu_memory > 0 ? options.gpu_memory : kNoCap));
  VLR_ASSIGN_OR_RETURN(const PlacedModel placed, planner->choose(cap));
  VLR_ASSIGN_OR_RETURN(MemoryPlan out, plan_memory(*planner, placed, options, workload));
  out.preset = std::move(preset.explanation);
  return out;
}

Reranker::Reranker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Reranker::Reranker(Reranker&&) noexcept = default;
Reranker& Reranker::operator=(Reranker&&) noexcept = default;
Reranker::~Reranker() = default;

Result<Reranker> Reranker::open(const std::string& path, const Options& options) {
  VLR_ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, Impl::open(path, options));
  return Reranker(std::move(impl));
}

Result<Response> Reranker::score(const Request& request, const OnResult& on_result) {
  VLR_ASSIGN_OR_RETURN(std::vector<Response> responses, impl_->score({&request, 1}, on_result));
  return std::move(responses[0]);
}

Result<std::vector<Response>> Reranker::score(std::span<const Request> requests,
                                              const OnResult& on_result) {
  return impl_->score(requests, on_result);
}

Result<std::vector<Explanation>> Reranker::explain(const Request& request) {
  return impl_->explain(request);
}
Result<std::vector<MediaResult>> Reranker::prefetch(const Request& request) {
  return impl_->prefetch(request);
}
void Reranker::cancel() { impl_->cancelled = true; }
const Usage& Reranker::usage() const { return impl_->usage; }
std::string_view Reranker::model_name() const { return impl_->name; }
std::string_view Reranker::device() const { return impl_->device_name; }
std::string_view Reranker::dtype() const { return impl_->dtype_name; }
std::string_view Reranker::quant() const { return impl_->quant_name; }
std::string_view Reranker::preset() const { return impl_->preset; }
MemoryPlan Reranker::memory() const {
  MemoryPlan out = memory_of(*impl_->device);
  out.layers = impl_->layers();
  return out;
}
int64_t Reranker::peak_memory() const { return impl_->device->budget().peak(); }

}  // namespace vlr
