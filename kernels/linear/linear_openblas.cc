// linear/openblas: sgemm on weights widened to f32 in scratch. For comparison: OpenBLAS picks its
// kernels and how it splits K by the shape, so the bits of a row depend on M.

#include <cblas.h>

#include <algorithm>

#include "kernels/core/load.h"
#include "kernels/core/scratch.h"
#include "kernels/core/widen.h"
#include "kernels/linear/impls.h"

namespace vlr::ops {
namespace {

float* lay_out(Scratch& scratch, const Linear::Args& a) {
  return a.w.dtype == DType::kF32 ? nullptr : scratch.take<float>(a.w.numel());
}

}  // namespace

int64_t linear_openblas_workspace(const Linear::Args& a, const Context&) {
  Scratch count;
  lay_out(count, a);
  return count.used();
}

Status linear_openblas(const Linear::Args& a, Context& ctx) {
  const int64_t m_rows = a.x.dim(0), k_dim = a.x.dim(1), n_cols = a.w.dim(0);
  if (m_rows == 0) return {};
  Scratch scratch(ctx.workspace);
  float* wide = lay_out(scratch, a);
  VLR_RETURN_IF_ERROR(scratch.status("linear/openblas"));
  const float* w = wide ? wide : a.w.as<float>();
  if (wide) {
    ctx.threads->parallel_for(
        n_cols, [&](int64_t n, int) { widen(a.w, n * k_dim, k_dim, wide + n * k_dim); });
  }
  openblas_set_num_threads(ctx.threads->num_threads());
  const auto leading = [](int64_t stride, int64_t cols) {
    return static_cast<blasint>(std::max(stride, cols));
  };
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<blasint>(m_rows),
              static_cast<blasint>(n_cols), static_cast<blasint>(k_dim), 1.0f, a.x.as<float>(),
              leading(a.x.stride(0), k_dim), w, static_cast<blasint>(k_dim), 0.0f, a.y.as<float>(),
              leading(a.y.stride(0), n_cols));
  for (int64_t m = 0; a.bias.defined() && m < m_rows; ++m) {
    float* y = a.y.row<float>(m);
    for (int64_t n = 0; n < n_cols; ++n) y[n] += load_f32(a.bias, n);
  }
  return {};
}

}  // namespace vlr::ops
