// linear_w8a8/mma_s8: s8 codes through cp.async, ldmatrix and mma.sync, on sm_80 and later.
//   grid   one block a tile of y, kM x kN; grouped so that blocks that run together share operands
//   block  kWarpsM x kWarpsN warps, each an equal part of the tile, its sums in registers
//   smem   a ring of kStages pieces [kM, kK] of x and [kN, kK] of w, in 16-byte chunks
//
// What limits it, on an H100: mma.sync takes 1.5 cycles of a multiprocessor for [16, 8] x 32 codes.
// Eight warps of 64 x 64 read 32 KB of shared memory a step, 256 cycles, for 384 cycles of
// products, and their tile of 128 x 256 brings 32 bytes a cycle from the L2, about all it gives. So
// the large tile is as large as registers allow: 192 sums a thread. That leaves no room for two
// sets of operands: a fragment of w is replaced as soon as the last product that reads it is
// issued, and of x there are two fragments, one in use and one on its way.
//
// Sums are exact, whatever their order, and finish() spells out what follows: bits depend neither
// on M nor on the tile. Chunks past K are zero. Rows of another length than a multiple of 16 bytes
// take the same path with scalar accesses.
#include "kernels/cuda/check.h"
#include "kernels/cuda/cp_async.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/swizzled_tile.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/linear/mma_epilogue.cuh"
#include "kernels/linear_w8a8/impls.h"

namespace vlr::ops {
namespace {

constexpr int kChunk = 16;      // codes of one 16-byte access
constexpr int kGroupTiles = 8;  // tiles along M of one group

template <int kM_, int kN_, int kK_, int kStages_, int kWarpsM_, int kWarpsN_>
struct Tile {
  static constexpr int kM = kM_, kN = kN_, kK = kK_, kStages = kStages_;
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_;
  static constexpr int kThreads = kWarpsM * kWarpsN * cuda::kWarp;
  static constexpr int kFragsM = kM / kWarpsM / 16, kFragsN = kN / kWarpsN / 8;  // of a warp
  static constexpr int kStageBytes = (kM + kN) * kK, kSharedBytes = kStages * kStageBytes;
  static_assert(kStages >= 2);
  static_assert(kFragsM % 2 == 0, "the two fragments of x take turns across steps");
  static_assert(kFragsN % 4 == 0, "finish() takes four fragments");
};
using LargeTile = Tile<192, 256, 128, 4, 2, 4>;  // 224 KB
using MediumTile = Tile<128, 256, 64, 4, 2, 4>;  // 96 KB: every device has them
using SmallTile = Tile<64, 64, 128, 4, 2, 2>;    // 64 KB: for few tiles, more of them

struct Operands {
  const int8_t *x, *w;
  const float *x_scale, *w_scale;
  int m, n, k;
  Epilogue epilogue;
};

template <class T, class Tile, bool kAligned>
__global__ void __launch_bounds__(Tile::kThreads) mma_s8_kernel(const Operands a) {
  constexpr int kM = Tile::kM, kN = Tile::kN, kK = Tile::kK, kStages = Tile::kStages;
  constexpr int kSteps = kK / 32, kFragsM = Tile::kFragsM, kFragsN = Tile::kFragsN;
  extern __shared__ __align__(128) char stages[];

  // Blocks in order walk down the tiles of a group, then one column of tiles to the right.
  const int tiles_m = (a.m + kM - 1) / kM, tiles_n = (a.n + kN - 1) / kN;
  const int group = blockIdx.x / (kGroupTiles * tiles_n);
  const int in_group = blockIdx.x % (kGroupTiles * tiles_n);
  const int group_tiles = min(kGroupTiles, tiles_m - group * kGroupTiles);
  const int m_begin = (group * kGroupTiles + in_group % group_tiles) * kM;
  const int n_begin = in_group / group_tiles * kN;

  using SourceX = cuda::TileSource<int8_t, kM, kK, Tile::kThreads, kAligned>;
  using SourceW = cuda::TileSource<int8_t, kN, kK, Tile::kThreads, kAligned>;
  const SourceX x(a.x, a.k, m_begin, a.m);
  const SourceW w(a.w, a.k, n_begin, a.n);
  const int num_pieces = (a.k + kK - 1) / kK;
  constexpr int kCopies = SourceX::kCopies + SourceW::kCopies;
  const auto load = [&](int piece, int begin, int end) {  // copies of a piece; past the end none
    if (piece >= num_pieces) return;
    char* stage = stages + piece % kStages * Tile::kStageBytes;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (i < begin || i >= end) continue;
      if (i < SourceX::kCopies) {
        x.copy(stage, i, piece * kK, a.k);
      } else {
        w.copy(stage + kM * kK, i - SourceX::kCopies, piece * kK, a.k);
      }
    }
  };

  const int lane = threadIdx.x % cuda::kWarp, warp = threadIdx.x / cuda::kWarp;
  const int warp_m = warp / Tile::kWarpsN * (kM / Tile::kWarpsM);
  const int warp_n = warp % Tile::kWarpsN * (kN / Tile::kWarpsN);
  // Rows and chunks that this lane names to ldmatrix: for x the four quarters of [16, 32], for w
  // both halves along k of two fragments. 16 rows more are a multiple of eight lines, and two
  // chunks more flip bits of the place in a line, so each address is these plus and xor constants.
  const int x_offset = cuda::swizzled<kK>(warp_m + lane % 16, lane / 16);
  const int w_offset =
      kM * kK + cuda::swizzled<kK>(warp_n + lane % 8 + lane / 16 * 8, lane / 8 % 2);
  const uint32_t stages_address = cuda::shared_address(stages);

  int32_t sums[kFragsM][kFragsN][4] = {};
  uint32_t x_frags[2][4], w_frags[kFragsN / 2][4];
  const auto read_x = [&](uint32_t stage, int step, int i) {
    cuda::ldmatrix_x4(x_frags[i % 2], stage + (x_offset ^ step * 32) + i * 16 * kK);
  };
  const auto read_w = [&](uint32_t stage, int step, int j) {
    cuda::ldmatrix_x4(w_frags[j], stage + (w_offset ^ step * 32) + j * 16 * kK);
  };

#pragma unroll
  for (int piece = 0; piece < kStages - 1; ++piece) {
    load(piece, 0, kCopies);
    cuda::cp_async_commit();
  }
  cuda::cp_async_wait<kStages - 2>();
  __syncthreads();
  uint32_t stage = stages_address;
  read_x(stage, 0, 0);
#pragma unroll
  for (int j = 0; j < kFragsN / 2; ++j) read_w(stage, 0, j);
  for (int piece = 0; piece < num_pieces; ++piece) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < kFragsM; ++i) {
        const bool last_of_step = i == kFragsM - 1, last = last_of_step && step == kSteps - 1;
        // Into the stage before this one, which is free. A few copies at a time: all at once would
        // hold up the products behind them.
        if (i == 0)
          load(piece + kStages - 1, step * kCopies / kSteps, (step + 1) * kCopies / kSteps);
        if (last) {
          // The next piece has come, and all warps have read the last of this one.
          cuda::cp_async_commit();  // a group even past the end: waits count groups
          cuda::cp_async_wait<kStages - 2>();
          __syncthreads();
          stage = stages_address + (piece + 1) % kStages * Tile::kStageBytes;
        }
        const int next_step = (step + last_of_step) % kSteps;
        read_x(stage, next_step, (i + 1) % kFragsM);  // past the last piece: read, never used
#pragma unroll
        for (int j = 0; j < kFragsN; ++j) {
          const uint32_t* b = &w_frags[j / 2][j % 2 * 2];
          cuda::mma_16x8x32_s8(sums[i][j], x_frags[i % 2], b[0], b[1]);
          if (last_of_step && j % 2 == 1) read_w(stage, next_step, j / 2);
        }
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kFragsN; j += 4) {
    const int column = n_begin + warp_n + j * 8;
    float2 bias[4], w_scale[4];
    load_bias<T>(a.epilogue, column, bias);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int n = column + q * 8 + lane % 4 * 2;
      w_scale[q] = {n < a.n ? a.w_scale[n] : 0.0f, n + 1 < a.n ? a.w_scale[n + 1] : 0.0f};
    }
#pragma unroll
    for (int i = 0; i < 2 * kFragsM; ++i) {
      const int row = m_begin + warp_m + i * 8 + lane / 4;
      const float x_scale = row < a.m ? a.x_scale[row] : 0.0f;
      float2 v[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int32_t* sum = &sums[i / 2][j + q][i % 2 * 2];
        v[q] = {__fmul_rn(__int2float_rn(sum[0]), __fmul_rn(x_scale, w_scale[q].x)),
                __fmul_rn(__int2float_rn(sum[1]), __fmul_rn(x_scale, w_scale[q].y))};
      }
      finish<T, kAligned>(a.epilogue, row, column, bias, v);
    }
  }
}

template <class Tile>
int64_t num_tiles(const Operands& a) {
  return int64_t{(a.m + Tile::kM - 1) / Tile::kM} * ((a.n + Tile::kN - 1) / Tile::kN);
}

/// Time that a tile takes, in some unit: multiprocessors go through all tiles in waves, and the
/// smaller a tile, the less of its time are products. Speed only: the bits are equal.
template <class Tile>
double time_of(const Operands& a, int num_sms, double efficiency) {
  const int64_t waves = (num_tiles<Tile>(a) + num_sms - 1) / num_sms;
  return static_cast<double>(waves * Tile::kM * Tile::kN) / efficiency;
}

template <class T, class Tile, bool kAligned>
Status launch(const Operands& a, cudaStream_t stream) {
  const auto kernel = mma_s8_kernel<T, Tile, kAligned>;
  VLR_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    Tile::kSharedBytes));
  kernel<<<static_cast<unsigned>(num_tiles<Tile>(a)), Tile::kThreads, Tile::kSharedBytes, stream>>>(
      a);
  return cuda::to_status(cudaGetLastError(), "linear_w8a8/mma_s8 launch");
}

}  // namespace

Status linear_w8a8_mma_s8(const LinearW8A8::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  const Operands o{.x = a.x.as<int8_t>(),
                   .w = a.w.as<int8_t>(),
                   .x_scale = a.x_scale.as<float>(),
                   .w_scale = a.w_scale.as<float>(),
                   .m = static_cast<int>(a.x.dim(0)),
                   .n = static_cast<int>(a.w.dim(0)),
                   .k = static_cast<int>(a.x.dim(1)),
                   .epilogue = epilogue_of(a)};
  const bool aligned = o.n % 8 == 0 && o.k % kChunk == 0 && is_16_byte(a.x) && is_16_byte(a.w) &&
                       is_16_byte(a.residual) && is_16_byte(a.y);
  int device = 0, num_sms = 0, shared_bytes = 0;
  VLR_CUDA_TRY(cudaGetDevice(&device));
  VLR_CUDA_TRY(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  VLR_CUDA_TRY(
      cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return cuda::with_16_bit_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    if (!aligned) return launch<T, SmallTile, false>(o, ctx.stream);
    const double small = time_of<SmallTile>(o, num_sms, 0.4);
    const double medium = time_of<MediumTile>(o, num_sms, 0.9);
    if (small < medium) return launch<T, SmallTile, true>(o, ctx.stream);
    if (shared_bytes >= LargeTile::kSharedBytes && time_of<LargeTile>(o, num_sms, 1) < medium)
      return launch<T, LargeTile, true>(o, ctx.stream);
    return launch<T, MediumTile, true>(o, ctx.stream);
  });
}

}  // namespace vlr::ops
