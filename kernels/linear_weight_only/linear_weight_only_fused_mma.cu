// linear_weight_only/fused_mma: few rows with an nf4 weight whose codes become 16-bit numbers in
// registers, on the way to mma.sync: a weight costs half a byte of memory instead of two.
//   grid   (tiles along M, tiles along N): tiles that share rows of the weight run together
//   block  warps side by side along N, each all kM rows and kWarpN columns of the tile, so that no
//          block decodes a weight twice
//   smem   a ring of blocks of 64 k: of x [kM, 64] in 16 bits, of the codes [kN, 64] in 4 bits; and
//          the 256 values of the absmax map
//
// A sum is one chain of m16n8k16 steps over ascending k from zero, in every tile: bits depend on no
// choice made here.
//
// Decoding: the 64 weights of a row in one block of k share an absmax, so 16 products are all the
// values they can have. Each lane of the quad that decodes them makes four of the products; then
// they trade. A weight's two bytes are picked by its code from the table's low and high bytes
// (PRMT), four weights at a time.
#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/cuda/byte_select.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cp_async.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/cuda/weight_ring.h"
#include "kernels/linear_weight_only/impls.h"
#include "kernels/quant/nf4.h"

namespace vlr::ops {
namespace {

constexpr int64_t kMaxFusedRows = 320;
constexpr int kBlock = kNf4Block;                           // k of one stage of the pipeline
constexpr int kXLine = 2 * kBlock, kCodeLine = kBlock / 2;  // bytes of a row in a block
constexpr uint32_t kScaleWord = 4, kScaleBlocks = 16;       // absmax codes of a lane, of a quad

/// The ring has kPieces pieces of kBatch blocks each: a piece is one group of copies and one
/// barrier.
template <int kM_, int kWarps_, int kWarpN_, int kBatch_, int kPieces_>
struct Tile {
  static constexpr int kM = kM_, kWarps = kWarps_, kWarpN = kWarpN_, kN = kWarps * kWarpN;
  static constexpr int kBatch = kBatch_, kPieces = kPieces_, kThreads = kWarps * cuda::kWarp;
  static constexpr int kFragsM = kM / 16, kFragsN = kWarpN / 8;  // of a warp
  static constexpr int kXBytes = kM * kXLine, kBlockBytes = kXBytes + kN * kCodeLine;
  static constexpr int kRingBytes = kPieces * kBatch * kBlockBytes;
  /// 128 registers a thread, 255 where the sums alone are that many.
  static constexpr int kMinBlocks = kM * kWarpN > 2048 ? 1 : 512 / kThreads;
  static_assert(kPieces >= 3 && 4 % kBatch == 0, "K is a multiple of 4 blocks");
  static_assert(kRingBytes <= 96 << 10, "what every device from sm_80 on has");
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
  int group_bits;  // a group is 2^group_bits blocks
  float codebook[16];
};

/// Byte of a 16-byte chunk of a row within an operand's block. Chunks change places so that what a
/// warp reads at once, of x 16 bytes and of codes 8 bytes of eight rows, lies in different banks.
template <int kLine>
__device__ int swizzled(int row, int chunk) {
  return row * kLine + 16 * (chunk ^ (kLine == kXLine ? row % 8 : row / 4 % 2));
}

/// A thread's share of the copies of one operand: a chunk of every kRowStep-th row of the tile.
template <class Tile, int kRows, int kLine>
struct Source {
  static constexpr int kChunks = kLine / 16, kRowChunks = kChunks * Tile::kBatch;
  static constexpr int kRowStep = Tile::kThreads / kRowChunks;
  static_assert(kRowStep % 8 == 0, "its rows are swizzled alike");

  const char* from;  // of the thread's first row
  int64_t stride;    // of rows, in bytes
  int row, rows;     // first row of the thread, rows that the operand has
  uint32_t to;       // shared address in the first piece

  __device__ Source(const void* base, int64_t stride_, int rows_, uint32_t operand)
      : stride(stride_), row(threadIdx.x / kRowChunks), rows(rows_) {
    const int chunk = threadIdx.x % kRowChunks;
    from = static_cast<const char*>(base) + row * stride + chunk * 16;
    to = operand + chunk / kChunks * Tile::kBlockBytes + swizzled<kLine>(row, chunk % kChunks);
  }

  __device__ void load(uint32_t piece) const {
    const char* source = from + int64_t{piece} * Tile::kBatch * kLine;
    const uint32_t target = to + piece % Tile::kPieces * (Tile::kBatch * Tile::kBlockBytes);
#pragma unroll
    for (int i = 0; i < kRows; i += kRowStep) {
      if (i + kRowStep > kRows && row + i >= kRows) break;
      cuda::cp_async_16_or_zero(target + i * kLine, source + i * stride, row + i < rows);
    }
  }
};

/// The values that the 16 codes have in one block, in two planes of bytes: word w of a plane
/// belongs to codes 4 (t ^ w) and the next three, t the lane's place in its quad.
struct Table {
  uint32_t low[4], high[4];

  /// codebook: the values of codes 4t..4t+3.
  template <class T>
  __device__ static Table of(const float (&codebook)[4], float absmax) {
    const uint32_t pair =
        cuda::pack<T>(__fmul_rn(codebook[0], absmax), __fmul_rn(codebook[1], absmax));
    const uint32_t next =
        cuda::pack<T>(__fmul_rn(codebook[2], absmax), __fmul_rn(codebook[3], absmax));
    Table table;
    table.low[0] = cuda::byte_select(pair, next, 0x6420);
    table.high[0] = cuda::byte_select(pair, next, 0x7531);
#pragma unroll
    for (int w = 1; w < 4; ++w) {
      table.low[w] = __shfl_xor_sync(0xffffffffu, table.low[0], w);
      table.high[w] = __shfl_xor_sync(0xffffffffu, table.high[0], w);
    }
    return table;
  }
};

/// Looks up four weights at a time. Bit 2 of a code says which word of a pair, bit 3 which pair;
/// the words' places being exclusive-ored with t, so are these bits.
struct Decoder {
  uint32_t own_bytes, word_flip, pair_flip;

  __device__ explicit Decoder(int t)
      : own_bytes(0x40 + 0x11 * t),
        word_flip(t % 2 ? 0x4444 : 0),
        pair_flip(t / 2 ? 0x7654 : 0x3210) {}

  /// Of the 16 codes of a row and step those of k 2t, 2t + 1 | 2t + 8, 2t + 9, the two bytes of
  /// place t, as weights: b[0] and b[1] of an mma.
  __device__ void operator()(const Table& table, uint2 step_codes, uint32_t (&b)[2]) const {
    const uint32_t codes = cuda::byte_select(step_codes.x, step_codes.y, own_bytes);
    const uint32_t in_pair = (codes & 0x7777) ^ word_flip;
    const uint32_t which_pair = (codes >> 1 & 0x4444) ^ pair_flip;
    const auto look_up = [&](const uint32_t(&plane)[4]) {
      return cuda::byte_select(cuda::byte_select(plane[0], plane[1], in_pair),
                               cuda::byte_select(plane[2], plane[3], in_pair), which_pair);
    };
    // In the order of nibbles from the lowest: k 2t + 1, 2t, 2t + 9, 2t + 8.
    const uint32_t low = look_up(table.low), high = look_up(table.high);
    b[0] = cuda::byte_select(low, high, 0x4051);
    b[1] = cuda::byte_select(low, high, 0x6273);
  }
};

/// Two neighbouring sums of row `row` -> y: the product rounded, then, if there is one, the
/// residual added and the sum rounded again.
template <class T>
__device__ void finish(const Operands& a, int row, int column, float low, float high) {
  using Pair = cuda::Pair<T>;
  if (row >= a.m || column >= a.n) return;
  uint32_t bits = Pair::pack(low, high);
  if (a.residual) {
    const uint32_t r = *reinterpret_cast<const uint32_t*>(static_cast<const T*>(a.residual) +
                                                          row * a.residual_stride + column);
    bits = Pair::pack(__fadd_rn(Pair::low(bits), Pair::low(r)),
                      __fadd_rn(Pair::high(bits), Pair::high(r)));
  }
  *reinterpret_cast<uint32_t*>(static_cast<T*>(a.y) + row * a.y_stride + column) = bits;
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    fused_mma_kernel(const __grid_constant__ Operands a) {
  constexpr int kFragsM = Tile::kFragsM, kFragsN = Tile::kFragsN;
  constexpr int kBatch = Tile::kBatch, kPieces = Tile::kPieces;
  extern __shared__ __align__(128) char ring[];
  __shared__ float map[256];
  for (int i = threadIdx.x; i < 256; i += Tile::kThreads) map[i] = a.map[i];

  const int m_begin = blockIdx.x * Tile::kM, n_begin = blockIdx.y * Tile::kN;
  const uint32_t num_blocks = a.k / kBlock, num_pieces = num_blocks / kBatch;
  const uint32_t ring_address = cuda::shared_address(ring);
  const Source<Tile, Tile::kM, kXLine> x(static_cast<const T*>(a.x) + m_begin * a.x_stride,
                                         a.x_stride * 2, a.m - m_begin, ring_address);
  const Source<Tile, Tile::kN, kCodeLine> w(a.codes + (a.first_row + n_begin) * (a.k / 2), a.k / 2,
                                            a.n - n_begin, ring_address + Tile::kXBytes);
  const auto load = [&](uint32_t piece) {  // commits a group even past the end: waits count groups
    if (piece < num_pieces) {
      x.load(piece);
      w.load(piece);
    }
    cuda::cp_async_commit();
  };
#pragma unroll
  for (int piece = 0; piece < kPieces - 1; ++piece) load(piece);

  const int lane = threadIdx.x % cuda::kWarp, g = lane / 4, t = lane % 4;
  const int warp_n = threadIdx.x / cuda::kWarp * Tile::kWarpN;
  const Decoder decoder(t);
  const float codebook[4] = {a.codebook[4 * t], a.codebook[4 * t + 1], a.codebook[4 * t + 2],
                             a.codebook[4 * t + 3]};

  // Column 8 j + g of the warp is row g of fragment j. Of 16 blocks of that row, lane t holds the
  // absmax codes of blocks 4t..4t+3, and those of the 16 blocks that follow are on their way.
  uint32_t row_block[kFragsN];  // of the row's first block
  uint32_t scales[kFragsN], next_scales[kFragsN] = {};
  float2 nested[kFragsN];
  Table tables[kFragsN];
#pragma unroll
  for (int j = 0; j < kFragsN; ++j) {
    const int64_t row = a.first_row + min(n_begin + warp_n + j * 8 + g, a.n - 1);
    row_block[j] = static_cast<uint32_t>(row * num_blocks);
  }
  const auto request_scales = [&](uint32_t block) {  // a multiple of kScaleBlocks
    const uint32_t at = block + t * kScaleWord;
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
      scales[j] = next_scales[j];
      next_scales[j] =
          at < num_blocks ? *reinterpret_cast<const uint32_t*>(a.absmax + row_block[j] + at) : 0;
    }
  };
  const auto request_nested = [&](uint32_t block) {
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) nested[j] = a.nested[(row_block[j] + block) >> a.group_bits];
  };
  const auto make_tables = [&](uint32_t block) {
    const uint32_t holder = block / kScaleWord % 4, byte = block % kScaleWord;
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
      const uint32_t word = __shfl_sync(0xffffffffu, scales[j], holder, 4);
      const float absmax =
          __fadd_rn(__fmul_rn(map[word >> 8 * byte & 255], nested[j].x), nested[j].y);
      tables[j] = Table::of<T>(codebook, absmax);
    }
  };

  // What this lane names to ldmatrix, for the four quarters of [16, 16], and the codes that it
  // reads, those of its quad's row. Step s is 32 (8) bytes further, which the swizzle makes an
  // exclusive or.
  const int x_offset = swizzled<kXLine>(lane % 16, lane / 16);
  const int w_offset = Tile::kXBytes + swizzled<kCodeLine>(warp_n + g, 0);
  uint32_t w_frags[2][kFragsN][2];  // this step's and the next one's
  const auto decode = [&](int stage, int step, int to) {
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
      const char* codes = ring + stage + (w_offset ^ step * 8) + j * 8 * kCodeLine;
      decoder(tables[j], *reinterpret_cast<const uint2*>(codes), w_frags[to][j]);
    }
  };
  float sums[kFragsM][kFragsN][4] = {};
  const auto multiply = [&](int stage, int step) {
#pragma unroll
    for (int i = 0; i < kFragsM; ++i) {
      uint32_t x_frag[4];
      cuda::ldmatrix_x4(x_frag, ring_address + stage + (x_offset ^ step * 32) + i * 16 * kXLine);
#pragma unroll
      for (int j = 0; j < kFragsN; ++j) {
        const uint32_t(&b)[2] = w_frags[step % 2][j];
        cuda::mma_16x8x16<T>(sums[i][j], x_frag, b[0], b[1]);
      }
    }
  };

  request_scales(0);
  request_scales(kScaleBlocks);
  request_nested(0);
  cuda::cp_async_wait<kPieces - 2>();
  __syncthreads();
  make_tables(0);
  decode(0, 0, 0);
  int stage = 0;  // where the block is in the ring
  for (uint32_t block = 0; block < num_blocks; ++block) {
    // Past the last block: its own scales again, and decoded once more from whatever is there.
    const uint32_t next = min(block + 1, num_blocks - 1);
    const int next_stage = (block + 1) % (kBatch * kPieces) * Tile::kBlockBytes;
    request_nested(next);
    decode(stage, 1, 1);
    multiply(stage, 0);
    if (next % kScaleBlocks == 0) request_scales(next + kScaleBlocks);
    decode(stage, 2, 0);
    multiply(stage, 1);
    decode(stage, 3, 1);
    make_tables(next);
    multiply(stage, 2);
    if ((block + 1) % kBatch == 0) {
      // The next piece has come, and all warps are done with the one before this, whose place is
      // free. This one is still read.
      cuda::cp_async_wait<kPieces - 3>();
      __syncthreads();
      load(block / kBatch + kPieces - 1);
    }
    decode(next_stage, 0, 0);
    multiply(stage, 3);
    stage = next_stage;
  }

#pragma unroll
  for (int i = 0; i < kFragsM; ++i) {
#pragma unroll
    for (int j = 0; j < kFragsN; ++j) {
      const int row = m_begin + i * 16 + g, column = n_begin + warp_n + j * 8 + t * 2;
      finish<T>(a, row, column, sums[i][j][0], sums[i][j][1]);
      finish<T>(a, row + 8, column, sums[i][j][2], sums[i][j][3]);
    }
  }
}

template <class Tile>
int64_t num_tiles(const Operands& a) {
  return int64_t{(a.m + Tile::kM - 1) / Tile::kM} * ((a.n + Tile::kN - 1) / Tile::kN);
}

/// Cycles that a step of 16 k takes of the multiprocessor with the most tiles: as many as the
/// busiest of its units, but no fewer than one mma waits for the one before it in the chain. Rates
/// are an H100's. Speed only: the bits are equal.
template <class Tile>
int64_t step_cycles(const Operands& a, int num_sms) {
  constexpr int kProducts = Tile::kM * Tile::kN * 16 / 1250;         // multiply-adds
  constexpr int kTraffic = (Tile::kM * 2 + Tile::kN / 2) * 16 / 25;  // bytes from the L2
  constexpr int kDecoding = Tile::kN * 16 / 20;                      // weights
  // Accesses of a warp to shared memory: ldmatrix counts four; of codes and tables it has 13 a
  // block.
  constexpr int kShared = Tile::kWarps * (Tile::kFragsM * 4 + Tile::kFragsN * 13 / 4);
  constexpr int kTileCycles = std::max({kProducts, kTraffic, kDecoding, kShared});
  constexpr int64_t kMmaLatency = 40;
  return std::max(kMmaLatency, (num_tiles<Tile>(a) + num_sms - 1) / num_sms * kTileCycles);
}

template <class T, class Tile>
Status launch(const Operands& a, cudaStream_t stream) {
  const auto kernel = fused_mma_kernel<T, Tile>;
  VLR_CUDA_TRY(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kRingBytes));
  const dim3 grid(static_cast<unsigned>((a.m + Tile::kM - 1) / Tile::kM),
                  static_cast<unsigned>((a.n + Tile::kN - 1) / Tile::kN));
  kernel<<<grid, Tile::kThreads, Tile::kRingBytes, stream>>>(a);
  return cuda::to_status(cudaGetLastError(), "linear_weight_only/fused_mma launch");
}

template <class... Tiles>
struct TileList {
  /// With the tile of the fewest step_cycles, the first of those.
  template <class T>
  static Status launch_fastest(const Operands& a, int num_sms, cudaStream_t stream) {
    Status (*fastest)(const Operands&, cudaStream_t) = nullptr;
    int64_t fewest = std::numeric_limits<int64_t>::max();
    const auto consider = [&](auto launcher, int64_t cycles) {
      if (cycles < fewest) fewest = cycles, fastest = launcher;
    };
    (consider(launch<T, Tiles>, step_cycles<Tiles>(a, num_sms)), ...);
    return fastest(a, stream);
  }
};
using AllTiles = TileList<Tile<16, 4, 8, 2, 8>, Tile<16, 4, 16, 2, 7>,     // N per tile: 32, 64
                          Tile<32, 4, 16, 2, 5>, Tile<32, 8, 24, 2, 4>,    // 64, 192
                          Tile<64, 4, 16, 2, 4>, Tile<64, 4, 24, 2, 4>,    // 64, 96
                          Tile<64, 8, 24, 1, 5>, Tile<128, 8, 24, 1, 4>>;  // 192, 192

bool is_aligned(const LinearWeightOnly::Args& a) {
  for (const void* data : {a.x.data, a.residual.data, static_cast<const void*>(a.y.data),
                           a.w.codes.data, a.w.scales.data, a.w.nested.data}) {
    if (reinterpret_cast<uintptr_t>(data) % 16 != 0) return false;
  }
  return true;
}

}  // namespace

bool linear_weight_only_fused_mma_supports(const LinearWeightOnly::Args& a) {
  return a.w.format == WeightFormat::kNf4 && dtype_bytes(a.x.dtype) == 2 && !a.bias.defined() &&
         a.activation == Activation::kNone && a.x.dim(0) <= kMaxFusedRows && a.w.cols % 256 == 0 &&
         a.y.dim(1) % 8 == 0 && a.x.stride(0) % 8 == 0 && a.y.stride(0) % 8 == 0 &&
         (!a.residual.defined() || a.residual.stride(0) % 8 == 0);
}

Status linear_weight_only_fused_mma(const LinearWeightOnly::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  if (!is_aligned(a) || (ctx.ring && !ctx.ring->fused_agrees))
    return linear_weight_only_dequantize(a, ctx);
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
             .codebook = {}};
  std::copy(kNf4Codebook.begin(), kNf4Codebook.end(), o.codebook);
  int device = 0, num_sms = 0;
  VLR_CUDA_TRY(cudaGetDevice(&device));
  VLR_CUDA_TRY(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  return cuda::with_16_bit_element(a.x.dtype, [&](auto element) {
    return AllTiles::launch_fastest<decltype(element)>(o, num_sms, ctx.stream);
  });
}

}  // namespace vlr::ops
