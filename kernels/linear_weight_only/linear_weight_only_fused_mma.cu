// linear_weight_only/fused_mma: few rows with an nf4 weight whose codes become 16-bit numbers in
// registers, on the way to the tensor cores: a weight costs half a byte of memory instead of two.
// It computes y^T = W x^T, so that the decoded weight is the operand that comes from registers.
//   grid   (tiles along M, tiles along N): tiles that share rows of the weight run together
//   block  warps side by side along N, each 8 or 16 rows of the weight and all kM rows of x; then
//          four warps of which one thread requests copies
//   smem   a ring of blocks of 64 k: of x [kM, 64] in 16 bits, of the codes [kN, 64] in 4 bits; the
//          values of all pairs of codes; the 256 values of the absmax map; the ring's barriers
//
// A sum is one chain of steps of 16 k, ascending from zero, in every tile: bits depend on no choice
// made here. A step is wgmma where there is one, else mma.sync, which adds up in the same way.
//
// Decoding: two neighbouring weights are a byte, which looks up two values of the codebook; times
// the absmax and rounded they are a register of the product's operand. Where the product is
// asynchronous, a block is decoded while the tensor cores work on the one before.
#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include "kernels/cuda/byte_select.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cp_async.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/movmatrix.cuh"
#include "kernels/cuda/swizzled_tile.cuh"
#include "kernels/cuda/tensor_copy.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/cuda/weight_ring.h"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/linear_weight_only/impls.h"
#include "kernels/quant/four_bit.h"

namespace vlr::ops {
namespace {

constexpr int64_t kMaxFusedRows = 256;
constexpr int kBlock = kFourBitBlock;  // k that is decoded and multiplied at once
constexpr int kSteps = kBlock / 16;    // of the product
constexpr int kXLine = 2 * kBlock;     // bytes of a row of x in a block
constexpr int kQuad = 4;               // blocks whose absmax codes are a word; K is whole quads
// The table of pairs: 256 entries of two values, each entry once for every lane, so that lanes find
// their own in banks of their own.
constexpr int kCopyBytes = 8, kEntryBytes = cuda::kWarp * kCopyBytes;
constexpr int kTableBytes = 256 * kEntryBytes, kMapBytes = 256 * 4;

/// kWarpN: 8 or 16 rows of the weight a warp. The ring has kPieces pieces of kBatch blocks each: x
/// block by block, then the codes row by row. kCycles: what a block took on an H100.
template <int kM_, int kGroups, int kWarpN_, int kBatch_, int kPieces_, int kCycles_>
struct Tile {
  static constexpr int kM = kM_, kWarps = 4 * kGroups, kWarpN = kWarpN_, kN = kWarps * kWarpN;
  static constexpr int kBatch = kBatch_, kPieces = kPieces_, kCycles = kCycles_;
  static constexpr int kThreads = kWarps * cuda::kWarp;           // that compute
  static constexpr int kAllThreads = kThreads + 4 * cuda::kWarp;  // and those for the copies
  /// Of 512 threads each has 128 registers; those for the copies then leave the others some.
  static constexpr bool kMovesRegisters = kAllThreads == 512;
  static constexpr int kFragsM = kM / 8, kFragsN = kWarpN / 8;  // of a warp
  static constexpr int kCodeLine = kBatch * kBlock / 2;         // bytes of a row in a piece
  static constexpr int kXBytes = kM * kXLine;                   // of a block
  static constexpr int kPieceBytes = kBatch * kXBytes + kN * kCodeLine;
  static constexpr int kRingBytes = kPieces * kPieceBytes;
  static constexpr int kSharedBytes = kRingBytes + kTableBytes + kMapBytes + 2 * kPieces * 8;
  static_assert(kQuad % kBatch == 0 && kPieces >= 3 && std::has_single_bit(unsigned{kPieces}));
  static_assert(kPieceBytes % 1024 == 0, "what the swizzle counts from");
};

struct Operands {
  const void *x, *residual;  // residual may be null
  void* y;                   // may be residual
  const uint8_t *codes, *absmax;
  const float2* nested;
  const float* map;
  int64_t x_stride, residual_stride, y_stride;
  int64_t first_row;
  int m, n, k;
  int group_bits;     // a group is 2^group_bits blocks
  bool rounds_first;  // the product, before the residual is added
  float codebook[16];
  CUtensorMap x_boxes, code_boxes;  // where the device has copies of boxes
};

// A Loader brings pieces of x and of the codes into the ring. begin() requests the first ones.
// After a barrier of the block a warp waits for piece after piece, from 0 on, and releases each
// when its products are done.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// By boxes, from a thread of its own. What cp.async brings could be read by wgmma only after a
/// fence, and that waits for everything under way.
template <class T, class Tile>
class Loader {
 public:
  __device__ Loader(const Operands& a, char* ring, int m_begin, int n_begin)
      : a_(a),
        ring_(cuda::shared_address(ring)),
        full_(ring_ + Tile::kSharedBytes - 2 * Tile::kPieces * 8),
        empty_(full_ + Tile::kPieces * 8),
        m_begin_(m_begin),
        n_begin_(static_cast<int>(a.first_row) + n_begin),
        num_pieces_(a.k / (kBlock * Tile::kBatch)) {}

  __device__ void begin() const {
    if (threadIdx.x != Tile::kThreads) return;
    for (int i = 0; i < Tile::kPieces; ++i) {
      cuda::make_barrier(full_ + i * 8, 1);
      cuda::make_barrier(empty_ + i * 8, Tile::kWarps);
    }
    cuda::barriers_made();
    for (uint32_t piece = 0; piece < min(num_pieces_, Tile::kPieces); ++piece) load(piece);
  }
  /// All that the warps for the copies have left to do.
  __device__ void serve() const {
    if (threadIdx.x != Tile::kThreads) return;
    for (uint32_t piece = Tile::kPieces; piece < num_pieces_; ++piece) {
      cuda::wait_for_phase(empty_ + piece % Tile::kPieces * 8, piece / Tile::kPieces % 2 ^ 1);
      load(piece);
    }
  }
  __device__ void wait_for(uint32_t piece) const {
    if (piece < num_pieces_)
      cuda::wait_for_phase(full_ + piece % Tile::kPieces * 8, piece / Tile::kPieces % 2);
  }
  __device__ void release(uint32_t piece) const {
    if (threadIdx.x % cuda::kWarp == 0) cuda::arrive(empty_ + piece % Tile::kPieces * 8);
  }

 private:
  __device__ void load(uint32_t piece) const {
    const uint32_t barrier = full_ + piece % Tile::kPieces * 8;
    const uint32_t to = ring_ + piece % Tile::kPieces * Tile::kPieceBytes;
    const int block = static_cast<int>(piece) * Tile::kBatch;
    cuda::expect_bytes(barrier, Tile::kPieceBytes);
#pragma unroll
    for (int i = 0; i < Tile::kBatch; ++i)
      cuda::copy_box(to + i * Tile::kXBytes, a_.x_boxes, (block + i) * kXLine, m_begin_, barrier);
    cuda::copy_box(to + Tile::kBatch * Tile::kXBytes, a_.code_boxes, block * kBlock / 2, n_begin_,
                   barrier);
  }

  const Operands& a_;
  uint32_t ring_, full_, empty_;
  int m_begin_, n_begin_;
  uint32_t num_pieces_;
};

#else

/// A thread's share of the copies of one operand, which a piece holds as kBoxes boxes of lines of
/// kLine bytes: of each box a chunk of every kRowStep-th row.
template <class Tile, int kRows, int kLine, int kBoxes>
struct Source {
  static constexpr int kChunks = kLine / 16, kRowStep = Tile::kThreads / kChunks;
  static_assert(kRowStep % 8 == 0, "its rows are swizzled alike");

  const char* from;  // of the thread's first row
  int64_t stride;    // of rows, in bytes
  int row, rows;     // first row of the thread, rows that the operand has
  uint32_t to;       // shared address in the first piece

  __device__ Source(const void* base, int64_t stride_, int rows_, uint32_t operand)
      : stride(stride_), row(threadIdx.x / kChunks), rows(rows_) {
    const int chunk = threadIdx.x % kChunks;
    from = static_cast<const char*>(base) + row * stride + chunk * 16;
    to = operand + cuda::swizzled_in_box<kLine>(row, chunk);
  }

  __device__ void load(uint32_t piece) const {
    const char* source = from + int64_t{piece} * kBoxes * kLine;
    const uint32_t target = to + piece % Tile::kPieces * Tile::kPieceBytes;
#pragma unroll
    for (int i = 0; i < kRows; i += kRowStep) {
      if (i + kRowStep > kRows && row + i >= kRows) break;
#pragma unroll
      for (int box = 0; box < kBoxes; ++box) {
        cuda::cp_async_16_or_zero(target + (box * kRows + i) * kLine,
                                  source + i * stride + box * kLine, row + i < rows);
      }
    }
  }
};

template <class T, class Tile>
class Loader {
 public:
  __device__ Loader(const Operands& a, char* ring, int m_begin, int n_begin)
      : x_(static_cast<const T*>(a.x) + m_begin * a.x_stride, a.x_stride * 2, a.m - m_begin,
           cuda::shared_address(ring)),
        codes_(a.codes + (a.first_row + n_begin) * (a.k / 2), a.k / 2, a.n - n_begin,
               cuda::shared_address(ring) + Tile::kBatch * Tile::kXBytes),
        num_pieces_(a.k / (kBlock * Tile::kBatch)) {}

  __device__ void begin() const {
    if (threadIdx.x >= Tile::kThreads) return;
#pragma unroll
    for (int piece = 0; piece < Tile::kPieces - 2; ++piece) load(piece);
  }
  __device__ void serve() const {}
  /// Also a barrier: all warps are done with the piece before the last one, whose place is free.
  __device__ void wait_for(uint32_t piece) const {
    cuda::cp_async_wait<Tile::kPieces - 3>();
    __syncthreads();
    load(piece + Tile::kPieces - 2);
  }
  __device__ void release(uint32_t) const {}

 private:
  __device__ void load(uint32_t piece) const {  // commits a group even past the end: waits count
    if (piece < num_pieces_) {
      x_.load(piece);
      codes_.load(piece);
    }
    cuda::cp_async_commit();
  }

  Source<Tile, Tile::kM, kXLine, Tile::kBatch> x_;
  Source<Tile, Tile::kN, Tile::kCodeLine, 1> codes_;
  uint32_t num_pieces_;
};

#endif

/// sums += the weight's fragments of a block times its rows of x, at shared address `x`. Begun,
/// where that is possible: then `weight` and `sums` are left alone until wait() says so.
template <class T, int kFragsM>
__device__ void multiply(float (&sums)[kFragsM][4], uint32_t (&weight)[kSteps][4], uint32_t x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kFrags = kFragsM < 8 ? kFragsM : 8;  // of an instruction
  for (uint32_t(&fragment)[4] : weight) {
    for (uint32_t& word : fragment) cuda::pin(word);
  }
  cuda::wgmma_fence();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const uint64_t lines = cuda::wgmma_lines(x) + step * 2;
#pragma unroll
    for (int i = 0; i < kFragsM; i += kFrags) {
      cuda::wgmma_64xNx16<T>(reinterpret_cast<float(&)[kFrags][4]>(sums[i]), weight[step],
                             lines + i * 8 * kXLine / 16);
    }
  }
  cuda::wgmma_commit();
#else
  const int lane = threadIdx.x % cuda::kWarp;
  const int offset = cuda::swizzled_in_box<kXLine>(lane % 16, lane / 16);  // quarters of [16, 16]
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kFragsM; i += 2) {
      uint32_t x_frag[4];
      cuda::ldmatrix_x4(x_frag, x + (offset ^ step * 32) + i * 8 * kXLine);
      cuda::mma_16x8x16<T>(sums[i], weight[step], x_frag[0], x_frag[2]);
      cuda::mma_16x8x16<T>(sums[i + 1], weight[step], x_frag[1], x_frag[3]);
    }
  }
#endif
}

template <int kPending>
__device__ void wait() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  cuda::wgmma_wait<kPending>();
#endif
}

/// From 4 x 128 registers to 40 and 3 x 152.
__device__ void give_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  cuda::decrease_registers<40>();
#endif
}
__device__ void take_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  cuda::increase_registers<152>();
#endif
}

/// Two neighbouring sums of a column of y, of rows 2t and 2t + 1 of eight from `row` on; lanes
/// trade them for those of columns 2t and 2t + 1 of row g.
template <class T>
__device__ void finish(const Operands& a, int row, int column, float low, float high) {
  using Pair = cuda::Pair<T>;
  const bool valid = row < a.m && column < a.n;
  if (a.residual) {
    uint32_t r = 0;
    if (valid)
      r = *reinterpret_cast<const uint32_t*>(static_cast<const T*>(a.residual) +
                                             row * a.residual_stride + column);
    r = cuda::transpose_8x8(r);
    if (a.rounds_first) {
      const uint32_t product = Pair::pack(low, high);
      low = Pair::low(product), high = Pair::high(product);
    }
    low = __fadd_rn(low, Pair::low(r)), high = __fadd_rn(high, Pair::high(r));
  }
  const uint32_t bits = cuda::transpose_8x8(Pair::pack(low, high));
  if (valid) *reinterpret_cast<uint32_t*>(static_cast<T*>(a.y) + row * a.y_stride + column) = bits;
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kAllThreads, 1)
    fused_mma_kernel(const __grid_constant__ Operands a) {
  constexpr int kFragsM = Tile::kFragsM, kFragsN = Tile::kFragsN;
  constexpr int kBatch = Tile::kBatch;
  extern __shared__ __align__(1024) char ring[];
  char* const table = ring + Tile::kRingBytes;
  float* const map = reinterpret_cast<float*>(table + kTableBytes);

  const int m_begin = blockIdx.x * Tile::kM, n_begin = blockIdx.y * Tile::kN;
  const int warp = threadIdx.x / cuda::kWarp, lane = threadIdx.x % cuda::kWarp;
  const Loader<T, Tile> loader(a, ring, m_begin, n_begin);
  loader.begin();
  if (warp < Tile::kWarps) {
    for (int high = warp; high < 16; high += Tile::kWarps) {
      const float first = a.codebook[high];
#pragma unroll
      for (int low = 0; low < 16; ++low) {
        char* const entry = table + (high * 16 + low) * kEntryBytes;
        reinterpret_cast<float2*>(entry)[lane] = {first, a.codebook[low]};
      }
    }
    for (int i = threadIdx.x; i < 256; i += Tile::kThreads) map[i] = a.map[i];
  }
  __syncthreads();
  if (warp >= Tile::kWarps) {
    if constexpr (Tile::kMovesRegisters) give_registers();
    loader.serve();
    return;
  }
  if constexpr (Tile::kMovesRegisters) take_registers();

  const int g = lane / 4, t = lane % 4, warp_n = warp * Tile::kWarpN;
  const uint32_t num_blocks = a.k / kBlock;
  // Row g of fragment j is row 8 j + g of the warp's. A quad's absmax codes are a word, and its
  // blocks belong to one group.
  uint32_t row_block[kFragsN];                        // of the row's first block
  uint32_t codes[kFragsN], next_codes[kFragsN] = {};  // of the quad to prepare and the next
  float2 nested[kFragsN], next_nested[kFragsN] = {};
  float absmax[kQuad][kFragsN];
#pragma unroll
  for (int j = 0; j < kFragsN; ++j) {
    const int64_t row = a.first_row + min(n_begin + warp_n + j * 8 + g, a.n - 1);
    row_block[j] = static_cast<uint32_t>(row * num_blocks);
  }
  const auto request = [&](uint32_t quad) {
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
      const uint32_t block = row_block[j] + min(quad, num_blocks - kQuad);
      codes[j] = next_codes[j], nested[j] = next_nested[j];
      next_codes[j] = *reinterpret_cast<const uint32_t*>(a.absmax + block);
      next_nested[j] = a.nested[block >> a.group_bits];
    }
  };
  const auto prepare = [&](int i) {  // absmax[i] of the quad whose turn it is
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
      absmax[i][j] = __fadd_rn(__fmul_rn(map[codes[j] >> 8 * i & 255], nested[j].x), nested[j].y);
    }
  };

  // Byte t of a word of codes counts entries, of which this lane reads its copy.
  const uint32_t copy = lane * kCopyBytes, to_entry = 0x5504 | t << 4;
  static_assert(kEntryBytes == 256);
  const auto look_up = [&](uint32_t word, float scale) {
    const float2 values =
        *reinterpret_cast<const float2*>(table + cuda::byte_select(word, copy, to_entry));
    return cuda::pack<T>(__fmul_rn(values.x, scale), __fmul_rn(values.y, scale));
  };
  const int code_row =
      kBatch * Tile::kXBytes + cuda::swizzled_in_box<Tile::kCodeLine>(warp_n + g, 0);
  const auto decode = [&](const char* piece, int block, const float(&scale)[kFragsN],
                          uint32_t(&weight)[kSteps][4]) {
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 v = *reinterpret_cast<const uint4*>(
            piece + (code_row ^ (block * 2 + half) * 16) + j * 8 * Tile::kCodeLine);
        weight[2 * half][j] = look_up(v.x, scale[j]);
        weight[2 * half][j + 2] = look_up(v.y, scale[j]);
        weight[2 * half + 1][j] = look_up(v.z, scale[j]);
        weight[2 * half + 1][j + 2] = look_up(v.w, scale[j]);
      }
    }
  };

  float sums[kFragsM][4] = {};
  uint32_t weight[2][kSteps][4] = {};  // decoded: this block and the next
  request(0);
  request(kQuad);
  loader.wait_for(0);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) prepare(i);
  decode(ring, 0, absmax[0], weight[0]);
  uint32_t piece = 0;
  const auto place = [&](uint32_t p) { return p % Tile::kPieces * Tile::kPieceBytes; };
  for (uint32_t quad = 0; quad < num_blocks; quad += kQuad) {
    request(quad + 2 * kQuad);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      multiply<T>(sums, weight[i % 2],
                  cuda::shared_address(ring) + place(piece) + i % kBatch * Tile::kXBytes);
      prepare(i);
      wait<1>();  // for the product before, which read the other weight
      if (i % kBatch == 0 && piece > 0) loader.release(piece - 1);
      if ((i + 1) % kBatch == 0) loader.wait_for(++piece);
      // Past the last block: decoded from whatever is there, and never used.
      decode(ring + place(piece), (i + 1) % kBatch, absmax[(i + 1) % kQuad], weight[1 - i % 2]);
    }
  }
  wait<0>();

#pragma unroll
  for (int i = 0; i < kFragsM; ++i) {
    for (float& sum : sums[i]) cuda::pin(sum);
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
      const int row = m_begin + i * 8 + g, column = n_begin + warp_n + j * 8 + t * 2;
      finish<T>(a, row, column, sums[i][2 * j], sums[i][2 * j + 1]);
    }
  }
}

template <class Tile>
int64_t num_tiles(const Operands& a) {
  return int64_t{(a.m + Tile::kM - 1) / Tile::kM} * ((a.n + Tile::kN - 1) / Tile::kN);
}

/// For a block of k of all tiles of one multiprocessor, that with the most. Speed only: the bits
/// are equal.
template <class Tile>
int64_t block_cycles(const Operands& a, int num_sms) {
  return (num_tiles<Tile>(a) + num_sms - 1) / num_sms * Tile::kCycles;
}

template <class T, class Tile>
Status launch(Operands a, bool boxes, cudaStream_t stream) {
  if (boxes) {
    VLR_ASSIGN_OR_RETURN(
        a.x_boxes, cuda::swizzled_boxes(a.x, a.m, a.k * 2, std::max<int64_t>(a.x_stride, a.k) * 2,
                                        Tile::kM, kXLine));
    VLR_ASSIGN_OR_RETURN(a.code_boxes, cuda::swizzled_boxes(a.codes, a.first_row + a.n, a.k / 2,
                                                            a.k / 2, Tile::kN, Tile::kCodeLine));
  }
  const auto kernel = fused_mma_kernel<T, Tile>;
  VLR_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    Tile::kSharedBytes));
  const dim3 grid(static_cast<unsigned>((a.m + Tile::kM - 1) / Tile::kM),
                  static_cast<unsigned>((a.n + Tile::kN - 1) / Tile::kN));
  kernel<<<grid, Tile::kAllThreads, Tile::kSharedBytes, stream>>>(a);
  return cuda::to_status(cudaGetLastError(), "linear_weight_only/fused_mma launch");
}

using Launch = Status (*)(Operands, bool boxes, cudaStream_t);

template <class... Tiles>
struct TileList {
  /// Of the tiles that fit, the one of the fewest block_cycles, the first of those; or null.
  template <class T>
  static Launch fastest(const Operands& a, int num_sms, int max_shared) {
    Launch fastest = nullptr;
    int64_t fewest = std::numeric_limits<int64_t>::max();
    const auto consider = [&](Launch launcher, int shared, int64_t cycles) {
      if (shared <= max_shared && cycles < fewest) fewest = cycles, fastest = launcher;
    };
    (consider(launch<T, Tiles>, Tiles::kSharedBytes, block_cycles<Tiles>(a, num_sms)), ...);
    return fastest;
  }
};
// N per tile: 32, 64 or 192. The second one is for devices with little shared memory: 99 KB from
// 8.0 on.
using NarrowTile = Tile<16, 1, 8, 2, 4, 325>;
static_assert(NarrowTile::kSharedBytes <= 99 << 10, "some tile has to fit everywhere");
using AllTiles =
    TileList<Tile<16, 1, 8, 4, 4, 305>, NarrowTile, Tile<16, 2, 8, 4, 4, 395>,
             Tile<16, 3, 16, 2, 4, 730>, Tile<32, 1, 8, 4, 4, 310>, Tile<32, 2, 8, 4, 4, 450>,
             Tile<32, 3, 16, 2, 4, 800>, Tile<64, 1, 8, 2, 4, 360>, Tile<64, 1, 16, 2, 4, 470>,
             Tile<64, 3, 16, 2, 4, 970>, Tile<128, 1, 16, 2, 4, 545>, Tile<128, 2, 16, 1, 4, 870>,
             Tile<128, 3, 16, 1, 4, 1330>>;

/// Without data, as in planning, too.
bool is_aligned(const LinearWeightOnly::Args& a) {
  for (const void* data : {a.x.data, a.residual.data, static_cast<const void*>(a.y.data),
                           a.w.codes.data, a.w.scales.data, a.w.nested.data}) {
    if (reinterpret_cast<uintptr_t>(data) % 16 != 0) return false;
  }
  return true;
}

}  // namespace

bool linear_weight_only_fused_mma_supports(const LinearWeightOnly::Args& a, const Context& ctx) {
  const bool agrees = !ctx.ring || ctx.ring->fused_agrees || !a.x.data;  // planning: perhaps
  return agrees && is_aligned(a) && is_four_bit(a.w.format) && dtype_bytes(a.x.dtype) == 2 &&
         !a.bias.defined() && a.activation == Activation::kNone && a.x.dim(0) <= kMaxFusedRows &&
         a.w.cols % (kQuad * kBlock) == 0 && a.w.group_blocks % kQuad == 0 && a.y.dim(1) % 8 == 0 &&
         a.x.stride(0) % 8 == 0 && a.y.stride(0) % 8 == 0 &&
         (!a.residual.defined() || a.residual.stride(0) % 8 == 0);
}

Status linear_weight_only_fused_mma(const LinearWeightOnly::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  Operands o{.x = a.x.data,
             .residual = a.residual.data,
             .y = a.y.data,
             .codes = a.w.codes.as<uint8_t>(),
             .absmax = a.w.scales.as<uint8_t>(),
             .nested = a.w.nested.as<float2>(),
             .map = a.w.map.as<float>(),
             .x_stride = a.x.stride(0),
             .residual_stride = a.residual.stride(0),
             .y_stride = a.y.stride(0),
             .first_row = a.first_row,
             .m = static_cast<int>(a.x.dim(0)),
             .n = static_cast<int>(a.y.dim(1)),
             .k = static_cast<int>(a.w.cols),
             .group_bits = std::countr_zero(static_cast<uint64_t>(a.w.group_blocks)),
             .rounds_first = false,
             .codebook = {},
             .x_boxes = {},
             .code_boxes = {}};
  std::ranges::copy(codebook(a.w.format), o.codebook);
  int device = 0, num_sms = 0, max_shared = 0, major = 0;
  VLR_CUDA_TRY(cudaGetDevice(&device));
  VLR_CUDA_TRY(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  VLR_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  VLR_CUDA_TRY(
      cudaDeviceGetAttribute(&max_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  // As cuBLASLt: where the residual is y, on Hopper it adds the rounded product in memory.
  o.rounds_first = major == 9 && a.residual.data == a.y.data;
  return cuda::with_16_bit_element(a.x.dtype, [&](auto element) -> Status {
    const Launch chosen = AllTiles::fastest<decltype(element)>(o, num_sms, max_shared);
    if (!chosen) {
      return {Code::kInternal, "linear_weight_only/fused_mma: no tile fits into " +
                                   std::to_string(max_shared) + " bytes of shared memory"};
    }
    return chosen(o, major >= 9, ctx.stream);
  });
}

}  // namespace vlr::ops
