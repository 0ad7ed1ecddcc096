// linear_w8a8 at the layers of the 8B, on a GPU: i8 through mma_s8; f8e4m3 through cuBLASLt with
// the scales as vectors, with scalars, and widened to 16 bits. What bf16 takes is in linear_bench.
#include "bench/support/layers.h"
#include "bench/support/quantized.h"
#include "bench/support/rowwise.h"
#include "kernels/linear_w8a8/linear_w8a8.h"

namespace vlr::bench {
namespace {
using ops::Activation;
using ops::LinearW8A8;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  std::vector<Shape> out;
  for (int64_t codes = 0; codes < 2; ++codes) {
    const auto add = [&](const auto& layers, std::initializer_list<int64_t> batches, DType dtype) {
      for (const int64_t m : batches) {
        for (const Layer& l : layers)
          out.push_back(with(layer_shape(axes, dtype, l, m), "codes", codes));
      }
    };
    if (device == Device::kCpu) {
      add(kDemoLayers, {50}, DType::kF32);
    } else {
      add(k8bLayers, {128, 1024, 8192, 16384}, DType::kBF16);
      add(k8bFused, {8192}, DType::kBF16);
    }
  }
  return out;
}

Setup<LinearW8A8> make(Operands& o, const Shape& s) {
  using A = LinearW8A8::Args;
  const int64_t m = s["m"], n = s["n"], k = s["k"];
  const DType codes = codes_dtype(s);
  A a;
  a.x = o.random("x", {m, k}, codes);
  a.x_scale = o.copy_of("x_scale", random_scales(m, codes, 2), {m}, DType::kF32);
  a.w = o.weights("w", {n, k}, codes);
  a.w_scale = o.copy_of("w_scale", random_scales(n, codes, 4), {n}, DType::kF32);
  if (s["bias"] > 0) a.bias = o.weights("bias", {n}, weight_dtype(s.dtype));
  if (s["residual"] > 0) a.residual = o.random("residual", {m, n}, s.dtype);
  a.y = o.output("y", {m, n}, s.dtype);
  a.activation = static_cast<Activation>(s["activation"]);
  auto setup = rowwise<LinearW8A8>(a, {&A::x, &A::x_scale, &A::residual}, {&A::y});
  setup.corner = [a] {
    A few = a;
    few.x = last_rows(a.x);
    few.x_scale = last_rows(a.x_scale);
    few.w = last_columns(a.w);
    few.w_scale = last_columns(a.w_scale);
    few.bias = last_columns(a.bias);
    few.residual = corner_of(a.residual);
    few.y = corner_of(a.y);
    return Part<LinearW8A8>{few, {few.y}};
  };
  return setup;
}

Shape shape_of(const LinearW8A8::Args& a, std::span<const Axis> axes) {
  return with(linear_shape_of(a, axes), "codes", codes_value(a.x.dtype));
}

}  // namespace

OpLab linear_w8a8_lab() {
  return op_lab<LinearW8A8>({.axes = linear_axes({codes_axis()}),
                             .shapes = shapes,
                             .make = make,
                             .shape_of = shape_of,
                             .unit = [](const Shape& s) { return unit_of(codes_dtype(s)); }});
}

}  // namespace vlr::bench
