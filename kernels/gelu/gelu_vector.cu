// gelu/vector: element-wise over rows, 16 bytes at a time where every row allows it, else element
// by element. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh.
//   16-bit results take both forms from the special function unit (one 2^x, one reciprocal), with
//   errors of 1.1e-5 of the result at most: a fortieth of what rounding to f16 may cost. f32 takes
//   the accurate library functions.
#include "kernels/cuda/check.h"
#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/cuda/reciprocal.cuh"
#include "kernels/gelu/impls.h"

namespace vlr::ops {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kSlope = -2 * 0.7978845608028654f;  // -2 sqrt(2 / pi)

/// x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3): the sum 1 + tanh(u) would cancel at the
/// left.
template <class T>
__device__ float gelu_tanh(float x) {
  if constexpr (sizeof(T) == 4) {
    return x / (1 + expf(x * fmaf(x * x, kSlope * 0.044715f, kSlope)));
  } else {
    const float exponent = x * fmaf(x * x, kSlope * kLog2E * 0.044715f, kSlope * kLog2E);
    return x * cuda::reciprocal_approx(1 + cuda::exp2_approx(exponent));
  }
}

/// x P(N(0, 1) < x) = max(x, 0) - a P(N > a), a = |x|. In 16 bits P(N > a) is
/// e^(-a^2 / 2) w / (a + k), w a polynomial in t = (a - k) / (a + k), k = 3.3: the least-maximum
/// fit of degree 5 of its relative error over a <= 13.4, which is 5.7e-6. Further out it is
/// nothing. b is a in the unit in which e^(-a^2 / 2) = 2^(-b^2).
template <class T>
__device__ float gelu_erf(float x) {
  if constexpr (sizeof(T) == 4) {
    return 0.5f * x * (1 + erff(x * 0.7071067811865476f));
  } else {
    constexpr float kUnit = 0.8493218002880191f;  // sqrt(log2(e) / 2)
    constexpr float kCentre = 3.3f * kUnit;
    const float b = fminf(fabsf(x) * kUnit, 12.5f);  // keeps infinity out of the product below
    const float inverse = cuda::reciprocal_approx(b + kCentre);
    const float t = fmaf(-2 * kCentre, inverse, 1.0f);
    float w = 0.0079379061f;
    w = fmaf(w, t, 0.0030295837f);
    w = fmaf(w, t, -0.0878896001f);
    w = fmaf(w, t, 0.2830925851f);
    w = fmaf(w, t, -0.5450055048f);
    w = fmaf(w, t, 0.7389299579f);
    return fmaf(-b, cuda::exp2_approx(-b * b) * (w * inverse), x < 0 ? 0.0f : x);
  }
}

template <int kCount, class T, GeluKind kKind>
__global__ void __launch_bounds__(cuda::kMapThreads)
    gelu_kernel(cuda::Rows<const T> x, cuda::Rows<T> y /* may be x */, int64_t rows, int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  const auto f = [](float v) {
    return kKind == GeluKind::kTanh ? gelu_tanh<T>(v) : gelu_erf<T>(v);
  };
  cuda::map_row<kCount>(dim, y[row], f, x[row]);
}

}  // namespace

Status gelu_vector(const Gelu::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  if (rows == 0 || dim == 0) return {};
  cuda::with_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    cuda::with_width(cuda::in_vectors({a.x, a.y}), [&](auto count) {
      const auto [grid, block] = cuda::map_shape(rows, dim, count());
      const auto kernel = a.kind == GeluKind::kTanh ? gelu_kernel<count(), T, GeluKind::kTanh>
                                                    : gelu_kernel<count(), T, GeluKind::kErf>;
      kernel<<<grid, block, 0, ctx.stream>>>(cuda::rows_of<T>(a.x), cuda::rows_of<T>(a.y), rows,
                                             dim);
    });
  });
  return cuda::to_status(cudaGetLastError(), "gelu/vector launch");
}

}  // namespace vlr::ops
