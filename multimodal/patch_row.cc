#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "multimodal/patch_row.cc"
#include <hwy/foreach_target.h>  // compiles this file once for every instruction set

#include <hwy/highway.h>

#include "multimodal/patch_row.h"
#include "multimodal/patchify.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::media::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kPlane = kPatchSize * kPatchSize;      // values of one colour of one frame
constexpr int64_t kColor = kTemporalPatchSize * kPlane;  // from one colour to the next

HWY_ATTR void put_16_pixels(const uint8_t* rgb, int64_t copies, uint8_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t t = 0; t < copies; ++t) {
    for (int64_t i = 0; i < 3 * kPatchSize; ++i) out[i % 3 * kColor + t * kPlane + i / 3] = rgb[i];
  }
#else
  const hn::FixedTag<uint8_t, kPatchSize> d;
  hn::Vec<decltype(d)> r, g, b;
  hn::LoadInterleaved3(d, rgb, r, g, b);
  for (int64_t t = 0; t < copies; ++t, out += kPlane) {
    hn::StoreU(r, d, out);
    hn::StoreU(g, d, out + kColor);
    hn::StoreU(b, d, out + 2 * kColor);
  }
#endif
}

HWY_ATTR void put_patch_row(const uint8_t* rgb, int64_t num_blocks, int64_t copies, uint8_t* out) {
  constexpr int64_t kBlockValues = kMergeSize * kMergeSize * kPatchValues;
  for (int64_t block = 0; block < num_blocks; ++block, out += kBlockValues) {
    for (int64_t column = 0; column < kMergeSize; ++column, rgb += 3 * kPatchSize)
      put_16_pixels(rgb, copies, out + column * kPatchValues);
  }
}

}  // namespace vlr::media::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::media {

HWY_EXPORT(put_patch_row);

void put_patch_row(const uint8_t* rgb, int64_t num_blocks, int64_t copies, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(put_patch_row)(rgb, num_blocks, copies, out);
}

}  // namespace vlr::media
#endif
