// linear/mma: the portable matrix product: cp.async, ldmatrix, mma.sync, on sm_80 and later.
//   grid   one block a tile of y, kM x kN; grouped so that blocks that run together share operands
//   block  128 threads: 2 x 2 warps, each a quarter of the tile, its sums in registers
//   smem   48 KB: a ring of kStages pieces [kM, kK] of x and [kN, kK] of w, in 16-byte chunks
//
// A sum is one chain of m16n8k16 steps over ascending k from zero, in every tile and at every place
// in it; chunks past K are zero. So bits depend neither on M nor on the tile that M and N suggest.
// Rows that are not a multiple of 16 bytes long and apart take the same path with scalar accesses.
#include "kernels/cuda/check.h"
#include "kernels/cuda/cp_async.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/swizzled_tile.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/linear/impls.h"
#include "kernels/linear/mma_epilogue.cuh"

namespace vlr::ops {
namespace {

constexpr int kThreads = 128;
constexpr int kChunk = 8;       // elements of one 16-byte access
constexpr int kGroupTiles = 8;  // tiles along M of one group

template <int kM_, int kN_, int kK_, int kStages_>
struct Tile {
  static constexpr int kM = kM_, kN = kN_, kK = kK_, kStages = kStages_;
  static constexpr int kStageBytes = (kM + kN) * kK * 2;
  static constexpr int kFragsM = kM / 2 / 16, kFragsN = kN / 2 / 8;  // of a warp
  static_assert(kStages >= 2 && kStages * kStageBytes <= 48 << 10);
};
using LargeTile = Tile<128, 128, 32, 3>;  // two blocks an SM by registers and by shared memory
using SmallTile = Tile<64, 64, 64, 3>;    // for few tiles: more of them, and longer reads of w

struct Operands {
  const void *x, *w;
  int64_t x_stride;
  int m, n, k;
  Epilogue epilogue;
};

template <class T, class Tile, bool kAligned>
__global__ void __launch_bounds__(kThreads, 2) mma_kernel(const Operands a) {
  constexpr int kM = Tile::kM, kN = Tile::kN, kK = Tile::kK, kStages = Tile::kStages;
  constexpr int kSteps = kK / 16, kFragsM = Tile::kFragsM, kFragsN = Tile::kFragsN;
  __shared__ alignas(128) char stages[kStages * Tile::kStageBytes];

  // Blocks in order walk down the tiles of a group, then one column of tiles to the right.
  const int tiles_m = (a.m + kM - 1) / kM, tiles_n = (a.n + kN - 1) / kN;
  const int group = blockIdx.x / (kGroupTiles * tiles_n);
  const int in_group = blockIdx.x % (kGroupTiles * tiles_n);
  const int group_tiles = min(kGroupTiles, tiles_m - group * kGroupTiles);
  const int m_begin = (group * kGroupTiles + in_group % group_tiles) * kM;
  const int n_begin = in_group / group_tiles * kN;

  const cuda::TileSource<T, kM, kK, kThreads, kAligned> x(a.x, a.x_stride, m_begin, a.m);
  const cuda::TileSource<T, kN, kK, kThreads, kAligned> w(a.w, a.k, n_begin, a.n);
  const int num_pieces = (a.k + kK - 1) / kK;
  const auto load = [&](int piece) {  // commits a group even past the end: waits count groups
    if (piece < num_pieces) {
      char* stage = stages + piece % kStages * Tile::kStageBytes;
      x.copy_all(stage, piece * kK, a.k);
      w.copy_all(stage + kM * kK * 2, piece * kK, a.k);
    }
    cuda::cp_async_commit();
  };

  const int lane = threadIdx.x % cuda::kWarp, warp = threadIdx.x / cuda::kWarp;
  const int warp_m = warp / 2 * (kM / 2), warp_n = warp % 2 * (kN / 2);
  // Rows and chunks that this lane names to ldmatrix: for x the four quarters of [16, 16], for w
  // both halves along k of two fragments. 16 rows more are a multiple of eight lines, and two
  // chunks more flip bits of the place in a line, so each address is these plus and xor constants.
  const int x_offset = cuda::swizzled<kK * 2>(warp_m + lane % 16, lane / 16);
  const int w_offset =
      kM * kK * 2 + cuda::swizzled<kK * 2>(warp_n + lane % 8 + lane / 16 * 8, lane / 8 % 2);
  const uint32_t stages_address = cuda::shared_address(stages);

  float sums[kFragsM][kFragsN][4] = {};
  uint32_t x_frags[2][kFragsM][4], w_frags[2][kFragsN / 2][4];  // this step's and the next one's
  const auto read = [&](uint32_t stage, int step, int to) {
#pragma unroll
    for (int i = 0; i < kFragsM; ++i)
      cuda::ldmatrix_x4(x_frags[to][i], stage + (x_offset ^ step * 32) + i * 16 * kK * 2);
#pragma unroll
    for (int j = 0; j < kFragsN / 2; ++j)
      cuda::ldmatrix_x4(w_frags[to][j], stage + (w_offset ^ step * 32) + j * 16 * kK * 2);
  };

#pragma unroll
  for (int piece = 0; piece < kStages - 1; ++piece) load(piece);
  cuda::cp_async_wait<kStages - 2>();
  __syncthreads();
  uint32_t stage = stages_address;
  read(stage, 0, 0);
  for (int piece = 0; piece < num_pieces; ++piece) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step == kSteps - 1) {
        // The next piece has come, and all warps have read the last of this one.
        cuda::cp_async_wait<kStages - 2>();
        __syncthreads();
        stage = stages_address + (piece + 1) % kStages * Tile::kStageBytes;
      }
      read(stage, (step + 1) % kSteps, (step + 1) % 2);  // past the last piece: read, never used
      if (step == 0) load(piece + kStages - 1);  // into the stage before this one, which is free
#pragma unroll
      for (int i = 0; i < kFragsM; ++i) {
#pragma unroll
        for (int j = 0; j < kFragsN; ++j) {
          const uint32_t* b = &w_frags[step % 2][j / 2][j % 2 * 2];
          cuda::mma_16x8x16<T>(sums[i][j], x_frags[step % 2][i], b[0], b[1]);
        }
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kFragsN; j += 4) {
    const int column = n_begin + warp_n + j * 8;
    float2 bias[4];
    load_bias<T>(a.epilogue, column, bias);
#pragma unroll
    for (int i = 0; i < 2 * kFragsM; ++i) {
      const int row = m_begin + warp_m + i * 8 + lane / 4;
      float2 v[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const float* sum = &sums[i / 2][j + q][i % 2 * 2];
        v[q] = {sum[0], sum[1]};
      }
      finish<T, kAligned>(a.epilogue, row, column, bias, v);
    }
  }
}

template <class Tile>
int64_t num_tiles(const Operands& a) {
  return int64_t{(a.m + Tile::kM - 1) / Tile::kM} * ((a.n + Tile::kN - 1) / Tile::kN);
}

/// A small tile does a quarter of the work in about two fifths of the time, but four times as many
/// blocks fill a device sooner; rows past M cost as much as others. Speed only: the bits are equal.
bool prefers_large(const Operands& a, int num_sms) {
  return a.m > SmallTile::kM && 3 * num_tiles<LargeTile>(a) >= 2 * num_sms;
}

template <class T, class Tile, bool kAligned>
void launch(const Operands& a, cudaStream_t stream) {
  mma_kernel<T, Tile, kAligned>
      <<<static_cast<unsigned>(num_tiles<Tile>(a)), kThreads, 0, stream>>>(a);
}

}  // namespace

Status linear_mma(const Linear::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  const Operands o{.x = a.x.data,
                   .w = a.w.data,
                   .x_stride = a.x.stride(0),
                   .m = static_cast<int>(a.x.dim(0)),
                   .n = static_cast<int>(a.w.dim(0)),
                   .k = static_cast<int>(a.x.dim(1)),
                   .epilogue = epilogue_of(a)};
  const bool aligned = a.w.dim(0) % kChunk == 0 && a.x.dim(1) % kChunk == 0 && is_16_byte(a.x) &&
                       is_16_byte(a.w) && is_16_byte(a.residual) && is_16_byte(a.y);
  int device = 0, num_sms = 0;
  VLR_CUDA_TRY(cudaGetDevice(&device));
  VLR_CUDA_TRY(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  const auto launch_as = [&](auto element) {
    using T = decltype(element);
    if (!aligned) {
      launch<T, SmallTile, false>(o, ctx.stream);
    } else if (prefers_large(o, num_sms)) {
      launch<T, LargeTile, true>(o, ctx.stream);
    } else {
      launch<T, SmallTile, true>(o, ctx.stream);
    }
  };
  if (a.x.dtype == DType::kBF16) {
    launch_as(__nv_bfloat16());
  } else {
    launch_as(__half());
  }
  return cuda::to_status(cudaGetLastError(), "linear/mma launch");
}

}  // namespace vlr::ops
