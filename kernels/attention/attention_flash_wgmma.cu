// attention/flash_wgmma: online softmax over blocks of keys, products that run beside it (sm_90a).
//   grid: one block a multiprocessor, which takes items from the table until there are none
//   block: warpgroups of 64 rows each (two for D = 128, three below), and one that copies
//
// An item is up to kRows rows of one head of k: `pack` heads of q that share it times so many tokens,
// row r being token r / pack and head r % pack. So short sequences fill a tile, and what is loaded
// of K and V serves all of their heads. Keys are counted from the first visible one and taken
// kBlock at a time, in ascending order; the last block is cut to the next multiple of kCut keys.
//
// Two warps of the last warpgroup run ahead. One finds the block's items and copies Q of the next one
// and blocks of K, one copies blocks of V, through rings. Copies are boxes of tensors, one of 128
// rows for a block that lies in one tensor; one that begins in the prefix and ends in the sequence's
// own rows is put together of boxes of 64, 32, ... 1 rows, and so is a last block of V, with zeroes up
// to the cut: another sequence's rows never get in. Lanes start the boxes of a block side by side:
// one that did it alone was too slow to keep the products fed.
//
// The others overlap: while the scores of block j + 1 and o += P V of block j run on the tensor
// cores, a warpgroup waits for the scores alone, turns them into p, and then waits for o. An item is
// stored, from registers, beside the next one's first scores. A group's last block is that of its
// own last query; of blocks beyond it only says that it is done.
//
// Bits of a row: it is reduced by the same four lanes, each over the same columns of a block,
// wherever the row lies in a tile. Its first block holds a visible key, and a key that it does not
// see changes nothing (p = 0 times a finite value, factor 1). So neither cutting nor packing nor
// the order of items moves a bit.
//
// Needs what can_flash_wgmma() in attention.cc says, and data aligned to 16 bytes.
#include <algorithm>
#include <type_traits>

#include "kernels/attention/flash.cuh"
#include "kernels/attention/impls.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
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

enum Operand { kK, kV, kPrefixK, kPrefixV };

template <class T>
struct Params {
  CUtensorMap q, q_rest;  // boxes of an item's rows
  KeyRows rows[4];        // by Operand
  CUtensorMap k_rest[kBoxSizes];
  T* o;
  int64_t o_row_stride, o_head_stride;
  const AttentionSegment* segments;
  const int2* tiles;
  int num_tiles;  // with those that have no queries
  int tile;       // queries of one
  int num_heads;  // of items: of q, divided by the pack
  int group;      // of those that share one of k
  int log_pack;
  float scale_log2;
  bool causal;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// What one round of a block works on.
struct Item {
  int head, kv_head;          // of items, and of k and v
  int q_row;                  // its first query
  int count;                  // queries; 0: there is nothing more to do
  int k_begin, prefix_begin;  // rows of the first own key and of the prefix's first
  int prefix_len, num_keys;   // keys of the prefix, and in all
  int first_sees;             // keys that query 0 sees; query i sees i more, up to num_keys

  __device__ int visible(int query) const { return min(first_sees + query, num_keys); }
  __device__ int last() const { return visible(count - 1); }
  __device__ int num_blocks() const { return blocks_of(last()); }
  __device__ static int blocks_of(int keys) { return (keys + kBlock - 1) / kBlock; }
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
  // Beside Q, whose place is free again before its item is: a warp that says so for use n is done
  // with the items before n - 1. Barrier n % 4 says that item n is known.
  Item items[4];
  uint64_t known[4];
  Item tiles[cuda::kWarp];  // the head: how many parts they have with the tiles before
};

constexpr int kCut = 32;  // keys

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
    if (lane_ == 0) cuda::prefetch_map(params_.q);
    prefetch(params_.rows[kK], params_.rows[kPrefixK]);
    find_items([&] {
      const Item& item = shared_.items[q_ % 4];
      copy_queries(item);
      for (int block = 0; block < item.num_blocks(); ++block) copy_keys(item, block);
    });
    shared_.q.wait_empty(q_);
    if (lane_ == 0) {
      shared_.items[q_ % 4].count = 0;
      cuda::arrive(known_barrier(q_));
      shared_.q.expect(q_, 0);
    }
  }

  __device__ void copy_values() {
    prefetch(params_.rows[kV], params_.rows[kPrefixV]);
    for (;; ++q_) {
      cuda::wait_for_phase(known_barrier(q_), q_ / 4 % 2);
      const Item& item = shared_.items[q_ % 4];
      if (item.count == 0) return;
      for (int block = 0; block < item.num_blocks(); ++block) copy_values(item, block);
      shared_.q.release(q_);
    }
  }

 private:
  __device__ uint32_t known_barrier(uint32_t n) const {
    return cuda::shared_address(&shared_.known[n % 4]);
  }

  /// So that the first copies need not wait for them.
  __device__ void prefetch(const KeyRows& own, const KeyRows& prefix) const {
    if (lane_ >= kBoxSizes) return;
    cuda::prefetch_map(own.boxes[lane_]);
    cuda::prefetch_map(prefix.boxes[lane_]);
  }

  /// The block's items become uses q_ of Q, one after the other, and are worked on. Tiles are looked
  /// at a warp's worth at a time, and their items counted: those of a tile's parts of so many
  /// tokens, most work first, and of all heads. Of every gridDim.x that follow each other a block has
  /// one, there or back in the Thue-Morse sequence's order, which evens out what grows or shrinks
  /// along them.
  template <class F>
  __device__ void find_items(F work) {
    constexpr unsigned kAll = 0xffffffffu;
    const int tokens = Tile::kRows >> params_.log_pack;
    int round = 0;
    const auto number = [&] {
      const int place = __popc(round) % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
      return static_cast<int>(round * gridDim.x) + place;
    };
    Item(&tiles)[cuda::kWarp] = shared_.tiles;
    const int& all = tiles[cuda::kWarp - 1].head;
    if (lane_ == cuda::kWarp - 1) tiles[lane_].head = 0;
    for (int first = 0; first < params_.num_tiles; first += cuda::kWarp) {
      __syncwarp();
      int parts = (queries_of(first + lane_, tiles[lane_]) + tokens - 1) / tokens;
      if (lane_ == 0) parts += all;
#pragma unroll
      for (int distance = 1; distance < cuda::kWarp; distance *= 2) {
        const int before = __shfl_up_sync(kAll, parts, distance);
        if (lane_ >= distance) parts += before;
      }
      tiles[lane_].head = parts;
      __syncwarp();
      for (;; ++q_) {
        const int part = number() / params_.num_heads;
        if (part >= all) break;
        shared_.q.wait_empty(q_);
        const int behind = (tiles[lane_].head - part - 1) * tokens;  // in its tile
        if (lane_ == __ffs(__ballot_sync(kAll, behind >= 0)) - 1) {
          Item& item = shared_.items[q_ % 4];
          item = tiles[lane_];
          item.head = number() - part * params_.num_heads;
          item.kv_head = item.head / params_.group;
          item.q_row += behind;
          item.count = min(tokens, item.count - behind);
          if (params_.causal) item.first_sees += behind;
        }
        __syncwarp();
        work();
        ++round;
      }
    }
  }

  /// How many queries tile number `index` has; where there are any, the tile as if it were an item.
  __device__ int queries_of(int index, Item& out) const {
    if (index >= params_.num_tiles) return 0;
    const int2 tile = params_.tiles[index];
    if (tile.x < 0) return 0;
    const AttentionSegment s = params_.segments[tile.x];
    if (tile.y >= s.q_len) return 0;
    out.q_row = s.q_begin + tile.y;
    out.count = min(params_.tile, s.q_len - tile.y);
    out.k_begin = s.k_begin;
    out.prefix_begin = s.prefix_begin;
    out.prefix_len = s.prefix_len;
    out.num_keys = s.prefix_len + s.k_len;
    out.first_sees = params_.causal ? out.num_keys - s.q_len + tile.y + 1 : out.num_keys;
    return out.count;
  }

  __device__ void copy_queries(const Item& item) {
    if (lane_ == 0) {
      cuda::arrive(known_barrier(q_));
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
  }

  /// Rows of a tensor that lie in a block's lines from `line` on.
  struct Part {
    Operand from;
    int row, count, line;
  };
  /// What follows of it is made anew, not kept from block to block: registers are few.
  __device__ int lane_again() const {
    uint32_t lane = lane_;
    cuda::pin(lane);
    return static_cast<int>(lane);
  }
  /// Eight lanes have a part of a block, each the box of one power of two that its count is made of,
  /// the large ones first.
  __device__ Part lanes_part(Part first, Part second, Part third) const {
    return lane_ < kBoxSizes ? first : lane_ < 2 * kBoxSizes ? second : third;
  }
  /// Of all lanes, their parts to `slabs` slabs at `to`.
  __device__ void copy(Part part, int slabs, uint32_t to, int head, uint32_t barrier) const {
    const int lane = lane_again();
    const int log = kBoxSizes - 1 - lane % kBoxSizes, before = part.count >> log >> 1 << 1 << log;
    if (lane >= 3 * kBoxSizes || (part.count >> log & 1) == 0) return;
#pragma unroll 1
    for (int slab = 0; slab < slabs; ++slab)
      cuda::copy_box(to + slab * Tile::kSlab + (part.line + before) * kLine,
                     params_.rows[part.from].boxes[log], slab * 64, head, part.row + before,
                     barrier);
  }

  /// Of a block's rows, those of the prefix.
  __device__ static int in_prefix_of(const Item& item, int begin, int rows) {
    return Tile::kHasRest ? 0
                          : min(max(item.prefix_len - begin, 0), rows);  // see can_flash_wgmma()
  }

  __device__ void copy_keys(const Item& item, int block) {
    const int begin = block * kBlock, head = item.kv_head;
    const int rows = min(kBlock, item.last() - begin), all = rounded_up(rows, kCut);
    const int in_prefix = in_prefix_of(item, begin, rows);
    // Up to the cut, of whatever tensor comes last: scores of rows beyond are not looked at.
    const int of_prefix = in_prefix == rows ? all : in_prefix;
    shared_.k.wait_empty(k_);
    const uint32_t to = memory_ + Tile::kKBegin + k_ % Tile::kKPlaces * Tile::kKBytes;
    const uint32_t barrier = expect(shared_.k, k_, all * (Tile::kKBytes / kBlock));
    copy(lanes_part(
             {kPrefixK, item.prefix_begin + begin, of_prefix, 0},
             {kK, item.k_begin + begin + in_prefix - item.prefix_len, all - of_prefix, of_prefix},
             {}),
         Tile::kSlabs, to, head, barrier);
    if constexpr (Tile::kHasRest) {
      const int lane = lane_again(), log = kBoxSizes - 1 - lane;
      const int before = all >> log >> 1 << 1 << log;
      if (lane < 3 && all >> log & 1)
        cuda::copy_box(to + Tile::kSlabs * Tile::kSlab + before * kRestLine, params_.k_rest[log],
                       Tile::kSlabs * 64, head, item.k_begin + begin + before, barrier);
    }
    ++k_;
  }

  __device__ void copy_values(const Item& item, int block) {
    const int begin = block * kBlock, head = item.kv_head;
    const int rows = min(kBlock, item.last() - begin), all = rounded_up(rows, kCut);
    const int in_prefix = in_prefix_of(item, begin, rows);
    constexpr int kSlabs = Tile::kVBytes / Tile::kSlab;
    shared_.v.wait_empty(v_);
    const uint32_t to = memory_ + Tile::kVBegin + v_ % Tile::kVPlaces * Tile::kVBytes;
    const uint32_t barrier = expect(shared_.v, v_, all * kSlabs * kLine);
    copy(lanes_part(
             {kPrefixV, item.prefix_begin + begin, in_prefix, 0},
             {kV, item.k_begin + begin + in_prefix - item.prefix_len, rows - in_prefix, in_prefix},
             {kV, params_.rows[kV].rows, all - rows, rows}),
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
    for (bool ahead = false; ahead || find_item();) {
      const Item& item = this_item();
      shared_.k.wait_full(used_);
      with_cut(last(item), [&]<int kKeys>(std::integral_constant<int, kKeys>) {
        start_scores<kKeys>(used_);
        store(shared_.items[(n_ - 1) % 4], ahead);
        begin<kKeys>();
      });
      multiply();
      // This item is stored beside the next one's first scores.
      shared_.q.wait_full(++n_);
      const int unseen = item.num_blocks() - Item::blocks_of(last(item));
      ahead = unseen == 0 && has_rows(this_item());
      if (!ahead) {
        store(item, true);
        look_on(unseen);
      }
    }
  }

 private:
  __device__ const Item& this_item() const { return shared_.items[n_ % 4]; }
  __device__ bool has_rows(const Item& item) const { return first_query() < item.count; }

  /// The next item, from number n_ on, that has rows of this group, if there is one.
  __device__ bool find_item() {
    for (;; ++n_) {
      shared_.q.wait_full(n_);
      if (this_item().count == 0) return false;
      if (has_rows(this_item())) return true;
      shared_.q.release(n_);
      look_on(this_item().num_blocks());
    }
  }

  /// No row of the group sees anything in so many blocks: only what the other groups count on.
  __device__ void look_on(int blocks) {
    for (; blocks > 0; --blocks, ++used_) {
      shared_.k.wait_full(used_);
      shared_.k.release(used_);
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

  /// Keys that the group's last query sees.
  __device__ int last(const Item& item) const {
    return item.visible(min(item.count, ((64 * group_ + 63) >> params_.log_pack) + 1) - 1);
  }

  /// Of an item of which p of block 0 is there.
  __device__ void multiply() {
    const int blocks = Item::blocks_of(last(this_item()));
    for (block_ = 1; block_ < blocks - 1; ++block_) step<kBlock, false>();
    block_ = blocks - 1;
    with_cut(last(this_item()) - block_ * kBlock,
             [&]<int kKeys>(std::integral_constant<int, kKeys>) {
               if (block_ > 0) step<kKeys, true>();
               finish<kKeys>();
             });
  }

  /// Of so many keys, more than none, up to a whole block.
  template <class F>
  __device__ static void with_cut(int keys, F f) {
    if (keys > 96) {
      f(std::integral_constant<int, 128>());
    } else if (keys > 64) {
      f(std::integral_constant<int, 96>());
    } else if (keys > 32) {
      f(std::integral_constant<int, 64>());
    } else {
      f(std::integral_constant<int, 32>());
    }
  }

  /// p of block 0, whose scores are under way. Behind, here and in step(): what is multiplied next
  /// has come.
  template <int kKeys>
  __device__ void begin() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      reference_[half] = -INFINITY;
      sum_[half] = 0;
    }
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) o_[i][e] = 0;
    block_ = 0;
    const bool is_last = kKeys < kBlock || last(this_item()) <= kBlock;
    cuda::wgmma_wait<0>();
    shared_.k.release(used_);
    if (is_last) shared_.q.release(n_);
    pin_scores<kKeys>();
    exponentiate<kKeys>();
    is_last ? shared_.v.wait_full(used_) : shared_.k.wait_full(used_ + 1);
    pack_p<kKeys>();
  }

  /// p of block_, beside o += P V of the block before, which is whole.
  template <int kKeys, bool kLast>
  __device__ void step() {
    start_scores<kKeys>(used_ + 1);
    shared_.v.wait_full(used_);
    start_sums<kBlock>();
    cuda::wgmma_wait<1>();
    shared_.k.release(used_ + 1);
    if (kLast) shared_.q.release(n_);
    pin_scores<kKeys>();
    const bool moves = exponentiate<kKeys>();
    // This wait stands before the other one since compilers draw that one ahead of exponentials.
    kLast ? shared_.v.wait_full(used_ + 1) : shared_.k.wait_full(used_ + 2);
    cuda::wgmma_wait<0>();
    shared_.v.release(used_);
    ++used_;
    pin_sums();
    if (moves) rescale();
    pack_p<kKeys>();
  }

  /// The last o += P V, and o as it is stored.
  template <int kKeys>
  __device__ void finish() {
    start_sums<kKeys>();
    const float inverse[2] = {1 / quad_sum(sum_[0]), 1 / quad_sum(sum_[1])};
    cuda::wgmma_wait<0>();
    shared_.v.release(used_);
    ++used_;
    pin_sums();
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float scale = inverse[half];
        out_[half][i] = cuda::pack<T>(o_[i][2 * half] * scale, o_[i][2 * half + 1] * scale);
      }
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
      cuda::wgmma_64xNx16<T, kDim / 8, true>(o_, p_[step], columns + step * (16 * kLine / 16));
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
    const Item& item = this_item();
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

  /// Four lanes have 32 columns of a row in four words each, word i of lane t being word t of the
  /// i-th 16 bytes: they change places, and lane t has the t-th 16 bytes.
  __device__ static uint4 transpose(const uint32_t* w, int t) {
    const bool odd = t & 1, high = t & 2;
    const auto swap = [](uint32_t give, int distance) {
      return __shfl_xor_sync(0xffffffffu, give, distance);
    };
    const uint32_t a = swap(odd ? w[0] : w[1], 1), b = swap(odd ? w[2] : w[3], 1);
    // Words 0 and 1 of chunk t % 2 (low) or t % 2 + 2, or words 2 and 3 of them in lanes 2 and 3.
    const uint32_t low[2] = {odd ? a : w[0], odd ? w[1] : a};
    const uint32_t up[2] = {odd ? b : w[2], odd ? w[3] : b};
    const uint32_t c = swap(high ? low[0] : up[0], 2), d = swap(high ? low[1] : up[1], 2);
    return high ? uint4{c, d, up[0], up[1]} : uint4{low[0], low[1], c, d};
  }

  /// From registers: no other warp is waited for, and nothing in shared memory written.
  __device__ void store(const Item& item, bool stores) const {
    const int log = params_.log_pack;
    uint32_t thread = threadIdx.x;
    cuda::pin(thread);  // what follows of it is made anew, not kept in registers from item to item
    const int t = thread % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = thread / cuda::kWarp * 16 + thread % cuda::kWarp / 4 + 8 * half;
      const int token = row >> log;
      const bool mine = stores && token < item.count;
      T* const o = params_.o + (item.q_row + token) * params_.o_row_stride +
                   ((item.head << log) + row - (token << log)) * params_.o_head_stride;
#pragma unroll
      for (int i = 0; i < Tile::kSlabs * 8; i += 4) {
        const uint4 chunk = transpose(out_[half] + i, t);
        if (mine) __stcg(reinterpret_cast<uint4*>(o + (i + t) * 8), chunk);
      }
      if constexpr (Tile::kHasRest)
        if (mine)
          *reinterpret_cast<uint32_t*>(o + Tile::kSlabs * 64 + t * 2) = out_[half][kDim / 8 - 1];
    }
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
  uint32_t out_[2][kDim / 8];  // of the item before, until it is stored
  float reference_[2];         // what scores in powers of two are relative to
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
    shared.q.make(4 * Tile::kGroups + 1);  // the warp that copies V reads the items
    shared.k.make(4 * Tile::kGroups);
    shared.v.make(4 * Tile::kGroups);
    for (uint64_t& barrier : shared.known) cuda::make_barrier(cuda::shared_address(&barrier), 1);
    cuda::barriers_made();
  }
  __syncthreads();
  if (threadIdx.x / kGroup == Tile::kGroups) {
    cuda::decrease_registers<kCopyRegisters>();
    Copier<kDim, T> copier(params, shared, cuda::shared_address(shared_memory));
    const int warp = threadIdx.x % kGroup / cuda::kWarp;
    if (warp == 0)
      copier.copy_queries_and_keys();
    else if (warp == 1)
      copier.copy_values();
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
  VLR_ASSIGN_OR_RETURN(params.rows[kK], key_rows<T>(own ? a.k : a.prefix_k));
  VLR_ASSIGN_OR_RETURN(params.rows[kV], key_rows<T>(own ? a.v : a.prefix_v));
  VLR_ASSIGN_OR_RETURN(params.rows[kPrefixK], key_rows<T>(prefix ? a.prefix_k : a.k));
  VLR_ASSIGN_OR_RETURN(params.rows[kPrefixV], key_rows<T>(prefix ? a.prefix_v : a.v));
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
  params.num_tiles = static_cast<int>(a.table.tiles.dim(0));
  params.group = static_cast<int>(group / pack);
  params.log_pack = log_of_pack(a);
  params.scale_log2 = a.scale * kLog2E;
  params.causal = a.causal;

  const auto kernel = flash_wgmma_kernel<kDim, T>;
  VLR_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    Tile::kSharedBytes));
  cudaLaunchConfig_t config{};
  const int64_t most = params.num_tiles * ((tile + tokens - 1) / tokens) * params.num_heads;
  config.gridDim = dim3(static_cast<unsigned>(std::min<int64_t>(sms, most)));
  config.blockDim = dim3(Tile::kThreads);
  config.dynamicSmemBytes = Tile::kSharedBytes;
  config.stream = ctx.stream;
  VLR_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, params));
  return cuda::to_status(cudaGetLastError(), "attention/flash_wgmma launch");
}

}  // namespace

Status attention_flash_wgmma(const Attention::Args& a, Context& ctx) {
  VLR_RETURN_IF_ERROR(check_flash("flash_wgmma", a));
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
