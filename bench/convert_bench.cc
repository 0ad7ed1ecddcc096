// convert: a shared prefix's keys and values, from the columns of a product to where they are kept.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/convert/convert.h"

namespace vlr::bench {
namespace {
using ops::Convert;

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};  // the words of axis "to"

int64_t value_of(DType to) { return std::ranges::find(kDTypes, to) - std::begin(kDTypes); }

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  const auto shape = [&](const TextModel& m, int64_t rows, DType from, DType to) {
    const int64_t kv = 2 * m.kv_heads * kHeadDim;
    return Shape(
        axes, from, std::string(m.name) + "_prefix",
        {{"rows", rows}, {"dim", kv}, {"stride", m.heads * kHeadDim + kv}, {"to", value_of(to)}});
  };
  if (device == Device::kCpu) {
    return {shape(k2b, 512, DType::kF32, DType::kF32), shape(kDemo, 60, DType::kF32, DType::kF32)};
  }
  return {shape(k8b, 8192, DType::kBF16, DType::kBF16),
          shape(k2b, 8192, DType::kBF16, DType::kBF16), shape(k8b, 8192, DType::kF16, DType::kF16),
          shape(k8b, 8192, DType::kF32, DType::kBF16)};
}

Setup<Convert> make(Operands& o, const Shape& s) {
  using A = Convert::Args;
  const int64_t stride = std::max(s["stride"], s["dim"]);
  const Tensor x = o.random("x", {s["rows"], stride}, s.dtype);
  const A a{.x = x.slice(1, stride - s["dim"], s["dim"]),
            .y = o.output("y", {s["rows"], s["dim"]}, kDTypes[s["to"]])};
  return rowwise<Convert>(a, {&A::x}, {&A::y});
}

Shape shape_of(const Convert::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.x.dtype,
          "",
          {{"rows", a.y.dim(0)},
           {"dim", a.y.dim(1)},
           {"stride", a.x.contiguous() ? 0 : a.x.stride(0)},
           {"to", value_of(a.y.dtype)}}};
}

}  // namespace

OpLab convert_lab() {
  return op_lab<Convert>(
      {.axes = {{"rows", 8192},
                {"dim", 2048},
                {"stride", 0, "columns of which x is the last ones; 0: x has no others"},
                {"to", 0, "dtype of y", {"f32", "bf16", "f16"}}},
       .shapes = shapes,
       .make = make,
       .shape_of = shape_of});
}

}  // namespace vlr::bench
