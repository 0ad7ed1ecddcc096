// rmsnorm_quantize: of the residual stream.
#include "bench/support/quantized.h"
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/rmsnorm_quantize/rmsnorm_quantize.h"

namespace vlr::bench {
namespace {
using ops::RmsNormQuantize;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  return with_all(text_rows(device, axes), codes_axis());
}

Setup<RmsNormQuantize> make(Operands& o, const Shape& s) {
  using A = RmsNormQuantize::Args;
  const A a{.x = o.random("x", {s["rows"], s["dim"]}, s.dtype),
            .weight = o.weights("weight", {s["dim"]}, weight_dtype(s.dtype)),
            .q = o.output("q", {s["rows"], s["dim"]}, codes_dtype(s)),
            .scale = o.output("scale", {s["rows"]})};
  return rowwise<RmsNormQuantize>(a, {&A::x}, {&A::q, &A::scale});
}

Shape shape_of(const RmsNormQuantize::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.x.dtype,
          "",
          {{"rows", a.x.dim(0)}, {"dim", a.x.dim(1)}, {"codes", codes_value(a.q.dtype)}}};
}

}  // namespace

OpLab rmsnorm_quantize_lab() {
  return op_lab<RmsNormQuantize>({.axes = {{"rows", 8192}, {"dim", 4096}, codes_axis()},
                                  .shapes = shapes,
                                  .make = make,
                                  .shape_of = shape_of});
}

}  // namespace vlr::bench
