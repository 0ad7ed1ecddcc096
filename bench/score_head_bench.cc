// score_head: the final tokens of 100 pairs.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/score_head/score_head.h"

namespace vlr::bench {
namespace {
using ops::ScoreHead;

void register_all(Machine& machine) {
  for (Rows s : text_rows(machine)) {
    if (s.rows == 128) continue;
    s.rows = 100;
    add_benches<ScoreHead>(machine, s.name(), [s](Operands& o) {
      const ScoreHead::Args a{.x = o.random({s.rows, s.dim}, s.dtype),
                              .norm_weight = o.random({s.dim}, weight_dtype(s.dtype)),
                              .w = o.random({2, s.dim}, weight_dtype(s.dtype)),
                              .log_odds = o.uninitialised({s.rows})};
      return Setup<ScoreHead>{a, a, a.log_odds};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
