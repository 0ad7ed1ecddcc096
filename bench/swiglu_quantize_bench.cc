// swiglu_quantize: gate and up are the halves of one product.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/swiglu_quantize/swiglu_quantize.h"

namespace vlr::bench {
namespace {
using ops::SwiGluQuantize;

void register_all(Machine& machine) {
  const std::vector<Rows> on_gpu = {{8192, k8b.mlp, DType::kBF16},
                                    {8192, k2b.mlp, DType::kBF16},
                                    {128, k8b.mlp, DType::kBF16},
                                    {8192, k8b.mlp, DType::kF16}};
  const std::vector<Rows> on_host = {{512, k2b.mlp, DType::kF32}, {1000, 768, DType::kF32}};
  for (const DType codes : {DType::kI8, DType::kF8E4M3}) {
    for (const Rows& s : machine.is_gpu() ? on_gpu : on_host) {
      const std::string shape = std::string(dtype_name(codes)) + "/" + s.name();
      add_benches<SwiGluQuantize>(machine, shape, [=](Operands& o) {
        const Tensor gate_up = o.random({s.rows, 2 * s.dim}, s.dtype);
        const SwiGluQuantize::Args a{.gate = gate_up.slice(1, 0, s.dim),
                                     .up = gate_up.slice(1, s.dim, s.dim),
                                     .q = o.uninitialised({s.rows, s.dim}, codes),
                                     .scale = o.uninitialised({s.rows})};
        const SwiGluQuantize::Args few{.gate = last_rows(a.gate),
                                       .up = last_rows(a.up),
                                       .q = last_rows(a.q),
                                       .scale = last_rows(a.scale)};
        return Setup<SwiGluQuantize>{a, few, few.q};
      });
    }
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
