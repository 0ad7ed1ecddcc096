/// Varlen attention over packed sequences, with two key segments per sequence: a prefix that every
/// query sees, then the sequence's own keys.
///   s[i, j] = scale * q[i] . key[j]
///   p = softmax over the visible j
///   o[i] = sum_j p[j] * value[j]
///
///   q            [Tq, H, D]    f32 | bf16 | f16; row and head strides are free, D is contiguous
///   k, v         [Tk, Hkv, D]  own keys and values, same rules; H is a multiple of Hkv, head h
///                              reads h / (H / Hkv)
///   prefix_k, v  [Tp, Hkv, D]  keys and values of the prefixes; optional, needed where a prefix is
///                              not empty
///   segments     [B]           one per sequence, below
///   table                      the same for kernels on a device; attention_tiles() makes its tiles
///   o            [Tq, H, D]    dtype of q; overlaps nothing
///
/// A sequence's visible keys are prefix rows [prefix_begin, +prefix_len), then own rows
/// [k_begin, k_begin + k_len). With `causal`, its queries are the last q_len positions of prefix +
/// own: query i sees the keys up to and including position prefix_len + k_len - q_len + i
/// (bottom-right aligned; q_len <= k_len). Without, every query sees everything. A sequence without
/// queries does nothing; one with queries has at least one key. The segments cover the rows of q,
/// each row at most once; rows of o in no segment are left alone.
///
/// Rounding: scores, softmax and sums in f32 or wider. The maximum is subtracted first, or a number
/// so close to it that p <= 2^8. With 16-bit operands a p may be rounded to their dtype before its
/// product with a value, while the sum that divides takes it unrounded. One rounding to the dtype
/// of o.
/// Bit-invariance: o[i] depends on q[i], its visible keys and values and their order, and on
/// nothing else: not on B, on which keys stand in the prefix, or on other queries. So blocks of
/// keys are counted from the first visible key, and one may straddle the border between prefix and
/// own. One exception: with 16-bit operands o[i] may become NaN when a value that only later
/// queries of the sequence see is infinite or NaN, since a kernel may multiply it by p = 0.
#ifndef VLR_KERNELS_ATTENTION_ATTENTION_H_
#define VLR_KERNELS_ATTENTION_ATTENTION_H_

#include <span>
#include <vector>

#include "kernels/core/op.h"

namespace vlr::ops {

/// Where one sequence of a packed batch lies; rows of q, of k and v, of prefix_k and prefix_v.
struct AttentionSegment {
  int32_t q_begin = 0, q_len = 0;
  int32_t k_begin = 0, k_len = 0;
  int32_t prefix_begin = 0, prefix_len = 0;
};

/// Queries of one tile of an AttentionTable, which a kernel may divide among its blocks. Where every
/// query sees everything, as in a vision tower, tiles need not be small to balance work.
constexpr int64_t attention_tile(bool causal) { return causal ? 128 : 384; }

/// Heads of q that share one of k and that a kernel may take as rows of one tile, next to each
/// other: a power of two, up to 16.
constexpr int64_t attention_pack(int64_t heads, int64_t kv_heads) {
  const int64_t group = heads / kv_heads;
  const bool is_power = (group & (group - 1)) == 0;
  return is_power && group <= 16 ? group : 1;
}

/// What device kernels read instead of the host's list of segments: two arrays that travel with a
/// batch's other inputs. Rows may follow the last one that counts: a tile whose segment is -1 does
/// nothing.
struct AttentionTable {
  ConstTensor segments;  ///< [B, 6] i32, the members of AttentionSegment in their order
  ConstTensor tiles;     ///< [n, 2] i32: segment, first query (within the segment) of a tile of up
                         ///< to attention_tile(causal) queries; most work first
};

/// The tiles of a list of segments, [n, 2], most work first (equal ones in their order).
std::vector<int32_t> attention_tiles(std::span<const AttentionSegment> segments, bool causal);

struct Attention {
  static constexpr std::string_view kName = "attention";
  struct Args {
    ConstTensor q, k, v, prefix_k, prefix_v;
    std::span<const AttentionSegment> segments;
    AttentionTable table = {};  ///< needed on a device
    Tensor o;
    float scale = 1;
    bool causal = false;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Attention>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ATTENTION_ATTENTION_H_
