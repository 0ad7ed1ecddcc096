// linear_w8a8/widen: f8e4m3 codes of a piece of x and of a piece of w as 16-bit numbers in scratch,
// their product by `linear`, then the scales. For any device, and whatever cuBLASLt does not take.
//   grid ceil(count / 4096)   block 256   shared memory: none
//   A thread widens 16 codes: one 16-byte load, two 16-byte stores.
#include "kernels/core/integer.h"
#include "kernels/core/scratch.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/linear_w8a8/impls.h"
#include "kernels/linear_w8a8/pieces.h"

namespace vlr::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kCodes = 16;       // of a thread
constexpr int64_t kAlign = 256;  // of every part of the scratch, relative to its start

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    widen_kernel(const cuda::E4M3* codes, T* out, int64_t count) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCodes;
  if (kAligned && first + kCodes <= count) {
    const auto vector = cuda::Vec<cuda::E4M3, kCodes>::load(codes + first);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float values[cuda::kVec];
#pragma unroll
      for (int i = 0; i < cuda::kVec; ++i) values[i] = vector[half * cuda::kVec + i] * kCodeScale;
      cuda::Vec<T, cuda::kVec>::of(values).store(out + first + half * cuda::kVec);
    }
    return;
  }
  for (int64_t i = first; i < min(first + kCodes, count); ++i)
    out[i] = cuda::narrow<T>(cuda::widen(codes[i]) * kCodeScale);
}

Status widen(const ConstTensor& codes, const Tensor& out, Context& ctx) {
  const int64_t count = codes.numel();
  constexpr int64_t kBlock = int64_t{kThreads} * kCodes;
  const auto blocks = static_cast<unsigned>((count + kBlock - 1) / kBlock);
  const bool aligned = reinterpret_cast<uintptr_t>(codes.data) % 16 == 0;
  cuda::with_16_bit_element(out.dtype, [&](auto element) {
    using T = decltype(element);
    const auto kernel = aligned ? widen_kernel<T, true> : widen_kernel<T, false>;
    kernel<<<blocks, kThreads, 0, ctx.stream>>>(codes.as<cuda::E4M3>(), out.as<T>(), count);
  });
  return cuda::to_status(cudaGetLastError(), "linear_w8a8/widen launch");
}

/// The largest piece of both operands and of their sums, and the scratch of its product.
struct Parts {
  std::byte *sums, *x, *w, *linear;
  int64_t linear_bytes;
};

Linear::Args linear_args(const LinearW8A8::Args& piece, const Tensor& sums, void* x, void* w) {
  const DType dtype = sums.dtype;
  Linear::Args a;
  a.x = ConstTensor(x, dtype, {piece.x.dim(0), piece.x.dim(1)}, Device::kCuda);
  a.w = ConstTensor(w, dtype, {piece.w.dim(0), piece.w.dim(1)}, Device::kCuda);
  a.y = sums;
  return a;
}

Result<Parts> lay_out(Scratch& scratch, const LinearW8A8::Args& a, const Context& ctx) {
  const auto [rows, columns] = piece_shape(a);
  LinearW8A8::Args piece = a;
  piece.x = a.x.slice(0, 0, rows);
  piece.w = a.w.slice(0, 0, columns);
  const Tensor sums(nullptr, a.y.dtype, {rows, columns}, Device::kCuda);
  const Linear::Args linear = linear_args(piece, sums, nullptr, nullptr);
  const auto take = [&](int64_t bytes) { return scratch.take<std::byte>(round_up(bytes, kAlign)); };
  Parts p;
  VLR_ASSIGN_OR_RETURN(p.linear_bytes, workspace_bytes<Linear>(linear, ctx));
  p.sums = take(sums.bytes());
  p.x = take(linear.x.bytes());
  p.w = take(linear.w.bytes());
  p.linear = take(p.linear_bytes);
  return p;
}

}  // namespace

int64_t linear_w8a8_widen_workspace(const LinearW8A8::Args& a, const Context& ctx) {
  Scratch count;
  return lay_out(count, a, ctx).has_value() ? count.used() : 0;
}

Status linear_w8a8_widen(const LinearW8A8::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  Scratch scratch(ctx.workspace);
  VLR_ASSIGN_OR_RETURN(const Parts parts, lay_out(scratch, a, ctx));
  VLR_RETURN_IF_ERROR(scratch.status("linear_w8a8/widen"));
  Context linear_ctx = ctx;
  linear_ctx.workspace = {parts.linear, static_cast<size_t>(parts.linear_bytes)};
  const void* widened = nullptr;  // codes of w: a piece serves all pieces of x
  const auto make = [&](const LinearW8A8::Args& piece, const Tensor& sums) -> Result<bool> {
    const Linear::Args linear = linear_args(piece, sums, parts.x, parts.w);
    const auto memory = [](const ConstTensor& t, std::byte* data) {
      return Tensor(data, t.dtype, {t.dim(0), t.dim(1)}, t.device);
    };
    VLR_RETURN_IF_ERROR(widen(piece.x, memory(linear.x, parts.x), ctx));
    if (widened != piece.w.data)
      VLR_RETURN_IF_ERROR(widen(piece.w, memory(linear.w, parts.w), ctx));
    widened = piece.w.data;
    VLR_RETURN_IF_ERROR(run<Linear>(linear, linear_ctx).with_context(LinearW8A8::kName));
    return true;
  };
  const Result<bool> done = in_pieces(a, parts.sums, ctx, make);
  return done.ok() ? Status() : done.error();
}

}  // namespace vlr::ops
