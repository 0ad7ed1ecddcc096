/// The vision tower as a graph over packed patches.
#ifndef VLR_MODEL_VISION_ENCODER_H_
#define VLR_MODEL_VISION_ENCODER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/graph.h"
#include "model/graph_builder.h"

namespace vlr {

/// Names of the values that a pass is given and gives back.
namespace vision_values {
inline constexpr std::string_view kPatches = "patches", kPosIndices = "pos_indices",
                                  kPosWeights = "pos_weights", kPositions = "positions",
                                  kRopeAxis = "rope.axis", kRopeInvFreq = "rope.inv_freq";
}  // namespace vision_values
/// Of a level of features, in both graphs: "visual", then "deepstack.0", "deepstack.1", ...
std::string feature_name(size_t level);

/// Bound values, for P patches (four consecutive ones are one token):
///   patches [P, 1536] u8
///   pos_indices [P, 4] i32, pos_weights [P, 4] f32, positions [2, P] i32     from VisionPositions
///   rope.axis, rope.inv_freq                                                 vision_rotary_pairs()
///   -> visual [P / 4, C], deepstack.K [P / 4, C]
/// Segments, slot 0: one per temporal patch of an image or video.
Graph build_vision_graph(const VisionConfig& config, const GraphOptions& options = {});

/// Position inputs of a batch of patches; append() one image or video after the other.
struct VisionPositions {
  std::vector<int32_t> pos_indices;    ///< [P, 4]
  std::vector<float> pos_weights;      ///< [P, 4]
  std::vector<int32_t> rows, columns;  ///< [P] each, in patches of the frame
  std::vector<ops::AttentionSegment> segments;

  /// grid_t frames of grid_h x grid_w patches, in the order of 2 x 2 blocks.
  void append(const VisionConfig& config, int64_t grid_t, int64_t grid_h, int64_t grid_w);
};

}  // namespace vlr

#endif  // VLR_MODEL_VISION_ENCODER_H_
