// score_head: the final tokens of 100 pairs.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/score_head/score_head.h"

namespace vlr::bench {
namespace {
using ops::ScoreHead;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out;
  for (const Shape& s : text_rows(device, axes)) {
    if (s["rows"] != 128) out.push_back(with(s, "rows", 100));
  }
  return out;
}

Setup<ScoreHead> make(Operands& o, const Shape& s) {
  using A = ScoreHead::Args;
  const int64_t rows_of_w = s["w"] == 0 ? 2 : 1;
  const A a{.x = o.random("x", {s["rows"], s["dim"]}, s.dtype),
            .norm_weight = o.weights("norm_weight", {s["dim"]}, weight_dtype(s.dtype)),
            .w = o.weights("w", {rows_of_w, s["dim"]}, weight_dtype(s.dtype)),
            .log_odds = o.output("log_odds", {s["rows"]})};
  return rowwise<ScoreHead>(a, {&A::x}, {&A::log_odds});
}

Shape shape_of(const ScoreHead::Args& a, std::span<const Axis> axes) {
  return {axes, a.x.dtype, "", {{"rows", a.x.dim(0)}, {"dim", a.x.dim(1)}, {"w", 2 - a.w.dim(0)}}};
}

}  // namespace

OpLab score_head_lab() {
  return op_lab<ScoreHead>(
      {.axes = {{"rows", 100}, {"dim", 4096}, {"w", 0, "", {"yes_no", "difference"}}},
       .shapes = shapes,
       .make = make,
       .shape_of = shape_of});
}

}  // namespace vlr::bench
