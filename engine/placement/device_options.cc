#include "engine/placement/device_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "kernels/dequantize/dequantize.h"
#include "kernels/linear/linear.h"
#include "kernels/linear_w8a8/linear_w8a8.h"
#include "kernels/linear_weight_only/linear_weight_only.h"
#include "kernels/quantize_rows/quantize_rows.h"

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

Status check_impls(const ImplChoices& choices, ModelRunner& runner) {
  std::map<std::string_view, decltype(Node::expect_impl)> ops;
  for (const Graph* g : runner.graphs()) {
    for (const Node& node : g->nodes()) ops.emplace(node.op, node.expect_impl);
  }
  // What some ops are made of can be chosen too.
  const auto add_part = [&]<class Op>() { ops.emplace(Op::kName, ops::expect_impl<Op>); };
  const bool weight_only = ops.contains(ops::LinearWeightOnly::kName),
             w8a8 = ops.contains(ops::LinearW8A8::kName);
  if (weight_only) add_part.template operator()<ops::Dequantize>();
  if (weight_only || w8a8) add_part.template operator()<ops::Linear>();
  if (w8a8) add_part.template operator()<ops::QuantizeRows>();
  for (const auto& [op, impl] : choices) {
    if (const auto it = ops.find(op); it != ops.end()) {
      VLR_RETURN_IF_ERROR(it->second(impl, runner.device().kind()));
      continue;
    }
    std::string names;
    for (const auto& [name, expect] : ops)
      names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    return {Code::kInvalidArgument,
            fmt::format("impl: the model runs no op '{}'; it runs {}", op, names)};
  }
  return {};
}

}  // namespace vlr
