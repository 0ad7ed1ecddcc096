// qk_norm_rope: queries and keys of a decoder layer, in place, in the columns of one product.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/qk_norm_rope/qk_norm_rope.h"

namespace vlr::bench {
namespace {
using ops::QkNormRope;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const TextModel& m, int64_t rows, const char* what) {
    return Shape(axes, dtype, std::string(m.name) + what,
                 {{"rows", rows}, {"heads", m.heads}, {"kv_heads", m.kv_heads}, {"dim", kHeadDim}});
  };
  const DType f32 = DType::kF32, bf16 = DType::kBF16;
  if (device == Device::kCpu) return {shape(f32, k2b, 512, ""), shape(f32, kDemo, 1000, "")};
  return {shape(bf16, k8b, 8192, ""), shape(bf16, k2b, 8192, ""), shape(bf16, k8b, 128, "_pair"),
          shape(DType::kF16, k8b, 8192, "")};
}

Setup<QkNormRope> make(Operands& o, const Shape& s) {
  using A = QkNormRope::Args;
  const int64_t rows = s["rows"], dim = s["dim"], heads = s["heads"] + s["kv_heads"];
  A a;
  const Tensor qkv = o.random("qkv", {rows, (heads + s["kv_heads"]) * dim}, s.dtype);
  a.x = a.y = qkv.slice(1, 0, heads * dim).split_last(dim);
  a.q_weight = o.weights("q_weight", {dim}, weight_dtype(s.dtype));
  a.k_weight = o.weights("k_weight", {dim}, weight_dtype(s.dtype));
  a.table = o.copy_of("table", *rotations(rows, dim / 2), {rows, 2, dim / 2}, DType::kF32);
  a.num_q_heads = s["heads"];
  return rowwise<QkNormRope>(a, {&A::x, &A::table}, {&A::y});
}

Shape shape_of(const QkNormRope::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.y.dtype,
          "",
          {{"rows", a.y.dim(0)},
           {"heads", a.num_q_heads},
           {"kv_heads", a.y.dim(1) - a.num_q_heads},
           {"dim", a.y.dim(2)}}};
}

}  // namespace

OpLab qk_norm_rope_lab() {
  return op_lab<QkNormRope>({.axes = {{"rows", 8192},
                                      {"heads", 0, "of queries"},
                                      {"kv_heads", 0, "of keys"},
                                      {"dim", kHeadDim, "of a head"}},
                             .shapes = shapes,
                             .make = make,
                             .shape_of = shape_of});
}

}  // namespace vlr::bench
