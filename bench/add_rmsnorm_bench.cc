// add_rmsnorm: the residual sum and the norm behind it, the sum in place.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/add_rmsnorm/add_rmsnorm.h"

namespace vlr::bench {
namespace {
using ops::AddRmsNorm;

Setup<AddRmsNorm> make(Operands& o, const Shape& s) {
  using A = AddRmsNorm::Args;
  A a;
  const Tensor x = o.random("a", {s["rows"], s["dim"]}, s.dtype);
  a.a = a.sum = x;
  a.b = o.random("b", {s["rows"], s["dim"]}, s.dtype);
  a.weight = o.weights("weight", {s["dim"]}, weight_dtype(s.dtype));
  a.y = o.output("y", {s["rows"], s["dim"]}, s.dtype);
  return rowwise<AddRmsNorm>(a, {&A::a, &A::b}, {&A::y, &A::sum});
}

Shape shape_of(const AddRmsNorm::Args& a, std::span<const Axis> axes) {
  return {axes, a.y.dtype, "", {{"rows", a.y.dim(0)}, {"dim", a.y.dim(1)}}};
}

}  // namespace

OpLab add_rmsnorm_lab() {
  return op_lab<AddRmsNorm>({.axes = {{"rows", 8192}, {"dim", 4096}},
                             .shapes = text_rows,
                             .make = make,
                             .shape_of = shape_of,
                             .fields = [](const AddRmsNorm::Args& a) -> Fields {
                               return {{"a", a.a},           {"b", a.b}, {"sum", a.sum},
                                       {"weight", a.weight}, {"y", a.y}, {"eps", a.eps}};
                             }});
}

}  // namespace vlr::bench
