// linear_weight_only at the models' shapes. On a GPU: every layer of the 8B in nf4 by numbers of
// rows, decoding fused and apart, and beside them cuBLASLt on a bf16 weight of the same shape: what
// a quantised weight saves or costs. On the host the demo checkpoint's layers.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/core/integer.h"
#include "kernels/linear/linear.h"
#include "kernels/linear_weight_only/linear_weight_only.h"
#include "kernels/quant/four_bit.h"

namespace vlr::bench {
namespace {
using ops::Linear;
using ops::LinearWeightOnly;

struct Layer {
  const char* what;
  int64_t n, k;
};
constexpr Layer k8bLayers[] = {{"8b_qkv", 6144, 4096},
                               {"8b_o", 4096, 4096},
                               {"8b_gate_up", 24576, 4096},
                               {"8b_down", 4096, 12288}};
constexpr Layer kDemoLayers[] = {{"demo_qkv", 1024, 256},
                                 {"demo_o", 256, 512},
                                 {"demo_gate_up", 1536, 256},
                                 {"demo_down", 256, 768}};

std::string shape_name(DType dtype, const Layer& l, int64_t m) {
  return std::string(dtype_name(dtype)) + "/" + l.what + "/" + std::to_string(m) + "x" +
         std::to_string(l.n) + "x" + std::to_string(l.k);
}

/// The last columns of the last rows, which is what a reference computes: of y and of a residual.
constexpr int64_t kColumns = 256, kRows = 2;
Tensor corner(const Tensor& y) {
  return last_rows(y, kRows).slice(1, y.dim(1) - kColumns, kColumns);
}

/// Random codes, absmax from 0.5 to 1.
QuantizedWeight random_nf4(Operands& o, const Layer& l) {
  const int64_t blocks = l.n * l.k / kFourBitBlock;
  const int64_t groups = ceil_div(blocks, kFourBitNestedBlock);
  std::vector<float> nested;
  for (int64_t g = 0; g < groups; ++g) nested.insert(nested.end(), {0.25f, 0.75f});
  const auto map = dynamic_map();
  return {.format = WeightFormat::kNf4,
          .rows = l.n,
          .cols = l.k,
          .codes = o.random({l.n * l.k / 2}, DType::kU8),
          .scales = o.random({blocks}, DType::kU8),
          .nested = o.copy_of(nested, {groups, 2}, DType::kF32),
          .map = o.copy_of(std::vector<float>(map.begin(), map.end()), {256}, DType::kF32),
          .group_blocks = kFourBitNestedBlock};
}

void add_nf4(Machine& machine, const Layer& l, int64_t m, DType dtype) {
  add_benches<LinearWeightOnly>(machine, "nf4_" + shape_name(dtype, l, m), [=](Operands& o) {
    const LinearWeightOnly::Args a{.x = o.random({m, l.k}, dtype),
                                   .w = random_nf4(o, l),
                                   .y = o.uninitialised({m, l.n}, dtype)};
    LinearWeightOnly::Args few = a;
    few.x = last_rows(a.x, kRows);
    few.first_row = l.n - kColumns;
    few.y = corner(a.y);
    return Setup<LinearWeightOnly>{a, few, few.y};
  });
}

/// `linear` by cuBLASLt, as exact as a model has it.
void add_dense(Machine& machine, const Layer& l, int64_t m, DType dtype) {
  const auto make = [=](Operands& o) {
    const Linear::Args a{.x = o.random({m, l.k}, dtype),
                         .w = o.random({l.n, l.k}, dtype),
                         .bias = {},
                         .y = o.uninitialised({m, l.n}, dtype)};
    Linear::Args few = a;
    few.x = last_rows(a.x, kRows);
    few.w = last_rows(a.w, kColumns);
    few.y = corner(a.y);
    return Setup<Linear>{a, few, few.y};
  };
  const auto c = std::make_shared<Case<Linear>>(Case<Linear>{make, {}, {}});
  for (const auto& impl : Linear::impls()) {
    if (impl.name == "cublaslt")
      add_bench(machine, impl, "cublaslt", true, shape_name(dtype, l, m), c);
  }
}

void register_all(Machine& machine) {
  if (!machine.is_gpu()) {
    for (const int64_t m : {50, 1000}) {
      for (const Layer& l : kDemoLayers) add_nf4(machine, l, m, DType::kF32);
    }
    return;
  }
  for (const int64_t m : {1, 16, 64, 128, 256, 384, 512, 1024, 8192}) {
    for (const Layer& l : k8bLayers) {
      add_nf4(machine, l, m, DType::kBF16);
      add_dense(machine, l, m, DType::kBF16);
    }
  }
  for (const Layer& l : k8bLayers) add_nf4(machine, l, 128, DType::kF16);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
