// rope: queries and keys of a vision block, in place, side by side in the columns of one product.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/rope/rope.h"

namespace vlr::bench {
namespace {
using ops::Rope;

void add_case(Machine& machine, int64_t rows, int64_t heads, int64_t head_dim, DType dtype) {
  const std::string shape = Rows{rows, heads, dtype}.name() + "x" + std::to_string(head_dim);
  const auto table = rotations(rows, head_dim / 2);
  add_benches<Rope>(machine, shape, [=](Operands& o) {
    const Tensor qkv = o.random({rows, heads / 2 * 3 * head_dim}, dtype);
    Rope::Args a;
    a.y = qkv.slice(1, 0, heads * head_dim).split_last(head_dim);
    a.x = a.y;
    a.table = o.copy_of(*table, {rows, 2, head_dim / 2}, DType::kF32);
    const Rope::Args few{.x = last_rows(a.x), .table = last_rows(a.table), .y = last_rows(a.y)};
    return Setup<Rope>{a, few, few.y};
  });
}

void register_all(Machine& machine) {
  if (!machine.is_gpu()) return add_case(machine, 512, 16, 128, DType::kF32);
  add_case(machine, 16384, 2 * k8bVision.heads, k8bVision.head_dim, DType::kBF16);
  add_case(machine, 16384, 2 * k2bVision.heads, k2bVision.head_dim, DType::kBF16);
  add_case(machine, 16384, 2 * k8bVision.heads, k8bVision.head_dim, DType::kF16);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
