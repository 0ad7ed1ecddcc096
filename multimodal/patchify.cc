#include "multimodal/patchify.h"

#include <fmt/format.h>

#include <new>

#include "multimodal/patch_row.h"

namespace vlr {
namespace {

constexpr int64_t kPlane = kPatchSize * kPatchSize;  // values of one colour of one frame
constexpr int64_t kBlock = kMergeSize * kPatchSize;  // 32 pixels

// Writes row y of `frame`, and of the frame behind it, in the same pair, when copies is 2.
void put_row(const uint8_t* rgb, int64_t y, int64_t frame, int64_t copies, Patches& patches) {
  const int64_t pair = frame / kTemporalPatchSize, t = frame % kTemporalPatchSize;
  const int64_t patch = (pair * patches.grid_h + y / kBlock * kMergeSize) * patches.grid_w +
                        y % kBlock / kPatchSize * kMergeSize;
  media::put_patch_row(
      rgb, patches.grid_w / kMergeSize, copies,
      patches.data.data() + patch * kPatchValues + t * kPlane + y % kPatchSize * kPatchSize);
}

}  // namespace

Result<Patches> make_patches(int64_t grid_t, int64_t height, int64_t width,
                             const PatchMemory& memory) try {
  if (grid_t < 1 || height < kBlock || width < kBlock || height % kBlock != 0 ||
      width % kBlock != 0) {
    return {Code::kInvalidArgument,
            fmt::format("patchify: {} pairs of frames of {}x{} pixels, expected multiples of {}",
                        grid_t, width, height, kBlock)};
  }
  Patches p{grid_t, height / kPatchSize, width / kPatchSize, {}, {}, {}};
  const auto bytes = static_cast<size_t>(grid_t * p.grid_h * p.grid_w * kPatchValues);
  p.owner = memory ? memory(bytes) : std::make_unique_for_overwrite<uint8_t[]>(bytes);
  if (!p.owner) {
    return {Code::kOutOfMemory, fmt::format("patchify: no memory for {} bytes of patches", bytes)};
  }
  p.data = {p.owner.get(), bytes};
  return p;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "patchify: no host memory"};
}

Status put_frame(const Image& frame, int64_t index, Patches& patches) {
  if (frame.height != patches.grid_h * kPatchSize || frame.width != patches.grid_w * kPatchSize ||
      index < 0 || index >= patches.grid_t * kTemporalPatchSize) {
    return {Code::kInvalidArgument,
            fmt::format("patchify: frame {} of {}x{} pixels in a grid of {}x{}x{} patches", index,
                        frame.width, frame.height, patches.grid_t, patches.grid_h, patches.grid_w)};
  }
  for (int64_t y = 0; y < frame.height; ++y)
    put_row(frame.rgb.data() + 3 * y * frame.width, y, index, 1, patches);
  return {};
}

Status PatchSink::start(int64_t width, int64_t height) {
  VLR_ASSIGN_OR_RETURN(patches_, make_patches(1, height, width, memory_));
  row_.resize(static_cast<size_t>(3 * width));
  return {};
}

void PatchSink::put(int64_t) { put_row(row_.data(), y_++, 0, kTemporalPatchSize, patches_); }

Result<Patches> patchify_image(const Image& image, const PatchMemory& memory) {
  PatchSink sink(memory);
  VLR_RETURN_IF_ERROR(put_image(image, sink));
  return sink.take();
}

}  // namespace vlr
