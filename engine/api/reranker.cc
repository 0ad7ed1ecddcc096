/// score() from top to bottom: waves of pairs are prepared (media, prompts) while the wave before
/// is scored (wave_scorer.h).
#include "vlr/reranker.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <future>
#include <mutex>
#include <utility>

#include "engine/api/options.h"
#include "engine/api/preset.h"
#include "engine/passes/model_runner.h"
#include "engine/passes/self_check.h"
#include "engine/placement/device_options.h"
#include "engine/placement/loaded_model.h"
#include "engine/placement/memory_plan.h"
#include "engine/placement/memory_planner.h"
#include "engine/placement/memory_watch.h"
#include "engine/runtime/arena_picture.h"
#include "engine/runtime/host_pool.h"
#include "engine/runtime/purposes.h"
#include "engine/runtime/safetensors.h"
#include "engine/scheduling/preprocess.h"
#include "engine/scheduling/vision_cache.h"
#include "engine/scheduling/wave_scorer.h"
#include "model/weight_plan.h"

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
  ~Impl() {
    if (device) (void)device->activate();  // what goes away is this device's
  }
  static Result<std::unique_ptr<Impl>> open(const std::string& path, const Options& options);

  Result<std::vector<Response>> score(std::span<const Request> requests, const OnResult& on_result);
  Result<std::vector<Explanation>> explain(const Request& request);
  Result<PrefetchResult> prefetch(const Request& request);

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
  std::unique_ptr<WaveScorer> scorer;
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
                        {options.on_value, options.wants_value, options.on_node, options.on_copy}));
  if (watch) watch->layers(impl->model->layers);
  impl->runner = impl->model->runner.get();
  impl->limits = impl->model->placed.limits;
  if (options.log && !options.offload_folder.empty() && impl->model->placed.weights.disk == 0)
    options.log("offload_folder: no layer is on disk; device_map says which are, as in =disk");
  impl->scorer = std::make_unique<WaveScorer>(impl->options, *impl->runner, impl->limits,
                                              impl->threads, impl->usage, impl->cancelled);
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
  runner->passes().set_observers({});
  const int64_t max_length = std::exchange(options.max_length, Options().max_length);
  VLR_ASSIGN_OR_RETURN(const std::vector<Response> scored, score(probe_requests(), nullptr));
  options.max_length = max_length;
  usage = {};
  runner->passes().set_observers(
      {options.on_value, options.wants_value, options.on_node, options.on_copy});
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
  const int64_t replays = runner->score().num_replays();
  std::vector<Response> out(requests.size());
  for (size_t r = 0; r < requests.size(); ++r) {
    if (!requests[r].query.error.empty()) {
      return {Code::kInvalidArgument,
              fmt::format("request {}: query: {}", r, requests[r].query.error)};
    }
    out[r].results.resize(requests[r].documents.size());
  }
  const WaveScorer::OnDone on_done = [&](const Pair& pair) {
    const DocumentResult& result = pair.result;
    out[static_cast<size_t>(result.request)].results[static_cast<size_t>(result.index)] = result;
    if (callback) callback(result);
  };
  // Whatever leaves this function early, an exception of the callback's among it.
  struct Abandon {
    WaveScorer& scorer;
    ~Abandon() { scorer.abandon(); }
  } const abandon_at_the_end{*scorer};

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
    scorer->score(wave, on_done);
  }
  VLR_RETURN_IF_ERROR(scorer->finish(on_done));
  usage.replayed_batches = runner->score().num_replays() - replays;
  usage.seconds.total = now() - start;
  for (Response& response : out) response.usage = usage;
  return out;
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

/// A cache where the options want one.
Status Reranker::Impl::open_vision_cache(const std::string& path) {
  if (!config.vision_config) return {};
  if (device->is_gpu()) {
    patch_memory.emplace(*device, purposes::kPatches, kKeptPatchBytes);
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
  scorer->set_cache(vision_cache.get());
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
  VisionFeatures features;
  const VisionInput input{.grid_t = 1, .grid_h = kRows, .grid_w = kColumns, .patches = noise};
  runner->passes().set_observers({});
  VLR_RETURN_IF_ERROR(runner->run_vision({&input, 1}, limits.patches, features).error());
  runner->passes().set_observers(
      {options.on_value, options.wants_value, options.on_node, options.on_copy});
  Buffer host = device->staging(purposes::kFeatures);
  VLR_RETURN_IF_ERROR(host.reserve(features.rows * runner->feature_row_bytes()));
  const std::span<std::byte> bytes =
      host.bytes().first(static_cast<size_t>(features.rows * runner->feature_row_bytes()));
  VLR_RETURN_IF_ERROR(runner->save_features(features, 0, features.rows, {&bytes, 1}));
  VLR_RETURN_IF_ERROR(device->synchronize());
  return hasher.add(bytes).digest();
}

Result<PrefetchResult> Reranker::Impl::prefetch(const Request& request) {
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
      VLR_RETURN_IF_ERROR(scorer->see(wave, needed));
      VLR_RETURN_IF_ERROR(scorer->keep_on_disk());
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
      const int64_t frame = medium.patches->grid_h * medium.patches->grid_w;
      if (frame > limits.frame_patches) {
        result.status = DocumentStatus::kTooLong;
        result.message = fmt::format("{}: a picture of {} patches, the memory cap allows {}",
                                     medium.name, frame, limits.frame_patches);
        continue;
      }
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
  return PrefetchResult{.media = std::move(out), .usage = usage};
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
  const StoredTensors stored = checkpoint_without_data(config, config.dtype.value_or(DType::kBF16));
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
  if (device->is_gpu()) {
    out.smallest_cap = planner->smallest_cap(
        [&](const BatchLimits& limits) { return enough_for(workload, options, limits); });
  }
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
Result<PrefetchResult> Reranker::prefetch(const Request& request) {
  return impl_->prefetch(request);
}
void Reranker::cancel() { impl_->cancelled = true; }
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
