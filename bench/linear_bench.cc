// linear at the models' shapes, bf16 weights. Every implementation at the small ones; at the others
// the reference would take minutes, so it checks the first rows only and is not timed.

#include "bench/support/op_bench.h"
#include "kernels/linear/linear.h"

#if VLR_WITH_OPENBLAS
#include <cblas.h>
#endif

namespace vlr::bench {
namespace {
using ops::Linear;

struct Shape {
  const char* what;
  int64_t m, n, k;
};

constexpr Shape kShapes[] = {
    // 2b text decoder: q|k|v, o, gate|up, down
    {"2b_qkv", 512, 4096, 2048},
    {"2b_o", 512, 2048, 2048},
    {"2b_gate_up", 512, 12288, 2048},
    {"2b_down", 512, 2048, 6144},
    // the last layer of a small batch: the weights' bytes are what counts
    {"2b_gate_up", 1, 12288, 2048},
    {"2b_gate_up", 4, 12288, 2048},
    {"2b_gate_up", 16, 12288, 2048},
    {"2b_down", 1, 2048, 6144},
    {"2b_down", 16, 2048, 6144},
    // the demo checkpoint: text decoder, then vision tower
    {"demo_qkv", 50, 1024, 256},
    {"demo_o", 50, 256, 512},
    {"demo_gate_up", 50, 1536, 256},
    {"demo_down", 50, 256, 768},
    {"demo_qkv", 1000, 1024, 256},
    {"demo_o", 1000, 256, 512},
    {"demo_gate_up", 1000, 1536, 256},
    {"demo_down", 1000, 256, 768},
    {"demo_vision_qkv", 1000, 432, 144},
    {"demo_vision_qkv", 4000, 432, 144},
    {"demo_vision_fc2", 4000, 144, 576},
};

void register_all(Machine& machine) {
#if VLR_WITH_OPENBLAS
  benchmark::AddCustomContext("openblas", openblas_get_corename());
#endif
  for (const Shape& s : kShapes) {
    const bool small = s.m * s.n * s.k < 20'000'000;
    for (const Impl<Linear>& impl : Linear::impls()) {
      if (impl.device != Device::kCpu || (impl.name == "reference" && !small)) continue;
      const std::string shape = "bf16/" + std::string(s.what) + "/" + std::to_string(s.m) + "x" +
                                std::to_string(s.n) + "x" + std::to_string(s.k);
      add_bench<Linear>(machine, impl, shape, [s](Operands& o) {
        Setup<Linear> setup;
        setup.args = {.x = o.random({s.m, s.k}),
                      .w = o.random({s.n, s.k}, DType::kBF16),
                      .bias = {},
                      .y = o.uninitialised({s.m, s.n})};
        const int64_t checked = std::min<int64_t>(s.m, 2);
        setup.reference_args = setup.args;
        setup.reference_args.x = setup.args.x.slice(0, 0, checked);
        setup.reference_args.y = setup.output = setup.args.y.slice(0, 0, checked);
        return setup;
      });
    }
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
