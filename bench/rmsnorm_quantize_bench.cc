// rmsnorm_quantize: of the residual stream.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/rmsnorm_quantize/rmsnorm_quantize.h"

namespace vlr::bench {
namespace {
using ops::RmsNormQuantize;

void register_all(Machine& machine) {
  for (const DType codes : {DType::kI8, DType::kF8E4M3}) {
    for (const Rows& s : text_rows(machine)) {
      const std::string shape = std::string(dtype_name(codes)) + "/" + s.name();
      add_benches<RmsNormQuantize>(machine, shape, [=](Operands& o) {
        const RmsNormQuantize::Args a{.x = o.random({s.rows, s.dim}, s.dtype),
                                      .weight = o.random({s.dim}, weight_dtype(s.dtype)),
                                      .q = o.uninitialised({s.rows, s.dim}, codes),
                                      .scale = o.uninitialised({s.rows})};
        RmsNormQuantize::Args few = a;
        few.x = last_rows(a.x);
        few.q = last_rows(a.q);
        few.scale = last_rows(a.scale);
        return Setup<RmsNormQuantize>{a, few, few.q};
      });
    }
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
