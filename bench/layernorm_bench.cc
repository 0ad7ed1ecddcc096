// layernorm: of the vision tower's residual stream.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/layernorm/layernorm.h"

namespace vlr::bench {
namespace {
using ops::LayerNorm;

Setup<LayerNorm> make(Operands& o, const Shape& s) {
  using A = LayerNorm::Args;
  const A a{.x = o.random("x", {s["rows"], s["dim"]}, s.dtype),
            .weight = o.weights("weight", {s["dim"]}, weight_dtype(s.dtype)),
            .bias = o.weights("bias", {s["dim"]}, weight_dtype(s.dtype)),
            .y = o.output("y", {s["rows"], s["dim"]}, s.dtype)};
  return rowwise<LayerNorm>(a, {&A::x}, {&A::y});
}

Shape shape_of(const LayerNorm::Args& a, std::span<const Axis> axes) {
  return {axes, a.y.dtype, "", {{"rows", a.y.dim(0)}, {"dim", a.y.dim(1)}}};
}

}  // namespace

OpLab layernorm_lab() {
  return op_lab<LayerNorm>(
      {.axes = {{"rows", 16384}, {"dim", 1152}},
       .shapes = vision_rows,
       .make = make,
       .shape_of = shape_of,
       .fields = [](const LayerNorm::Args& a) -> Fields {
         return {{"x", a.x}, {"weight", a.weight}, {"bias", a.bias}, {"y", a.y}, {"eps", a.eps}};
       }});
}

}  // namespace vlr::bench
