// attention/blocked: a vector's lanes are queries, and everything that belongs to a query happens
// in its lane.
//
//   lane   one (query, head of the kv head's group); its number is query * group + head
//   task   one (segment, kv head) and up to kMaxVecs vectors of lanes
//
// A task has three passes over the keys that its last lane sees, prefix first:
//   scores   s[j] = scale * (chain over d of q[d] key[j, d])      kept, [keys][lanes] in scratch
//   weights  p[j] = exp(s[j] - max), l += p[j] in key order; max is the exact maximum of the lane's
//   scores sums     o[d] = chain over j of p[j] value[j, d], then o[d] / l
// Both products are register tiles with keys (or values) broadcast and lanes as the vector. No step
// looks across lanes and every chain follows the order of the keys, so a query's bits do not depend
// on which queries it shares a tile with, nor on where the prefix ends.

// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_blocked.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <vector>

#include "kernels/attention/impls.h"
#include "kernels/core/integer.h"
#include "kernels/core/scratch.h"
#include "kernels/core/simd.h"
#include "kernels/core/simd_math.h"
#include "kernels/core/simd_tile.h"

#ifndef VLR_KERNELS_ATTENTION_ATTENTION_BLOCKED_ONCE_
#define VLR_KERNELS_ATTENTION_ATTENTION_BLOCKED_ONCE_
namespace vlr::ops {
namespace {

constexpr int kMaxVecs = 3;        // vectors of lanes in a task
constexpr int64_t kMaxLanes = 16;  // lanes of a vector, on any target
constexpr int64_t kScoreBytes =
    2 << 20;                        // of scores: a task takes fewer vectors where they need more
constexpr int64_t kKeyBlock = 128;  // keys between two visits to o: 24 KB of weights

/// One thread's part of the workspace.
struct Buffers {
  float* q;       // [D][lanes]
  float* o;       // [D][lanes]
  float* scores;  // [keys][lanes], then weights
};

/// Sized by shapes alone, for segments that are not known yet: the longest could be all keys there
/// are.
Buffers lay_out(Scratch& scratch, const Attention::Args& a) {
  const int64_t keys = a.k.dim(0) + (a.prefix_k.defined() ? a.prefix_k.dim(0) : 0);
  const int64_t wide = keys * kMaxVecs * kMaxLanes;
  const int64_t capped = std::max<int64_t>(kScoreBytes / 4, keys * kMaxLanes);
  Buffers b;
  b.q = scratch.take<float>(a.q.dim(2) * kMaxVecs * kMaxLanes);
  b.o = scratch.take<float>(a.q.dim(2) * kMaxVecs * kMaxLanes);
  b.scores = scratch.take<float>(std::min(wide, capped));
  return b;
}

}  // namespace
}  // namespace vlr::ops
#endif  // VLR_KERNELS_ATTENTION_ATTENTION_BLOCKED_ONCE_

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
namespace {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target
static_assert(kLanes <= kMaxLanes);

/// Broadcast rows of a tile: with kVecs = 3, 8 * 3 + 3 + 1 of 32 registers, 4 * 3 + 3 + 1 of 16.
constexpr int tile_rows(int vecs) {
  return kRegisters == 32 ? 8 : vecs == 3 ? 4 : vecs == 2 ? 6 : 8;
}

/// How the lanes of one (segment, kv head) are cut: into vectors, and those into tasks.
struct Cut {
  int64_t lanes, vecs, tasks;

  Cut(const AttentionSegment& s, int64_t group) {
    const int64_t keys = int64_t{s.prefix_len} + s.k_len;
    lanes = s.q_len * group;
    vecs = ceil_div(lanes, kLanes);
    const int64_t fit = kScoreBytes / 4 / kLanes / std::max<int64_t>(keys, 1);
    tasks = ceil_div(vecs, std::clamp<int64_t>(fit, 1, kMaxVecs));
  }
  int64_t first_vec(int64_t task) const { return task * vecs / tasks; }
};

/// One run of keys or values of one kv head, row j at data + j * stride.
struct Rows {
  const float* data;
  int64_t stride, count;
};

Rows rows_of(const ConstTensor& t, int64_t begin, int64_t count, int64_t head) {
  return {t.row<float>(begin) + head * t.stride(1), t.stride(0), count};
}

/// s[j][lane] for `count` keys, kRows at a time, then fewer.
template <int kRows, int kVecs>
void score_rows(const Rows& keys, int64_t head_dim, const float* q, VecF32 scale, float* s) {
  constexpr int64_t kWidth = kVecs * kLanes;
  int64_t j = 0;
  for (; j + kRows <= keys.count; j += kRows) {
    Tile<kRows, kVecs> tile;
    tile.set_zero();
    tile.multiply_add(keys.data + j * keys.stride, keys.stride, 1, q, kWidth, head_dim);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) tile.sum[r][v] = hn::Mul(tile.sum[r][v], scale);
    }
    tile.store_to(s + j * kWidth, kWidth);
  }
  if constexpr (kRows > 1) {
    const Rows rest{keys.data + j * keys.stride, keys.stride, keys.count - j};
    score_rows<kRows / 2, kVecs>(rest, head_dim, q, scale, s + j * kWidth);
  }
}

/// o[d][lane] += chain over j of p[j][lane] value[j, d], for `dims` dims, kRows at a time, then
/// fewer. With kSkip, a weight of -1 marks a key that its lane does not see.
template <int kRows, int kVecs, bool kSkip>
void sum_values(const Rows& values, int64_t dims, const float* p, float* o) {
  constexpr int64_t kWidth = kVecs * kLanes;
  int64_t d = 0;
  for (; d + kRows <= dims; d += kRows) {
    Tile<kRows, kVecs> tile;
    tile.load_from(o + d * kWidth, kWidth);
    tile.template multiply_add<kSkip>(values.data + d, 1, values.stride, p, kWidth, values.count);
    tile.store_to(o + d * kWidth, kWidth);
  }
  if constexpr (kRows > 1) {
    const Rows rest{values.data + d, values.stride, values.count};
    sum_values<kRows / 2, kVecs, kSkip>(rest, dims - d, p, o + d * kWidth);
  }
}

/// Keys [begin, begin + count) of the visible ones are p's rows; scores become weights, in place.
/// kMask: some lanes do not see some of these keys, lane n sees those before visible[n].
template <int kVecs, bool kMask>
void weigh(float* p, int64_t begin, int64_t count, const int32_t* visible,
           const VecF32 (&max)[kVecs], VecF32 (&total)[kVecs]) {
  const F32 d;
  for (int64_t j = 0; j < count; ++j, p += kVecs * kLanes) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      VecF32 weight = exp(hn::Sub(hn::Load(d, p + v * kLanes), max[v]));
      if constexpr (kMask) {
        const auto limit = hn::Load(I32(), visible + v * kLanes);
        const auto sees =
            hn::RebindMask(d, hn::Lt(hn::Set(I32(), static_cast<int32_t>(begin + j)), limit));
        total[v] = hn::IfThenElse(sees, hn::Add(total[v], weight), total[v]);
        weight = hn::IfThenElse(sees, weight, constant(-1.0f));
      } else {
        total[v] = hn::Add(total[v], weight);
      }
      hn::Store(weight, d, p + v * kLanes);
    }
  }
}

/// The maximum of each lane's visible scores, s[j][lane] for j < count.
template <int kVecs>
void find_max(const float* s, int64_t seen_by_all, int64_t count, const int32_t* visible,
              VecF32 (&max)[kVecs]) {
  const F32 d;
  for (int v = 0; v < kVecs; ++v) max[v] = constant(-INFINITY);
  for (int64_t j = 0; j < seen_by_all; ++j, s += kVecs * kLanes) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) max[v] = hn::Max(max[v], hn::Load(d, s + v * kLanes));
  }
  for (int64_t j = seen_by_all; j < count; ++j, s += kVecs * kLanes) {
    for (int v = 0; v < kVecs; ++v) {
      const auto limit = hn::Load(I32(), visible + v * kLanes);
      const auto sees = hn::RebindMask(d, hn::Lt(hn::Set(I32(), static_cast<int32_t>(j)), limit));
      max[v] = hn::IfThenElse(sees, hn::Max(max[v], hn::Load(d, s + v * kLanes)), max[v]);
    }
  }
}

/// o[d][lane] / total[lane], turned back into rows kLanes dims at a time, for the first `lanes`
/// lanes. Divides in place.
template <int kVecs>
void write_rows(float* o, const VecF32 (&total)[kVecs], int64_t head_dim, int64_t lanes,
                float* const* o_rows) {
  constexpr int64_t kWidth = kVecs * kLanes;
  const F32 df;
  HWY_ALIGN float turned[kWidth * kLanes];  // [lane][dim], and what transpose_rows needs is no more
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t dims = std::min<int64_t>(kLanes, head_dim - d);
    const void* rows[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) {
      float* row = o + (d + std::min(r, dims - 1)) * kWidth;
      for (int v = 0; v < kVecs && r < dims; ++v) {
        hn::Store(hn::Div(hn::Load(df, row + v * kLanes), total[v]), df, row + v * kLanes);
      }
      rows[r] = row;
    }
    transpose_rows<DType::kF32>(rows, lanes, turned, kLanes);
    for (int64_t n = 0; n < lanes; ++n) std::copy_n(turned + n * kLanes, dims, o_rows[n] + d);
  }
}

/// Lanes [first_lane, first_lane + kVecs * kLanes) of one (segment, kv head); lanes past the last
/// one repeat it, and are not written.
template <int kVecs>
void run_task(const Attention::Args& a, const AttentionSegment& s, int64_t kv_head,
              int64_t first_lane, const Buffers& buffers) {
  constexpr int64_t kWidth = kVecs * kLanes;
  constexpr int kRows = tile_rows(kVecs);
  const F32 df;
  const int64_t head_dim = a.q.dim(2), group = a.q.dim(1) / a.k.dim(1);
  const int64_t lanes = std::min(kWidth, s.q_len * group - first_lane);
  const int64_t keys = int64_t{s.prefix_len} + s.k_len;

  const float* q_rows[kWidth];
  float* o_rows[kWidth];
  HWY_ALIGN int32_t
      visible[kWidth];  // how many keys a lane sees; never falls from one lane to the next
  for (int64_t n = 0; n < kWidth; ++n) {
    const int64_t lane = first_lane + std::min(n, lanes - 1);
    const int64_t query = lane / group, head = kv_head * group + lane % group;
    q_rows[n] = a.q.row<float>(s.q_begin + query) + head * a.q.stride(1);
    o_rows[n] = a.o.row<float>(s.q_begin + query) + head * a.o.stride(1);
    visible[n] = static_cast<int32_t>(a.causal ? keys - s.q_len + query + 1 : keys);
  }
  const int64_t seen_by_all = visible[0], seen_by_any = visible[kWidth - 1];

  for (int v = 0; v < kVecs; ++v) {
    const void* rows[kLanes];
    std::copy_n(q_rows + v * kLanes, kLanes, rows);
    // A vector of lanes is full, so what transpose_rows writes too much stays within [D][lanes].
    transpose_rows<DType::kF32>(rows, head_dim, buffers.q + v * kLanes, kWidth);
  }

  // The two segments of keys, as far as this task sees them.
  const int64_t in_prefix = std::min<int64_t>(s.prefix_len, seen_by_any);
  const auto split = [&](const ConstTensor& prefix, const ConstTensor& own, int64_t begin,
                         int64_t count, auto&& body) {
    const int64_t from_prefix = std::clamp<int64_t>(in_prefix - begin, 0, count);
    if (from_prefix > 0)
      body(rows_of(prefix, s.prefix_begin + begin, from_prefix, kv_head), int64_t{0});
    if (count > from_prefix) {
      const int64_t own_begin = s.k_begin + begin + from_prefix - s.prefix_len;
      body(rows_of(own, own_begin, count - from_prefix, kv_head), from_prefix);
    }
  };

  split(a.prefix_k, a.k, 0, seen_by_any, [&](const Rows& rows, int64_t at) HWY_ATTR {
    score_rows<kRows, kVecs>(rows, head_dim, buffers.q, constant(a.scale),
                             buffers.scores + at * kWidth);
  });
  VecF32 max[kVecs], total[kVecs];
  find_max(buffers.scores, seen_by_all, seen_by_any, visible, max);
  for (int v = 0; v < kVecs; ++v) total[v] = hn::Zero(df);
  std::fill_n(buffers.o, head_dim * kWidth, 0.0f);
  for (int64_t j = 0; j < seen_by_any;) {
    const bool masked = j >= seen_by_all;
    const int64_t count = std::min(kKeyBlock, (masked ? seen_by_any : seen_by_all) - j);
    float* p = buffers.scores + j * kWidth;
    if (masked) {
      weigh<kVecs, true>(p, j, count, visible, max, total);
    } else {
      weigh<kVecs, false>(p, j, count, visible, max, total);
    }
    split(a.prefix_v, a.v, j, count, [&](const Rows& rows, int64_t at) HWY_ATTR {
      if (masked) {
        sum_values<kRows, kVecs, true>(rows, head_dim, p + at * kWidth, buffers.o);
      } else {
        sum_values<kRows, kVecs, false>(rows, head_dim, p + at * kWidth, buffers.o);
      }
    });
    j += count;
  }
  write_rows<kVecs>(buffers.o, total, head_dim, lanes, o_rows);
}

}  // namespace

void run_attention_blocked(const Attention::Args& a, const Context& ctx, const Buffers* buffers) {
  const int64_t kv_heads = a.k.dim(1), group = a.q.dim(1) / kv_heads;
  std::vector<int64_t> end;  // of each segment's tasks, in the numbering over all of them
  end.reserve(a.segments.size());
  for (const AttentionSegment& s : a.segments) {
    end.push_back((end.empty() ? 0 : end.back()) +
                  (s.q_len == 0 ? 0 : Cut(s, group).tasks * kv_heads));
  }
  if (end.empty()) return;
  ctx.threads->parallel_for(end.back(), [&](int64_t index, int thread) {
    const auto segment = std::upper_bound(end.begin(), end.end(), index) - end.begin();
    const AttentionSegment& s = a.segments[static_cast<size_t>(segment)];
    const Cut cut(s, group);
    const int64_t local = index - (segment == 0 ? 0 : end[static_cast<size_t>(segment - 1)]);
    const int64_t task =
        cut.tasks - 1 - local % cut.tasks;  // with a causal mask the last sees most keys
    const int64_t first = cut.first_vec(task), vecs = cut.first_vec(task + 1) - first;
    const auto run = vecs == 1 ? run_task<1> : vecs == 2 ? run_task<2> : run_task<3>;
    run(a, s, local / cut.tasks, first * kLanes, buffers[thread]);
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_attention_blocked);

int64_t attention_blocked_workspace(const Attention::Args& a, const Context& ctx) {
  Scratch count;
  for (int t = 0; t < ctx.threads->num_threads(); ++t) lay_out(count, a);
  return count.used();
}

Status attention_blocked(const Attention::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  std::vector<Buffers> buffers;
  for (int t = 0; t < ctx.threads->num_threads(); ++t) buffers.push_back(lay_out(scratch, a));
  VLR_RETURN_IF_ERROR(scratch.status("attention/blocked"));
  HWY_DYNAMIC_DISPATCH(run_attention_blocked)(a, ctx, buffers.data());
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
