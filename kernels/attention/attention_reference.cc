#include <cmath>
#include <vector>

#include "kernels/attention/impls.h"
#include "kernels/core/load.h"

namespace vlr::ops {

Status attention_reference(const Attention::Args& a, Context&) {
  const int64_t heads = a.q.dim(1), head_dim = a.q.dim(2), group = heads / a.k.dim(1);
  std::vector<double> p, sum(static_cast<size_t>(head_dim));
  for (const AttentionSegment& s : a.segments) {
    const int64_t keys = int64_t{s.prefix_len} + s.k_len;
    // Element d of row j of the visible keys (or values): the prefix first, then the sequence's
    // own.
    const auto element = [&](const ConstTensor& prefix, const ConstTensor& own, int64_t j,
                             int64_t head, int64_t d) {
      const bool in_prefix = j < s.prefix_len;
      const ConstTensor& t = in_prefix ? prefix : own;
      const int64_t row = in_prefix ? s.prefix_begin + j : s.k_begin + j - s.prefix_len;
      return static_cast<double>(load_f32(t, row * t.stride(0) + head * t.stride(1) + d));
    };
    for (int64_t i = 0; i < s.q_len; ++i) {
      const int64_t visible = a.causal ? keys - s.q_len + i + 1 : keys;
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t q = (s.q_begin + i) * a.q.stride(0) + h * a.q.stride(1);
        p.assign(static_cast<size_t>(visible), 0.0);
        double max = -INFINITY;
        for (int64_t j = 0; j < visible; ++j) {
          double dot = 0;
          for (int64_t d = 0; d < head_dim; ++d)
            dot += static_cast<double>(load_f32(a.q, q + d)) *
                   element(a.prefix_k, a.k, j, h / group, d);
          p[static_cast<size_t>(j)] = dot * a.scale;
          max = std::fmax(max, dot * a.scale);
        }
        double total = 0;
        sum.assign(static_cast<size_t>(head_dim), 0.0);
        for (int64_t j = 0; j < visible; ++j) {
          const double weight = std::exp(p[static_cast<size_t>(j)] - max);
          total += weight;
          for (int64_t d = 0; d < head_dim; ++d)
            sum[static_cast<size_t>(d)] += weight * element(a.prefix_v, a.v, j, h / group, d);
        }
        const int64_t o = (s.q_begin + i) * a.o.stride(0) + h * a.o.stride(1);
        for (int64_t d = 0; d < head_dim; ++d)
          store_f32(a.o, o + d, static_cast<float>(sum[static_cast<size_t>(d)] / total));
      }
    }
  }
  return {};
}

}  // namespace vlr::ops
