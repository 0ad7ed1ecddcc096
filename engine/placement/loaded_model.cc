#include "engine/placement/loaded_model.h"

#include <utility>

#include "engine/placement/device_map.h"
#include "engine/placement/device_options.h"
#include "engine/placement/memory_watch.h"
#include "engine/runtime/purposes.h"
#include "engine/weights/quantized_tensors.h"
#include "kernels/core/clock.h"

namespace vlr {
namespace {

/// The steps of a load, in the order in which they are taken. What they make is the model's.
class Loading {
 public:
  /// Options, device and model must outlive it.
  Loading(const Options& options, PreparedModel prepared, OpenDevice& device, LoadedModel& model);

  /// Where weights go and how large batches are, before anything is loaded.
  Status choose_places();
  Status load_weights();
  Status make_runner(Observers observers);
  Status measure_kernels();
  /// At the end, passes have the arena to themselves.
  Status check();

 private:
  Status load_for_device(const WeightPlan& plan, WeightLoading& loading);
  Status load_for_cpu(const WeightPlan& plan, WeightLoading& loading);
  Status check_quantised();
  void report(std::string_view what) const;

  const Options& options_;
  PreparedModel prepared_;
  OpenDevice& device_;
  LoadedModel& model_;
  const bool gpu_;
  const WeightLookup lookup_;
  int64_t bytes_ = 0;  // of weights, for progress
};

Loading::Loading(const Options& options, PreparedModel prepared, OpenDevice& device,
                 LoadedModel& model)
    : options_(options),
      prepared_(std::move(prepared)),
      device_(device),
      model_(model),
      gpu_(device.is_gpu()),
      lookup_([&model](std::string_view weight) {
        return model.weights.contains(weight) ? model.weights.get(weight)
                                              : model.device_weights.get(weight);
      }) {
  model.config = std::move(prepared_.source.config);
  model.stored = std::move(prepared_.source.stored);
  model.modes = prepared_.graph.quant;
  model.stored_quantized = prepared_.stored_quantized;
}

void Loading::report(std::string_view what) const {
  if (options_.on_progress)
    options_.on_progress({.bytes_done = bytes_, .bytes_total = bytes_, .what = what});
}

Status Loading::choose_places() {
  VLR_ASSIGN_OR_RETURN(
      const std::unique_ptr<MemoryPlanner> planner,
      MemoryPlanner::create(options_, model_.config, std::move(prepared_.source.plan),
                            prepared_.graph, device_));
  VLR_RETURN_IF_ERROR(check_impls(*device_.context().choices, planner->runner()));
  int64_t cap = 0;
  if (gpu_) {
    VLR_ASSIGN_OR_RETURN(cap, cap_of(device_, options_.gpu_memory));
  }
  VLR_ASSIGN_OR_RETURN(model_.placed, planner->choose(cap));
  device_.budget().set_cap(cap);
  return {};
}

Status Loading::load_weights() {
  if (options_.self_check && prepared_.source.checkpoint) {
    VLR_RETURN_IF_ERROR(check_dense(prepared_.source.checkpoint->tensors(),
                                    model_.stored.dense_checksums, *device_.context().threads));
  }
  // What the device computes with, and what the CPU does.
  WeightPlan plan, cpu_plan;
  for (const WeightSpec& spec : model_.placed.plan)
    (!gpu_ || spec.place == WeightPlace::kCpuExec ? cpu_plan : plan).push_back(spec);
  WeightLoading loading{.read = prepared_.source.read, .offload_folder = options_.offload_folder};
  if (options_.on_progress) {
    loading.on_progress = [this](int64_t done, int64_t total) {
      bytes_ = total;
      options_.on_progress({.bytes_done = done, .bytes_total = total, .what = "weights"});
    };
  }
  if (gpu_) VLR_RETURN_IF_ERROR(load_for_device(plan, loading));
  if (!cpu_plan.empty()) VLR_RETURN_IF_ERROR(load_for_cpu(cpu_plan, loading));
  model_.read = loading.stats;
  VLR_ASSIGN_OR_RETURN(model_.layers, layer_bytes(model_.placed.plan, lookup_,
                                                  prepared_.graph.dtype, device_.kind()));
  return {};
}

Status Loading::load_for_device(const WeightPlan& plan, WeightLoading& loading) {
  const ModelSource& source = prepared_.source;
  const DType dtype = prepared_.graph.dtype;
  DeviceWeights::Fill fill;
  if (source.fill) {
    fill = [&](const WeightSpec& weight, const Tensor& to) {
      return source.fill(weight, to, device_.context());
    };
  }
  VLR_ASSIGN_OR_RETURN(
      model_.device_weights,
      source.checkpoint ? DeviceWeights::load(*source.checkpoint, plan, dtype, device_, &loading)
                        : DeviceWeights::make(plan, dtype, device_, fill, options_.offload_folder));
  if (!model_.device_weights.groups().empty()) {
    VLR_ASSIGN_OR_RETURN(model_.stream, WeightStream::create(device_, model_.device_weights));
  }
  return device_.reserve_ring();
}

Status Loading::load_for_cpu(const WeightPlan& plan, WeightLoading& loading) {
  ModelSource& source = prepared_.source;
  if (source.checkpoint) {
    WeightLoading beside{.read = source.read};  // a GPU's were all the progress there was
    VLR_ASSIGN_OR_RETURN(model_.weights,
                         WeightStore::load(*std::move(source.checkpoint), plan,
                                           device_.context().threads, gpu_ ? &beside : &loading));
  } else if (!source.fill) {  // shapes alone, for planning
    model_.weights = WeightStore::for_planning(plan, model_.config.dtype.value_or(DType::kBF16));
  } else {
    return {Code::kUnimplemented, "device_map: cpu-exec computes with weights of a checkpoint"};
  }
  MemoryBudget& host = device_.host_budget();
  VLR_RETURN_IF_ERROR(host.take(purposes::kMappedWeights, model_.weights.bytes_mapped()));
  return host.take(purposes::kCopiedWeights, model_.weights.bytes_owned());
}

Status Loading::make_runner(Observers observers) {
  VLR_ASSIGN_OR_RETURN(
      model_.runner,
      ModelRunner::create(model_.config, lookup_, device_, prepared_.graph, std::move(observers),
                          model_.stream.get(), cpu_exec_layers(model_.placed.plan)));
  ModelRunner& runner = *model_.runner;
  runner.passes().row_chunk = model_.placed.placement.row_chunk;
  // What is recorded would not wait for the weights.
  if (!options_.record_small_batches || model_.stream) runner.score().recordings.max_tokens = 0;
  return runner.reserve_prefixes(model_.placed.limits.prefix_rows);
}

Status Loading::measure_kernels() {
  const double start = seconds_now();
  if (gpu_ && options_.measure_kernels) {
    report("kernels");
    const BatchLimits& limits = model_.placed.limits;
    VLR_RETURN_IF_ERROR(model_.runner->measure(limits.tokens, limits.patches));
  }
  model_.measure_seconds = seconds_now() - start;
  return {};
}

Status Loading::check() {
  const double start = seconds_now();
  if (!model_.modes.empty()) {
    report("self-check");
    VLR_RETURN_IF_ERROR(device_.compute([&] { return check_quantised(); }));
  }
  VLR_RETURN_IF_ERROR(device_.synchronize());
  if (gpu_) model_.runner->passes().arena.release();  // passes take what they need
  model_.check_seconds = seconds_now() - start;
  return {};
}

/// The checks work where passes will, so that no plan has to count them.
Status Loading::check_quantised() {
  LoadedModel& m = model_;
  const DType dtype = prepared_.graph.dtype;
  m.runner->passes().arena.release();
  QuantModes on_device = m.modes;
  std::erase_if(on_device, [&](const auto& mode) { return m.weights.contains(mode.first); });
  VLR_RETURN_IF_ERROR(
      choose_fused_products(on_device, lookup_, device_, dtype, options_.exact, m.stream.get()));
  if (!options_.self_check) return {};
  VLR_ASSIGN_OR_RETURN(
      m.distances, check_fingerprints(m.modes, lookup_, m.device_weights.fingerprints(), device_,
                                      dtype, m.stream.get()));
  VLR_ASSIGN_OR_RETURN(const std::vector<WeightDistance> on_cpu,
                       check_fingerprints(m.modes, lookup_, m.weights.fingerprints(),
                                          m.runner->passes().host(), DType::kF32));
  m.distances.insert(m.distances.end(), on_cpu.begin(), on_cpu.end());
  return {};
}

}  // namespace

Result<std::unique_ptr<LoadedModel>> LoadedModel::load(const Options& options,
                                                       PreparedModel prepared, OpenDevice& device,
                                                       Observers observers) {
  auto model = std::make_unique<LoadedModel>();
  Loading loading(options, std::move(prepared), device, *model);
  VLR_RETURN_IF_ERROR(loading.choose_places());
  VLR_RETURN_IF_ERROR(loading.load_weights());
  VLR_RETURN_IF_ERROR(loading.make_runner(std::move(observers)));
  VLR_RETURN_IF_ERROR(loading.measure_kernels());
  VLR_RETURN_IF_ERROR(loading.check());
  return model;
}

}  // namespace vlr
