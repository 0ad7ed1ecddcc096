// linear at the models' layers. On a GPU: every layer of the 8B by numbers of rows, cuBLASLt exact,
// cuBLASLt fast and our own side by side; what is fused where the model fuses it. On the host, bf16
// weights.
#include "bench/support/layers.h"
#include "bench/support/rowwise.h"
#include "kernels/linear/linear.h"

namespace vlr::bench {
namespace {
using ops::Activation;
using ops::Linear;

constexpr Layer kVisionLayers[] = {{"8b_vision_qkv", 3456, 1152, true},
                                   {"8b_vision_proj", 1152, 1152, true},
                                   {"8b_vision_fc1", 4304, 1152, true},
                                   {"8b_vision_fc2", 1152, 4304, true}};
constexpr Layer k2bLayers[] = {{"2b_qkv", 4096, 2048},
                               {"2b_o", 2048, 2048},
                               {"2b_gate_up", 12288, 2048},
                               {"2b_down", 2048, 6144}};
// As the model has them: residuals, and the vision MLP's GELU, behind the product.
constexpr Layer kVisionFused[] = {
    {"8b_vision_proj_residual", 1152, 1152, true, true},
    {"8b_vision_fc1_gelu", 4304, 1152, true, false, Activation::kGeluTanh},
    {"8b_vision_fc2_residual", 1152, 4304, true, true}};
constexpr Layer kDemoVisionLayers[] = {{"demo_vision_qkv", 432, 144, true},
                                       {"demo_vision_fc2", 144, 576, true}};

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out;
  const auto add = [&](const auto& layers, std::initializer_list<int64_t> batches, DType dtype) {
    for (const int64_t m : batches) {
      for (const Layer& l : layers) out.push_back(layer_shape(axes, dtype, l, m));
    }
  };
  if (device == Device::kCpu) {
    const DType f32 = DType::kF32;
    add(k2bLayers, {512}, f32);
    // the last layer of a small batch: the weights' bytes are what counts
    add(std::span(k2bLayers).subspan(2), {1, 16}, f32);
    add(kDemoLayers, {50, 1000}, f32);
    add(kDemoVisionLayers, {1000, 4000}, f32);
    return out;
  }
  add(k8bLayers, {1, 16, 128, 1024, 8192, 16384}, DType::kBF16);
  add(kVisionLayers, {1024, 16384}, DType::kBF16);  // a tower sees hundreds of patches at least
  add(k2bLayers, {128, 8192}, DType::kBF16);
  add(k8bFused, {8192}, DType::kBF16);
  add(kVisionFused, {16384}, DType::kBF16);
  add(k8bLayers, {8192}, DType::kF16);
  return out;
}

Setup<Linear> make(Operands& o, const Shape& s) {
  using A = Linear::Args;
  const int64_t m = s["m"], n = s["n"], k = s["k"];
  const DType weights = weight_dtype(s.dtype);
  A a;
  a.x = o.random("x", {m, k}, s.dtype);
  a.w = o.weights("w", {n, k}, weights);
  if (s["bias"] > 0) a.bias = o.weights("bias", {n}, weights);
  if (s["residual"] > 0) a.residual = o.random("residual", {m, n}, s.dtype);
  a.y = o.output("y", {m, n}, s.dtype);
  a.activation = static_cast<Activation>(s["activation"]);
  auto setup = rowwise<Linear>(a, {&A::x, &A::residual}, {&A::y});
  setup.corner = [a] {
    A few = a;
    few.x = last_rows(a.x);
    few.w = last_columns(a.w);
    few.bias = last_columns(a.bias);
    few.residual = corner_of(a.residual);
    few.y = corner_of(a.y);
    return Part<Linear>{few, {few.y}};
  };
  return setup;
}

}  // namespace

OpLab linear_lab() {
  return op_lab<Linear>(
      {.axes = linear_axes(),
       .shapes = shapes,
       .make = make,
       .shape_of = linear_shape_of<Linear::Args>,
       .fields = [](const Linear::Args& a) -> Fields {
         return {{"x", a.x}, {"w", a.w}, {"bias", a.bias}, {"residual", a.residual}, {"y", a.y}};
       }});
}

}  // namespace vlr::bench
