// swiglu_quantize/block_per_row: a block gates a row, keeps it in registers until its largest value
// is known, and writes the codes. Block, and what a thread owns: kernels/cuda/row_to_codes.cuh.
//   grid rows   shared memory: a word a warp
#include "kernels/cuda/check.h"
#include "kernels/cuda/row_to_codes.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/swiglu/swiglu.cuh"
#include "kernels/swiglu_quantize/impls.h"

namespace vlr::ops {
namespace {

using cuda::kVec;

template <bool kAligned, class T, class Code>
__global__ void __launch_bounds__(cuda::kCodesMaxThreads)
    block_per_row_kernel(cuda::Rows<const T> gate, cuda::Rows<const T> up, Code* q, float* scale,
                         int dim) {
  const int64_t row = blockIdx.x;
  const auto vector_at = [&](int first) {
    const auto g = cuda::load_in_row<kAligned>(gate[row], first, dim);
    const auto u = cuda::load_in_row<kAligned>(up[row], first, dim);
    float gated[kVec];
#pragma unroll
    for (int i = 0; i < kVec; ++i) gated[i] = cuda::silu<T>(g[i]) * u[i];
    return cuda::Vec<T, kVec>::of(gated);
  };
  cuda::row_to_codes<kAligned>(dim, vector_at, q + row * dim, scale + row);
}

}  // namespace

bool swiglu_quantize_fits_block(const SwiGluQuantize::Args& a, const Context&) {
  return dtype_bytes(a.gate.dtype) == 2 && a.gate.dim(1) <= cuda::kCodesMaxDim;
}

Status swiglu_quantize_block_per_row(const SwiGluQuantize::Args& a, Context& ctx) {
  const auto dim = static_cast<int>(a.gate.dim(1));
  const auto rows = static_cast<unsigned>(a.gate.dim(0)), threads = cuda::codes_threads(dim);
  if (rows == 0) return {};
  const bool aligned = cuda::in_vectors({a.gate, a.up, a.q});
  cuda::with_16_bit_element(a.gate.dtype, [&](auto element) {
    cuda::with_code(a.q.dtype, [&](auto code) {
      using T = decltype(element);
      const auto launch = [&](auto kernel) {
        kernel<<<rows, threads, 0, ctx.stream>>>(cuda::rows_of<T>(a.gate), cuda::rows_of<T>(a.up),
                                                 a.q.as<decltype(code)>(), a.scale.as<float>(),
                                                 dim);
      };
      launch(aligned ? block_per_row_kernel<true, T, decltype(code)>
                     : block_per_row_kernel<false, T, decltype(code)>);
    });
  });
  return cuda::to_status(cudaGetLastError(), "swiglu_quantize/block_per_row launch");
}

}  // namespace vlr::ops
