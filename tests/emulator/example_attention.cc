// Host test of attention/flash_wgmma in the emulator: random cases against plain loops.
//   example_attention [first seed] [number of cases] [modes a case]
#include "emu.h"
#ifndef ENTRY
#define ENTRY attention_flash_wgmma
#endif
#include <random>
#include <vector>

#include "kernels/attention/impls.h"

namespace vlr::ops {
Status invalid(std::string_view op, std::string message) { return Status(Code::kInvalidArgument, std::string(op) + ": " + message); }
}  // namespace vlr::ops
using namespace vlr;
using namespace vlr::ops;

template <class T>
bool one_case(uint64_t seed, int modes) {
  std::mt19937_64 rng(seed);
  const auto pick = [&](std::initializer_list<int> l) { return l.begin()[rng() % l.size()]; };
  const int dim = pick({64, 72, 128}), kv_heads = pick({1, 2}), group = pick({1, 2, 3, 4, 8}), heads = kv_heads * group;
  const bool causal = dim == 128 && rng() % 4 != 0, has_prefix = dim != 72 && rng() % 3 != 0;
  std::vector<AttentionSegment> segments(1 + rng() % 4);
  int tq = 0, tk = static_cast<int>(rng() % 3), tp = static_cast<int>(rng() % 5);
  for (auto& s : segments) {
    const auto length = [&] { return static_cast<int>(rng() % static_cast<uint64_t>(pick({2, 40, 140, 300}))); };
    s.k_len = length() + 1;
    s.q_len = causal ? static_cast<int>(rng() % static_cast<uint64_t>(s.k_len + 1)) : length();
    s.q_begin = tq, s.k_begin = tk, s.prefix_len = has_prefix ? length() : 0, s.prefix_begin = tp;
    tq += s.q_len, tk += s.k_len + static_cast<int>(rng() % 3), tp += s.prefix_len;
  }
  if (tq == 0) return true;
  tp = std::max(tp, 1);
  std::normal_distribution<float> normal;
  const auto numbers = [&](int64_t rows, int64_t h, float bad) {
    std::vector<T> v(static_cast<size_t>(rows * h * dim));
    for (auto& x : v) x = T(bad != 0 ? bad : normal(rng));
    return v;
  };
  auto q = numbers(tq, heads, 0), k = numbers(tk, kv_heads, 0), v = numbers(tk, kv_heads, 0), pk = numbers(tp, kv_heads, 0), pv = numbers(tp, kv_heads, 0);
  // Rows that belong to nobody are NaN: they must not get in.
  const auto spoil = [&](std::vector<T>& t, int rows, int AttentionSegment::*begin, int AttentionSegment::*len) {
    for (int r = 0; r < rows; ++r) {
      bool used = false;
      for (const auto& s : segments) used |= r >= s.*begin && r < s.*begin + s.*len;
      for (int c = 0; !used && c < kv_heads * dim; ++c) t[static_cast<size_t>(r * kv_heads * dim + c)] = T(NAN);
    }
  };
  spoil(k, tk, &AttentionSegment::k_begin, &AttentionSegment::k_len), spoil(v, tk, &AttentionSegment::k_begin, &AttentionSegment::k_len);
  spoil(pk, tp, &AttentionSegment::prefix_begin, &AttentionSegment::prefix_len), spoil(pv, tp, &AttentionSegment::prefix_begin, &AttentionSegment::prefix_len);
  std::vector<int32_t> tiles, list;
#ifdef TILE
  const int tile = TILE;
#else
  const int tile = static_cast<int>(attention_tile(causal));
#endif
  for (size_t i = 0; i < segments.size(); ++i)
    for (int first = 0; first < segments[i].q_len; first += tile) tiles.insert(tiles.end(), {static_cast<int32_t>(i), first});
  tiles.insert(tiles.end(), {-1, 0});
  static_assert(sizeof(AttentionSegment) == 24);
  constexpr DType dtype = std::is_same_v<T, __half> ? DType::kF16 : DType::kBF16;
  const float scale = 1 / std::sqrt(static_cast<float>(dim));
  std::vector<double> want(q.size());
  for (const auto& s : segments)
    for (int i = 0; i < s.q_len; ++i)
      for (int h = 0; h < heads; ++h) {
        const int keys = s.prefix_len + s.k_len, sees = causal ? keys - s.q_len + i + 1 : keys;
        const auto at = [&](const std::vector<T>& own, const std::vector<T>& prefix, int j) {
          return j < s.prefix_len ? &prefix[static_cast<size_t>(((s.prefix_begin + j) * kv_heads + h / group) * dim)] : &own[static_cast<size_t>(((s.k_begin + j - s.prefix_len) * kv_heads + h / group) * dim)];
        };
        const size_t row = static_cast<size_t>(((s.q_begin + i) * heads + h) * dim);
        std::vector<double> p(static_cast<size_t>(sees));
        double most = -INFINITY, sum = 0;
        for (int j = 0; j < sees; ++j) {
          double x = 0;
          for (int c = 0; c < dim; ++c) x += double(float(q[row + c])) * float(at(k, pk, j)[c]);
          most = std::max(most, p[static_cast<size_t>(j)] = x * scale);
        }
        for (double& x : p) sum += x = std::exp(x - most);
        for (int j = 0; j < sees; ++j)
          for (int c = 0; c < dim; ++c) want[row + c] += p[static_cast<size_t>(j)] / sum * float(at(v, pv, j)[c]);
      }
  bool all_right = true;
  for (int m = 0; m < modes; ++m) {
    const int mode = modes == 1 ? static_cast<int>(seed % 36) : m;
    emu::set_mode(mode);
    std::vector<T> o(q.size(), T(NAN));
    Attention::Args a{};
    a.q = ConstTensor(q.data(), dtype, {tq, heads, dim}), a.k = ConstTensor(k.data(), dtype, {tk, kv_heads, dim}), a.v = ConstTensor(v.data(), dtype, {tk, kv_heads, dim});
    if (has_prefix) a.prefix_k = ConstTensor(pk.data(), dtype, {tp, kv_heads, dim}), a.prefix_v = ConstTensor(pv.data(), dtype, {tp, kv_heads, dim});
    a.segments = segments;
    a.table.segments = ConstTensor(segments.data(), DType::kI32, {static_cast<int64_t>(segments.size()), 6});
    a.table.tiles = ConstTensor(tiles.data(), DType::kI32, {static_cast<int64_t>(tiles.size() / 2), 2});
    a.o = Tensor(o.data(), dtype, {tq, heads, dim}), a.scale = scale, a.causal = causal;
    Context ctx;
    const Status status = ENTRY(a, ctx);
    double worst = 0;
    int64_t wrong = 0, first = -1;
    const double epsilon = dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
    for (size_t i = 0; i < o.size(); ++i) {
      const double e = std::fabs(float(o[i]) - want[i]);
      const bool right = e <= 3 * epsilon * std::fabs(want[i]) + 3 * epsilon;
      if (right) worst = std::max(worst, e);
      else if (wrong++ == 0) first = static_cast<int64_t>(i);
    }
    if (!status.ok() || wrong) {
      all_right = false;
      std::printf("WRONG seed %ld mode %d dim %d heads %d/%d causal %d %s: %ld of %zu wrong", static_cast<long>(seed), mode, dim, heads, kv_heads, causal, status.message().c_str(), static_cast<long>(wrong), o.size());
      if (first >= 0) std::printf(", first: row %ld head %ld column %ld: %g, not %g", static_cast<long>(first / dim / heads), static_cast<long>(first / dim % heads), static_cast<long>(first % dim), float(o[static_cast<size_t>(first)]), want[static_cast<size_t>(first)]);
      std::printf("\n");
      for (const auto& s : segments) std::printf("  q %d+%d k %d+%d prefix %d+%d\n", s.q_begin, s.q_len, s.k_begin, s.k_len, s.prefix_begin, s.prefix_len);
    } else if (m == 0) {
      std::printf("ok seed %ld mode %d dim %d heads %d/%d causal %d prefix %d: %zu segments, %d rows, worst %.2g\n", static_cast<long>(seed), mode, dim, heads, kv_heads, causal, has_prefix, segments.size(), tq, worst);
    }
    std::fflush(stdout);
  }
  return all_right;
}

int main(int argc, char** argv) {
  if (std::getenv("EMU_CONVERGED")) emu::config().split_warps = false;
  const uint64_t first = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const int cases = argc > 2 ? std::atoi(argv[2]) : 10, modes = argc > 3 ? std::atoi(argv[3]) : 1;
  int bad = 0;
  for (uint64_t s = first; s < first + static_cast<uint64_t>(cases); ++s) bad += !(s % 3 == 0 ? one_case<__half>(s, modes) : one_case<__nv_bfloat16>(s, modes));
  std::printf("%d of %d cases wrong, %ld reports\n", bad, cases, emu::reports());
  return bad != 0;
}
