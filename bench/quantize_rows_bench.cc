// quantize_rows: of the residual stream and of the gated values, with and without outliers.
#include "bench/support/quantized.h"
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/quantize_rows/quantize_rows.h"

namespace vlr::bench {
namespace {
using ops::QuantizeRows;

/// How outliers are found, if at all: the words of axis "outliers".
enum Outliers : int64_t { kNone, kByValue, kByColumn };

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> rows = text_rows(device, axes);
  rows.push_back(mlp_rows(device, axes)[0]);
  std::vector<Shape> out = with_all(rows, codes_axis());
  for (const size_t i : {size_t{0}, size_t{1}}) {
    for (const Outliers outliers : {kByValue, kByColumn})
      out.push_back(with(rows[i], "outliers", outliers));
  }
  return out;
}

Setup<QuantizeRows> make(Operands& o, const Shape& s) {
  using A = QuantizeRows::Args;
  A a{.x = o.random("x", {s["rows"], s["dim"]}, s.dtype),
      .q = o.output("q", {s["rows"], s["dim"]}, codes_dtype(s)),
      .scale = o.output("scale", {s["rows"]})};
  if (s["outliers"] != kNone) {
    a.outliers = o.output("outliers", {s["rows"], s["dim"]}, s.dtype);
    a.by_column = s["outliers"] == kByColumn;
    a.threshold = a.by_column ? 5 : 3.5f;  // one column in 200 of 8,192 rows, one value in 2,000
  }
  auto setup = rowwise<QuantizeRows>(a, {&A::x}, {&A::q, &A::scale, &A::outliers});
  if (a.by_column) setup.rows = nullptr;  // a column is all its rows
  return setup;
}

Shape shape_of(const QuantizeRows::Args& a, std::span<const Axis> axes) {
  const Outliers outliers = !a.outliers.defined() ? kNone : a.by_column ? kByColumn : kByValue;
  return {axes,
          a.x.dtype,
          "",
          {{"rows", a.x.dim(0)},
           {"dim", a.x.dim(1)},
           {"codes", codes_value(a.q.dtype)},
           {"outliers", outliers}}};
}

}  // namespace

OpLab quantize_rows_lab() {
  return op_lab<QuantizeRows>({.axes = {{"rows", 8192},
                                        {"dim", 4096},
                                        codes_axis(),
                                        {"outliers", kNone, "", {"none", "by_value", "by_column"}}},
                               .shapes = shapes,
                               .make = make,
                               .shape_of = shape_of,
                               .fields = [](const QuantizeRows::Args& a) -> Fields {
                                 return {{"x", a.x},
                                         {"q", a.q},
                                         {"scale", a.scale},
                                         {"outliers", a.outliers},
                                         {"threshold", a.threshold}};
                               }});
}

}  // namespace vlr::bench
