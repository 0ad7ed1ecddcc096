// gather_rows: the final tokens of 100 pairs.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/gather_rows/gather_rows.h"

namespace vlr::bench {
namespace {
using ops::GatherRows;

void register_all(Machine& machine) {
  for (const Rows& s : text_rows(machine)) {
    const int64_t count = std::min<int64_t>(100, s.rows / 5);
    std::vector<int32_t> rows;
    for (int64_t b = 1; b <= count; ++b)
      rows.push_back(static_cast<int32_t>(b * s.rows / count - 1));
    const std::string shape = s.name() + "/" + std::to_string(count);
    add_benches<GatherRows>(machine, shape, [=](Operands& o) {
      const GatherRows::Args a{.x = o.random({s.rows, s.dim}, s.dtype),
                               .rows = o.copy_of(rows, {count}),
                               .y = o.uninitialised({count, s.dim}, s.dtype)};
      return Setup<GatherRows>{a, a, a.y};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
