// rope_table: a batch's cosines and sines; three axes in the decoder, two in the vision tower.
#include "bench/support/shapes.h"
#include "kernels/rope_table/rope_table.h"

namespace vlr::bench {
namespace {
using ops::RopeTable;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  const auto shape = [&](const char* label, int64_t rows, int64_t num_axes, int64_t pairs) {
    return Shape(axes, DType::kF32, label, {{"rows", rows}, {"axes", num_axes}, {"pairs", pairs}});
  };
  if (device == Device::kCpu) {
    return {shape("2b", 512, 3, kHeadDim / 2), shape("2b_vision", 1024, 2, k2bVision.head_dim / 2),
            shape("demo", 1000, 3, kHeadDim / 2)};
  }
  return {shape("8b", 8192, 3, kHeadDim / 2), shape("8b_vision", 16384, 2, k8bVision.head_dim / 2)};
}

Setup<RopeTable> make(Operands& o, const Shape& s) {
  const int64_t axes = s["axes"], rows = s["rows"], pairs = s["pairs"];
  if (axes < 1) throw std::invalid_argument("rope_table: axes must be at least 1");
  const double theta = axes == 2 ? 1e4 : 5e6;
  std::vector<int32_t> positions, axis;
  std::vector<float> inv_freq;
  for (int64_t i = 0; i < axes * rows; ++i) positions.push_back(static_cast<int32_t>(i % rows));
  for (int64_t j = 0; j < pairs; ++j) {
    axis.push_back(static_cast<int32_t>(j % axes));
    const double exponent = -static_cast<double>(j) / static_cast<double>(pairs);
    inv_freq.push_back(static_cast<float>(std::pow(theta, exponent)));
  }
  const RopeTable::Args a{.positions = o.copy_of("positions", positions, {axes, rows}),
                          .axis = o.copy_of("axis", axis, {pairs}),
                          .inv_freq = o.copy_of("inv_freq", inv_freq, {pairs}, DType::kF32),
                          .table = o.output("table", {rows, 2, pairs})};
  return {
      .args = a, .outputs = {a.table}, .num_rows = rows, .rows = [a](int64_t begin, int64_t count) {
        RopeTable::Args part = a;
        part.positions = a.positions.slice(1, begin, count);
        part.table = a.table.slice(0, begin, count);
        return Part<RopeTable>{part, {part.table}};
      }};
}

Shape shape_of(const RopeTable::Args& a, std::span<const Axis> axes) {
  return {axes,
          DType::kF32,
          "",
          {{"rows", a.table.dim(0)}, {"axes", a.positions.dim(0)}, {"pairs", a.table.dim(2)}}};
}

}  // namespace

OpLab rope_table_lab() {
  return op_lab<RopeTable>({.axes = {{"rows", 8192},
                                     {"axes", 3, "of positions; 2: with the vision tower's angles"},
                                     {"pairs", kHeadDim / 2}},
                            .shapes = shapes,
                            .make = make,
                            .shape_of = shape_of});
}

}  // namespace vlr::bench
