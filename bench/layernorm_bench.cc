// layernorm: of the vision tower's residual stream.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/layernorm/layernorm.h"

namespace vlr::bench {
namespace {
using ops::LayerNorm;

void register_all(Machine& machine) {
  for (const Rows& s : vision_rows(machine)) {
    add_benches<LayerNorm>(machine, s.name(), [s](Operands& o) {
      const LayerNorm::Args a{.x = o.random({s.rows, s.dim}, s.dtype),
                              .weight = o.random({s.dim}, weight_dtype(s.dtype)),
                              .bias = o.random({s.dim}, weight_dtype(s.dtype)),
                              .y = o.uninitialised({s.rows, s.dim}, s.dtype)};
      LayerNorm::Args few = a;
      few.x = last_rows(a.x);
      few.y = last_rows(a.y);
      return Setup<LayerNorm>{a, few, few.y};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
