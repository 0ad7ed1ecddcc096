// rope: queries and keys of a vision block, in place, side by side in the columns of one product.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/rope/rope.h"

namespace vlr::bench {
namespace {
using ops::Rope;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const VisionModel& m, int64_t rows) {
    return Shape(axes, dtype, m.name,
                 {{"rows", rows}, {"heads", 2 * m.heads}, {"dim", m.head_dim}});
  };
  if (device == Device::kCpu)
    return {shape(DType::kF32, k2bVision, 1024), shape(DType::kF32, kDemoVision, 1000)};
  return {shape(DType::kBF16, k8bVision, 16384), shape(DType::kBF16, k2bVision, 16384),
          shape(DType::kF16, k8bVision, 16384)};
}

Setup<Rope> make(Operands& o, const Shape& s) {
  using A = Rope::Args;
  const int64_t rows = s["rows"], heads = s["heads"], dim = s["dim"];
  const Tensor qkv = o.random("qkv", {rows, (heads + (heads + 1) / 2) * dim}, s.dtype);
  A a;
  a.x = a.y = qkv.slice(1, 0, heads * dim).split_last(dim);
  a.table = o.copy_of("table", *rotations(rows, dim / 2), {rows, 2, dim / 2}, DType::kF32);
  return rowwise<Rope>(a, {&A::x, &A::table}, {&A::y});
}

Shape shape_of(const Rope::Args& a, std::span<const Axis> axes) {
  return {axes, a.y.dtype, "", {{"rows", a.y.dim(0)}, {"heads", a.y.dim(1)}, {"dim", a.y.dim(2)}}};
}

}  // namespace

OpLab rope_lab() {
  return op_lab<Rope>({.axes = {{"rows", 16384},
                                {"heads", 32, "of queries and keys together"},
                                {"dim", 72, "of a head"}},
                       .shapes = shapes,
                       .make = make,
                       .shape_of = shape_of,
                       .fields = [](const Rope::Args& a) -> Fields {
                         return {{"x", a.x}, {"table", a.table}, {"y", a.y}};
                       }});
}

}  // namespace vlr::bench
