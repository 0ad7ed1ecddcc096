// dequantize: whole weights of the text decoders, and one of the vision tower whose blocks of nf4
// straddle rows.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/core/integer.h"
#include "kernels/dequantize/dequantize.h"
#include "kernels/quant/four_bit.h"

namespace vlr::bench {
namespace {
using ops::Dequantize;

struct Weight {
  const char* name;
  int64_t n, k;
};

QuantizedWeight random_weight(Operands& o, WeightFormat format, int64_t n, int64_t k) {
  QuantizedWeight w{.format = format, .rows = n, .cols = k};
  if (format == WeightFormat::kNf4) {
    const int64_t blocks = ceil_div(n * k, kFourBitBlock);
    w.codes = o.random({n * k / 2}, DType::kU8);
    w.scales = o.random({blocks}, DType::kU8);
    w.nested = o.random({ceil_div(blocks, kFourBitNestedBlock), 2});
    w.map = o.random({256});
    w.group_blocks = kFourBitNestedBlock;
  } else {
    w.codes = o.random({n, k}, format == WeightFormat::kInt8 ? DType::kI8 : DType::kF8E4M3);
    w.scales = o.random({n});
  }
  return w;
}

void register_all(Machine& machine) {
  const std::vector<Weight> on_gpu = {{"8b_qkv", 6144, k8b.hidden},
                                      {"8b_o", k8b.hidden, k8b.hidden},
                                      {"8b_gate_up", 2 * k8b.mlp, k8b.hidden},
                                      {"8b_down", k8b.hidden, k8b.mlp},
                                      {"2b_o", k2b.hidden, k2b.hidden},
                                      {"8b_vision_fc2", k8bVision.hidden, k8bVision.mlp}};
  const std::vector<Weight> on_host = {{"2b_o", k2b.hidden, k2b.hidden},
                                       {"8b_vision_fc2", k8bVision.hidden, k8bVision.mlp}};
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kInt8, WeightFormat::kFp8}) {
    for (const Weight& s : machine.is_gpu() ? on_gpu : on_host) {
      const DType dtype = machine.is_gpu() ? DType::kBF16 : DType::kF32;
      const std::string shape = std::string(weight_format_name(format)) + "/" + s.name + "/" +
                                std::to_string(s.n) + "x" + std::to_string(s.k);
      add_benches<Dequantize>(machine, shape, [=](Operands& o) {
        const Dequantize::Args a{.w = random_weight(o, format, s.n, s.k),
                                 .y = o.uninitialised({s.n, s.k}, dtype)};
        Dequantize::Args few = a;
        few.y = last_rows(a.y);
        few.first_row = s.n - few.y.dim(0);
        return Setup<Dequantize>{a, few, few.y};
      });
    }
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
