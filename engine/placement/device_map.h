/// Which weights stay on a GPU and which come to it from host memory or disk when they are needed.
///
/// A map is a list of NAME=PLACE, or a JSON object {NAME: PLACE} as Hugging Face's device_map, or
/// the path of a file with one. What a name stands for:
///   layers.18-35, model.layers.18,
///   model.language_model.layers.18                      decoder layers
///   vision, model.visual, model.visual.blocks.3         the vision tower, or parts of it
///   embed_tokens, model.embed_tokens                    the embedding table
///   text; model, the empty name                         all of the decoder; everything
///   norm, lm_head                                       always on the GPU: a few rows
/// Places: cuda, cuda:N and N are the GPU that was opened; cpu is pinned host memory, from which
/// layers are copied ahead of their use and embeddings are read row by row; disk is a folder, from
/// which layers are read ahead of that, and for embeddings the same as cpu; cpu-exec is ordinary
/// host memory, with which the CPU computes whole decoder layers. The longest name counts.
#ifndef VLR_ENGINE_PLACEMENT_DEVICE_MAP_H_
#define VLR_ENGINE_PLACEMENT_DEVICE_MAP_H_

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/weights/weight_store.h"
#include "vlr/status.h"

namespace vlr {

class DeviceMap {
 public:
  /// kInvalidArgument: not a map, a name or a place that is none, ranges that are more than 65536
  /// names together; the errors of reading a file.
  static Result<DeviceMap> parse(std::string_view text);
  /// One more NAME=PLACE, whose place is kDevice, kStreamed for cpu, kDisk or kCpuExec.
  Status add(std::string_view name, WeightPlace place);

  /// Sets place and group of every weight that a name stands for. A decoder layer is one group, or
  /// `by_matrix` four: each of its products with what is read beside it. A group of which some
  /// weight is to be on disk is there as a whole, but for what stays on the GPU. kInvalidArgument:
  /// a name that stands for no weight of the model, cpu-exec for what is no whole decoder layer.
  Status apply(WeightPlan& plan, bool by_matrix = false) const;

 private:
  struct Rule {
    std::string name;    ///< as it was given
    std::string prefix;  ///< of canonical names of weights, ending in '.', or empty
    WeightPlace place = WeightPlace::kDevice;  ///< kStreamed or kDisk of what is in a group
  };
  std::vector<Rule> rules_;
};

/// Decoder layers of a plan with which the CPU computes.
std::set<int64_t> cpu_exec_layers(const WeightPlan& plan);

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_DEVICE_MAP_H_
