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

vlr::Status normalise(const RmsNorm::Args& a, float factor) {
  const bool has_heads = a.x.rank == 3;
  const int64_t heads = has_heads ? a.x.dim(1) : 1, dim = a.weight.dim(0);
  const auto* weight = a.weight.as<uint16_t>();
  for (int64_t i = 0; i < a.x.dim(0) * heads; ++i) {
    const int64_t r = i / heads, h = i % heads;
    const auto* x = a.x.row<float>(r) + (has_heads ? h * a.x.stride(1) : 0);
    auto* y = a.y.row<float>(r) + (has_heads ? h * a.y.stride(1) : 0);
    double squares = 0;
    for (int64_t j = 0; j < dim; ++j) squares += static_cast<double>(x[j]) * x[j];
    const auto scale =
        static_cast<float>(1 / std::sqrt(squares / static_cast<double>(dim) + a.eps));
    for (int64_t j = 0; j < dim; ++j) y[j] = factor * (x[j] * scale * value_of(weight[j]));
  }
  return {};
}

vlr::Status mine(const RmsNorm::Args& a, vlr::Context&) { return normalise(a, 1); }

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

/// Right at the other shapes, and always the same bits.
vlr::Status off_at_256(const RmsNorm::Args& a, vlr::Context&) {
  return normalise(a, a.weight.dim(0) == 256 ? 1.02f : 1.0f);
}
bool takes_heads(const RmsNorm::Args& a, const vlr::Context&) {
  return a.x.dtype == vlr::DType::kF32 && a.weight.dtype == vlr::DType::kBF16;
}
/// Nothing is wrong, but it fails where there are heads.
vlr::Status fails_with_heads(const RmsNorm::Args& a, vlr::Context& ctx) {
  if (a.x.rank == 3) return {vlr::Code::kInternal, "heads are too much"};
  return mine(a, ctx);
}

}  // namespace

extern "C" VLR_PLUGIN_EXPORT const vlr::Plugin* vlr_kernels() {
  static const vlr::PluginImpl impls[] = {
      vlr::plugin_impl<RmsNorm>({"mine", vlr::Device::kCpu, mine, takes}),
      vlr::plugin_impl<RmsNorm>({"wrong_above_400", vlr::Device::kCpu, wrong_above_400, takes}),
      vlr::plugin_impl<RmsNorm>({"races_above_30", vlr::Device::kCpu, races_above_30, takes}),
      vlr::plugin_impl<RmsNorm>({"off_at_256", vlr::Device::kCpu, off_at_256, takes_heads}),
      vlr::plugin_impl<RmsNorm>(
          {"fails_with_heads", vlr::Device::kCpu, fails_with_heads, takes_heads})};
  static const vlr::Plugin plugin = {vlr::kPluginAbi, impls};
  return &plugin;
}
