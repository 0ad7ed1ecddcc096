#include "engine/placement/device_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace vlr {

Result<DType> activation_dtype(const Options& options, const DeviceSpec& device,
                               const ModelConfig& config) {
  const bool gpu = device.kind == Device::kCuda;
  if (options.dtype == "auto") {
    if (!gpu) return DType::kF32;
    return config.dtype == DType::kF16 ? DType::kF16 : DType::kBF16;
  }
  const DType wanted = options.dtype == "f32"    ? DType::kF32
                       : options.dtype == "bf16" ? DType::kBF16
                                                 : DType::kF16;
  if (gpu == (wanted != DType::kF32)) return wanted;
  return {Code::kUnimplemented,
          fmt::format("options: {} computes in {}, got dtype {}", gpu ? "a GPU" : "the CPU",
                      gpu ? "bf16 or f16" : "f32", options.dtype)};
}

GraphOptions graph_options(const Options& options, const OpenDevice& device, DType dtype,
                           QuantModes quant) {
  const auto wanted = [&](std::string_view fusion) {
    return device.kind() == Device::kCuda &&
           std::find(options.no_fuse.begin(), options.no_fuse.end(), fusion) ==
               options.no_fuse.end();
  };
  return {.dtype = dtype,
          .fuse_residual = wanted("residual"),
          .fuse_qk = wanted("qk"),
          .fuse_gelu = wanted("gelu"),
          .fuse_quantize = wanted("quantize"),
          .quant = std::move(quant)};
}

Status check_impls(const ImplChoices& choices, const ModelRunner& runner) {
  std::set<std::string_view> ops;
  for (const Graph* g : runner.graphs()) {
    for (const Node& node : g->nodes()) ops.insert(node.op);
  }
  // What some ops are made of can be chosen too.
  if (ops.contains("linear_weight_only")) ops.insert({"dequantize", "linear"});
  if (ops.contains("linear_w8a8")) ops.insert({"linear", "quantize_rows"});
  for (const auto& [op, impl] : choices) {
    if (ops.contains(op)) continue;
    std::string names;
    for (std::string_view name : ops) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    return {Code::kInvalidArgument,
            fmt::format("impl: the model runs no op '{}'; it runs {}", op, names)};
  }
  return {};
}

}  // namespace vlr
