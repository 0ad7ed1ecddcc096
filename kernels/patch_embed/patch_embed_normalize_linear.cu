// patch_embed/normalize_linear: the normalised pixels [P, K] in scratch, then the first
// implementation of linear that takes them.
//   grid ceil(P * K / 4096)   block 256   shared memory: none
//   A thread normalises 16 pixels: one 16-byte load, two 16-byte stores.
#include "kernels/core/scratch.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/patch_embed/impls.h"

namespace vlr::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 16;  // of a thread
constexpr int64_t kAlign = 256;

__device__ float normalized(uint32_t pixel) {
  return __fdiv_rn(static_cast<float>(pixel) - 127.5f, 127.5f);
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(const uint8_t* x, T* y, int64_t count) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kPixels;
  if (kAligned && first + kPixels <= count) {
    const uint4 pixels = *reinterpret_cast<const uint4*>(x + first);
    const uint32_t words[] = {pixels.x, pixels.y, pixels.z, pixels.w};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float values[cuda::kVec];
#pragma unroll
      for (int i = 0; i < cuda::kVec; ++i)
        values[i] = normalized(words[half * 2 + i / 4] >> (i % 4 * 8) & 0xff);
      cuda::Vec<T, cuda::kVec>::of(values).store(y + first + half * cuda::kVec);
    }
    return;
  }
  for (int64_t i = first; i < min(first + kPixels, count); ++i)
    y[i] = cuda::narrow<T>(normalized(x[i]));
}

struct Pieces {
  std::byte* pixels;
  std::byte* linear;
  int64_t linear_bytes;
};

/// The pixels are as long as a multiple of kAlign, so that linear's scratch is as aligned as they
/// are.
Pieces lay_out(Scratch& scratch, const PatchEmbed::Args& a, int64_t linear_bytes) {
  const int64_t bytes = a.x.numel() * dtype_bytes(a.y.dtype);
  Pieces p;
  p.pixels = scratch.take<std::byte>((bytes + kAlign - 1) / kAlign * kAlign);
  p.linear = scratch.take<std::byte>(linear_bytes);
  p.linear_bytes = linear_bytes;
  return p;
}

void normalize(const PatchEmbed::Args& a, void* pixels, Context& ctx) {
  const int64_t count = a.x.numel();
  constexpr int64_t kBlock = int64_t{kThreads} * kPixels;
  const auto blocks = static_cast<unsigned>((count + kBlock - 1) / kBlock);
  const bool aligned = reinterpret_cast<uintptr_t>(a.x.data) % 16 == 0;
  cuda::with_16_bit_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    const auto kernel = aligned ? normalize_kernel<T, true> : normalize_kernel<T, false>;
    kernel<<<blocks, kThreads, 0, ctx.stream>>>(a.x.as<uint8_t>(), static_cast<T*>(pixels), count);
  });
}

}  // namespace

int64_t patch_embed_normalize_linear_workspace(const PatchEmbed::Args& a, const Context& ctx) {
  const Result<int64_t> linear_bytes = workspace_bytes<Linear>(linear_args(a, nullptr), ctx);
  Scratch count;
  lay_out(count, a, linear_bytes.has_value() ? *linear_bytes : 0);
  return count.used();
}

Status patch_embed_normalize_linear(const PatchEmbed::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  VLR_ASSIGN_OR_RETURN(const int64_t linear_bytes,
                       workspace_bytes<Linear>(linear_args(a, nullptr), ctx));
  Scratch scratch(ctx.workspace);
  const Pieces p = lay_out(scratch, a, linear_bytes);
  VLR_RETURN_IF_ERROR(scratch.status("patch_embed/normalize_linear"));
  normalize(a, p.pixels, ctx);
  VLR_RETURN_IF_ERROR(cuda::to_status(cudaGetLastError(), "patch_embed/normalize_linear launch"));
  Context linear_ctx = ctx;
  linear_ctx.workspace = {p.linear, static_cast<size_t>(p.linear_bytes)};
  return run<Linear>(linear_args(a, p.pixels), linear_ctx).with_context(PatchEmbed::kName);
}

}  // namespace vlr::ops
