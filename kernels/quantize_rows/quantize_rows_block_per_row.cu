// quantize_rows/block_per_row: a block reads a row, keeps it in registers until its largest value
// is known, and writes the codes. Block, and what a thread owns: kernels/cuda/row_to_codes.cuh.
//   grid rows   shared memory: a word a warp
//   Values that stand out are written on the way in, and are zeros from then on. By column, a first
//   kernel marks the columns: u8 [K] in the workspace, filled up to whole vectors.
#include "kernels/core/scratch.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/row_to_codes.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/quantize_rows/impls.h"

namespace vlr::ops {
namespace {

using cuda::kVec;

/// What the elements of a vector need to stand out.
enum class Apart { kNone, kByValue, kByColumn };

template <class T>
struct Outliers {
  T* values;  // [rows, dim]
  float threshold;
  const uint8_t* columns;  // which stand out, where that goes by column
};

/// Takes what stands out of the vector at `first` into `apart`, a row of the outliers.
template <Apart kApart, bool kAligned, class T>
__device__ cuda::Vec<T, kVec> set_apart(const cuda::Vec<T, kVec>& x, const Outliers<T>& outliers,
                                        T* apart, int first, int dim) {
  uint2 marks = {};
  if constexpr (kApart == Apart::kByColumn)
    marks = *reinterpret_cast<const uint2*>(outliers.columns + first);
  float inside[kVec], outside[kVec];
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    const bool stands_out = kApart == Apart::kByColumn
                                ? ((i < 4 ? marks.x : marks.y) >> 8 * (i % 4) & 1) != 0
                                : fabsf(x[i]) >= outliers.threshold;
    inside[i] = stands_out ? 0.0f : x[i];
    outside[i] = stands_out ? x[i] : 0.0f;
  }
  if constexpr (kAligned) {
    cuda::Vec<T, kVec>::of(outside).store(apart + first);
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      if (first + i < dim) apart[first + i] = cuda::narrow<T>(outside[i]);
    }
  }
  return cuda::Vec<T, kVec>::of(inside);
}

template <Apart kApart, bool kAligned, class T, class Code>
__global__ void __launch_bounds__(cuda::kCodesMaxThreads)
    block_per_row_kernel(cuda::Rows<const T> x, Code* q, float* scale, Outliers<T> outliers,
                         int dim) {
  const int64_t row = blockIdx.x;
  const auto vector_at = [&](int first) {
    const auto v = cuda::load_in_row<kAligned>(x[row], first, dim);
    if constexpr (kApart == Apart::kNone) {
      return v;
    } else {
      return set_apart<kApart, kAligned>(v, outliers, outliers.values + row * dim, first, dim);
    }
  };
  cuda::row_to_codes<kAligned>(dim, vector_at, q + row * dim, scale + row);
}

/// Threads that find the same column write the same value.
template <bool kAligned, class T>
__global__ void __launch_bounds__(cuda::kCodesMaxThreads)
    mark_columns_kernel(cuda::Rows<const T> x, float threshold, uint8_t* columns, int dim) {
  const int64_t row = blockIdx.x;
  const int step = static_cast<int>(blockDim.x) * kVec;
#pragma unroll 4
  for (int first = static_cast<int>(threadIdx.x) * kVec; first < dim; first += step) {
    const auto v = cuda::load_in_row<kAligned>(x[row], first, dim);
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      if (fabsf(v[i]) >= threshold) columns[first + i] = 1;
    }
  }
}

int64_t column_bytes(const QuantizeRows::Args& a) {
  const bool marks = a.outliers.defined() && a.by_column;
  return marks ? (a.x.dim(1) + kVec - 1) / kVec * kVec : 0;
}

template <bool kAligned, class T, class Code>
Status launch(const QuantizeRows::Args& a, uint8_t* columns, Context& ctx) {
  const auto dim = static_cast<int>(a.x.dim(1));
  const auto rows = static_cast<unsigned>(a.x.dim(0)), threads = cuda::codes_threads(dim);
  const auto x = cuda::rows_of<T>(a.x);
  const auto quantize = [&](auto apart) {
    block_per_row_kernel<apart(), kAligned><<<rows, threads, 0, ctx.stream>>>(
        x, a.q.as<Code>(), a.scale.as<float>(),
        Outliers<T>{a.outliers.as<T>(), a.threshold, columns}, dim);
  };
  if (!a.outliers.defined()) {
    quantize(std::integral_constant<Apart, Apart::kNone>());
  } else if (!a.by_column) {
    quantize(std::integral_constant<Apart, Apart::kByValue>());
  } else {
    VLR_CUDA_TRY(cudaMemsetAsync(columns, 0, static_cast<size_t>(column_bytes(a)), ctx.stream));
    mark_columns_kernel<kAligned><<<rows, threads, 0, ctx.stream>>>(x, a.threshold, columns, dim);
    quantize(std::integral_constant<Apart, Apart::kByColumn>());
  }
  return cuda::to_status(cudaGetLastError(), "quantize_rows/block_per_row launch");
}

}  // namespace

int64_t quantize_rows_block_per_row_workspace(const QuantizeRows::Args& a, const Context&) {
  Scratch count;
  count.take<uint8_t>(column_bytes(a));
  return count.used();
}

Status quantize_rows_block_per_row(const QuantizeRows::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  Scratch scratch(ctx.workspace);
  auto* columns = scratch.take<uint8_t>(column_bytes(a));
  VLR_RETURN_IF_ERROR(scratch.status("quantize_rows/block_per_row"));
  const bool aligned =
      cuda::in_vectors({a.x, a.q}) && (!a.outliers.defined() || cuda::in_vectors({a.outliers}));
  return cuda::with_element(a.x.dtype, [&](auto element) {
    return cuda::with_code(a.q.dtype, [&](auto code) {
      using T = decltype(element);
      using Code = decltype(code);
      return aligned ? launch<true, T, Code>(a, columns, ctx)
                     : launch<false, T, Code>(a, columns, ctx);
    });
  });
}

}  // namespace vlr::ops
