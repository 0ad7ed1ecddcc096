#include "engine/placement/loaded_model.h"

#include <utility>

#include "engine/placement/device_map.h"
#include "engine/placement/device_options.h"
#include "engine/placement/memory_watch.h"
#include "engine/runtime/purposes.h"
#include "kernels/core/clock.h"

namespace vlr {
/// The checks work where passes will, so that no plan has to count them.
Status LoadedModel::check(const Options& options, const WeightLookup& lookup, OpenDevice& device,
                          DType dtype) {
  runner->passes().arena.release();
  QuantModes on_device = modes;
  std::erase_if(on_device, [&](const auto& mode) { return weights.contains(mode.first); });
  VLR_RETURN_IF_ERROR(
      choose_fused_products(on_device, lookup, device, dtype, options.exact, stream.get()));
  if (!options.self_check) return {};
  VLR_ASSIGN_OR_RETURN(distances, check_fingerprints(modes, lookup, device_weights.fingerprints(),
                                                     device, dtype, stream.get()));
  VLR_ASSIGN_OR_RETURN(const std::vector<WeightDistance> on_cpu,
                       check_fingerprints(modes, lookup, weights.fingerprints(),
                                          runner->passes().host(), DType::kF32));
  distances.insert(distances.end(), on_cpu.begin(), on_cpu.end());
  return {};
}

Result<std::unique_ptr<LoadedModel>> LoadedModel::load(const Options& options,
                                                       PreparedModel prepared, OpenDevice& device,
                                                       Observers observers) {
  auto out = std::make_unique<LoadedModel>();
  LoadedModel& m = *out;
  const bool gpu = device.is_gpu();
  ModelSource& source = prepared.source;
  const GraphOptions& graph = prepared.graph;
  const DType dtype = graph.dtype;
  m.config = std::move(source.config);
  const ModelConfig& config = m.config;
  m.stored = std::move(source.stored);
  m.modes = graph.quant;
  m.stored_quantized = prepared.stored_quantized;
  {
    // Before anything is loaded.
    VLR_ASSIGN_OR_RETURN(
        const std::unique_ptr<MemoryPlanner> planner,
        MemoryPlanner::create(options, config, std::move(source.plan), graph, device));
    VLR_RETURN_IF_ERROR(check_impls(*device.context().choices, planner->runner()));
    int64_t cap = 0;
    if (gpu) {
      VLR_ASSIGN_OR_RETURN(cap, cap_of(device, options.gpu_memory));
    }
    VLR_ASSIGN_OR_RETURN(m.placed, planner->choose(cap));
    device.budget().set_cap(cap);
  }
  // What the device computes with, and what the CPU does.
  WeightPlan plan, cpu_plan;
  for (const WeightSpec& spec : m.placed.plan)
    (!gpu || spec.place == WeightPlace::kCpuExec ? cpu_plan : plan).push_back(spec);
  WeightLoading loading{.read = source.read, .offload_folder = options.offload_folder};
  int64_t bytes = 0;
  if (options.on_progress) {
    loading.on_progress = [&](int64_t done, int64_t total) {
      bytes = total;
      options.on_progress({.bytes_done = done, .bytes_total = total, .what = "weights"});
    };
  }
  const auto say = [&](std::string_view what) {
    if (options.on_progress)
      options.on_progress({.bytes_done = bytes, .bytes_total = bytes, .what = what});
  };
  WeightLookup lookup = [&m](std::string_view weight) {
    return m.weights.contains(weight) ? m.weights.get(weight) : m.device_weights.get(weight);
  };
  DeviceWeights::Fill fill;
  if (source.fill) {
    fill = [&](const WeightSpec& weight, const Tensor& to) {
      return source.fill(weight, to, device.context());
    };
  }
  if (gpu) {
    VLR_ASSIGN_OR_RETURN(
        m.device_weights,
        source.checkpoint ? DeviceWeights::load(*source.checkpoint, plan, dtype, device, &loading)
                          : DeviceWeights::make(plan, dtype, device, fill, options.offload_folder));
    if (!m.device_weights.groups().empty()) {
      VLR_ASSIGN_OR_RETURN(m.stream, WeightStream::create(device, m.device_weights));
    }
    VLR_RETURN_IF_ERROR(device.reserve_ring());
  }
  if (!cpu_plan.empty()) {
    if (source.checkpoint) {
      WeightLoading beside{.read = source.read};  // a GPU's were all the progress there was
      VLR_ASSIGN_OR_RETURN(m.weights,
                           WeightStore::load(*std::move(source.checkpoint), cpu_plan,
                                             device.context().threads, gpu ? &beside : &loading));
    } else if (!source.fill) {  // shapes alone, for planning
      m.weights = WeightStore::for_planning(cpu_plan, config.dtype.value_or(DType::kBF16));
    } else {
      return {Code::kUnimplemented, "device_map: cpu-exec computes with weights of a checkpoint"};
    }
    MemoryBudget& host = device.host_budget();
    VLR_RETURN_IF_ERROR(host.take(purposes::kMappedWeights, m.weights.bytes_mapped()));
    VLR_RETURN_IF_ERROR(host.take(purposes::kCopiedWeights, m.weights.bytes_owned()));
  }
  m.read = loading.stats;
  VLR_ASSIGN_OR_RETURN(m.layers, layer_bytes(m.placed.plan, lookup, dtype, device.kind()));
  VLR_ASSIGN_OR_RETURN(m.runner,
                       ModelRunner::create(config, lookup, device, graph, std::move(observers),
                                           m.stream.get(), cpu_exec_layers(m.placed.plan)));
  m.runner->passes().row_chunk = m.placed.placement.row_chunk;
  // What is recorded would not wait for the weights.
  if (!options.record_small_batches || m.stream) m.runner->score().recordings.max_tokens = 0;
  const BatchLimits& limits = m.placed.limits;
  VLR_RETURN_IF_ERROR(m.runner->reserve_prefixes(limits.prefix_rows));
  double start = seconds_now();
  if (gpu && options.measure_kernels) {
    say("kernels");
    VLR_RETURN_IF_ERROR(m.runner->measure(limits.tokens, limits.patches));
  }
  m.measure_seconds = seconds_now() - start;
  start = seconds_now();
  if (!m.modes.empty()) {
    say("self-check");
    VLR_RETURN_IF_ERROR(device.compute([&] { return m.check(options, lookup, device, dtype); }));
  }
  VLR_RETURN_IF_ERROR(device.synchronize());
  if (gpu) m.runner->passes().arena.release();  // passes take what they need
  m.check_seconds = seconds_now() - start;
  return out;
}

}  // namespace vlr
