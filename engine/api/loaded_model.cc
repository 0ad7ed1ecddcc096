#include "engine/api/loaded_model.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/api/device_map.h"
#include "kernels/cuda/weight_ring.h"
#include "model/weight_names.h"

namespace vlr {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Result<std::vector<QuantRule>> quant_rules(const Options& options) {
  std::vector<QuantRule> rules;
  if (!options.quant.empty()) {
    VLR_ASSIGN_OR_RETURN(const QuantMode mode, parse_quant_mode(options.quant));
    rules.push_back({"text", mode});
  }
  for (const std::string& text : options.quant_rules) {
    VLR_ASSIGN_OR_RETURN(QuantRule rule, parse_quant_rule(text));
    rules.push_back(std::move(rule));
  }
  return rules;
}

Result<QuantModes> prepare_plan(WeightPlan& plan, const Options& options, const DeviceSpec& device,
                                const StoredQuantization& stored) {
  VLR_ASSIGN_OR_RETURN(const std::vector<QuantRule> rules, quant_rules(options));
  VLR_ASSIGN_OR_RETURN(QuantModes modes, apply_quantization(plan, rules, stored));
  if (device.kind == Device::kCuda) {
    VLR_ASSIGN_OR_RETURN(const DeviceMap map, DeviceMap::parse(options.device_map));
    VLR_RETURN_IF_ERROR(map.apply(plan));
    for (WeightSpec& spec : plan) {
      if (options.host_embeddings && spec.name == weights::kEmbedTokens)
        spec.place = WeightPlace::kHost;
    }
  } else if (!options.device_map.empty()) {
    return {Code::kInvalidArgument,
            "options: a device_map places weights for a GPU, on the CPU all "
            "of them are in host memory"};
  }
  return modes;
}

int64_t ring_place_bytes(const WeightPlan& plan, const QuantModes& modes, DType dtype) {
  int64_t largest = 0;
  for (const WeightSpec& spec : plan) {
    const auto it = modes.find(spec.name);
    if (it == modes.end()) continue;
    if (is_w8a8(it->second) && !sets_outliers_apart(it->second)) continue;
    largest = std::max(largest, spec.shape[0] * spec.shape[1] * dtype_bytes(dtype));
  }
  return std::min(largest, cuda::kWeightRingPlace);
}

Result<std::unique_ptr<LoadedModel>> LoadedModel::load(const Options& options,
                                                       const ModelConfig& config, DType dtype,
                                                       WeightSource source, OpenDevice& device,
                                                       ModelRunner::Observers observers) {
  auto out = std::make_unique<LoadedModel>();
  LoadedModel& m = *out;
  const bool gpu = device.is_gpu();
  m.stored = std::move(source.stored);
  VLR_ASSIGN_OR_RETURN(m.modes, prepare_plan(source.plan, options, device.spec(), m.stored));
  for (const WeightSpec& spec : source.plan) {
    for (const WeightPart& part : spec.parts)
      m.stored_quantized = m.stored_quantized || part.stored != WeightFormat::kDense;
  }
  WeightLookup lookup;
  if (gpu) {
    VLR_RETURN_IF_ERROR(set_cap(device, options.gpu_memory));
    VLR_ASSIGN_OR_RETURN(m.device_weights,
                         source.checkpoint
                             ? DeviceWeights::load(*source.checkpoint, source.plan, dtype, device)
                             : DeviceWeights::make(source.plan, dtype, device, source.fill));
    lookup = [&m](std::string_view weight) { return m.device_weights.get(weight); };
    if (!m.device_weights.groups().empty())
      m.stream = std::make_unique<WeightStream>(device, m.device_weights);
    VLR_RETURN_IF_ERROR(device.reserve_ring(ring_place_bytes(source.plan, m.modes, dtype)));
  } else {
    VLR_ASSIGN_OR_RETURN(m.weights, WeightStore::load(*std::move(source.checkpoint), source.plan,
                                                      device.context().threads));
    lookup = [&m](std::string_view weight) { return m.weights.get(weight); };
  }
  VLR_ASSIGN_OR_RETURN(m.runner, ModelRunner::create(config, lookup, device,
                                                     graph_options(options, device, dtype, m.modes),
                                                     std::move(observers), m.stream.get()));
  VLR_RETURN_IF_ERROR(check_impls(*device.context().choices, *m.runner));
  // What is recorded would not wait for the weights.
  if (!options.record_small_batches || m.stream) m.runner->recordings.max_tokens = 0;
  VLR_ASSIGN_OR_RETURN(m.limits, choose_limits(options, *m.runner));
  VLR_RETURN_IF_ERROR(m.runner->reserve_prefixes(m.limits.prefix_rows));
  double start = now();
  if (gpu && options.measure_kernels)
    VLR_RETURN_IF_ERROR(m.runner->measure(m.limits.tokens, m.limits.patches));
  m.measure_seconds = now() - start;
  start = now();
  if (!m.modes.empty()) {
    // The checks work where passes will, so that no plan has to count them.
    const int64_t arena_bytes = m.runner->arena_bytes();
    VLR_RETURN_IF_ERROR(m.runner->resize_arena(0));
    VLR_RETURN_IF_ERROR(
        choose_fused_products(m.modes, lookup, device, dtype, options.exact, m.stream.get()));
    if (options.self_check) {
      const Fingerprints& fingerprints =
          gpu ? m.device_weights.fingerprints() : m.weights.fingerprints();
      VLR_ASSIGN_OR_RETURN(m.distances, check_fingerprints(m.modes, lookup, fingerprints, device,
                                                           dtype, m.stream.get()));
    }
    VLR_RETURN_IF_ERROR(m.runner->resize_arena(arena_bytes));
  }
  VLR_RETURN_IF_ERROR(device.synchronize());
  m.check_seconds = now() - start;
  return out;
}

}  // namespace vlr
