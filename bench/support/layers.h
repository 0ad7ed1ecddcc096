/// What the linear ops have in common: the models' layers, what is fused with them, and the corner
/// of a product that the reference computes.
#ifndef VLR_BENCH_SUPPORT_LAYERS_H_
#define VLR_BENCH_SUPPORT_LAYERS_H_

#include <algorithm>
#include <vector>

#include "bench/support/shapes.h"
#include "kernels/linear/linear.h"

namespace vlr::bench {

struct Layer {
  const char* name;
  int64_t n, k;
  bool bias = false, residual = false;
  ops::Activation activation = ops::Activation::kNone;
};
constexpr Layer k8bLayers[] = {{"8b_qkv", 6144, 4096},
                               {"8b_o", 4096, 4096},
                               {"8b_gate_up", 24576, 4096},
                               {"8b_down", 4096, 12288}};
// As the model has them: residuals behind the product.
constexpr Layer k8bFused[] = {{"8b_o_residual", 4096, 4096, false, true},
                              {"8b_down_residual", 4096, 12288, false, true}};
constexpr Layer kDemoLayers[] = {{"demo_qkv", 1024, 256},
                                 {"demo_o", 256, 512},
                                 {"demo_gate_up", 1536, 256},
                                 {"demo_down", 256, 768}};

/// m, n, k and what is fused, then `more`.
inline std::vector<Axis> linear_axes(std::vector<Axis> more = {}) {
  std::vector<Axis> axes = {
      {"m", 8192, "rows of x"},           {"n", 4096, "rows of the weight"},
      {"k", 4096, "what is summed over"}, {"bias", 0, "1: with one"},
      {"residual", 0, "1: with one"},     {"activation", 0, "", {"none", "gelu_tanh"}}};
  axes.insert(axes.end(), more.begin(), more.end());
  return axes;
}

inline Shape layer_shape(std::span<const Axis> axes, DType dtype, const Layer& l, int64_t m) {
  return {axes,
          dtype,
          l.name,
          {{"m", m},
           {"n", l.n},
           {"k", l.k},
           {"bias", l.bias},
           {"residual", l.residual},
           {"activation", static_cast<int64_t>(l.activation)}}};
}

/// Of the arguments of a linear op.
template <class Args>
Shape linear_shape_of(const Args& a, std::span<const Axis> axes) {
  const Layer l{"", a.y.dim(1), a.x.dim(1), a.bias.defined(), a.residual.defined(), a.activation};
  return layer_shape(axes, a.y.dtype, l, a.y.dim(0));
}

/// What the reference computes of a product: the last rows and the last columns.
constexpr int64_t kCornerRows = 2, kCornerColumns = 300;
/// The last elements of the first axis; of an operand that is not there, that.
template <class T>
T last(const T& t, int64_t count) {
  count = t.defined() ? std::min(count, t.dim(0)) : 0;
  return t.defined() ? t.slice(0, t.dim(0) - count, count) : t;
}
template <class T>
T last_rows(const T& t) {
  return last(t, kCornerRows);
}
template <class T>
T last_columns(const T& t) {  // of the product: rows of its weight
  return last(t, kCornerColumns);
}
template <class T>
T corner_of(const T& t) {
  if (!t.defined()) return t;
  const int64_t columns = std::min(kCornerColumns, t.dim(1));
  return last_rows(t).slice(1, t.dim(1) - columns, columns);
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_LAYERS_H_
