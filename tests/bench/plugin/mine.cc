// A second rmsnorm from outside, and wrong ones.
#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/core/plugin.h"
#include "kernels/rmsnorm/rmsnorm.h"

namespace {

using vlr::ops::RmsNorm;

bool takes(const RmsNorm::Args& a, const vlr::Context&) {
  return a.x.rank == 2 && a.x.dtype == vlr::DType::kF32 && a.weight.dtype == vlr::DType::kBF16;
}

float value_of(uint16_t bf16) { return std::bit_cast<float>(uint32_t{bf16} << 16); }

vlr::Status mine(const RmsNorm::Args& a, vlr::Context&) {
  const int64_t dim = a.x.dim(1);
  const auto* weight = a.weight.as<uint16_t>();
  for (int64_t r = 0; r < a.x.dim(0); ++r) {
    const auto* x = a.x.row<float>(r);
    auto* y = a.y.row<float>(r);
    double squares = 0;
    for (int64_t i = 0; i < dim; ++i) squares += static_cast<double>(x[i]) * x[i];
    const auto scale =
        static_cast<float>(1 / std::sqrt(squares / static_cast<double>(dim) + a.eps));
    for (int64_t i = 0; i < dim; ++i) y[i] = x[i] * scale * value_of(weight[i]);
  }
  return {};
}

vlr::Status wrong_above_400(const RmsNorm::Args& a, vlr::Context& ctx) {
  vlr::Status s = mine(a, ctx);
  if (a.x.dim(0) > 400) a.y.row<float>(400)[0] *= 1.01f;
  return s;
}

/// Of every fiftieth launch one element is a step of f32 away, at some shapes.
vlr::Status races_above_30(const RmsNorm::Args& a, vlr::Context& ctx) {
  static int64_t launches = 0;
  vlr::Status s = mine(a, ctx);
  if (a.x.dim(0) > 30 && ++launches % 50 == 0)
    a.y.row<float>(0)[0] = std::nextafter(a.y.row<float>(0)[0], 0.0f);
  return s;
}

}  // namespace

extern "C" VLR_PLUGIN_EXPORT const vlr::Plugin* vlr_kernels() {
  static const vlr::PluginImpl impls[] = {
      vlr::plugin_impl<RmsNorm>({"mine", vlr::Device::kCpu, mine, takes}),
      vlr::plugin_impl<RmsNorm>({"wrong_above_400", vlr::Device::kCpu, wrong_above_400, takes}),
      vlr::plugin_impl<RmsNorm>({"races_above_30", vlr::Device::kCpu, races_above_30, takes})};
  static const vlr::Plugin plugin = {vlr::kPluginAbi, impls};
  return &plugin;
}
