// gelu: tanh between the two products of a vision block, erf in a patch merger.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/gelu/gelu.h"

namespace vlr::bench {
namespace {
using ops::Gelu;
using ops::GeluKind;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const char* label, int64_t rows, int64_t dim, GeluKind kind) {
    return Shape(axes, dtype, label,
                 {{"rows", rows}, {"dim", dim}, {"kind", static_cast<int64_t>(kind)}});
  };
  const DType f32 = DType::kF32, bf16 = DType::kBF16;
  const GeluKind tanh = GeluKind::kTanh, erf = GeluKind::kErf;
  if (device == Device::kCpu) {
    return {shape(f32, "2b_vision_mlp", 1024, k2bVision.mlp, tanh),
            shape(f32, "2b_merger", 1024, 4 * k2bVision.hidden, erf),
            shape(f32, "demo_vision_mlp", 1000, 576, tanh),
            shape(f32, "demo_merger", 1000, 576, erf)};
  }
  return {shape(bf16, "8b_vision_mlp", 16384, k8bVision.mlp, tanh),
          shape(bf16, "2b_vision_mlp", 16384, k2bVision.mlp, tanh),
          shape(DType::kF16, "8b_vision_mlp", 16384, k8bVision.mlp, tanh),
          shape(bf16, "8b_merger", 4096, 4 * k8bVision.hidden, erf),
          shape(bf16, "2b_merger", 4096, 4 * k2bVision.hidden, erf)};
}

Setup<Gelu> make(Operands& o, const Shape& s) {
  using A = Gelu::Args;
  const A a{.x = o.random("x", {s["rows"], s["dim"]}, s.dtype),
            .y = o.output("y", {s["rows"], s["dim"]}, s.dtype),
            .kind = static_cast<GeluKind>(s["kind"])};
  return rowwise<Gelu>(a, {&A::x}, {&A::y});
}

Shape shape_of(const Gelu::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.y.dtype,
          "",
          {{"rows", a.y.dim(0)}, {"dim", a.y.dim(1)}, {"kind", static_cast<int64_t>(a.kind)}}};
}

}  // namespace

OpLab gelu_lab() {
  return op_lab<Gelu>({.axes = {{"rows", 16384}, {"dim", 4304}, {"kind", 0, "", {"tanh", "erf"}}},
                       .shapes = shapes,
                       .make = make,
                       .shape_of = shape_of,
                       .fields = [](const Gelu::Args& a) -> Fields {
                         return {{"x", a.x}, {"y", a.y}};
                       }});
}

}  // namespace vlr::bench
