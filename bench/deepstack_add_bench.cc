// deepstack_add: image documents' features of one level, in place.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/deepstack_add/deepstack_add.h"

namespace vlr::bench {
namespace {
using ops::DeepstackAdd;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out;
  for (const Shape& s : text_rows(device, axes)) {
    if (s["rows"] >= 512) out.push_back(with(s, "visual", visual_share(s["rows"])));
  }
  return out;
}

Setup<DeepstackAdd> make(Operands& o, const Shape& s) {
  using A = DeepstackAdd::Args;
  A a;
  a.x = a.y = o.random("x", {s["rows"], s["dim"]}, s.dtype);
  a.visual_row = o.copy_of("visual_row", visual_rows(s["rows"], s["visual"]), {s["rows"]});
  a.features = o.random("features", {s["visual"], s["dim"]}, s.dtype);
  auto setup = rowwise<DeepstackAdd>(a, {&A::x, &A::visual_row}, {&A::y});
  reference_computes_last(setup, 600);  // the end of an image, text
  return setup;
}

Shape shape_of(const DeepstackAdd::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.y.dtype,
          "",
          {{"rows", a.y.dim(0)}, {"visual", a.features.dim(0)}, {"dim", a.y.dim(1)}}};
}

}  // namespace

OpLab deepstack_add_lab() {
  return op_lab<DeepstackAdd>(
      {.axes = {{"rows", 8192}, {"visual", 0, "rows of an image's features"}, {"dim", 4096}},
       .shapes = shapes,
       .make = make,
       .shape_of = shape_of});
}

}  // namespace vlr::bench
