/// Reranker::plan(): a model that is prepared for a device that is not there, and asked what it
/// takes.
#include <fmt/format.h>

#include <memory>
#include <utility>

#include "engine/api/guard.h"
#include "engine/api/options.h"
#include "engine/placement/device_options.h"
#include "engine/placement/memory_plan.h"
#include "engine/placement/memory_planner.h"
#include "engine/placement/prepared_model.h"
#include "engine/runtime/device.h"
#include "engine/runtime/purposes.h"
#include "engine/scheduling/preprocess.h"
#include "model/config.h"
#include "vlr/reranker.h"

namespace vlr {
namespace {

constexpr int64_t kNoCap = int64_t{1} << 40;  // there is no card to ask

/// Products of these have room in 64 bits.
Status check_workload(const Workload& w) {
  const auto check = [](std::string_view what, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return Status();
    return Status(Code::kInvalidArgument,
                  fmt::format("workload: {} must be {} to {}, got {}", what, least, most, value));
  };
  VLR_RETURN_IF_ERROR(check("documents", w.documents, 1, int64_t{1} << 24));
  VLR_RETURN_IF_ERROR(check("tokens_per_document", w.tokens_per_document, 1, int64_t{1} << 30));
  VLR_RETURN_IF_ERROR(check("images_per_document", w.images_per_document, 0, 1 << 12));
  VLR_RETURN_IF_ERROR(check("images_per_query", w.images_per_query, 0, 1 << 12));
  return check("patches_per_image", w.patches_per_image, 4, int64_t{1} << 24);
}

Result<MemoryPlan> plan_model(const std::string& path, const Options& given,
                              const Workload& workload) {
  VLR_RETURN_IF_ERROR(check_options(given));
  Options options = given;
  VLR_RETURN_IF_ERROR(check_workload(workload));
  VLR_ASSIGN_OR_RETURN(ModelFolder folder, ModelFolder::open(path, ModelFolder::Weights::kIfThere));
  VLR_ASSIGN_OR_RETURN(ModelSource source, ModelSource::of_shapes(std::move(folder)));
  ThreadPool threads(options.num_threads);
  const ImplChoices choices(options.impls.begin(), options.impls.end());
  VLR_ASSIGN_OR_RETURN(const DeviceSpec spec, DeviceSpec::parse_for_planning(options.device));
  VLR_ASSIGN_OR_RETURN(const std::unique_ptr<OpenDevice> device,
                       OpenDevice::for_planning(spec, threads, choices));
  VLR_ASSIGN_OR_RETURN(PreparedModel prepared, prepare(std::move(source), options, *device));
  VLR_ASSIGN_OR_RETURN(
      const std::unique_ptr<MemoryPlanner> planner,
      MemoryPlanner::create(options, prepared.source.config, std::move(prepared.source.plan),
                            prepared.graph, *device));
  VLR_RETURN_IF_ERROR(check_impls(choices, planner->runner()));
  VLR_ASSIGN_OR_RETURN(const int64_t cap,
                       cap_of(*device, options.gpu_memory > 0 ? options.gpu_memory : kNoCap));
  VLR_ASSIGN_OR_RETURN(const PlacedModel placed, planner->choose(cap));
  VLR_ASSIGN_OR_RETURN(MemoryPlan out, plan_memory(*planner, placed, options, workload));
  (device->is_gpu() ? out.host_parts : out.parts)
      .push_back({std::string(purposes::kTexts), Preprocessor::scratch_bytes(threads)});
  out.preset = std::move(prepared.preset);
  if (device->is_gpu()) {
    out.smallest_cap = planner->smallest_cap(
        [&](const BatchLimits& limits) { return enough_for(workload, options, limits); });
  }
  return out;
}

}  // namespace

Result<MemoryPlan> Reranker::plan(const std::string& path, const Options& options,
                                  const Workload& workload) {
  return guarded([&] { return plan_model(path, options, workload); });
}

}  // namespace vlr
