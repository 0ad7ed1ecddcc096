/// What a placed model takes for some work, by purpose.
#ifndef VLR_ENGINE_PLACEMENT_MEMORY_PLAN_H_
#define VLR_ENGINE_PLACEMENT_MEMORY_PLAN_H_

#include "engine/placement/memory_planner.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// Whether no document of such work is refused for want of memory.
bool enough_for(const Workload& workload, const Options& options, const BatchLimits& limits);

/// An upper bound of every purpose, by what score() takes for such work within the model's limits.
/// kOutOfMemory: a document does not fit under the cap; names the smallest one under which it does.
Result<MemoryPlan> plan_memory(MemoryPlanner& planner, const PlacedModel& placed,
                               const Options& options, const Workload& workload);

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_MEMORY_PLAN_H_
