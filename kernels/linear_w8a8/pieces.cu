// finish_sums: element-wise over rows, eight elements at a time where every row allows it, else one
// by one. Grid and block: kernels/cuda/map_rows.cuh; a thread owns vectors a grid's width apart.
#include <algorithm>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/linear/mma_epilogue.cuh"
#include "kernels/linear_w8a8/pieces.h"

namespace vlr::ops {
namespace {

constexpr int64_t kPieceBytes = int64_t{32} << 20;  // of x or w in 16 bits
constexpr int64_t kMaxPieceRows = 4096, kPieceRowStep = 128;

template <class T>
struct Operands {
  cuda::Rows<const T> sums, residual;  // either may be y
  cuda::Rows<T> y;
  const float *x_scale, *w_scale;  // null: scaled already
  const T* bias;                   // may be null, as residual
  int64_t rows, dim;
  bool gelu;
};

template <int kCount, class T>
__global__ void __launch_bounds__(cuda::kMapThreads) finish_kernel(const Operands<T> a) {
  using Vec = cuda::Vec<T, kCount>;
  const int64_t row = cuda::map_row_index();
  if (row >= a.rows) return;
  const float x_scale = a.x_scale ? a.x_scale[row] : 1.0f;
  const int64_t step = int64_t{gridDim.y} * blockDim.x * kCount;
  for (int64_t n = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kCount; n < a.dim;
       n += step) {
    const Vec sums = Vec::load(a.sums[row] + n);
    float v[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = sums[i];
    if (a.w_scale) {
      const auto w_scale = cuda::Vec<float, kCount>::load(a.w_scale + n);
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        v[i] = __fmul_rn(__fmul_rn(v[i], 1 / kSumScale), __fmul_rn(x_scale, w_scale[i]));
    }
    if (a.bias) {
      const Vec bias = Vec::load(a.bias + n);
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = __fadd_rn(v[i], bias[i]);
    }
    if (a.gelu) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = gelu_tanh(v[i]);
    }
    if (a.residual.data) {
      const Vec residual = Vec::load(a.residual[row] + n);
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = __fadd_rn(v[i], residual[i]);
    }
    Vec::of(v).store(a.y[row] + n);
  }
}

}  // namespace

PieceShape piece_shape(const LinearW8A8::Args& a) {
  const int64_t fit = kPieceBytes / (2 * a.x.dim(1)) / kPieceRowStep * kPieceRowStep;
  const int64_t most = std::clamp(fit, kPieceRowStep, kMaxPieceRows);
  return {.rows = std::min(a.x.dim(0), most), .columns = std::min(a.w.dim(0), most)};
}

Result<bool> in_pieces(const LinearW8A8::Args& a, void* sums, Context& ctx, const MakeSums& make) {
  const auto [rows, columns] = piece_shape(a);
  const auto slice = [](const auto& t, int axis, int64_t begin, int64_t count) {
    return t.defined() ? t.slice(axis, begin, count) : t;
  };
  for (int64_t n = 0; n < a.w.dim(0); n += columns) {
    const int64_t width = std::min(columns, a.w.dim(0) - n);
    for (int64_t m = 0; m < a.x.dim(0); m += rows) {
      const int64_t height = std::min(rows, a.x.dim(0) - m);
      LinearW8A8::Args piece = a;
      piece.x = a.x.slice(0, m, height);
      piece.x_scale = a.x_scale.slice(0, m, height);
      piece.w = a.w.slice(0, n, width);
      piece.w_scale = a.w_scale.slice(0, n, width);
      piece.bias = slice(a.bias, 0, n, width);
      piece.residual = slice(slice(a.residual, 0, m, height), 1, n, width);
      piece.y = a.y.slice(0, m, height).slice(1, n, width);
      const Tensor piece_sums(sums, a.y.dtype, {height, width}, a.y.device);
      VLR_ASSIGN_OR_RETURN(const bool done, make(piece, piece_sums));
      if (!done) return false;
      VLR_RETURN_IF_ERROR(finish_sums(piece, piece_sums, false, ctx));
    }
  }
  return true;
}

Status finish_sums(const LinearW8A8::Args& a, const ConstTensor& sums, bool scaled, Context& ctx) {
  if (ctx.blas && ctx.blas->measuring()) return {};
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  const auto in_vectors = [](const ConstTensor& t) {
    return !t.defined() || cuda::in_vectors({t});
  };
  const bool vectors = in_vectors(sums) && in_vectors(a.y) && in_vectors(a.w_scale) &&
                       in_vectors(a.bias) && in_vectors(a.residual);
  cuda::with_16_bit_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    const Operands<T> o{.sums = cuda::rows_of<T>(sums),
                        .residual = cuda::rows_of<T>(a.residual),
                        .y = cuda::rows_of<T>(a.y),
                        .x_scale = scaled ? nullptr : a.x_scale.as<float>(),
                        .w_scale = scaled ? nullptr : a.w_scale.as<float>(),
                        .bias = a.bias.as<T>(),
                        .rows = rows,
                        .dim = dim,
                        .gelu = a.activation == Activation::kGeluTanh};
    cuda::with_width(vectors, [&](auto count) {
      const auto [grid, block] = cuda::map_shape(rows, dim, count());
      finish_kernel<count(), T><<<grid, block, 0, ctx.stream>>>(o);
    });
  });
  return cuda::to_status(cudaGetLastError(), "linear_w8a8: finish_sums launch");
}

}  // namespace vlr::ops
