// convert: a shared prefix's keys and values, from the columns of a product to where they are kept.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/convert/convert.h"

namespace vlr::bench {
namespace {
using ops::Convert;

void add_case(Machine& machine, int64_t rows, const TextModel& m, DType from, DType to) {
  const int64_t q = m.heads * kHeadDim, kv = 2 * m.kv_heads * kHeadDim;
  const std::string shape = std::string(dtype_name(from)) + "_" + Rows{rows, kv, to}.name();
  add_benches<Convert>(machine, shape, [=](Operands& o) {
    const Tensor qkv = o.random({rows, q + kv}, from);
    const Convert::Args a{.x = qkv.slice(1, q, kv), .y = o.uninitialised({rows, kv}, to)};
    const Convert::Args few{.x = last_rows(a.x), .y = last_rows(a.y)};
    return Setup<Convert>{a, few, few.y};
  });
}

void register_all(Machine& machine) {
  if (!machine.is_gpu()) return add_case(machine, 512, k2b, DType::kF32, DType::kF32);
  add_case(machine, 8192, k8b, DType::kBF16, DType::kBF16);
  add_case(machine, 8192, k2b, DType::kBF16, DType::kBF16);
  add_case(machine, 8192, k8b, DType::kF16, DType::kF16);
  add_case(machine, 8192, k8b, DType::kF32, DType::kBF16);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
