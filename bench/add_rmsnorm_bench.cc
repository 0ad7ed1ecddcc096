// add_rmsnorm: the residual sum and the norm behind it, the sum in place.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/add_rmsnorm/add_rmsnorm.h"

namespace vlr::bench {
namespace {
using ops::AddRmsNorm;

void register_all(Machine& machine) {
  for (const Rows& s : text_rows(machine)) {
    add_benches<AddRmsNorm>(machine, s.name(), [s](Operands& o) {
      AddRmsNorm::Args a;
      const Tensor x = o.random({s.rows, s.dim}, s.dtype);
      a.a = a.sum = x;
      a.b = o.random({s.rows, s.dim}, s.dtype);
      a.weight = o.random({s.dim}, weight_dtype(s.dtype));
      a.y = o.uninitialised({s.rows, s.dim}, s.dtype);
      AddRmsNorm::Args few = a;
      few.a = few.sum = last_rows(x);
      few.b = last_rows(a.b);
      few.y = last_rows(a.y);
      return Setup<AddRmsNorm>{a, few, few.y};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
