// rope_table: a batch's cosines and sines; three axes in the decoder, two in the vision tower.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/rope_table/rope_table.h"

namespace vlr::bench {
namespace {
using ops::RopeTable;

void add_case(Machine& machine, int64_t axes, int64_t count, int64_t pairs, double theta) {
  std::vector<int32_t> positions, axis;
  std::vector<float> inv_freq;
  for (int64_t i = 0; i < axes * count; ++i) positions.push_back(static_cast<int32_t>(i % count));
  for (int64_t j = 0; j < pairs; ++j) {
    axis.push_back(static_cast<int32_t>(j % axes));
    const double exponent = -static_cast<double>(j) / static_cast<double>(pairs);
    inv_freq.push_back(static_cast<float>(std::pow(theta, exponent)));
  }
  const std::string shape =
      "f32/" + std::to_string(axes) + "x" + std::to_string(count) + "x" + std::to_string(pairs);
  add_benches<RopeTable>(machine, shape, [=](Operands& o) {
    const RopeTable::Args a{.positions = o.copy_of(positions, {axes, count}),
                            .axis = o.copy_of(axis, {pairs}),
                            .inv_freq = o.copy_of(inv_freq, {pairs}, DType::kF32),
                            .table = o.uninitialised({count, 2, pairs})};
    return Setup<RopeTable>{a, a, a.table};
  });
}

void register_all(Machine& machine) {
  const bool gpu = machine.is_gpu();
  add_case(machine, 3, gpu ? 8192 : 512, kHeadDim / 2, 5e6);
  add_case(machine, 2, gpu ? 16384 : 1024, k8bVision.head_dim / 2, 1e4);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
