// dequantize: whole weights of the text decoders, and one of the vision tower whose blocks of nf4
// straddle rows.
#include "bench/support/quantized.h"
#include "bench/support/shapes.h"
#include "kernels/dequantize/dequantize.h"

namespace vlr::bench {
namespace {
using ops::Dequantize;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out;
  const bool gpu = device == Device::kCuda;
  const auto add = [&](WeightFormat format, const char* label, int64_t n, int64_t k) {
    out.emplace_back(axes, gpu ? DType::kBF16 : DType::kF32, label,
                     Values{{"n", n}, {"k", k}, {"format", format_value(format)}});
  };
  for (const FormatInfo& f : quantized_formats()) {
    add(f.format, "8b_vision_fc2", k8bVision.hidden, k8bVision.mlp);
    if (gpu) {
      add(f.format, "8b_qkv", 6144, k8b.hidden);
      add(f.format, "8b_gate_up", 2 * k8b.mlp, k8b.hidden);
    } else {
      add(f.format, "demo_gate_up", 1536, 256);
    }
  }
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kInt8, WeightFormat::kFp8}) {
    add(format, "2b_o", k2b.hidden, k2b.hidden);
    if (!gpu) continue;
    add(format, "8b_o", k8b.hidden, k8b.hidden);
    add(format, "8b_down", k8b.hidden, k8b.mlp);
  }
  return out;
}

Setup<Dequantize> make(Operands& o, const Shape& s) {
  const Dequantize::Args a{.w = random_weight(o, weight_format(s), s["n"], s["k"]),
                           .y = o.output("y", {s["n"], s["k"]}, s.dtype)};
  return {
      .args = a, .outputs = {a.y}, .num_rows = s["n"], .rows = [a](int64_t begin, int64_t count) {
        Dequantize::Args part = a;
        part.first_row = begin;
        part.y = a.y.slice(0, begin, count);
        return Part<Dequantize>{part, {part.y}};
      }};
}

Shape shape_of(const Dequantize::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.y.dtype,
          "",
          {{"n", a.y.dim(0)}, {"k", a.y.dim(1)}, {"format", format_value(a.w.format)}}};
}

}  // namespace

OpLab dequantize_lab() {
  return op_lab<Dequantize>({.axes = {{"n", 4096}, {"k", 4096}, format_axis()},
                             .shapes = shapes,
                             .make = make,
                             .shape_of = shape_of});
}

}  // namespace vlr::bench
