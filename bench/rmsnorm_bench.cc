// rmsnorm: of the residual stream, and of the heads of queries.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/rmsnorm/rmsnorm.h"

namespace vlr::bench {
namespace {
using ops::RmsNorm;

Setup<RmsNorm> make(Operands& o, std::initializer_list<int64_t> dims, DType dtype) {
  const RmsNorm::Args a{.x = o.random(dims, dtype),
                        .weight = o.random({*(dims.end() - 1)}, weight_dtype(dtype)),
                        .y = o.uninitialised(dims, dtype)};
  RmsNorm::Args few = a;
  few.x = last_rows(a.x);
  few.y = last_rows(a.y);
  return {a, few, few.y};
}

void register_all(Machine& machine) {
  for (const Rows& s : text_rows(machine)) {
    add_benches<RmsNorm>(machine, s.name(), [s](Operands& o) {
      return make(o, {s.rows, s.dim}, s.dtype);
    });
  }
  const int64_t rows = machine.is_gpu() ? 8192 : 512, heads = machine.is_gpu() ? 32 : 16;
  const DType dtype = machine.is_gpu() ? DType::kBF16 : DType::kF32;
  const std::string shape = Rows{rows, heads, dtype}.name() + "x" + std::to_string(kHeadDim);
  add_benches<RmsNorm>(machine, shape, [=](Operands& o) {
    return make(o, {rows, heads, kHeadDim}, dtype);
  });
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
