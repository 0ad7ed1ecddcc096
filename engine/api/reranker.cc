/// score() from top to bottom. Waves of pairs are prepared (media, prompts), pictures go through
/// the vision tower, shared query prefixes through the decoder once, then documents in packed
/// batches.
#include "vlr/reranker.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <utility>

#include "engine/api/model_runner.h"
#include "engine/api/preprocess.h"
#include "engine/runtime/packer.h"
#include "engine/runtime/safetensors.h"
#include "model/weight_names.h"

namespace vlr {
namespace {

// Sizes of the CPU backend. Batches beyond a few hundred tokens gain nothing there, and larger ones
// fall out of the caches; a wave is what is decoded and kept before it is scored.
constexpr int64_t kCpuBatchTokens = 1024;
constexpr int64_t kCpuBatchPatches = 2048;
constexpr int64_t kWaveTokens = 32768;
constexpr int64_t kWaveVisualTokens = 8192;
constexpr int64_t kChunkDocuments =
    64;  // prepared at a time, so that a wave does not overshoot by much
constexpr int64_t kChunkMedia = 16;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Status check_options(const Options& o) {
  const auto wrong = [](std::string message) {
    return Status(Code::kInvalidArgument, "options: " + message);
  };
  if (o.device != "auto" && o.device != "cpu") {
    return {Code::kUnimplemented,
            fmt::format("options: device must be auto or cpu, got '{}'", o.device)};
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

  std::atomic<bool> cancelled{false};
  std::string name;
  Usage usage;

 private:
  Impl(const Options& o, ModelConfig c, Tokenizer t)
      : options(o), config(std::move(c)), tokenizer(std::move(t)), threads(o.num_threads) {
    choices.insert(o.impls.begin(), o.impls.end());
  }

  /// Moves `next` forward over all documents until the wave is full.
  Wave prepare_wave(std::span<const Request> requests, PairRef& next);
  Status run_vision(Wave& wave, VisionFeatures& features);
  Status run_prefixes(Wave& wave, VisionFeatures& features);
  Status run_batch(std::span<Pair*> batch, VisionFeatures& features);
  TextInput text_input(const Pair& pair) const;

  Options options;
  ModelConfig config;
  Tokenizer tokenizer;
  ThreadPool threads;
  ImplChoices choices;
  WeightStore weights;
  std::unique_ptr<ModelRunner> runner;
  std::unique_ptr<Preprocessor> preprocessor;
  double load_seconds = 0;

  struct SharedPrefix {
    int64_t row = 0, tokens = 0;  // in runner->prefixes()
  };
  std::map<std::string, SharedPrefix> prefixes;  // of the current wave
};

Result<std::unique_ptr<Reranker::Impl>> Reranker::Impl::open(const std::string& path,
                                                             const Options& options) {
  const double start = now();
  VLR_RETURN_IF_ERROR(check_options(options));
  const std::filesystem::path folder(path);
  VLR_ASSIGN_OR_RETURN(ModelConfig config, read_config((folder / "config.json").string()));
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

  std::unique_ptr<Impl> impl(new Impl(options, std::move(config), std::move(tokenizer)));
  VLR_ASSIGN_OR_RETURN(impl->weights, WeightStore::load(std::move(checkpoint), plan));
  const WeightLookup lookup = [&store = impl->weights](std::string_view name) {
    return store.get(name);
  };
  VLR_ASSIGN_OR_RETURN(
      impl->runner, ModelRunner::create(impl->config, lookup, impl->threads, impl->choices,
                                        {options.on_value, options.wants_value, options.on_node}));
  impl->preprocessor =
      std::make_unique<Preprocessor>(impl->tokenizer, impl->config, impl->options, impl->threads);
  impl->name = std::filesystem::weakly_canonical(folder).filename().string();
  impl->load_seconds = now() - start;
  return impl;
}

Result<std::vector<Response>> Reranker::Impl::score(std::span<const Request> requests,
                                                    const OnResult& on_result) {
  const double start = now();
  cancelled = false;
  usage = {};
  usage.seconds.load = load_seconds;
  std::vector<Response> responses(requests.size());
  for (size_t r = 0; r < requests.size(); ++r) {
    if (!requests[r].query.error.empty()) {
      return {Code::kInvalidArgument,
              fmt::format("request {}: query: {}", r, requests[r].query.error)};
    }
    responses[r].results.resize(requests[r].documents.size());
  }
  const auto report = [&](const Pair& pair) {
    const DocumentResult& result = pair.result;
    responses[static_cast<size_t>(result.request)].results[static_cast<size_t>(result.index)] =
        result;
    if (on_result) on_result(result);
  };

  for (PairRef next; next.request < std::ssize(requests);) {
    Wave wave = prepare_wave(requests, next);
    const auto finish = [&](Pair& pair, DocumentStatus status, std::string message) {
      pair.result.status = status;
      pair.result.message = std::move(message);
      report(pair);
    };
    std::vector<Pair*> ready;
    for (Pair& pair : wave.pairs) {
      if (pair.result.scored())
        ready.push_back(&pair);
      else
        report(pair);
    }
    VisionFeatures features;
    Status status = run_vision(wave, features);
    if (status.ok()) status = run_prefixes(wave, features);
    std::vector<int64_t> lengths;
    for (const Pair* pair : ready)
      lengths.push_back(static_cast<int64_t>(text_input(*pair).ids.size()));
    const int64_t budget = options.batch_tokens > 0 ? options.batch_tokens : kCpuBatchTokens;
    for (const std::vector<size_t>& members : pack_batches(lengths, budget)) {
      std::vector<Pair*> batch;
      for (size_t i : members) batch.push_back(ready[i]);
      if (cancelled) {
        for (Pair* pair : batch)
          finish(*pair, DocumentStatus::kCancelled, "cancelled before it was reached");
        continue;
      }
      if (status.ok()) {
        const Status of_batch = run_batch(batch, features);
        for (Pair* pair : batch) {
          if (of_batch.ok())
            report(*pair);
          else
            finish(*pair, DocumentStatus::kError, of_batch.message());
        }
      } else {
        for (Pair* pair : batch) finish(*pair, DocumentStatus::kError, status.message());
      }
    }
  }
  usage.seconds.total = now() - start;
  return responses;
}

Wave Reranker::Impl::prepare_wave(std::span<const Request> requests, PairRef& next) {
  Wave wave;
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
    preprocessor->prepare(requests, chunk, wave, usage.seconds);
  }
  return wave;
}

Status Reranker::Impl::run_vision(Wave& wave, VisionFeatures& features) {
  const double start = now();
  std::vector<bool> needed(wave.media.size(), false);
  for (const Pair& pair : wave.pairs) {
    if (!pair.result.scored()) continue;
    for (size_t m : pair.media) needed[m] = true;
  }
  std::vector<VisionInput> inputs;
  int64_t row = 0;
  for (size_t m = 0; m < wave.media.size(); ++m) {
    if (!needed[m]) continue;
    LoadedMedia& media = wave.media[m];
    const Patches& p = *media.patches;
    inputs.push_back(
        {.grid_t = p.grid_t, .grid_h = p.grid_h, .grid_w = p.grid_w, .patches = p.data});
    media.first_row = row;
    row += media.tokens();
  }
  VLR_ASSIGN_OR_RETURN(features, runner->run_vision(inputs, kCpuBatchPatches));
  for (Pair& pair : wave.pairs) {
    if (!pair.result.scored()) continue;
    // From "token i of this sequence's pictures" to a row of the features.
    std::vector<int32_t> row_of;
    for (size_t m : pair.media) {
      for (int64_t i = 0; i < wave.media[m].tokens(); ++i)
        row_of.push_back(static_cast<int32_t>(wave.media[m].first_row + i));
    }
    for (int32_t& index : pair.where.visual_index) {
      if (index >= 0) index = row_of[static_cast<size_t>(index)];
    }
  }
  usage.image_tokens += row;
  usage.seconds.vision += now() - start;
  return {};
}

/// A prefix is computed once where at least two pairs of the wave have it.
Status Reranker::Impl::run_prefixes(Wave& wave, VisionFeatures& features) {
  prefixes.clear();
  if (!options.share_prefix) return runner->reset_prefixes(0);
  const double start = now();
  std::map<std::string_view, std::pair<const Pair*, int64_t>>
      users;  // first pair with the key, how many
  for (const Pair& pair : wave.pairs) {
    if (!pair.result.scored() || pair.prompt.prefix_len == 0) continue;
    auto& [first, count] = users[pair.prefix_key];
    if (count++ == 0) first = &pair;
  }
  std::vector<const Pair*> shared;
  std::vector<int64_t> lengths;
  int64_t rows = 0;
  for (const auto& [key, user] : users) {
    if (user.second < 2) continue;
    shared.push_back(user.first);
    lengths.push_back(user.first->prompt.prefix_len);
    rows += lengths.back();
    usage.shared_prefix_tokens += lengths.back() * (user.second - 1);
  }
  VLR_RETURN_IF_ERROR(runner->reset_prefixes(rows));
  const int64_t budget = options.batch_tokens > 0 ? options.batch_tokens : kCpuBatchTokens;
  for (const std::vector<size_t>& members : pack_batches(lengths, budget)) {
    std::vector<TextInput> batch;
    int64_t row = runner->prefixes().used;
    for (size_t i : members) {
      const Pair& pair = *shared[i];
      TextInput input = text_input(pair);  // not yet in `prefixes`: the whole sequence
      input.ids = input.ids.first(static_cast<size_t>(lengths[i]));
      input.visual_rows = input.visual_rows.first(static_cast<size_t>(lengths[i]));
      batch.push_back(input);
    }
    VLR_RETURN_IF_ERROR(runner->run_prefixes(batch, features));
    for (size_t i : members) {
      prefixes[shared[i]->prefix_key] = {.row = row, .tokens = lengths[i]};
      row += lengths[i];
      usage.tokens += lengths[i];
    }
    ++usage.batches;
  }
  usage.seconds.text += now() - start;
  return {};
}

/// The tokens of a pair that its batch runs: all, or those behind its shared prefix.
TextInput Reranker::Impl::text_input(const Pair& pair) const {
  TextInput input{.ids = pair.prompt.ids,
                  .positions = pair.where.positions,
                  .positions_stride = std::ssize(pair.prompt.ids),
                  .offset = 0,
                  .visual_rows = pair.where.visual_index,
                  .prefix_row = 0,
                  .prefix_len = 0};
  if (const auto it = prefixes.find(pair.prefix_key); it != prefixes.end()) {
    const auto prefix = static_cast<size_t>(it->second.tokens);
    input.ids = input.ids.subspan(prefix);
    input.visual_rows = input.visual_rows.subspan(prefix);
    input.offset = it->second.tokens;
    input.prefix_row = it->second.row;
    input.prefix_len = it->second.tokens;
  }
  return input;
}

Status Reranker::Impl::run_batch(std::span<Pair*> batch, VisionFeatures& features) {
  const double start = now();
  std::vector<TextInput> inputs;
  for (const Pair* pair : batch) {
    inputs.push_back(text_input(*pair));
    usage.tokens += std::ssize(inputs.back().ids);
  }
  ++usage.batches;
  VLR_ASSIGN_OR_RETURN(const std::vector<float> log_odds, runner->run_scores(inputs, features));
  for (size_t i = 0; i < batch.size(); ++i) {
    DocumentResult& result = batch[i]->result;
    if (!std::isfinite(log_odds[i])) {
      result.status = DocumentStatus::kError;
      result.message =
          fmt::format("log-odds is {}: the weights or an activation are out of range", log_odds[i]);
      continue;
    }
    result.log_odds = log_odds[i];
    result.score = sigmoid(log_odds[i]);
  }
  usage.seconds.text += now() - start;
  return {};
}

Result<std::vector<Explanation>> Reranker::Impl::explain(const Request& request) {
  if (!request.query.error.empty())
    return {Code::kInvalidArgument, "query: " + request.query.error};
  Preprocessor with_text(tokenizer, config, options, threads, true);
  std::vector<PairRef> refs;
  for (int64_t i = 0; i < std::ssize(request.documents); ++i)
    refs.push_back({.request = 0, .index = i});
  Wave wave;
  Usage::Seconds seconds;
  with_text.prepare({&request, 1}, refs, wave, seconds);
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

Result<MemoryPlan> Reranker::plan(const std::string& path, const Options& options,
                                  const Workload& workload) {
  VLR_RETURN_IF_ERROR(check_options(options));
  VLR_ASSIGN_OR_RETURN(const ModelConfig config,
                       read_config((std::filesystem::path(path) / "config.json").string()));
  if (workload.documents < 1 || workload.tokens_per_document < 1 ||
      workload.images_per_document < 0 || workload.patches_per_image < 4) {
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
  VLR_ASSIGN_OR_RETURN(const WeightPlan plan,
                       make_weight_plan(config, stored, {.yes = 0, .no = 1}));
  std::map<std::string, ConstTensor, std::less<>> shapes;
  int64_t copied = 0, mapped = 0;
  for (const WeightSpec& spec : plan) {
    ConstTensor t;
    t.dtype = config.dtype.value_or(DType::kBF16);
    t.rank = static_cast<int>(spec.shape.size());
    int64_t stride = 1;
    for (int i = t.rank - 1; i >= 0; --i) {
      t.dims[static_cast<size_t>(i)] = spec.shape[static_cast<size_t>(i)];
      t.strides[static_cast<size_t>(i)] = stride;
      stride *= spec.shape[static_cast<size_t>(i)];
    }
    const bool whole = spec.parts.size() == 1 && spec.parts[0].num_rows == spec.parts[0].shape[0];
    (whole ? mapped : copied) += t.bytes();
    shapes[spec.name] = t;
  }
  ThreadPool threads(options.num_threads);
  const ImplChoices choices(options.impls.begin(), options.impls.end());
  const WeightLookup lookup = [&](std::string_view name) -> Result<ConstTensor> {
    const auto it = shapes.find(name);
    if (it == shapes.end()) return {Code::kNotFound, fmt::format("no weight {}", name)};
    return it->second;
  };
  VLR_ASSIGN_OR_RETURN(const std::unique_ptr<ModelRunner> runner,
                       ModelRunner::create(config, lookup, threads, choices, {}));

  const int64_t budget = options.batch_tokens > 0 ? options.batch_tokens : kCpuBatchTokens;
  const int64_t image_tokens = workload.images_per_document * workload.patches_per_image / 4;
  const int64_t sequence = workload.tokens_per_document + image_tokens;
  const int64_t prefix = options.share_prefix && workload.documents > 1
                             ? std::min<int64_t>(64, workload.tokens_per_document / 2)
                             : 0;
  const int64_t own = sequence - prefix;
  const int64_t per_batch = std::clamp<int64_t>(budget / own, 1, workload.documents);
  const int64_t visual =
      std::min(image_tokens * workload.documents, kWaveVisualTokens + image_tokens * kChunkMedia);
  VLR_ASSIGN_OR_RETURN(const RunPlan text,
                       runner->plan_scores(per_batch * own, per_batch, prefix, visual));
  RunPlan vision;
  if (image_tokens > 0) {
    VLR_ASSIGN_OR_RETURN(
        vision, runner->plan_vision(
                    std::max(workload.patches_per_image,
                             std::min(kCpuBatchPatches, image_tokens * workload.documents * 4))));
  }
  const int64_t levels =
      config.vision_config ? 1 + std::ssize(config.vision_config->deepstack_visual_indexes) : 0;
  const RunPlan& larger = text.total() > vision.total() ? text : vision;
  MemoryPlan out;
  out.parts = {{"weights, mapped from the checkpoint", mapped},
               {"weights, fused copies", copied},
               {"activations", larger.activation_bytes},
               {"workspace", larger.workspace_bytes},
               {"prefix keys and values", prefix * runner->prefix_row_bytes()},
               {"vision features", visual * levels * config.text_config.hidden_size * 4},
               {"decoded patches", visual * 4 * kPatchValues}};
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
void Reranker::cancel() { impl_->cancelled = true; }
const Usage& Reranker::usage() const { return impl_->usage; }
std::string_view Reranker::model_name() const { return impl_->name; }
std::string_view Reranker::device() const { return "cpu"; }
std::string_view Reranker::dtype() const { return "f32"; }

}  // namespace vlr
