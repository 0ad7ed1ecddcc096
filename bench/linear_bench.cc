// linear at the models' shapes. On a GPU: every layer of the 8B by numbers of rows, cuBLASLt exact,
// cuBLASLt fast and our own side by side; what is fused where the model fuses it. On the host, bf16
// weights: every implementation at the small shapes, at the others the reference would take
// minutes.

#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/linear/linear.h"

#if VLR_WITH_OPENBLAS
#include <cblas.h>
#endif

namespace vlr::bench {
namespace {
using ops::Activation;
using ops::Linear;

struct Layer {
  const char* what;
  int64_t n, k;
  bool bias = false, residual = false;
  Activation activation = Activation::kNone;
};

constexpr Layer k8bLayers[] = {{"8b_qkv", 6144, 4096},
                               {"8b_o", 4096, 4096},
                               {"8b_gate_up", 24576, 4096},
                               {"8b_down", 4096, 12288}};
constexpr Layer kVisionLayers[] = {{"8b_vision_qkv", 3456, 1152, true},
                                   {"8b_vision_proj", 1152, 1152, true},
                                   {"8b_vision_fc1", 4304, 1152, true},
                                   {"8b_vision_fc2", 1152, 4304, true}};
constexpr Layer k2bLayers[] = {{"2b_qkv", 4096, 2048},
                               {"2b_o", 2048, 2048},
                               {"2b_gate_up", 12288, 2048},
                               {"2b_down", 2048, 6144}};
// As the model has them: residuals, and the vision MLP's GELU, behind the product.
constexpr Layer kFusedText[] = {{"8b_o_residual", 4096, 4096, false, true},
                                {"8b_down_residual", 4096, 12288, false, true}};
constexpr Layer kFusedVision[] = {
    {"8b_vision_proj_residual", 1152, 1152, true, true},
    {"8b_vision_fc1_gelu", 4304, 1152, true, false, Activation::kGeluTanh},
    {"8b_vision_fc2_residual", 1152, 4304, true, true}};

void add_case(Machine& machine, const Layer& l, int64_t m, DType dtype) {
  const bool small = m * l.n * l.k < 20'000'000;
  const DType weights = weight_dtype(dtype);
  const std::string shape = std::string(dtype_name(weights)) + "/" + l.what + "/" +
                            std::to_string(m) + "x" + std::to_string(l.n) + "x" +
                            std::to_string(l.k);
  const auto make = [=](Operands& o) {
    Linear::Args a;
    a.x = o.random({m, l.k}, dtype);
    a.w = o.random({l.n, l.k}, weights);
    if (l.bias) a.bias = o.random({l.n}, weights);
    if (l.residual) a.residual = o.random({m, l.n}, dtype);
    a.y = o.uninitialised({m, l.n}, dtype);
    a.activation = l.activation;
    // The reference takes the last rows and the last columns.
    const int64_t columns = std::min<int64_t>(l.n, 300);
    const auto corner = [&](const auto& t) {
      return t.defined() ? last_rows(t, 2).slice(1, l.n - columns, columns) : t;
    };
    Linear::Args few = a;
    few.x = last_rows(a.x, 2);
    few.w = last_rows(a.w, columns);
    few.bias = last_rows(a.bias, columns);
    few.residual = corner(a.residual);
    few.y = corner(a.y);
    return Setup<Linear>{a, few, few.y};
  };
  add_benches<Linear>(machine, shape, make, {.time_reference = small});
}

void register_on_gpu(Machine& machine) {
  for (const int64_t m : {1, 16, 128, 1024, 8192, 16384}) {
    for (const Layer& l : k8bLayers) add_case(machine, l, m, DType::kBF16);
    if (m < 1024) continue;  // a tower sees hundreds of patches at least
    for (const Layer& l : kVisionLayers) add_case(machine, l, m, DType::kBF16);
  }
  for (const int64_t m : {128, 8192}) {
    for (const Layer& l : k2bLayers) add_case(machine, l, m, DType::kBF16);
  }
  for (const Layer& l : kFusedText) add_case(machine, l, 8192, DType::kBF16);
  for (const Layer& l : kFusedVision) add_case(machine, l, 16384, DType::kBF16);
  for (const Layer& l : k8bLayers) add_case(machine, l, 8192, DType::kF16);
}

void register_on_host(Machine& machine) {
  struct Shape {
    Layer layer;
    int64_t m;
  };
  constexpr Shape kShapes[] = {
      {k2bLayers[0], 512},
      {k2bLayers[1], 512},
      {k2bLayers[2], 512},
      {k2bLayers[3], 512},
      // the last layer of a small batch: the weights' bytes are what counts
      {k2bLayers[2], 1},
      {k2bLayers[2], 4},
      {k2bLayers[2], 16},
      {k2bLayers[3], 1},
      {k2bLayers[3], 16},
      // the demo checkpoint: text decoder, then vision tower
      {{"demo_qkv", 1024, 256}, 50},
      {{"demo_o", 256, 512}, 50},
      {{"demo_gate_up", 1536, 256}, 50},
      {{"demo_down", 256, 768}, 50},
      {{"demo_qkv", 1024, 256}, 1000},
      {{"demo_o", 256, 512}, 1000},
      {{"demo_gate_up", 1536, 256}, 1000},
      {{"demo_down", 256, 768}, 1000},
      {{"demo_vision_qkv", 432, 144}, 1000},
      {{"demo_vision_qkv", 432, 144}, 4000},
      {{"demo_vision_fc2", 144, 576}, 4000},
  };
#if VLR_WITH_OPENBLAS
  benchmark::AddCustomContext("openblas", openblas_get_corename());
#endif
  for (const Shape& s : kShapes) add_case(machine, s.layer, s.m, DType::kF32);
}

void register_all(Machine& machine) {
  machine.is_gpu() ? register_on_gpu(machine) : register_on_host(machine);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
