#include "multimodal/patchify.h"

#include <fmt/format.h>

#include <cstring>
#include <new>

namespace vlr {
namespace {

constexpr int64_t kPlane = kPatchSize * kPatchSize;      // values of one colour of one frame
constexpr int64_t kColor = kTemporalPatchSize * kPlane;  // from one colour to the next
constexpr int64_t kBlock = kMergeSize * kPatchSize;      // 32 pixels

// 16 x 16 pixels -> three planes, kColor apart.
void put_patch(const uint8_t* rgb, int64_t row_bytes, uint8_t* out) {
  for (int64_t y = 0; y < kPatchSize; ++y, rgb += row_bytes, out += kPatchSize) {
    for (int64_t x = 0; x < kPatchSize; ++x) {
      out[x] = rgb[3 * x];
      out[x + kColor] = rgb[3 * x + 1];
      out[x + 2 * kColor] = rgb[3 * x + 2];
    }
  }
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
  const int64_t row_bytes = 3 * frame.width;
  const int64_t pair = index / kTemporalPatchSize, t = index % kTemporalPatchSize;
  uint8_t* out =
      patches.data.data() + pair * patches.grid_h * patches.grid_w * kPatchValues + t * kPlane;
  for (int64_t top = 0; top < frame.height; top += kBlock) {
    for (int64_t left = 0; left < frame.width; left += kBlock) {
      for (int64_t y = top; y < top + kBlock; y += kPatchSize) {
        for (int64_t x = left; x < left + kBlock; x += kPatchSize, out += kPatchValues) {
          put_patch(frame.rgb.data() + y * row_bytes + 3 * x, row_bytes, out);
        }
      }
    }
  }
  return {};
}

Result<Patches> patchify_image(const Image& image, const PatchMemory& memory) {
  VLR_ASSIGN_OR_RETURN(Patches patches, make_patches(1, image.height, image.width, memory));
  VLR_RETURN_IF_ERROR(put_frame(image, 0, patches));
  // The second frame is the first: in every patch and colour, its plane lies behind the first
  // one's.
  for (size_t at = 0; at < patches.data.size(); at += kColor) {
    std::memcpy(&patches.data[at + kPlane], &patches.data[at], kPlane);
  }
  return patches;
}

}  // namespace vlr
