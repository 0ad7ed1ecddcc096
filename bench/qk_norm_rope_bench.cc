// qk_norm_rope: queries and keys of a decoder layer, in place, in the columns of one product.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/qk_norm_rope/qk_norm_rope.h"

namespace vlr::bench {
namespace {
using ops::QkNormRope;

void add_case(Machine& machine, int64_t rows, const TextModel& m, DType dtype) {
  const int64_t heads = m.heads + m.kv_heads, q_heads = m.heads, kv_heads = m.kv_heads;
  const std::string shape = Rows{rows, heads, dtype}.name() + "x" + std::to_string(kHeadDim);
  const auto table = rotations(rows, kHeadDim / 2);
  add_benches<QkNormRope>(machine, shape, [=](Operands& o) {
    const Tensor qkv = o.random({rows, (heads + kv_heads) * kHeadDim}, dtype);
    QkNormRope::Args a;
    a.y = qkv.slice(1, 0, heads * kHeadDim).split_last(kHeadDim);
    a.x = a.y;
    a.q_weight = o.random({kHeadDim}, weight_dtype(dtype));
    a.k_weight = o.random({kHeadDim}, weight_dtype(dtype));
    a.table = o.copy_of(*table, {rows, 2, kHeadDim / 2}, DType::kF32);
    a.num_q_heads = q_heads;
    QkNormRope::Args few = a;
    few.y = last_rows(a.y);
    few.x = few.y;
    few.table = last_rows(a.table);
    return Setup<QkNormRope>{a, few, few.y};
  });
}

void register_all(Machine& machine) {
  if (!machine.is_gpu()) return add_case(machine, 512, k2b, DType::kF32);
  add_case(machine, 8192, k8b, DType::kBF16);
  add_case(machine, 8192, k2b, DType::kBF16);
  add_case(machine, 128, k8b, DType::kBF16);
  add_case(machine, 8192, k8b, DType::kF16);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
