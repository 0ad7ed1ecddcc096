// swiglu: gate and up are the halves of one product.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/swiglu/swiglu.h"

namespace vlr::bench {
namespace {
using ops::SwiGlu;

void register_all(Machine& machine) {
  const std::vector<Rows> on_gpu = {{8192, k8b.mlp, DType::kBF16},
                                    {8192, k2b.mlp, DType::kBF16},
                                    {128, k8b.mlp, DType::kBF16},
                                    {8192, k8b.mlp, DType::kF16}};
  const std::vector<Rows> on_host = {{512, k2b.mlp, DType::kF32}, {1000, 768, DType::kF32}};
  for (const Rows& s : machine.is_gpu() ? on_gpu : on_host) {
    add_benches<SwiGlu>(machine, s.name(), [s](Operands& o) {
      const Tensor gate_up = o.random({s.rows, 2 * s.dim}, s.dtype);
      const SwiGlu::Args a{.gate = gate_up.slice(1, 0, s.dim),
                           .up = gate_up.slice(1, s.dim, s.dim),
                           .y = o.uninitialised({s.rows, s.dim}, s.dtype)};
      const SwiGlu::Args few{.gate = last_rows(a.gate), .up = last_rows(a.up), .y = last_rows(a.y)};
      return Setup<SwiGlu>{a, few, few.y};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
