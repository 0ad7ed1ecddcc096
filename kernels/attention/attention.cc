#include "kernels/attention/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/attention/impls.h"
#if VLR_WITH_CUDA
#include "kernels/cuda/check.h"
#endif

namespace vlr::ops {
namespace {

bool is_f32(const Attention::Args& a, const Context&) { return a.q.dtype == DType::kF32; }

/// 16-bit operands of up to 128 columns, in which every row of every head starts at a multiple of
/// 16 bytes, as cp.async copies them (provided that the tensors do, whose data may not be known
/// yet). With a scale above 0 the largest score is that of the largest product.
[[maybe_unused]] bool has_16_bit_rows(const Attention::Args& a) {
  if (a.q.dtype == DType::kF32 || a.q.dim(2) % 8 != 0 || a.q.dim(2) > 128 || !(a.scale > 0))
    return false;
  for (const ConstTensor& t : {a.q, a.k, a.v, a.prefix_k, a.prefix_v, ConstTensor(a.o)}) {
    for (int axis : {0, 1}) {
      if (t.defined() && (t.stride(axis) % 8 != 0 || t.stride(axis) > INT32_MAX)) return false;
    }
  }
  return true;
}

[[maybe_unused]] bool can_flash_mma(const Attention::Args& a, const Context&) {
  // The tiles' parts are one axis of a grid.
  return has_16_bit_rows(a) &&
         (!a.table.tiles.defined() || a.table.tiles.dim(0) * attention_tile(a.causal) *
                                              attention_pack(a.q.dim(1), a.k.dim(1)) / 128 <=
                                          65535);
}

#if VLR_WITH_CUDA
/// 16-bit operands as boxes of a tensor map want them, of one of the compiled dimensions. Heads of
/// 72 columns have no prefix: their last columns lie where boxes of odd numbers of rows may not.
bool can_flash_wgmma(const Attention::Args& a, const Context&) {
  const int64_t dim = a.q.dim(2);
  if (!has_16_bit_rows(a) || (dim != 64 && dim != 72 && dim != 128)) return false;
  if (dim == 72 && a.prefix_k.defined()) return false;
  // "Each following dimension's stride must be a multiple of the preceding one's."
  for (const ConstTensor& t : {a.q, a.k, a.v, a.prefix_k, a.prefix_v}) {
    if (t.defined() && t.stride(0) % std::max<int64_t>(t.stride(1), 1) != 0) return false;
  }
  return cuda::runs_sm90a();
}
#endif

using Segment = AttentionSegment;

/// Rows of an operand that segments with queries name, each counted once.
int64_t distinct_rows(std::span<const Segment> segments, int32_t Segment::*begin,
                      int32_t Segment::*len) {
  std::vector<std::pair<int64_t, int64_t>> ranges;  // [begin, end)
  for (const Segment& s : segments) {
    if (s.q_len > 0 && s.*len > 0) ranges.emplace_back(s.*begin, int64_t{s.*begin} + s.*len);
  }
  std::ranges::sort(ranges);
  int64_t rows = 0, counted = 0;  // all rows before `counted` are
  for (const auto& [first, end] : ranges) {
    rows += std::max<int64_t>(0, end - std::max(first, counted));
    counted = std::max(counted, end);
  }
  return rows;
}

}  // namespace

std::vector<int32_t> attention_tiles(std::span<const AttentionSegment> segments, bool causal) {
  struct Tile {
    int32_t segment, first;
    int64_t keys;  // that its last query sees
  };
  const int64_t size = attention_tile(causal);
  std::vector<Tile> tiles;
  int32_t index = 0;
  for (const AttentionSegment& s : segments) {
    const int64_t keys = int64_t{s.prefix_len} + s.k_len;
    for (int64_t first = 0; first < s.q_len; first += size) {
      const int64_t after_last = std::min<int64_t>(first + size, s.q_len);
      tiles.push_back(
          {index, static_cast<int32_t>(first), causal ? keys - s.q_len + after_last : keys});
    }
    ++index;
  }
  std::ranges::stable_sort(tiles, std::greater(), &Tile::keys);
  std::vector<int32_t> out;
  out.reserve(2 * tiles.size());
  for (const Tile& t : tiles) out.insert(out.end(), {t.segment, t.first});
  return out;
}

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
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "q", a.q, {DType::kF32, DType::kBF16, DType::kF16}));
  constexpr std::string_view kOutput = "o";
  for (const auto& [name, t] : {std::pair<std::string_view, ConstTensor>{"q", a.q},
                                {"k", a.k},
                                {"v", a.v},
                                {"prefix_k", a.prefix_k},
                                {"prefix_v", a.prefix_v},
                                {kOutput, a.o}}) {
    if (!t.defined()) continue;
    VLR_RETURN_IF_ERROR(expect_dtype(kName, name, t, {a.q.dtype}));
    VLR_RETURN_IF_ERROR(expect_rows(kName, name, t));
    if (name != kOutput) VLR_RETURN_IF_ERROR(expect_no_overlap(kName, kOutput, a.o, name, t));
  }
  for (const auto& [name, t, width] :
       {std::tuple<const char*, ConstTensor, int64_t>{"table.segments", a.table.segments, 6},
        {"table.tiles", a.table.tiles, 2}}) {
    if (!t.defined()) continue;
    VLR_RETURN_IF_ERROR(expect_shape(kName, name, t, {-1, width}));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, name, t, {DType::kI32}));
    if (!t.contiguous())
      return invalid(kName, fmt::format("{} must be contiguous, got {}", name, describe(t)));
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
  // Of each operand the rows that segments name, each once: a prefix cache holds others' prefixes too.
  const int64_t q_rows = distinct_rows(a.segments, &Segment::q_begin, &Segment::q_len),
                k_rows = distinct_rows(a.segments, &Segment::k_begin, &Segment::k_len),
                prefix_rows =
                    distinct_rows(a.segments, &Segment::prefix_begin, &Segment::prefix_len);
  const auto values =
      static_cast<double>(2 * q_rows * a.q.dim(1) + 2 * (k_rows + prefix_rows) * a.k.dim(1));
  const auto bytes = static_cast<double>(dtype_bytes(a.q.dtype));
  return {.bytes = values * dim * bytes, .flops = 4 * pairs * heads * dim};
}

Tolerance Attention::tolerance(const Args& a) {
  // Scores are chains of D roundings, the output a weighted mean: its error is that of the weights,
  // about D * 2^-24 * |score|, times the size of the values (about 1 in tests).
  const double scores = static_cast<double>(a.q.dim(2)) * 0x1p-24 * 2;
  const bool is_f32 = a.q.dtype == DType::kF32;
  const double epsilon = dtype_epsilon(a.q.dtype);
  // 16-bit operands: both results are rounded to their dtype, one epsilon each. Rounding the p
  // moves the mean by at most epsilon * sum_j p[j] |v[j]|: where one key weighs alone that is
  // epsilon * |o|; where many do, the sum is about the size of the values, so about 1, and the
  // errors largely cancel. 2 epsilon leaves room for a few large values.
  Tolerance t = is_f32 ? Tolerance{.rel = 1e-5, .abs = scores}
                       : Tolerance{.rel = 3 * epsilon, .abs = scores + 2 * epsilon};
  // The mean of n values of random sign is of size sqrt(sum_j p[j]^2), about sqrt(e / n) with normal
  // scores: 0.02 at 8,192 keys, where 2 epsilon of bf16 would hide that 64 of them are left out.
  // Errors of the p are of random sign as well, or all alike: either way the sum of p[j] v[j] is off
  // by as large a part of itself as the p are. So a row of o is off by 3 epsilon of itself at most,
  // one for each result's rounding and one for the p; a quarter of that is common. Leaving out or
  // doubling m of n keys is sqrt(m / n) of it: 9 % for 64 of 8,192 keys, 4 % of 32,768.
  // A short row may be small by chance, since its terms happened to cancel.
  constexpr int64_t kShort = 16;
  if (a.q.dim(2) >= kShort) {
    t.row_rel = scores + (is_f32 ? 1e-5 : 4 * epsilon);
    t.row_abs = 1e-4 * t.row_rel;  // below any mean of up to 10^8 values: operands of other sizes
  }
  return t;
}

std::span<const Impl<Attention>> Attention::impls() {
  static constexpr Impl<Attention> kImpls[] = {
#if VLR_WITH_CUDA
    {"flash_wgmma", Device::kCuda, attention_flash_wgmma, can_flash_wgmma},
    {"flash_mma", Device::kCuda, attention_flash_mma, can_flash_mma},
#endif
    {"blocked", Device::kCpu, attention_blocked, is_f32, attention_blocked_workspace},
    {"reference", Device::kCpu, attention_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
