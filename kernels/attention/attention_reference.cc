#include <cmath>
#include <vector>

#include "kernels/attention/impls.h"

namespace vlr::ops {

Status attention_reference(const Attention::Args& a, Context&) {
  const int64_t heads = a.q.dim(1), head_dim = a.q.dim(2), group = heads / a.k.dim(1);
  std::vector<double> p, sum(static_cast<size_t>(head_dim));
  for (const AttentionSegment& s : a.segments) {
    const int64_t keys = int64_t{s.prefix_len} + s.k_len;
    // Row j of the visible keys (or values): the prefix first, then the sequence's own.
    const auto row = [&](const ConstTensor& prefix, const ConstTensor& own, int64_t j,
                         int64_t head) {
      const bool in_prefix = j < s.prefix_len;
      const ConstTensor& t = in_prefix ? prefix : own;
      return t.row<float>(in_prefix ? s.prefix_begin + j : s.k_begin + j - s.prefix_len) +
             head * t.stride(1);
    };
    for (int64_t i = 0; i < s.q_len; ++i) {
      const int64_t visible = a.causal ? keys - s.q_len + i + 1 : keys;
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = a.q.row<float>(s.q_begin + i) + h * a.q.stride(1);
        p.assign(static_cast<size_t>(visible), 0.0);
        double max = -INFINITY;
        for (int64_t j = 0; j < visible; ++j) {
          const float* k = row(a.prefix_k, a.k, j, h / group);
          double dot = 0;
          for (int64_t d = 0; d < head_dim; ++d) dot += static_cast<double>(q[d]) * k[d];
          p[static_cast<size_t>(j)] = dot * a.scale;
          max = std::fmax(max, dot * a.scale);
        }
        double total = 0;
        sum.assign(static_cast<size_t>(head_dim), 0.0);
        for (int64_t j = 0; j < visible; ++j) {
          const double weight = std::exp(p[static_cast<size_t>(j)] - max);
          const float* v = row(a.prefix_v, a.v, j, h / group);
          total += weight;
          for (int64_t d = 0; d < head_dim; ++d) sum[static_cast<size_t>(d)] += weight * v[d];
        }
        float* o = a.o.row<float>(s.q_begin + i) + h * a.o.stride(1);
        for (int64_t d = 0; d < head_dim; ++d)
          o[d] = static_cast<float>(sum[static_cast<size_t>(d)] / total);
      }
    }
  }
  return {};
}

}  // namespace vlr::ops
