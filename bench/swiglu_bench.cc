// swiglu: gate and up are the halves of one product.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/swiglu/swiglu.h"

namespace vlr::bench {
namespace {
using ops::SwiGlu;

Setup<SwiGlu> make(Operands& o, const Shape& s) {
  using A = SwiGlu::Args;
  const Tensor gate_up = o.random("gate_up", {s["rows"], 2 * s["dim"]}, s.dtype);
  const A a{.gate = gate_up.slice(1, 0, s["dim"]),
            .up = gate_up.slice(1, s["dim"], s["dim"]),
            .y = o.output("y", {s["rows"], s["dim"]}, s.dtype)};
  return rowwise<SwiGlu>(a, {&A::gate, &A::up}, {&A::y});
}

Shape shape_of(const SwiGlu::Args& a, std::span<const Axis> axes) {
  return {axes, a.y.dtype, "", {{"rows", a.y.dim(0)}, {"dim", a.y.dim(1)}}};
}

}  // namespace

OpLab swiglu_lab() {
  return op_lab<SwiGlu>({.axes = {{"rows", 8192}, {"dim", 12288}},
                         .shapes = mlp_rows,
                         .make = make,
                         .shape_of = shape_of,
                         .fields = [](const SwiGlu::Args& a) -> Fields {
                           return {{"gate", a.gate}, {"up", a.up}, {"y", a.y}};
                         }});
}

}  // namespace vlr::bench
