/// Frames -> patches: the rows that the vision tower's first layer multiplies.
#ifndef VLR_MULTIMODAL_PATCHIFY_H_
#define VLR_MULTIMODAL_PATCHIFY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "multimodal/image.h"
#include "vlr/status.h"

namespace vlr {

constexpr int64_t kPatchSize = 16;
constexpr int64_t kTemporalPatchSize = 2;
constexpr int64_t kMergeSize = 2;  ///< a block of 2 x 2 patches becomes one token
constexpr int64_t kPatchesPerToken = kMergeSize * kMergeSize;
constexpr int64_t kPatchValues = 3 * kTemporalPatchSize * kPatchSize * kPatchSize;  // 1536

/// The patches of one picture or video, 8 bits a value; the model sees (v - 127.5) / 127.5.
struct Patches {
  int64_t grid_t = 0, grid_h = 0, grid_w = 0;  ///< in patches
  std::span<uint8_t> data;           // [grid_t * grid_h * grid_w, 1536], a patch is [3, 2, 16, 16]
  std::shared_ptr<uint8_t[]> owner;  // of data; copies of Patches share it
  std::vector<double> seconds;       // videos only: [grid_t], mean time of each pair of frames
};

/// Where patches are put: memory of at least `bytes` bytes, contents of no matter, or null when
/// there is none. The caller's way to hand out pinned or reused memory.
using PatchMemory = std::function<std::shared_ptr<uint8_t[]>(size_t bytes)>;

/// Patches of grid_t pairs of frames of width x height pixels, still to be filled; in memory from
/// `memory`, or from the heap without one. kInvalidArgument when a side is not a multiple of 32;
/// kOutOfMemory.
Result<Patches> make_patches(int64_t grid_t, int64_t height, int64_t width,
                             const PatchMemory& memory = {});

/// Writes `frame` as frame number `index` of the video; sizes must fit.
/// Order of patches, slow to fast: pair of frames, row of blocks, block, row in the block, column
/// in it.
Status put_frame(const Image& frame, int64_t index, Patches& patches);

/// A picture: a video of two equal frames, without times.
Result<Patches> patchify_image(const Image& image, const PatchMemory& memory = {});

/// The same for rows as they come.
class PatchSink : public RowSink {
 public:
  explicit PatchSink(const PatchMemory& memory) : memory_(memory) {}  ///< which has to outlive it
  Status start(int64_t width, int64_t height) override;
  std::span<uint8_t> buffer() override { return row_; }
  void put(int64_t num_rows) override;
  Patches take() { return std::move(patches_); }

 private:
  const PatchMemory& memory_;
  Patches patches_;
  std::vector<uint8_t> row_;
  int64_t y_ = 0;
};

}  // namespace vlr

#endif  // VLR_MULTIMODAL_PATCHIFY_H_
