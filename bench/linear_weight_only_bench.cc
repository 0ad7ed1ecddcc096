// linear_weight_only at the models' layers. On a GPU: the 8B's in nf4 by numbers of rows, decoding
// fused and apart, and the other formats at two of them. On the host the demo checkpoint's layers.
#include "bench/support/layers.h"
#include "bench/support/quantized.h"
#include "bench/support/rowwise.h"
#include "kernels/linear_weight_only/linear_weight_only.h"

namespace vlr::bench {
namespace {
using ops::Activation;
using ops::LinearWeightOnly;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out;
  const auto add = [&](const auto& layers, std::initializer_list<int64_t> batches, DType dtype,
                       WeightFormat format = WeightFormat::kNf4) {
    for (const int64_t m : batches) {
      for (const Layer& l : layers)
        out.push_back(with(layer_shape(axes, dtype, l, m), "format", format_value(format)));
    }
  };
  if (device == Device::kCpu) {
    add(kDemoLayers, {50, 1000}, DType::kF32);
  } else {
    // fused is left for apart somewhere between 128 and 1,024 rows
    add(k8bLayers, {1, 16, 64, 128, 256, 384, 512, 1024, 8192}, DType::kBF16);
    add(std::span(k8bLayers).first(1), {128}, DType::kF16);
  }
  for (const FormatInfo& f : quantized_formats()) {
    if (f.format == WeightFormat::kNf4) continue;
    if (device == Device::kCpu) {
      add(std::span(kDemoLayers).first(1), {50, 1000}, DType::kF32, f.format);
    } else {
      add(std::span(k8bLayers).first(1), {128, 8192}, DType::kBF16, f.format);
    }
  }
  return out;
}

Setup<LinearWeightOnly> make(Operands& o, const Shape& s) {
  using A = LinearWeightOnly::Args;
  const int64_t m = s["m"], n = s["n"], k = s["k"];
  A a;
  a.x = o.random("x", {m, k}, s.dtype);
  a.w = random_weight(o, weight_format(s), n, k);
  if (s["bias"] > 0) a.bias = o.weights("bias", {n}, weight_dtype(s.dtype));
  if (s["residual"] > 0) a.residual = o.random("residual", {m, n}, s.dtype);
  a.y = o.output("y", {m, n}, s.dtype);
  a.activation = static_cast<Activation>(s["activation"]);
  auto setup = rowwise<LinearWeightOnly>(a, {&A::x, &A::residual}, {&A::y});
  setup.corner = [a, n] {
    A few = a;
    few.x = last_rows(a.x);
    few.first_row = std::max<int64_t>(n - kCornerColumns, 0);
    few.bias = last_columns(a.bias);
    few.residual = corner_of(a.residual);
    few.y = corner_of(a.y);
    return Part<LinearWeightOnly>{few, {few.y}};
  };
  return setup;
}

Shape shape_of(const LinearWeightOnly::Args& a, std::span<const Axis> axes) {
  return with(linear_shape_of(a, axes), "format", format_value(a.w.format));
}

}  // namespace

OpLab linear_weight_only_lab() {
  return op_lab<LinearWeightOnly>(
      {.axes = linear_axes({format_axis()}), .shapes = shapes, .make = make, .shape_of = shape_of});
}

}  // namespace vlr::bench
