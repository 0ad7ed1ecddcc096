// gather_rows: the final tokens of 100 pairs.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/gather_rows/gather_rows.h"

namespace vlr::bench {
namespace {
using ops::GatherRows;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out;
  for (const Shape& s : text_rows(device, axes))
    out.push_back(with(s, "count", std::min<int64_t>(100, s["rows"] / 5)));
  return out;
}

Setup<GatherRows> make(Operands& o, const Shape& s) {
  using A = GatherRows::Args;
  if (s["count"] > s["rows"])
    throw std::invalid_argument("gather_rows: count must be at most rows");
  std::vector<int32_t> rows;
  for (int64_t b = 1; b <= s["count"]; ++b)
    rows.push_back(static_cast<int32_t>(b * s["rows"] / s["count"] - 1));
  const A a{.x = o.random("x", {s["rows"], s["dim"]}, s.dtype),
            .rows = o.copy_of("rows", rows, {s["count"]}),
            .y = o.output("y", {s["count"], s["dim"]}, s.dtype)};
  return rowwise<GatherRows>(a, {&A::rows}, {&A::y});
}

Shape shape_of(const GatherRows::Args& a, std::span<const Axis> axes) {
  return {axes, a.y.dtype, "", {{"rows", a.x.dim(0)}, {"dim", a.x.dim(1)}, {"count", a.y.dim(0)}}};
}

}  // namespace

OpLab gather_rows_lab() {
  return op_lab<GatherRows>(
      {.axes = {{"rows", 8192, "of x"}, {"dim", 4096}, {"count", 100, "of them that are picked"}},
       .shapes = shapes,
       .make = make,
       .shape_of = shape_of});
}

}  // namespace vlr::bench
