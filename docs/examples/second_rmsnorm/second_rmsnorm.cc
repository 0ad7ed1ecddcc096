// rmsnorm/second: two passes over a row, rows spread over the threads of the context.
//   Takes f32 rows of two or three axes. Weights of any dtype are widened once a call, in the workspace.
//   Squares are added up in eight chains, the square of element i in chain i % 8, and then the chains
//   one after the other. So the bits of a row depend on nothing but the row.
#include <array>
#include <cmath>

#include "kernels/core/parallel_rows.h"
#include "kernels/core/plugin.h"
#include "kernels/core/scratch.h"
#include "kernels/core/widen.h"
#include "kernels/rmsnorm/rmsnorm.h"

namespace {
using vlr::ops::RmsNorm;

void normalise(const float* x, const float* weight, int64_t dim, float eps, float* y) {
  constexpr int kChains = 8;
  std::array<float, kChains> chains{};
  int64_t i = 0;
  for (; i + kChains <= dim; i += kChains) {
    for (int c = 0; c < kChains; ++c) chains[c] += x[i + c] * x[i + c];
  }
  for (int c = 0; i + c < dim; ++c) chains[c] += x[i + c] * x[i + c];
  double squares = 0;
  for (const float chain : chains) squares += static_cast<double>(chain);
  const double mean = squares / static_cast<double>(dim);
  const auto scale = static_cast<float>(1 / std::sqrt(mean + static_cast<double>(eps)));
  for (i = 0; i < dim; ++i) y[i] = x[i] * scale * weight[i];
}

bool supports(const RmsNorm::Args& a, const vlr::Context&) { return a.x.dtype == vlr::DType::kF32; }

int64_t workspace(const RmsNorm::Args& a, const vlr::Context&) {
  vlr::Scratch count;
  count.take<float>(a.weight.dim(0));
  return count.used();
}

vlr::Status run(const RmsNorm::Args& a, vlr::Context& ctx) {
  vlr::Scratch scratch(ctx.workspace);
  auto* weight = scratch.take<float>(a.weight.dim(0));
  VLR_RETURN_IF_ERROR(scratch.status("rmsnorm/second"));
  vlr::widen(a.weight, weight);
  const bool has_heads = a.x.rank == 3;
  const int64_t dim = a.weight.dim(0), heads = has_heads ? a.x.dim(1) : 1;
  vlr::parallel_rows(*ctx.threads, a.x.dim(0), heads * dim, [&](int64_t r) {
    for (int64_t h = 0; h < heads; ++h) {
      const float* x = a.x.row<float>(r) + (has_heads ? h * a.x.stride(1) : 0);
      float* y = a.y.row<float>(r) + (has_heads ? h * a.y.stride(1) : 0);
      normalise(x, weight, dim, a.eps, y);
    }
  });
  return {};
}

}  // namespace

extern "C" VLR_PLUGIN_EXPORT const vlr::Plugin* vlr_kernels() {
  static const vlr::PluginImpl impls[] = {
      vlr::plugin_impl<RmsNorm>({"second", vlr::Device::kCpu, run, supports, workspace})};
  static const vlr::Plugin plugin = {vlr::kPluginAbi, impls};
  return &plugin;
}
