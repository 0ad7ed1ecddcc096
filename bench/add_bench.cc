// add: the residual sum of a decoder layer.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/add/add.h"

namespace vlr::bench {
namespace {
using ops::Add;

Setup<Add> make(Operands& o, const Shape& s) {
  using A = Add::Args;
  const A a{.a = o.random("a", {s["rows"], s["dim"]}, s.dtype),
            .b = o.random("b", {s["rows"], s["dim"]}, s.dtype),
            .y = o.output("y", {s["rows"], s["dim"]}, s.dtype)};
  return rowwise<Add>(a, {&A::a, &A::b}, {&A::y});
}

Shape shape_of(const Add::Args& a, std::span<const Axis> axes) {
  return {axes, a.y.dtype, "", {{"rows", a.y.dim(0)}, {"dim", a.y.dim(1)}}};
}

}  // namespace

OpLab add_lab() {
  return op_lab<Add>({.axes = {{"rows", 8192}, {"dim", 4096}},
                      .shapes = text_rows,
                      .make = make,
                      .shape_of = shape_of,
                      .fields = [](const Add::Args& a) -> Fields {
                        return {{"a", a.a}, {"b", a.b}, {"y", a.y}};
                      }});
}

}  // namespace vlr::bench
