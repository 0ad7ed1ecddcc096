// rmsnorm/mine: plain rows of f32, spread over the threads of the context.
#include <cmath>

#include "kernels/core/op.h"
#include "kernels/core/parallel_rows.h"
#include "kernels/core/simd.h"
#include "kernels/rmsnorm/rmsnorm.h"

extern "C" __attribute__((visibility("default"))) vlr::Status mine_rmsnorm(
    const vlr::ops::RmsNorm::Args& a, vlr::Context& ctx) {
  VLR_RETURN_IF_ERROR(vlr::ops::RmsNorm::check(a));
  if (a.x.rank != 2 || a.x.dtype != vlr::DType::kF32 || a.weight.dtype != vlr::DType::kF32)
    return vlr::ops::unsupported(vlr::ops::RmsNorm::kName, "mine", ctx.device);
  const int64_t dim = a.x.dim(1);
  const auto* weight = static_cast<const float*>(a.weight.data);
  vlr::parallel_rows(*ctx.threads, a.x.dim(0), dim, [&](int64_t r) {
    const float* x = a.x.row<float>(r);
    float* y = a.y.row<float>(r);
    double squares = 0;
    for (int64_t i = 0; i < dim; ++i) squares += static_cast<double>(x[i]) * x[i];
    const auto scale =
        static_cast<float>(1 / std::sqrt(squares / static_cast<double>(dim) + a.eps));
    for (int64_t i = 0; i < dim; ++i) y[i] = x[i] * scale * weight[i];
  });
  return {};
}
