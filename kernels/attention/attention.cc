#include "kernels/attention/attention.h"

#include <fmt/format.h>

#include "kernels/attention/impls.h"

namespace vlr::ops {

Status Attention::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "q", a.q, {-1, -1, -1}));
  const int64_t heads = a.q.dim(1), head_dim = a.q.dim(2);
  VLR_RETURN_IF_ERROR(expect_shape(kName, "k", a.k, {-1, -1, head_dim}));
  const int64_t kv_heads = a.k.dim(1);
  VLR_RETURN_IF_ERROR(expect_shape(kName, "v", a.v, {a.k.dim(0), kv_heads, head_dim}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "o", a.o, {a.q.dim(0), heads, head_dim}));
  if (kv_heads < 1 || heads % kv_heads != 0) {
    return invalid(kName, fmt::format("heads of q must be a multiple of those of k, got {} and {}",
                                      heads, kv_heads));
  }
  const bool has_prefix = a.prefix_k.defined();
  if (has_prefix) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "prefix_k", a.prefix_k, {-1, kv_heads, head_dim}));
    VLR_RETURN_IF_ERROR(
        expect_shape(kName, "prefix_v", a.prefix_v, {a.prefix_k.dim(0), kv_heads, head_dim}));
  }
  for (const auto& [name, t] : {std::pair<const char*, ConstTensor>{"q", a.q},
                                {"k", a.k},
                                {"v", a.v},
                                {"prefix_k", a.prefix_k},
                                {"prefix_v", a.prefix_v},
                                {"o", a.o}}) {
    if (!t.defined()) continue;
    VLR_RETURN_IF_ERROR(expect_dtype(kName, name, t, {DType::kF32}));
    VLR_RETURN_IF_ERROR(expect_rows(kName, name, t));
  }
  const int64_t prefix_rows = has_prefix ? a.prefix_k.dim(0) : 0;
  int64_t index = 0;
  for (const AttentionSegment& s : a.segments) {
    const auto inside = [](int64_t begin, int64_t len, int64_t rows) {
      return begin >= 0 && len >= 0 && begin + len <= rows;
    };
    const bool ok =
        inside(s.q_begin, s.q_len, a.q.dim(0)) && inside(s.k_begin, s.k_len, a.k.dim(0)) &&
        inside(s.prefix_begin, s.prefix_len, prefix_rows) &&
        (s.q_len == 0 || s.k_len + s.prefix_len > 0) && (!a.causal || s.q_len <= s.k_len);
    if (!ok) {
      return invalid(kName, fmt::format("segment {} does not fit: q [{}, +{}) of {}, k [{}, +{}) "
                                        "of {}, prefix [{}, +{}) of {}{}",
                                        index, s.q_begin, s.q_len, a.q.dim(0), s.k_begin, s.k_len,
                                        a.k.dim(0), s.prefix_begin, s.prefix_len, prefix_rows,
                                        a.causal ? ", causal" : ""));
    }
    ++index;
  }
  return {};
}

Cost Attention::cost(const Args& a) {
  const double heads = static_cast<double>(a.q.dim(1)), dim = static_cast<double>(a.q.dim(2));
  double pairs = 0;  // (query, visible key)
  for (const AttentionSegment& s : a.segments) {
    const double q = s.q_len, keys = static_cast<double>(s.k_len) + s.prefix_len;
    pairs += a.causal ? q * (keys - q) + q * (q + 1) / 2 : q * keys;
  }
  double bytes = static_cast<double>(a.q.bytes() + a.k.bytes() + a.v.bytes() + a.o.bytes());
  if (a.prefix_k.defined()) bytes += static_cast<double>(a.prefix_k.bytes() + a.prefix_v.bytes());
  return {.bytes = bytes, .flops = 4 * pairs * heads * dim};
}

Tolerance Attention::tolerance(const Args& a) {
  // Scores are chains of D roundings, the output a weighted mean: its error is that of the weights,
  // about D * 2^-24 * |score|, times the size of the values (about 1 in tests).
  return {.rel = 1e-5, .abs = static_cast<double>(a.q.dim(2)) * 0x1p-24 * 2};
}

std::span<const Impl<Attention>> Attention::impls() {
  static constexpr Impl<Attention> kImpls[] = {
      {"blocked", Device::kCpu, attention_blocked, nullptr, attention_blocked_workspace},
      {"reference", Device::kCpu, attention_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
