// patch_embed/blocked: normalised pixels of up to kBlockRows patches in scratch, then
// linear/blocked on them.

#include <algorithm>
#include <array>

#include "kernels/core/parallel_rows.h"
#include "kernels/core/scratch.h"
#include "kernels/linear/impls.h"
#include "kernels/patch_embed/impls.h"

namespace vlr::ops {
namespace {

constexpr int64_t kBlockRows = 512;  // 3 MB of pixels in f32; enough rows for linear to pack w once

struct Pieces {
  float* pixels;  // [block rows, K]
  std::byte* linear;
  int64_t linear_bytes;
};

Linear::Args block_args(const PatchEmbed::Args& a, float* pixels, int64_t begin, int64_t rows) {
  return {.x = ConstTensor(pixels, DType::kF32, {rows, a.x.dim(1)}),
          .w = a.w,
          .bias = a.bias,
          .y = a.y.slice(0, begin, rows)};
}

Pieces lay_out(Scratch& scratch, const PatchEmbed::Args& a, const Context& ctx) {
  const int64_t rows = std::min(a.x.dim(0), kBlockRows);
  Pieces p;
  p.pixels = scratch.take<float>(rows * a.x.dim(1));
  p.linear_bytes = linear_blocked_workspace(block_args(a, nullptr, 0, rows), ctx);
  p.linear = scratch.take<std::byte>(p.linear_bytes);
  return p;
}

}  // namespace

int64_t patch_embed_blocked_workspace(const PatchEmbed::Args& a, const Context& ctx) {
  Scratch count;
  lay_out(count, a, ctx);
  return count.used();
}

Status patch_embed_blocked(const PatchEmbed::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  const Pieces p = lay_out(scratch, a, ctx);
  VLR_RETURN_IF_ERROR(scratch.status("patch_embed/blocked"));
  std::array<float, 256> pixel;
  for (size_t v = 0; v < pixel.size(); ++v) pixel[v] = normalize_pixel(static_cast<uint8_t>(v));
  Context linear_ctx = ctx;
  linear_ctx.workspace = {p.linear, static_cast<size_t>(p.linear_bytes)};
  const int64_t k_dim = a.x.dim(1);
  for (int64_t begin = 0; begin < a.x.dim(0); begin += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, a.x.dim(0) - begin);
    parallel_rows(*ctx.threads, rows, k_dim, [&](int64_t r) {
      const uint8_t* x = a.x.row<uint8_t>(begin + r);
      float* out = p.pixels + r * k_dim;
      for (int64_t k = 0; k < k_dim; ++k) out[k] = pixel[x[k]];
    });
    VLR_RETURN_IF_ERROR(linear_blocked(block_args(a, p.pixels, begin, rows), linear_ctx));
  }
  return {};
}

}  // namespace vlr::ops
