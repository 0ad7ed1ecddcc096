// attention/flash_wgmma: online softmax over blocks of keys, products that run beside it (sm_90a).
//   grid: one block a multiprocessor, which takes items from the table until there are none
//   block: warpgroups of 64 rows each (two for D = 128, three below), and one that copies
//
// An item is up to kRows rows of one head of k: `pack` heads of q that share it times so many tokens,
// row r being token r / pack and head r % pack. So short sequences fill a tile, and what is loaded
// of K and V serves all of their heads. Keys are counted from the first visible one and taken
// kBlock at a time, in ascending order; the last block is cut to the next multiple of kCut keys.
//
// Two warps of the last warpgroup run ahead, one with Q of the next item and blocks of K, one with
// blocks of V, through rings. Copies are boxes of tensors, one of 128 rows for a block that lies in
// one tensor; one that begins in the prefix and ends in the sequence's own rows is put together of
// boxes of 64, 32, ... 1 rows, and so is a last block of V, with zeroes up to the cut: another
// sequence's rows never get in. Lanes start the boxes of a block side by side: one that did it alone
// was too slow to keep the products fed.
//
// The others overlap: while the scores of block j + 1 and o += P V of block j run on the tensor
// cores, a warpgroup waits for the scores alone, turns them into p, and then waits for o. Among
// themselves they take turns to start products, so that one exponentiates while another multiplies.
//
// Bits of a row: it is reduced by the same four lanes, each over the same columns of a block,
// wherever the row lies in a tile. Its first block holds a visible key, and a key that it does not
// see changes nothing (p = 0 times a finite value, factor 1). So neither cutting nor packing nor
// the order of items moves a bit.
//
// Needs what can_flash_wgmma() in attention.cc says, and data aligned to 16 bytes.
#include <algorithm>

#include "kernels/attention/impls.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/named_barrier.cuh"
#include "kernels/cuda/tensor_copy.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace vlr::ops {
namespace {

constexpr int kBlock = 128;  // keys
constexpr int kGroup = 128;  // threads of a warpgroup
constexpr int kLine = 128;   // bytes of 64 columns of a row in shared memory
constexpr int kRestLine = 32;
constexpr int kBoxSizes = 8;  // boxes of 1, 2, 4, ... 128 rows

/// Rows in shared memory: slabs of 64 columns, one behind the other, in lines of 128 bytes. Of 72
/// columns the last 8 of q and k are a slab of 16, half of it zero, since products go by 16 columns
/// there; those of v are a slab of 64, of which the products take 8.
template <int kDim>
struct Tiles {
  static_assert(kDim == 64 || kDim == 72 || kDim == 128);
  static constexpr int kGroups = kDim == 128 ? 2 : 3, kRows = 64 * kGroups;
  static constexpr int kThreads = (kGroups + 1) * kGroup;
  static constexpr int kSlabs = kDim / 64;
  static constexpr bool kHasRest = kDim % 64 != 0;
  static constexpr int kQSlab = kRows * kLine, kSlab = kBlock * kLine;
  static constexpr int kQBytes = kSlabs * kQSlab + (kHasRest ? kRows * kRestLine : 0);
  static constexpr int kKBytes = kSlabs * kSlab + (kHasRest ? kBlock * kRestLine : 0);
  static constexpr int kVBytes = (kSlabs + (kHasRest ? 1 : 0)) * kSlab;
  // Blocks in shared memory. Those of V are held longer: while their products run, and p is made.
  static constexpr int kKPlaces = kDim == 128 ? 2 : 3, kVPlaces = 3;
  static constexpr int kKBegin = 2 * kQBytes, kVBegin = kKBegin + kKPlaces * kKBytes;
  static constexpr int kSharedBytes = kVBegin + kVPlaces * kVBytes;
  static_assert(kQBytes % 1024 == 0 && kKBytes % 1024 == 0 && kSharedBytes <= 224 << 10);
};

/// [rows, heads, D] of k, v or a prefix's: boxes of one head and 1, 2, 4, ... 128 rows.
struct KeyRows {
  CUtensorMap boxes[kBoxSizes];
  int rows;  // a box from there on is zeroes
};

template <class T>
struct Params {
  CUtensorMap q, q_rest;  // boxes of an item's rows
  KeyRows k, v, prefix_k, prefix_v;
  CUtensorMap k_rest[kBoxSizes];
  T* o;
  int64_t o_row_stride, o_head_stride;
  const AttentionSegment* segments;
  const int2* tiles;
  int tile;       // queries of one
  int num_items;  // with those that have no queries
  int num_heads;  // of items: of q, divided by the pack
  int group;      // of those that share one of k
  int log_pack;
  float scale_log2;
  bool causal;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// What one round of a block works on.
struct Item {
  int head;                   // of items
  int q_row;                  // its first query
  int count;                  // queries; 0: there is nothing more to do
  int k_begin, prefix_begin;  // rows of the first own key and of the prefix's first
  int prefix_len, num_keys;   // keys of the prefix, and in all
  int first_sees;             // keys that query 0 sees; query i sees i more, up to num_keys

  __device__ int visible(int query) const { return min(first_sees + query, num_keys); }
  __device__ int last() const { return visible(count - 1); }
  __device__ int num_blocks() const { return (last() + kBlock - 1) / kBlock; }
};

/// Barriers in shared memory. A ring's place is full when its bytes have come, and empty when every
/// warp that multiplies has said so. Rounds are counted from 0: use n of a ring of kPlaces is of
/// place n % kPlaces, and its phase is n / kPlaces.
template <int kPlaces>
struct Ring {
  uint64_t full[kPlaces], empty[kPlaces];

  __device__ void make(int warps) {
    for (int i = 0; i < kPlaces; ++i) {
      cuda::make_barrier(cuda::shared_address(&full[i]), 1);
      cuda::make_barrier(cuda::shared_address(&empty[i]), warps);
    }
  }
  __device__ void wait_full(uint32_t n) { cuda::wait_for_phase(full_barrier(n), n / kPlaces % 2); }
  /// Before use n: everybody is done with use n - kPlaces.
  __device__ void wait_empty(uint32_t n) {
    cuda::wait_for_phase(cuda::shared_address(&empty[n % kPlaces]), (n / kPlaces + 1) % 2);
  }
  /// Of a warp: it no longer reads what use n brought.
  __device__ void release(uint32_t n) {
    __syncwarp();  // a lane that still waits for this phase would miss it
    if (threadIdx.x % cuda::kWarp == 0) cuda::arrive(cuda::shared_address(&empty[n % kPlaces]));
  }
  __device__ uint32_t full_barrier(uint32_t n) { return cuda::shared_address(&full[n % kPlaces]); }
  __device__ uint32_t expect(uint32_t n, int bytes) {
    cuda::expect_bytes(full_barrier(n), bytes);
    return full_barrier(n);
  }
};

template <int kDim>
struct Shared {
  using Tile = Tiles<kDim>;
  Ring<2> q;
  Ring<Tile::kKPlaces> k;
  Ring<Tile::kVPlaces> v;
  Item items[2];               // beside Q
  Item found[2][cuda::kWarp];  // of each warp that copies
};

constexpr int kCut = 32;  // keys
/// See attention_flash_mma.cu: p <= 2^8.
constexpr float kHeadroom = 8;  // in powers of two

__device__ inline int rounded_up(int n, int multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// A warp that copies Q and K, or V.
template <int kDim, class T>
class Copier {
  using Tile = Tiles<kDim>;

 public:
  __device__ Copier(const Params<T>& params, Shared<kDim>& shared, uint32_t memory)
      : params_(params), shared_(shared), memory_(memory) {}

  __device__ void copy_queries_and_keys() {
    for_items(shared_.found[0], [&](const Item& item) {
      copy_queries(item);
      for (int block = 0; block < item.num_blocks(); ++block) copy_keys(item, block);
    });
    shared_.q.wait_empty(q_);
    if (lane_ == 0) {
      shared_.items[q_ % 2].count = 0;
      shared_.q.expect(q_, 0);
    }
  }

  __device__ void copy_values() {
    for_items(shared_.found[1], [&](const Item& item) {
      for (int block = 0; block < item.num_blocks(); ++block) copy_values(item, block);
    });
  }

 private:
  /// Every lane looks at an item of its own; those with queries are done one after the other.
  template <class F>
  __device__ void for_items(Item (&found)[cuda::kWarp], F work) const {
    const int grid = gridDim.x;
    for (int first = 0; first * grid < params_.num_items; first += cuda::kWarp) {
      const int round = first + lane_;
      const int place = round % 2 ? grid - 1 - blockIdx.x : blockIdx.x;  // there and back
      unsigned all = __ballot_sync(0xffffffffu, find(round * grid + place, found[lane_]));
      for (; all; all &= all - 1) work(found[__ffs(all) - 1]);
      __syncwarp();
    }
  }

  /// Whether item number `index` has queries.
  __device__ bool find(int index, Item& out) const {
    if (index >= params_.num_items) return false;
    const int tokens = Tile::kRows >> params_.log_pack;
    const int parts = (params_.tile + tokens - 1) / tokens, part = index / params_.num_heads;
    const int2 tile = params_.tiles[part / parts];
    if (tile.x < 0) return false;
    const AttentionSegment s = params_.segments[tile.x];
    const int in_tile = (parts - 1 - part % parts) * tokens;  // most work first
    const int first = tile.y + in_tile;
    if (first >= s.q_len) return false;
    out.head = index - part * params_.num_heads;
    out.q_row = s.q_begin + first;
    out.count = min(min(tokens, params_.tile - in_tile), s.q_len - first);
    out.k_begin = s.k_begin;
    out.prefix_begin = s.prefix_begin;
    out.prefix_len = s.prefix_len;
    out.num_keys = s.prefix_len + s.k_len;
    out.first_sees = params_.causal ? out.num_keys - s.q_len + first + 1 : out.num_keys;
    return true;
  }

  __device__ void copy_queries(const Item& item) {
    shared_.q.wait_empty(q_);
    if (lane_ == 0) {
      shared_.items[q_ % 2] = item;
      const uint32_t q = memory_ + q_ % 2 * Tile::kQBytes;
      const uint32_t barrier = shared_.q.expect(q_, Tile::kQBytes);
      const int head = item.head << params_.log_pack;
#pragma unroll
      for (int slab = 0; slab < Tile::kSlabs; ++slab)
        cuda::copy_box(q + slab * Tile::kQSlab, params_.q, slab * 64, head, item.q_row, barrier);
      if constexpr (Tile::kHasRest)
        cuda::copy_box(q + Tile::kSlabs * Tile::kQSlab, params_.q_rest, Tile::kSlabs * 64, head,
                       item.q_row, barrier);
    }
    ++q_;
  }

  /// Rows of a tensor that lie in a block's lines from `line` on.
  struct Part {
    const KeyRows* from;
    int row, count, line;
  };
  /// Eight lanes have a part of a block, each the box of one power of two that its count is made of,
  /// the large ones first.
  __device__ Part lanes_part(Part first, Part second, Part third) const {
    return lane_ < kBoxSizes ? first : lane_ < 2 * kBoxSizes ? second : third;
  }
  /// Of all lanes, their parts to `slabs` slabs at `to`.
  __device__ void copy(Part part, int slabs, uint32_t to, int head, uint32_t barrier) const {
    const int log = kBoxSizes - 1 - lane_ % kBoxSizes, before = part.count >> log >> 1 << 1 << log;
    if (lane_ >= 3 * kBoxSizes || (part.count >> log & 1) == 0) return;
#pragma unroll 1
    for (int slab = 0; slab < slabs; ++slab)
      cuda::copy_box(to + slab * Tile::kSlab + (part.line + before) * kLine, part.from->boxes[log],
                     slab * 64, head, part.row + before, barrier);
  }

  /// Of a block's rows, those of the prefix.
  __device__ static int in_prefix_of(const Item& item, int begin, int rows) {
    return Tile::kHasRest ? 0
                          : min(max(item.prefix_len - begin, 0), rows);  // see can_flash_wgmma()
  }

  __device__ void copy_keys(const Item& item, int block) {
    const int begin = block * kBlock, head = item.head / params_.group;
    const int rows = min(kBlock, item.last() - begin), all = rounded_up(rows, kCut);
    const int in_prefix = in_prefix_of(item, begin, rows);
    // Up to the cut, of whatever tensor comes last: scores of rows beyond are not looked at.
    const int of_prefix = in_prefix == rows ? all : in_prefix;
    shared_.k.wait_empty(k_);
    const uint32_t to = memory_ + Tile::kKBegin + k_ % Tile::kKPlaces * Tile::kKBytes;
    const uint32_t barrier = expect(shared_.k, k_, all * (Tile::kKBytes / kBlock));
    copy(lanes_part({&params_.prefix_k, item.prefix_begin + begin, of_prefix, 0},
                    {&params_.k, item.k_begin + begin + in_prefix - item.prefix_len,
                     all - of_prefix, of_prefix},
                    {}),
         Tile::kSlabs, to, head, barrier);
    if constexpr (Tile::kHasRest) {
      const int log = kBoxSizes - 1 - lane_;
      const int before = all >> log >> 1 << 1 << log;
      if (lane_ < 3 && all >> log & 1)
        cuda::copy_box(to + Tile::kSlabs * Tile::kSlab + before * kRestLine, params_.k_rest[log],
                       Tile::kSlabs * 64, head, item.k_begin + begin + before, barrier);
    }
    ++k_;
  }

  __device__ void copy_values(const Item& item, int block) {
    const int begin = block * kBlock, head = item.head / params_.group;
    const int rows = min(kBlock, item.last() - begin), all = rounded_up(rows, kCut);
    const int in_prefix = in_prefix_of(item, begin, rows);
    constexpr int kSlabs = Tile::kVBytes / Tile::kSlab;
    shared_.v.wait_empty(v_);
    const uint32_t to = memory_ + Tile::kVBegin + v_ % Tile::kVPlaces * Tile::kVBytes;
    const uint32_t barrier = expect(shared_.v, v_, all * kSlabs * kLine);
    copy(lanes_part({&params_.prefix_v, item.prefix_begin + begin, in_prefix, 0},
                    {&params_.v, item.k_begin + begin + in_prefix - item.prefix_len,
                     rows - in_prefix, in_prefix},
                    {&params_.v, params_.v.rows, all - rows, rows}),
         kSlabs, to, head, barrier);
    ++v_;
  }

  /// For all lanes, before any of them copies.
  template <class R>
  __device__ uint32_t expect(R& ring, uint32_t n, int bytes) const {
    if (lane_ == 0) ring.expect(n, bytes);
    __syncwarp();
    return ring.full_barrier(n);
  }

  const Params<T>& params_;
  Shared<kDim>& shared_;
  const uint32_t memory_;
  const int lane_ = threadIdx.x % cuda::kWarp;
  uint32_t q_ = 0, k_ = 0, v_ = 0;  // uses of the rings so far
};

__device__ inline float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/// The first frags of scores or sums.
template <int kFrags, int kAll>
__device__ inline float (&first(float (&all)[kAll][4]))[kFrags][4] {
  static_assert(kFrags <= kAll);
  return reinterpret_cast<float(&)[kFrags][4]>(all);
}

/// One of the warpgroups that multiply. A thread has rows g and g + 8 of its warp's 16, "half" 0
/// and 1, and of every 8 columns 2t and 2t + 1.
template <int kDim, class T>
class Multiplier {
  using Tile = Tiles<kDim>;
  static constexpr int kFrags = kBlock / 8, kSteps = kBlock / 16;

 public:
  __device__ Multiplier(const Params<T>& params, Shared<kDim>& shared, uint32_t memory)
      : params_(params),
        shared_(shared),
        memory_(memory),
        group_(__shfl_sync(0xffffffffu, threadIdx.x / kGroup, 0)) {}  // a warp's, compilers see

  __device__ void run() {
    // The first one's turn comes first.
    if (group_ == Tile::kGroups - 1) give_turn();
    for (uint32_t n = 0;; ++n) {
      shared_.q.wait_full(n);
      const Item& item = shared_.items[n % 2];
      if (item.count == 0) return;
      n_ = n;
      if (first_query() < item.count) {
        multiply(item);
        store(item);
      } else {
        look_on(item);
      }
      shared_.q.release(n);
    }
  }

 private:
  __device__ void take_turn() const { cuda::named_barrier_sync(1 + group_, 2 * kGroup); }
  __device__ void give_turn() const {
    cuda::named_barrier_arrive(1 + (group_ + 1) % Tile::kGroups, 2 * kGroup);
  }

  /// No rows here: only what the others count on.
  __device__ void look_on(const Item& item) {
    const int blocks = item.num_blocks();
    for (int block = 0; block < blocks; ++block, ++used_) {
      shared_.k.wait_full(used_);
      shared_.k.release(used_);
      take_turn();
      give_turn();
      shared_.v.wait_full(used_);
      shared_.v.release(used_);
    }
  }

  __device__ int lane() const { return threadIdx.x % cuda::kWarp; }
  /// Of the first row of the warp, and of the group.
  __device__ int warp_row() const { return threadIdx.x / cuda::kWarp * 16; }
  __device__ int first_query() const { return 64 * group_ >> params_.log_pack; }
  /// In shared memory: of this item's rows of Q, of a use of the other rings.
  __device__ uint32_t q_tile() const { return memory_ + n_ % 2 * Tile::kQBytes; }
  __device__ uint32_t k_tile(uint32_t use) const {
    return memory_ + Tile::kKBegin + use % Tile::kKPlaces * Tile::kKBytes;
  }
  __device__ uint32_t v_tile(uint32_t use) const {
    return memory_ + Tile::kVBegin + use % Tile::kVPlaces * Tile::kVBytes;
  }

  __device__ void multiply(const Item& item) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      reference_[half] = -INFINITY;
      sum_[half] = 0;
    }
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) o_[i][e] = 0;

    const int blocks = item.num_blocks();
    shared_.k.wait_full(used_);
    if (blocks > 1) {
      begin<kBlock, false>();
      for (block_ = 1; block_ < blocks - 1; ++block_) step<kBlock, false>();
    }
    block_ = blocks - 1;
    const int rows = item.last() - block_ * kBlock;
    if (rows > 96) {
      finish<128>();
    } else if (rows > 64) {
      finish<96>();
    } else if (rows > 32) {
      finish<64>();
    } else {
      finish<32>();
    }
  }

  /// p of block 0. In front and behind, here and in step(): what is multiplied next has come.
  template <int kKeys, bool kLast>
  __device__ void begin() {
    block_ = 0;
    take_turn();
    start_scores<kKeys>(used_);
    give_turn();
    cuda::wgmma_wait<0>();
    shared_.k.release(used_);
    pin_scores<kKeys>();
    exponentiate<kKeys>();
    wait_for_next<kLast>(used_);
    pack_p<kKeys>();
  }

  /// p of block_, beside o += P V of the block before, which is whole.
  template <int kKeys, bool kLast>
  __device__ void step() {
    take_turn();
    start_scores<kKeys>(used_ + 1);
    shared_.v.wait_full(used_);
    start_sums<kBlock>();
    give_turn();
    cuda::wgmma_wait<1>();
    shared_.k.release(used_ + 1);
    pin_scores<kKeys>();
    const bool moves = exponentiate<kKeys>();
    // This wait stands before the other one since compilers draw that one ahead of exponentials.
    wait_for_next<kLast>(used_ + 1);
    cuda::wgmma_wait<0>();
    shared_.v.release(used_);
    ++used_;
    pin_sums();
    if (moves) rescale();
    pack_p<kKeys>();
  }

  /// Behind the scores of use `use`: the next keys, or the last values.
  template <bool kLast>
  __device__ void wait_for_next(uint32_t use) {
    kLast ? shared_.v.wait_full(use) : shared_.k.wait_full(use + 1);
  }

  /// Everything about the last block.
  template <int kKeys>
  __device__ void finish() {
    block_ == 0 ? begin<kKeys, true>() : step<kKeys, true>();
    start_sums<kKeys>();
    cuda::wgmma_wait<0>();
    shared_.v.release(used_);
    ++used_;
    pin_sums();
  }

  template <int kKeys>
  __device__ void start_scores(uint32_t use) {
    auto& s = first<kKeys / 8>(s_);
    const uint32_t q = q_tile() + group_ * 64 * kLine, k = k_tile(use);
    cuda::wgmma_fence();
#pragma unroll
    for (int slab = 0; slab < Tile::kSlabs; ++slab) {
      const uint64_t q_lines = cuda::wgmma_lines(q + slab * Tile::kQSlab);
      const uint64_t k_lines = cuda::wgmma_lines(k + slab * Tile::kSlab);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        if (slab == 0 && step == 0) {
          cuda::wgmma_64xNx16_ss<T, kKeys / 8, false>(s, q_lines, k_lines);
        } else {
          cuda::wgmma_64xNx16_ss<T, kKeys / 8, true>(s, q_lines + 2 * step, k_lines + 2 * step);
        }
      }
    }
    if constexpr (Tile::kHasRest)
      cuda::wgmma_64xNx16_ss<T, kKeys / 8, true>(
          s, cuda::wgmma_lines_32(q_tile() + Tile::kSlabs * Tile::kQSlab + group_ * 64 * kRestLine),
          cuda::wgmma_lines_32(k + Tile::kSlabs * Tile::kSlab));
    cuda::wgmma_commit();
  }

  template <int kKeys>
  __device__ void start_sums() {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) cuda::pin(p_[step][i]);
    pin_sums();
    cuda::wgmma_fence();
    const uint64_t columns = cuda::wgmma_columns(v_tile(used_), Tile::kSlab);
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step)
      cuda::wgmma_64xNx16_rs_columns<T, kDim / 8>(o_, p_[step], columns + step * (16 * kLine / 16));
    cuda::wgmma_commit();
  }

  template <int kKeys>
  __device__ void pin_scores() {
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) cuda::pin(s_[n][e]);
  }
  __device__ void pin_sums() {
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) cuda::pin(o_[i][e]);
  }

  /// Scores of block_ become p, unrounded, and their rows' references move where they have to: then
  /// it is true for the whole warp, and o must be multiplied by factor_. A row is judged by itself:
  /// its factor is 1 unless its own reference moves.
  template <int kKeys>
  __device__ bool exponentiate() {
    auto& s = first<kKeys / 8>(s_);
    const Item& item = shared_.items[n_ % 2];
    if ((block_ + 1) * kBlock > item.visible(first_query())) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row() + lane() / 4 + 8 * half;
        const int end = item.visible(row >> params_.log_pack) - block_ * kBlock - lane() % 4 * 2;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (n * 8 + e >= end) s[n][2 * half + e] = -INFINITY;
      }
    }
    float highest[2];
    bool moves = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& v = highest[half];
      v = fmaxf(s[0][2 * half], s[0][2 * half + 1]);
#pragma unroll
      for (int n = 1; n < kKeys / 8; ++n) v = fmaxf(v, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      v *= params_.scale_log2;
      moves |= v > reference_[half] + kHeadroom;
    }
    moves = __any_sync(0xffffffffu, moves);
    if (moves) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float row_max = quad_max(highest[half]);
        const float next = row_max > reference_[half] + kHeadroom ? row_max : reference_[half];
        factor_[half] = cuda::exp2_approx(reference_[half] - next);
        reference_[half] = next;
        sum_[half] *= factor_[half];
      }
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& p = s[n][2 * half + e];
          p = cuda::exp2_approx(fmaf(p, params_.scale_log2, -reference_[half]));
          sum_[half] += p;
        }
    pin_scores<kKeys>();  // now, beside the products, and not after them
    return moves;
  }

  __device__ void rescale() {
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) o_[i][e] *= factor_[e / 2];
  }

  /// The p of a block as A operands of 16 keys each: the accumulators of two frags (see mma.cuh).
  template <int kKeys>
  __device__ void pack_p() {
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        p_[n / 2][n % 2 * 2 + half] = cuda::pack<T>(s_[n][2 * half], s_[n][2 * half + 1]);
  }

  /// Through the warp's own rows of Q to 16-byte stores.
  __device__ void store(const Item& item) {
    char* const q = cuda::shared_pointer(q_tile());
    const auto chunk_of = [&](int row, int chunk) {  // of the warp's
      row += warp_row();
      return chunk < Tile::kSlabs * 8
                 ? q + chunk / 8 * Tile::kQSlab + row * kLine + ((chunk ^ row) % 8) * 16
                 : q + Tile::kSlabs * Tile::kQSlab + row * kRestLine;
    };
    // The group's other warps may still read these rows for their last scores.
    cuda::named_barrier_sync(1 + Tile::kGroups + group_, kGroup);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float inverse = 1 / quad_sum(sum_[half]);
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i)
        *reinterpret_cast<uint32_t*>(chunk_of(half * 8 + lane() / 4, i) + lane() % 4 * 4) =
            cuda::pack<T>(o_[i][2 * half] * inverse, o_[i][2 * half + 1] * inverse);
    }
    __syncwarp();
    constexpr int kChunks = kDim / 8, kCopies = (16 * kChunks + cuda::kWarp - 1) / cuda::kWarp;
    const int log = params_.log_pack;
    T* const o = params_.o + int64_t{item.q_row} * params_.o_row_stride +
                 int64_t{item.head << log} * params_.o_head_stride;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int index = i * cuda::kWarp + lane(), row = index / kChunks, chunk = index % kChunks;
      const int in_tile = warp_row() + row, token = in_tile >> log;
      if (row < 16 && token < item.count)
        *reinterpret_cast<uint4*>(o + token * params_.o_row_stride +
                                  (in_tile - (token << log)) * params_.o_head_stride + chunk * 8) =
            *reinterpret_cast<const uint4*>(chunk_of(row, chunk));
    }
    cuda::fence_async_proxy();  // the next copy to these rows comes behind all this
    __syncwarp();
  }

  const Params<T>& params_;
  Shared<kDim>& shared_;
  const uint32_t memory_;
  const int group_;
  uint32_t n_ = 0, used_ = 0;  // items, and blocks of all of them, so far
  int block_;                  // of the item
  float s_[kFrags][4];
  uint32_t p_[kSteps][4];
  float o_[kDim / 8][4];
  float reference_[2];  // what scores in powers of two are relative to
  float factor_[2];
  float sum_[2];  // of this thread's p
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int kDim, class T>
__global__ void __launch_bounds__(Tiles<kDim>::kThreads, 1)
    flash_wgmma_kernel(const __grid_constant__ Params<T> params) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Tile = Tiles<kDim>;
  // Of a thread, who has 65,536 / kThreads of the compiler's at first.
  constexpr int kCopyRegisters = Tile::kGroups == 2 ? 40 : 32;
  constexpr int kMathRegisters = Tile::kGroups == 2 ? 232 : 160;
  extern __shared__ __align__(1024) char shared_memory[];
  __shared__ Shared<kDim> shared;
  if (threadIdx.x == 0) {
    shared.q.make(4 * Tile::kGroups);
    shared.k.make(4 * Tile::kGroups);
    shared.v.make(4 * Tile::kGroups);
    cuda::barriers_made();
  }
  __syncthreads();
  if (threadIdx.x / kGroup == Tile::kGroups) {
    cuda::decrease_registers<kCopyRegisters>();
    Copier<kDim, T> copier(params, shared, cuda::shared_address(shared_memory));
    const int warp = threadIdx.x % kGroup / cuda::kWarp;
    if (warp == 0) copier.copy_queries_and_keys();
    if (warp == 1) copier.copy_values();
  } else {
    cuda::increase_registers<kMathRegisters>();
    Multiplier<kDim, T>(params, shared, cuda::shared_address(shared_memory)).run();
  }
#endif
}

template <class T>
Result<KeyRows> key_rows(const ConstTensor& t) {
  KeyRows out{};
  out.rows = static_cast<int>(t.dim(0));
  for (int log = 0; log < kBoxSizes; ++log) {
    VLR_ASSIGN_OR_RETURN(out.boxes[log],
                         cuda::head_boxes(t.data, t.dim(0), t.dim(1), t.dim(2), t.stride(0),
                                          t.stride(1), 1 << log, 1, 64));
  }
  return out;
}

template <int kDim, class T>
Status launch(const Attention::Args& a, Context& ctx) {
  using Tile = Tiles<kDim>;
  const int64_t heads = a.q.dim(1), group = heads / a.k.dim(1);
  const int64_t pack = attention_pack(heads, a.k.dim(1));
  const int tokens = static_cast<int>(Tile::kRows / pack);
  const int64_t tile = attention_tile(a.causal);
  int device = 0, sms = 0;
  VLR_CUDA_TRY(cudaGetDevice(&device));
  VLR_CUDA_TRY(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));

  Params<T> params{};
  const auto q_boxes = [&](int columns) {
    return cuda::head_boxes(a.q.data, a.q.dim(0), heads, kDim, a.q.stride(0), a.q.stride(1), tokens,
                            static_cast<int>(pack), columns);
  };
  VLR_ASSIGN_OR_RETURN(params.q, q_boxes(64));
  // Of one without rows nobody asks for any.
  const bool own = a.k.dim(0) > 0, prefix = a.prefix_k.defined() && a.prefix_k.dim(0) > 0;
  VLR_ASSIGN_OR_RETURN(params.k, key_rows<T>(own ? a.k : a.prefix_k));
  VLR_ASSIGN_OR_RETURN(params.v, key_rows<T>(own ? a.v : a.prefix_v));
  VLR_ASSIGN_OR_RETURN(params.prefix_k, key_rows<T>(prefix ? a.prefix_k : a.k));
  VLR_ASSIGN_OR_RETURN(params.prefix_v, key_rows<T>(prefix ? a.prefix_v : a.v));
  if (Tile::kHasRest) {
    VLR_ASSIGN_OR_RETURN(params.q_rest, q_boxes(16));
    for (int log = 5; log < kBoxSizes; ++log) {
      VLR_ASSIGN_OR_RETURN(params.k_rest[log],
                           cuda::head_boxes(a.k.data, a.k.dim(0), a.k.dim(1), kDim, a.k.stride(0),
                                            a.k.stride(1), 1 << log, 1, 16));
    }
  }
  params.o = a.o.as<T>();
  params.o_row_stride = a.o.stride(0), params.o_head_stride = a.o.stride(1);
  params.segments = a.table.segments.as<AttentionSegment>();
  params.tiles = a.table.tiles.as<int2>();
  params.tile = static_cast<int>(tile);
  params.num_heads = static_cast<int>(heads / pack);
  params.num_items =
      static_cast<int>(a.table.tiles.dim(0) * ((tile + tokens - 1) / tokens) * params.num_heads);
  params.group = static_cast<int>(group / pack);
  while (1 << params.log_pack < pack) ++params.log_pack;
  params.scale_log2 = a.scale * 1.44269504f;
  params.causal = a.causal;

  const auto kernel = flash_wgmma_kernel<kDim, T>;
  VLR_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    Tile::kSharedBytes));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(sms, params.num_items)));
  config.blockDim = dim3(Tile::kThreads);
  config.dynamicSmemBytes = Tile::kSharedBytes;
  config.stream = ctx.stream;
  VLR_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, params));
  return cuda::to_status(cudaGetLastError(), "attention/flash_wgmma launch");
}

}  // namespace

Status attention_flash_wgmma(const Attention::Args& a, Context& ctx) {
  if (!a.table.segments.defined() || !a.table.tiles.defined())
    return invalid(Attention::kName, "flash_wgmma needs the table of segments and tiles");
  for (const void* data : {a.q.data, a.k.data, a.v.data, a.prefix_k.data, a.prefix_v.data,
                           static_cast<const void*>(a.o.data)}) {
    if (reinterpret_cast<uintptr_t>(data) % 16 != 0)
      return invalid(Attention::kName,
                     "flash_wgmma needs operands that start at multiples of 16 bytes");
  }
  // A tensor without rows has no boxes; nor are there queries without keys.
  const int64_t keys = a.k.dim(0) + (a.prefix_k.defined() ? a.prefix_k.dim(0) : 0);
  if (a.table.tiles.dim(0) == 0 || a.q.numel() == 0 || keys == 0) return {};
  return cuda::with_16_bit_element(a.q.dtype, [&](auto element) -> Status {
    using T = decltype(element);
    if (a.q.dim(2) == 64) return launch<64, T>(a, ctx);
    if (a.q.dim(2) == 72) return launch<72, T>(a, ctx);
    return launch<128, T>(a, ctx);
  });
}

}  // namespace vlr::ops
