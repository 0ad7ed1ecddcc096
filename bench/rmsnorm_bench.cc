// rmsnorm: of the residual stream, and of the heads of queries.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/rmsnorm/rmsnorm.h"

namespace vlr::bench {
namespace {
using ops::RmsNorm;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out = text_rows(device, axes);
  if (device == Device::kCuda) {
    out.emplace_back(axes, DType::kBF16, "8b_q_heads",
                     Values{{"rows", 8192}, {"heads", 32}, {"dim", 128}});
  } else {
    out.emplace_back(axes, DType::kF32, "2b_q_heads",
                     Values{{"rows", 512}, {"heads", 16}, {"dim", 128}});
  }
  return out;
}

Setup<RmsNorm> make(Operands& o, const Shape& s) {
  const bool heads = s["heads"] > 0;
  const auto rows = [&](const char* name, bool out) {
    const auto make = [&](std::initializer_list<int64_t> dims) {
      return out ? o.output(name, dims, s.dtype) : o.random(name, dims, s.dtype);
    };
    return heads ? make({s["rows"], s["heads"], s["dim"]}) : make({s["rows"], s["dim"]});
  };
  using A = RmsNorm::Args;
  const A a{.x = rows("x", false),
            .weight = o.weights("weight", {s["dim"]}, weight_dtype(s.dtype)),
            .y = rows("y", true)};
  return rowwise<RmsNorm>(a, {&A::x}, {&A::y});
}

Shape shape_of(const RmsNorm::Args& a, std::span<const Axis> axes) {
  const bool heads = a.x.rank == 3;
  return {
      axes,
      a.x.dtype,
      "",
      {{"rows", a.x.dim(0)}, {"heads", heads ? a.x.dim(1) : 0}, {"dim", a.x.dim(a.x.rank - 1)}}};
}

}  // namespace

OpLab rmsnorm_lab() {
  return op_lab<RmsNorm>({.axes = {{"rows", 8192},
                                   {"heads", 0, "of x [rows, heads, dim]; 0: x is [rows, dim]"},
                                   {"dim", 4096}},
                          .shapes = shapes,
                          .make = make,
                          .shape_of = shape_of,
                          .fields = [](const RmsNorm::Args& a) -> Fields {
                            return {{"x", a.x}, {"weight", a.weight}, {"y", a.y}, {"eps", a.eps}};
                          }});
}

}  // namespace vlr::bench
