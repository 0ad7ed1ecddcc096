/// Position ids of the text decoder's three rotary axes, and the rotary tables' constants.
#ifndef VLR_MODEL_MROPE_POSITIONS_H_
#define VLR_MODEL_MROPE_POSITIONS_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "vlr/status.h"

namespace vlr {

/// A run of pads in a prompt: one image, or one temporal patch of a video. Sizes in merged tokens.
struct VisualRun {
  int64_t rows = 0, columns = 0;
  int64_t tokens() const { return rows * columns; }
};

/// Where the tokens of a sequence stand.
struct SequencePositions {
  std::vector<int32_t> positions;  ///< [3, S]: time, row, column
  std::vector<int32_t>
      visual_index;  ///< [S]: for a pad of `images` then `videos` its running number over
                     ///< both lists (images' tokens first), -1 for every other token
};

/// Reads the ids from left to right. An image pad starts the next run of `images`, a video pad the
/// next of `videos`; pads beyond the given runs are ordinary tokens. kInvalidArgument if a run is
/// cut short or left over.
Result<SequencePositions> mrope_positions(std::span<const int32_t> ids, const ModelConfig& config,
                                          std::span<const VisualRun> images,
                                          std::span<const VisualRun> videos);

/// Axis and inverse frequency of every rotary pair (see kernels/rope_table).
struct RotaryPairs {
  std::vector<int32_t> axis;
  std::vector<float> inv_freq;
};

/// Interleaved M-RoPE: T H W T H W ... while a section lasts, then T.
RotaryPairs text_rotary_pairs(const TextConfig& config);
/// Vision: the first half of the pairs turns by the row, the second by the column.
RotaryPairs vision_rotary_pairs(const VisionConfig& config);

}  // namespace vlr

#endif  // VLR_MODEL_MROPE_POSITIONS_H_
