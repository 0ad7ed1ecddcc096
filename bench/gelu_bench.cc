// gelu: tanh between the two products of a vision block, erf in a patch merger.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/gelu/gelu.h"

namespace vlr::bench {
namespace {
using ops::Gelu;
using ops::GeluKind;

void add_case(Machine& machine, const Rows& s, GeluKind kind) {
  const std::string shape = s.name() + (kind == GeluKind::kTanh ? "/tanh" : "/erf");
  add_benches<Gelu>(machine, shape, [s, kind](Operands& o) {
    const Gelu::Args a{.x = o.random({s.rows, s.dim}, s.dtype),
                       .y = o.uninitialised({s.rows, s.dim}, s.dtype),
                       .kind = kind};
    const Gelu::Args few{.x = last_rows(a.x), .y = last_rows(a.y), .kind = kind};
    return Setup<Gelu>{a, few, few.y};
  });
}

void register_all(Machine& machine) {
  if (machine.is_gpu()) {
    add_case(machine, {16384, k8bVision.mlp, DType::kBF16}, GeluKind::kTanh);
    add_case(machine, {16384, k2bVision.mlp, DType::kBF16}, GeluKind::kTanh);
    add_case(machine, {16384, k8bVision.mlp, DType::kF16}, GeluKind::kTanh);
    add_case(machine, {4096, 4 * k8bVision.hidden, DType::kBF16}, GeluKind::kErf);
    add_case(machine, {4096, 4 * k2bVision.hidden, DType::kBF16}, GeluKind::kErf);
    return;
  }
  for (const Rows& s : {Rows{1024, 4096, DType::kF32}, Rows{1000, 576, DType::kF32}}) {
    for (const GeluKind kind : {GeluKind::kTanh, GeluKind::kErf}) add_case(machine, s, kind);
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
