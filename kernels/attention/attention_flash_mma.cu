// attention/flash_mma: online softmax over blocks of keys, products on tensor cores (sm_80+).
//   grid (heads / pack, parts of the table's tiles)   block 128
//   shared memory (kBlockM + kSlots * kBlockN) rows of the padded D: 80 KB for 128, 45 KB for 72
//
// A block takes up to kBlockM = 128 rows: `pack` heads that share one of k, times so many queries,
// row r being query r / pack and head r % pack. Neighbouring blocks are other heads of the same
// queries, so that the heads of a group find its keys in the L2. The table has the
// tiles with most work first. A warp owns 32 rows of the tile, so that what it reads of K and V
// serves two m tiles; their scores, probabilities and sums stay in its registers, and no row ever
// meets another one. D = 128 takes all 255 registers, two blocks to an SM; up to 72 there are
// three.
//
// Keys are counted from the first visible one and taken kBlockN at a time, in ascending order; a
// block of keys may begin in the prefix and end in the sequence's own rows, since every row is
// copied from a pointer of its own. Key and value blocks go through a ring of three slots, K_0 V_0
// K_1 V_1 ...: cp.async fills one or two of them while the warps work on another.
//
// Bits of a row: its first block of keys holds a visible one, so that the row has a finite
// reference from then on, and a block without visible keys changes nothing at all (reference kept,
// factor 2^0 = 1, p = 0). Warps may therefore leave such blocks out, and it does not matter how
// many of them a row's tile has.
//
// Needs what can_flash_mma() in attention.cc says, and data aligned to 16 bytes.
#include "kernels/attention/flash.cuh"
#include "kernels/attention/impls.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cp_async.cuh"
#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/warp.cuh"

namespace vlr::ops {
namespace {

constexpr int kBlockM = 128;  // queries of a tile
constexpr int kBlockN = 64;   // keys of a block
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * cuda::kWarp;
constexpr int kSlots = 3;
constexpr int kChunk = 8;  // elements in 16 bytes
static_assert(attention_tile(true) % kBlockM == 0 && attention_tile(false) % kBlockM == 0);

// A warp's rows are kMTiles times 16, the m of an mma; a block's keys kNTiles times 8, its n.
constexpr int kWarpRows = kBlockM / kWarps, kMTiles = kWarpRows / 16, kNTiles = kBlockN / 8;

/// [rows, heads, D] in global memory; strides count elements.
template <class T>
struct Rows {
  T* data;
  int row_stride, head_stride;

  __device__ T* at(int row, int head) const {
    return data + int64_t{row} * row_stride + int64_t{head} * head_stride;
  }
};

template <class T>
struct Params {
  Rows<const T> q, k, v, prefix_k, prefix_v;
  Rows<T> o;
  const AttentionSegment* segments;
  const int2* tiles;
  int parts;     // of kBlockM rows, of a tile of the table
  int chunks;    // D / kChunk
  int group;     // packs of heads of q that share one of k
  int log_pack;  // heads in a pack
  float scale_log2;
  bool causal;
};

/// A tile of rows of kDim elements in shared memory, without gaps. The same 16-byte chunk of eight
/// rows in a row (from a multiple of eight on) has to lie in eight different 16-byte columns of the
/// 128-byte wide memory, for ldmatrix. With an odd number of chunks it does; with a power of two
/// the chunks of a row are permuted, by an exclusive or with the row's number.
template <int kDim>
struct Tile {
  static constexpr unsigned kChunks = kDim / kChunk, kRowBytes = kDim * 2;
  static constexpr bool kSwizzled = kChunks % 2 == 0;
  static_assert(!kSwizzled || kChunks == 4 || kChunks == 8 || kChunks == 16);

  __device__ static unsigned offset(unsigned row, unsigned chunk) {
    const unsigned swizzle = !kSwizzled ? 0 : kChunks == 4 ? row / 2 % 4 : row % 8;
    return row * kRowBytes + (chunk ^ swizzle) * 16;
  }
  /// From the address of a chunk to the one `chunks` further on: a multiple of two, coming from the
  /// first or second chunk of a row. Tiles start at multiples of 256 bytes.
  __device__ static unsigned advance(unsigned address, unsigned chunks) {
    return kSwizzled ? address ^ (chunks * 16) : address + chunks * 16;
  }
};

/// How the block's threads copy rows: a thread has one chunk, and every kPassRows-th row; threads
/// left over have none.
template <int kDim>
struct Copier {
  using Layout = Tile<kDim>;
  static constexpr unsigned kPassRows = kThreads / Layout::kChunks;
  const unsigned row = threadIdx.x / Layout::kChunks, chunk = threadIdx.x % Layout::kChunks;

  /// Calls copy(r, address) for the thread's rows r < kRows of a tile.
  template <unsigned kRows, class Copy>
  __device__ void each_row(unsigned tile, Copy&& copy) const {
    constexpr unsigned kPasses = (kRows + kPassRows - 1) / kPassRows;
#pragma unroll
    for (unsigned pass = 0; pass < kPasses; ++pass) {
      const unsigned r = row + pass * kPassRows;
      const bool has_rows = kThreads % Layout::kChunks == 0 || row < kPassRows;
      const bool inside = kRows % kPassRows == 0 || pass < kPasses - 1 || r < kRows;
      if (has_rows && inside) copy(r, tile + Layout::offset(r, chunk));
    }
  }
};

/// Rows of one head that are the visible keys (or values) of a sequence: key j is row j of `prefix`
/// while j < prefix_len, then row j of `own`, which points prefix_len rows before the first own
/// one.
template <class T>
struct VisibleRows {
  const T *prefix, *own;
};

/// What a block works on. It lies in shared memory: the registers are taken by o and the scores.
template <class T>
struct Work {
  VisibleRows<T> keys, values;
  T* o;            // the tile's first row
  int prefix_len;  // visible keys in the prefix
  int num_keys;    // visible keys in all
  int count;       // rows
  int log_pack;    // of which so many are a query's
  int first_sees;  // keys that query 0 sees; query i sees i more, up to num_keys
  int num_blocks;  // of keys, that the last query sees

  __device__ int visible(int row) const { return min(first_sees + (row >> log_pack), num_keys); }
};

/// Starts to copy visible keys [begin, begin + kBlockN), with zeroes for keys from num_keys on and
/// for columns from D on: what a masked p = 0 multiplies must be finite.
template <int kDim, class T>
__device__ void load_block(unsigned to, const VisibleRows<T>& rows, const Work<T>& work, int begin,
                           int prefix_stride, int own_stride, int num_chunks) {
  const Copier<kDim> copier;
  const unsigned column = copier.chunk * kChunk;
  const int prefix_len = work.prefix_len, num_keys = work.num_keys;
  const T* const own = rows.own + column;
  if (begin >= prefix_len && begin + kBlockN <= num_keys && num_chunks == Tile<kDim>::kChunks) {
    // All from one matrix: no choice between two pointers.
    const T* const from = own + int64_t{begin} * own_stride;
    copier.template each_row<kBlockN>(to, [&](unsigned r, unsigned address) {
      cuda::cp_async_16(address, from + int64_t{static_cast<int>(r)} * own_stride);
    });
    return;
  }
  const T* const prefix = rows.prefix + column;
  copier.template each_row<kBlockN>(to, [&](unsigned r, unsigned address) {
    const int key = begin + static_cast<int>(r);
    const T* const from =
        key < prefix_len ? prefix + int64_t{key} * prefix_stride : own + int64_t{key} * own_stride;
    cuda::cp_async_16_or_zero(address, from, key < num_keys && copier.chunk < num_chunks);
  });
}

/// What a thread knows of its rows: [m][0] is row 16 m + lane / 4 of the warp's, [m][1] the one
/// eight further down.
template <int kDim>
struct State {
  float o[kMTiles][kDim / 8][4] = {};  // sum of p v
  float reference[kMTiles][2];         // what scores in powers of two are relative to
  float sum[kMTiles][2] = {};          // of this thread's p
};

using Scores = float[kMTiles][kNTiles][4];

/// s = q K^T for the warp's rows. `q` and `k` are the lane's addresses in tiles: of row lane % 16
/// of the warp's and chunk lane / 16; of key lane / 16 * 8 + lane % 8 and chunk lane / 8 % 2.
template <int kDim, class T>
__device__ void multiply_qk(Scores& s, unsigned q, unsigned k) {
  using Layout = Tile<kDim>;
#pragma unroll
  for (int m = 0; m < kMTiles; ++m)
#pragma unroll
    for (int n = 0; n < kNTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[m][n][e] = 0;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[kMTiles][4];
#pragma unroll
    for (int m = 0; m < kMTiles; ++m)
      cuda::ldmatrix_x4(a[m], Layout::advance(q, step * 2) + m * 16 * Layout::kRowBytes);
#pragma unroll
    for (int n = 0; n < kNTiles; n += 2) {
      uint32_t b[4];  // two n tiles, both halves of k
      cuda::ldmatrix_x4(b, Layout::advance(k, step * 2) + n * 8 * Layout::kRowBytes);
#pragma unroll
      for (int m = 0; m < kMTiles; ++m) {
        cuda::mma_16x8x16<T>(s[m][n], a[m], b[0], b[1]);
        cuda::mma_16x8x16<T>(s[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
  if constexpr (kDim % 16 != 0) {  // one product of depth 8: no padding to 16
    const unsigned lane = threadIdx.x % cuda::kWarp;
    constexpr unsigned kLast = Layout::kChunks - 1;
    const unsigned q_last = q - lane / 16 * 16 + kLast * 16;
    const unsigned k_last =
        k - Layout::offset(lane / 16 * 8 + lane % 8, lane / 8 % 2) + Layout::offset(lane, kLast);
    static_assert(!Layout::kSwizzled);
    uint32_t a[kMTiles][2];
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) cuda::ldmatrix_x2(a[m], q_last + m * 16 * Layout::kRowBytes);
#pragma unroll
    for (int n = 0; n < kNTiles; n += 4) {
      uint32_t b[4];  // four n tiles
      cuda::ldmatrix_x4(b, k_last + n * 8 * Layout::kRowBytes);
#pragma unroll
      for (int m = 0; m < kMTiles; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) cuda::mma_16x8x8<T>(s[m][n + i], a[m], b[i]);
    }
  }
}

/// Moves the reference of those rows whose scores have left the headroom, and rescales their sums.
/// A row is judged by itself: factor 1 for those that stay, so it matters to none of them whether
/// the warp's other rows make it go through the multiplications.
template <int kDim>
__device__ void follow_maximum(State<kDim>& state, const Scores& s, float scale_log2) {
  float max[kMTiles][2];
  bool moves = false;
#pragma unroll
  for (int m = 0; m < kMTiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& v = max[m][half];
      v = fmaxf(s[m][0][2 * half], s[m][0][2 * half + 1]);
#pragma unroll
      for (int n = 1; n < kNTiles; ++n)
        v = fmaxf(v, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
      v *= scale_log2;
      moves |= v > state.reference[m][half] + kHeadroom;
    }
  if (!__any_sync(0xffffffffu, moves)) return;
#pragma unroll
  for (int m = 0; m < kMTiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& reference = state.reference[m][half];
      const float row_max = quad_max(max[m][half]);
      const float next = row_max > reference + kHeadroom ? row_max : reference;
      const float factor = cuda::exp2_approx(reference - next);
      reference = next;
      state.sum[m][half] *= factor;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        state.o[m][n][2 * half] *= factor;
        state.o[m][n][2 * half + 1] *= factor;
      }
    }
}

/// The p of a block, as A operands of 16 keys each: the accumulators of two n tiles (see mma.cuh).
using Probabilities = uint32_t[kMTiles][kNTiles / 2][4];

template <int kDim, class T>
__device__ void exponentials(Probabilities& p, State<kDim>& state, const Scores& s,
                             float scale_log2) {
#pragma unroll
  for (int m = 0; m < kMTiles; ++m)
#pragma unroll
    for (int n = 0; n < kNTiles; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float offset = -state.reference[m][half];
        const float p0 = cuda::exp2_approx(fmaf(s[m][n][2 * half], scale_log2, offset));
        const float p1 = cuda::exp2_approx(fmaf(s[m][n][2 * half + 1], scale_log2, offset));
        state.sum[m][half] += p0;
        state.sum[m][half] += p1;
        p[m][n / 2][n % 2 * 2 + half] = cuda::pack<T>(p0, p1);
      }
}

/// o += P V for the warp's rows and a block of keys; `v` is the lane's address of key lane % 16 and
/// chunk lane / 16.
template <int kDim, class T>
__device__ void multiply_pv(State<kDim>& state, const Probabilities& p, unsigned v) {
  using Layout = Tile<kDim>;
  constexpr int kTiles = kDim / 8;
#pragma unroll
  for (int step = 0; step < kBlockN / 16; ++step) {
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      const unsigned from = Layout::advance(v, n) + step * 16 * Layout::kRowBytes;
      if (n + 1 < kTiles) {
        uint32_t b[4];  // two n tiles, both halves of k
        cuda::ldmatrix_x4_trans(b, from);
#pragma unroll
        for (int m = 0; m < kMTiles; ++m) {
          cuda::mma_16x8x16<T>(state.o[m][n], p[m][step], b[0], b[1]);
          cuda::mma_16x8x16<T>(state.o[m][n + 1], p[m][step], b[2], b[3]);
        }
      } else {
        uint32_t b[2];  // of lanes 16 and up the address is not looked at
        cuda::ldmatrix_x2_trans(b, from);
#pragma unroll
        for (int m = 0; m < kMTiles; ++m)
          cuda::mma_16x8x16<T>(state.o[m][n], p[m][step], b[0], b[1]);
      }
    }
  }
}

template <int kDim, class T>
__global__ void __launch_bounds__(kThreads, kDim <= 72 ? 3 : 2)
    flash_mma_kernel(const __grid_constant__ Params<T> params) {
  using Layout = Tile<kDim>;
  int2 tile = params.tiles[blockIdx.y / params.parts];
  if (tile.x < 0) return;
  tile.y += static_cast<int>(params.parts - 1 - blockIdx.y % params.parts) *
            (kBlockM >> params.log_pack);  // most work first
  extern __shared__ __align__(256) uint4 shared_memory[];
  __shared__ Work<T> work;
  const unsigned q_tile = cuda::shared_address(shared_memory);
  constexpr unsigned kSlotBytes = kBlockN * Layout::kRowBytes;
  unsigned k_slot = q_tile + kBlockM * Layout::kRowBytes, v_slot = k_slot + kSlotBytes,
           free_slot = v_slot + kSlotBytes;
  {
    const AttentionSegment s = params.segments[tile.x];
    if (tile.y >= s.q_len) return;  // for all threads
    const int kv_head = static_cast<int>(blockIdx.x) / params.group;
    const int head = static_cast<int>(blockIdx.x) << params.log_pack;
    const int first_row = s.q_begin + tile.y;
    const int count = min(kBlockM, (s.q_len - tile.y) << params.log_pack);
    if (threadIdx.x == 0) {
      const int num_keys = s.prefix_len + s.k_len, own_begin = s.k_begin - s.prefix_len;
      work.keys = {params.prefix_k.at(s.prefix_begin, kv_head), params.k.at(own_begin, kv_head)};
      work.values = {params.prefix_v.at(s.prefix_begin, kv_head), params.v.at(own_begin, kv_head)};
      work.o = params.o.at(first_row, head);
      work.prefix_len = s.prefix_len;
      work.num_keys = num_keys;
      work.count = count;
      work.log_pack = params.log_pack;
      work.first_sees = params.causal ? num_keys - s.q_len + tile.y + 1 : num_keys;
      work.num_blocks = (work.visible(count - 1) + kBlockN - 1) / kBlockN;
    }
    const Copier<kDim> copier;
    const T* const q = params.q.at(first_row, head) + copier.chunk * kChunk;
    copier.template each_row<kBlockM>(q_tile, [&](unsigned r, unsigned address) {
      const int row = static_cast<int>(r);
      const int query = row >> params.log_pack, in_pack = row - (query << params.log_pack);
      cuda::cp_async_16_or_zero(
          address, q + int64_t{query} * params.q.row_stride + in_pack * params.q.head_stride,
          row < count && copier.chunk < params.chunks);
    });
  }
  __syncthreads();
  const auto load_keys = [&](unsigned slot, int block) {
    if (block < work.num_blocks)
      load_block<kDim>(slot, work.keys, work, block * kBlockN, params.prefix_k.row_stride,
                       params.k.row_stride, params.chunks);
    cuda::cp_async_commit();  // an empty group, too: waits count groups
  };
  const auto load_values = [&](unsigned slot, int block) {
    if (block < work.num_blocks)
      load_block<kDim>(slot, work.values, work, block * kBlockN, params.prefix_v.row_stride,
                       params.v.row_stride, params.chunks);
    cuda::cp_async_commit();
  };
  load_keys(k_slot, 0);
  load_values(v_slot, 0);

  const unsigned lane = threadIdx.x % cuda::kWarp;
  const int warp_row = static_cast<int>(threadIdx.x / cuda::kWarp) * kWarpRows;
  const int warp_count =
      min(kWarpRows, work.count - warp_row);  // <= 0: nothing to do for this warp
  const int warp_least = work.visible(warp_row);
  const int warp_most = warp_count > 0 ? work.visible(warp_row + warp_count - 1) : 0;
  State<kDim> state;
#pragma unroll
  for (int m = 0; m < kMTiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) state.reference[m][half] = -INFINITY;
  // What the lane reads in the tiles: see multiply_qk and multiply_pv.
  const unsigned q_lane =
      q_tile + warp_row * Layout::kRowBytes + Layout::offset(lane % 16, lane / 16);
  const unsigned k_lane = Layout::offset(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  const unsigned v_lane = Layout::offset(lane % 16, lane / 16);

  for (int block = 0; block < work.num_blocks; ++block) {
    const bool active = block * kBlockN < warp_most;
    Probabilities p;
    // Both waits leave the one later copy under way. After the barrier everybody has this block's
    // keys, and nobody reads the values of the block before: their slot takes the next keys.
    cuda::cp_async_wait<1>();
    __syncthreads();
    load_keys(free_slot, block + 1);
    if (active) {
      Scores s;
      multiply_qk<kDim, T>(s, q_lane, k_slot + k_lane);
      if ((block + 1) * kBlockN > warp_least) {
#pragma unroll
        for (int m = 0; m < kMTiles; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int row = warp_row + m * 16 + half * 8 + static_cast<int>(lane / 4);
            const int end = work.visible(row) - block * kBlockN - static_cast<int>(lane % 4 * 2);
#pragma unroll
            for (int n = 0; n < kNTiles; ++n)
#pragma unroll
              for (int e = 0; e < 2; ++e)
                if (n * 8 + e >= end) s[m][n][2 * half + e] = -INFINITY;
          }
      }
      follow_maximum(state, s, params.scale_log2);
      exponentials<kDim, T>(p, state, s, params.scale_log2);
    }
    // The same for the values, and the slot of this block's keys.
    cuda::cp_async_wait<1>();
    __syncthreads();
    load_values(k_slot, block + 1);
    if (active) multiply_pv<kDim, T>(state, p, v_slot + v_lane);
    const unsigned used = v_slot;
    v_slot = k_slot;
    k_slot = free_slot;
    free_slot = used;
  }
  if (warp_count <= 0) return;

  // Through shared memory to 16-byte stores: the warp's own rows of q, which nobody else reads.
  auto* const bytes = reinterpret_cast<char*>(shared_memory) + warp_row * Layout::kRowBytes;
#pragma unroll
  for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float inverse = 1 / quad_sum(state.sum[m][half]);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n)
        *reinterpret_cast<uint32_t*>(bytes + Layout::offset(m * 16 + half * 8 + lane / 4, n) +
                                     lane % 4 * 4) =
            cuda::pack<T>(state.o[m][n][2 * half] * inverse, state.o[m][n][2 * half + 1] * inverse);
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kWarpRows * static_cast<int>(Layout::kChunks) / cuda::kWarp; ++i) {
    const unsigned index = i * cuda::kWarp + lane;
    const unsigned row = index / Layout::kChunks, chunk = index % Layout::kChunks;
    const int in_tile = warp_row + static_cast<int>(row), query = in_tile >> params.log_pack;
    if (row < warp_count && chunk < params.chunks)
      *reinterpret_cast<uint4*>(work.o + int64_t{query} * params.o.row_stride +
                                (in_tile - (query << params.log_pack)) * params.o.head_stride +
                                chunk * kChunk) =
          *reinterpret_cast<const uint4*>(bytes + Layout::offset(row, chunk));
  }
}

template <class T, class View>
Rows<T> rows_of(const View& t) {
  if (!t.defined()) return {};
  return {t.template as<std::remove_const_t<T>>(), static_cast<int>(t.stride(0)),
          static_cast<int>(t.stride(1))};
}

template <int kDim, class T>
Status launch(const Attention::Args& a, Context& ctx) {
  constexpr int kSharedBytes =
      (kBlockM + kSlots * kBlockN) * static_cast<int>(Tile<kDim>::kRowBytes);
  static_assert(kSharedBytes <= 99 << 10);  // what a block of sm_86 and sm_89 can have
  const int64_t pack = attention_pack(a.q.dim(1), a.k.dim(1));
  const Params<T> params{
      .q = rows_of<const T>(a.q),
      .k = rows_of<const T>(a.k),
      .v = rows_of<const T>(a.v),
      .prefix_k = rows_of<const T>(a.prefix_k),
      .prefix_v = rows_of<const T>(a.prefix_v),
      .o = rows_of<T>(a.o),
      .segments = a.table.segments.as<AttentionSegment>(),
      .tiles = a.table.tiles.as<int2>(),
      .parts = static_cast<int>(attention_tile(a.causal) * pack / kBlockM),
      .chunks = static_cast<int>(a.q.dim(2)) / kChunk,
      .group = static_cast<int>(a.q.dim(1) / a.k.dim(1) / pack),
      .log_pack = log_of_pack(a),
      .scale_log2 = a.scale * kLog2E,
      .causal = a.causal,
  };
  VLR_CUDA_TRY(cudaFuncSetAttribute(flash_mma_kernel<kDim, T>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const dim3 grid(static_cast<unsigned>(a.q.dim(1) / pack),
                  static_cast<unsigned>(a.table.tiles.dim(0) * params.parts));
  flash_mma_kernel<kDim, T><<<grid, kThreads, kSharedBytes, ctx.stream>>>(params);
  return cuda::to_status(cudaGetLastError(), "attention/flash_mma launch");
}

/// The smallest compiled head dimension that holds D; the columns past D are zeroes.
template <class T>
Status launch_for_dim(const Attention::Args& a, Context& ctx) {
  const int64_t dim = a.q.dim(2);
  if (dim <= 32) return launch<32, T>(a, ctx);
  if (dim <= 64) return launch<64, T>(a, ctx);
  if (dim <= 72) return launch<72, T>(a, ctx);
  return launch<128, T>(a, ctx);
}

}  // namespace

Status attention_flash_mma(const Attention::Args& a, Context& ctx) {
  VLR_RETURN_IF_ERROR(check_flash("flash_mma", a));
  if (a.table.tiles.dim(0) == 0 || a.q.dim(1) == 0) return {};
  if (a.q.dtype == DType::kBF16) return launch_for_dim<__nv_bfloat16>(a, ctx);
  return launch_for_dim<__half>(a, ctx);
}

}  // namespace vlr::ops
