// vision_pos_embed: four corners of a grid of 48 x 48 for every patch.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/vision_pos_embed/vision_pos_embed.h"

namespace vlr::bench {
namespace {
using ops::VisionPosEmbed;

/// Of images of 80 patches a row, a patch 0.6 of a cell.
std::vector<int32_t> corners(int64_t patches, int64_t side) {
  const int64_t cells = std::max<int64_t>(side - 1, 1);
  std::vector<int32_t> out;
  for (int64_t p = 0; p < patches; ++p) {
    const int64_t row = p / 80 * 6 / 10 % cells, column = p % 80 * 6 / 10 % cells;
    for (const int64_t at : {int64_t{0}, int64_t{1}, side, side + 1})
      out.push_back(static_cast<int32_t>(row * side + column + at));
  }
  return out;
}

Setup<VisionPosEmbed> make(Operands& o, const Shape& s) {
  using A = VisionPosEmbed::Args;
  const int64_t rows = s["rows"], dim = s["dim"], side = s["side"];
  if (side < 2) throw std::invalid_argument("vision_pos_embed: side must be at least 2");
  A a;
  a.x = o.random("x", {rows, dim}, s.dtype);
  a.table = o.weights("table", {side * side, dim}, weight_dtype(s.dtype));
  a.indices = o.copy_of("indices", corners(rows, side), {rows, 4});
  a.weights = o.random("corner_weights", {rows, 4});
  a.y = o.output("y", {rows, dim}, s.dtype);
  return rowwise<VisionPosEmbed>(a, {&A::x, &A::indices, &A::weights}, {&A::y});
}

Shape shape_of(const VisionPosEmbed::Args& a, std::span<const Axis> axes) {
  const auto side = std::llround(std::sqrt(static_cast<double>(a.table.dim(0))));
  return {axes, a.y.dtype, "", {{"rows", a.y.dim(0)}, {"dim", a.y.dim(1)}, {"side", side}}};
}

}  // namespace

OpLab vision_pos_embed_lab() {
  return op_lab<VisionPosEmbed>(
      {.axes = {{"rows", 16384}, {"dim", 1152}, {"side", 48, "of the grid"}},
       .shapes = vision_rows,
       .make = make,
       .shape_of = shape_of});
}

}  // namespace vlr::bench
