// swiglu_quantize: gate and up are the halves of one product.
#include "bench/support/quantized.h"
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/swiglu_quantize/swiglu_quantize.h"

namespace vlr::bench {
namespace {
using ops::SwiGluQuantize;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  return with_all(mlp_rows(device, axes), codes_axis());
}

Setup<SwiGluQuantize> make(Operands& o, const Shape& s) {
  using A = SwiGluQuantize::Args;
  const Tensor gate_up = o.random("gate_up", {s["rows"], 2 * s["dim"]}, s.dtype);
  const A a{.gate = gate_up.slice(1, 0, s["dim"]),
            .up = gate_up.slice(1, s["dim"], s["dim"]),
            .q = o.output("q", {s["rows"], s["dim"]}, codes_dtype(s)),
            .scale = o.output("scale", {s["rows"]})};
  return rowwise<SwiGluQuantize>(a, {&A::gate, &A::up}, {&A::q, &A::scale});
}

Shape shape_of(const SwiGluQuantize::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.gate.dtype,
          "",
          {{"rows", a.q.dim(0)}, {"dim", a.q.dim(1)}, {"codes", codes_value(a.q.dtype)}}};
}

}  // namespace

OpLab swiglu_quantize_lab() {
  return op_lab<SwiGluQuantize>({.axes = {{"rows", 8192}, {"dim", 12288}, codes_axis()},
                                 .shapes = shapes,
                                 .make = make,
                                 .shape_of = shape_of});
}

}  // namespace vlr::bench
