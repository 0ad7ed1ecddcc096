// vision_pos_embed: four corners of a grid of 48 x 48 for every patch.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/vision_pos_embed/vision_pos_embed.h"

namespace vlr::bench {
namespace {
using ops::VisionPosEmbed;

constexpr int64_t kSide = 48;

void register_all(Machine& machine) {
  for (const Rows& s : vision_rows(machine)) {
    std::vector<int32_t> corners;  // of images of 80 patches a row, a patch 0.6 of a cell
    for (int64_t p = 0; p < s.rows; ++p) {
      const int64_t row = p / 80 * 6 / 10 % (kSide - 1), column = p % 80 * 6 / 10 % (kSide - 1);
      for (const int64_t at : {int64_t{0}, int64_t{1}, kSide, kSide + 1})
        corners.push_back(static_cast<int32_t>(row * kSide + column + at));
    }
    add_benches<VisionPosEmbed>(machine, s.name(), [=](Operands& o) {
      VisionPosEmbed::Args a;
      a.x = o.random({s.rows, s.dim}, s.dtype);
      a.table = o.random({kSide * kSide, s.dim}, weight_dtype(s.dtype));
      a.indices = o.copy_of(corners, {s.rows, 4});
      a.weights = o.random({s.rows, 4});
      a.y = o.uninitialised({s.rows, s.dim}, s.dtype);
      VisionPosEmbed::Args few = a;
      few.x = last_rows(a.x);
      few.indices = last_rows(a.indices);
      few.weights = last_rows(a.weights);
      few.y = last_rows(a.y);
      return Setup<VisionPosEmbed>{a, few, few.y};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
