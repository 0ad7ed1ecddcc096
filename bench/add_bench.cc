// add: the residual sum of a decoder layer.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/add/add.h"

namespace vlr::bench {
namespace {
using ops::Add;

void register_all(Machine& machine) {
  for (const Rows& s : text_rows(machine)) {
    add_benches<Add>(machine, s.name(), [s](Operands& o) {
      const Add::Args a{.a = o.random({s.rows, s.dim}, s.dtype),
                        .b = o.random({s.rows, s.dim}, s.dtype),
                        .y = o.uninitialised({s.rows, s.dim}, s.dtype)};
      const Add::Args few{.a = last_rows(a.a), .b = last_rows(a.b), .y = last_rows(a.y)};
      return Setup<Add>{a, few, few.y};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
