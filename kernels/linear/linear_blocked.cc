// linear/blocked: operands are packed into the order in which a register tile reads them.
//
//   block of rows   all K of up to kBlockBytes of x, packed once by all threads: tile by tile of at
//   most
//                   kMaxTileRows rows, [K][rows of the tile], widened and transposed
//   task            some tiles of the block times up to kTaskCols columns. Its thread packs kDepth
//   steps of
//                   w at a time, panel by panel, [kDepth][panel columns] in f32 (L1), and runs
//                   every tile over every panel. Between two depths the sums rest in y (L2).
//   tile            rows x panel columns of sums in registers; x is broadcast, w is the vector, so
//   each
//                   y[m, n] is one chain over k, and nothing chosen above can change its bits.
//
// Weights are transposed on the way because they are stored [N, K] while a vector is over n; that
// costs about a quarter of a cycle an element, once per block of rows and task.

// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear/linear_blocked.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <utility>

#include "kernels/core/integer.h"
#include "kernels/core/scratch.h"
#include "kernels/core/simd.h"
#include "kernels/core/simd_tile.h"
#include "kernels/core/widen.h"
#include "kernels/linear/impls.h"

#ifndef VLR_KERNELS_LINEAR_LINEAR_BLOCKED_ONCE_
#define VLR_KERNELS_LINEAR_LINEAR_BLOCKED_ONCE_
namespace vlr::ops {
namespace {

constexpr int64_t kDepth = 256;           // a panel of 32 columns is then 32 KB
constexpr int64_t kTaskCols = 128;        // a multiple of every panel's width
constexpr int64_t kTaskRows = 512;        // with kTaskCols, 256 KB of y
constexpr int64_t kMinTaskRows = 112;     // below, packing w anew for each task begins to show
constexpr int64_t kBlockBytes = 8 << 20;  // of packed x
constexpr int64_t kMinBlockRows = 64;
constexpr int64_t kSerialPackElems =
    1 << 15;                      // packing less x than this is quicker than waking threads
constexpr int64_t kTilePad = 16;  // floats after a tile that transpose_rows may clobber
constexpr int64_t kTasksPerThread = 4;

/// Rows of x that are packed at a time, at most.
int64_t max_block_rows(int64_t k) { return std::max(kMinBlockRows, kBlockBytes / (4 * k)); }

struct Buffers {
  float* x;  // packed tiles; a tile of r rows takes r * K + kTilePad, in the worst case r is 1
  float* threads;  // per thread: [kDepth * kTaskCols] packed w, [kTaskCols] bias
};
constexpr int64_t kThreadFloats = kDepth * kTaskCols + kTaskCols;

Buffers lay_out(Scratch& scratch, const Linear::Args& a, const Context& ctx) {
  const int64_t rows = std::min(a.x.dim(0), max_block_rows(a.x.dim(1)));
  Buffers b;
  b.x = scratch.take<float>(rows * (a.x.dim(1) + kTilePad));
  b.threads = scratch.take<float>(ctx.threads->num_threads() * kThreadFloats);
  return b;
}

}  // namespace
}  // namespace vlr::ops
#endif  // VLR_KERNELS_LINEAR_LINEAR_BLOCKED_ONCE_

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
namespace {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

constexpr int kMaxTileRows =
    kRegisters == 32 ? 14 : 6;  // times two vectors, plus three, is all registers

constexpr int kMaxRows4 = kRegisters == 32 ? 6 : 2, kMaxRows8 = kRegisters == 32 ? 2 : 1;

/// Vectors in a panel's row: few rows need more columns, to have eight chains or more in flight.
int panel_vecs(int64_t tile_rows) {
  return tile_rows <= kMaxRows8 ? 8 : tile_rows <= kMaxRows4 ? 4 : 2;
}

/// One tile over one depth. x [depth][kRows], w [depth][kVecs * kLanes].
/// The first depth starts from zero, later ones from y; the last one adds bias, if there is one.
template <int kRows, int kVecs>
void run_tile(const float* x, const float* w, int64_t depth, bool first, const float* bias,
              float* y, int64_t y_stride) {
  Tile<kRows, kVecs> tile;
  if (first) {
    tile.set_zero();
  } else {
    tile.load_from(y, y_stride);
  }
  tile.multiply_add(x, 1, kRows, w, kVecs * kLanes, depth);
  if (bias) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      const VecF32 b = hn::LoadU(F32(), bias + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) tile.sum[r][v] = hn::Add(tile.sum[r][v], b);
    }
  }
  tile.store_to(y, y_stride);
}

using TileFn = void (*)(const float*, const float*, int64_t, bool, const float*, float*, int64_t);

/// run_tile for 1, 2, ... rows.
template <int kVecs, int... kRowsMinus1>
TileFn pick_tile(int64_t rows, std::integer_sequence<int, kRowsMinus1...>) {
  constexpr TileFn kFns[] = {run_tile<kRowsMinus1 + 1, kVecs>...};
  return kFns[rows - 1];
}

TileFn tile_of(int64_t rows, int vecs) {
  switch (vecs) {
    case 8:
      return pick_tile<8>(rows, std::make_integer_sequence<int, kMaxRows8>());
    case 4:
      return pick_tile<4>(rows, std::make_integer_sequence<int, kMaxRows4>());
    case 2:
      return pick_tile<2>(rows, std::make_integer_sequence<int, kMaxTileRows>());
    default:
      return pick_tile<1>(rows, std::make_integer_sequence<int, kMaxTileRows>());
  }
}

/// The rows of a block, cut into tiles whose heights differ by at most one.
struct Tiles {
  int64_t rows, count;
  explicit Tiles(int64_t rows_) : rows(rows_), count(ceil_div(rows_, kMaxTileRows)) {}
  int64_t begin(int64_t tile) const { return tile * rows / count; }
  int64_t height(int64_t tile) const { return begin(tile + 1) - begin(tile); }
  int64_t max_height() const { return ceil_div(rows, count); }
};

/// x [height][depth] with any row stride -> out [depth][height], clobbering kTilePad floats after
/// it.
void pack_x(const float* x, int64_t x_stride, int64_t height, int64_t depth, float* out) {
  // Groups of kLanes rows, the last one first: what a short group stores too much, the others
  // overwrite.
  for (int64_t g = (height - 1) / kLanes * kLanes; g >= 0; g -= kLanes) {
    const void* rows[kLanes];
    for (int r = 0; r < kLanes; ++r) rows[r] = x + std::min(g + r, height - 1) * x_stride;
    transpose_rows<DType::kF32>(rows, depth, out + g, height);
  }
}

/// w [valid][depth] of row stride k_dim, in its dtype -> out [depth][cols]; columns past `valid`
/// repeat the last one, their sums are computed and dropped.
template <DType kType>
void pack_w(const void* w, int64_t k_dim, int64_t valid, int64_t depth, float* out, int64_t cols) {
  for (int64_t g = 0; g < cols; g += kLanes) {
    const void* rows[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      rows[r] = static_cast<const std::byte*>(w) +
                std::min(g + r, valid - 1) * k_dim * dtype_bytes(kType);
    }
    transpose_rows<kType>(rows, depth, out + g, cols);
  }
}

using PackFn = void (*)(const void*, int64_t, int64_t, int64_t, float*, int64_t);
PackFn pack_of(DType t) {
  return t == DType::kBF16  ? pack_w<DType::kBF16>
         : t == DType::kF16 ? pack_w<DType::kF16>
                            : pack_w<DType::kF32>;
}

/// Rows and columns of one task: as large as caches allow, smaller while there are too few of them.
struct TaskGrid {
  int64_t tiles_per_task, cols_per_task, num_rows, num_cols;

  TaskGrid(const Tiles& tiles, int64_t n, int64_t panel_cols, int num_threads) {
    const int64_t wanted = num_threads == 1 ? 1 : num_threads * kTasksPerThread;
    const int64_t max_tiles = std::max<int64_t>(1, kTaskRows / tiles.max_height());
    cols_per_task = kTaskCols;
    num_rows = ceil_div(tiles.count, max_tiles);
    while (cols_per_task > panel_cols && num_rows * ceil_div(n, cols_per_task) < wanted)
      cols_per_task /= 2;
    num_cols = ceil_div(n, cols_per_task);
    const int64_t most_rows = std::max(num_rows, tiles.rows / kMinTaskRows);
    num_rows = std::clamp(ceil_div(wanted, num_cols), num_rows, most_rows);
    tiles_per_task = ceil_div(tiles.count, num_rows);
    num_rows = ceil_div(tiles.count, tiles_per_task);
  }
};

void run_task(const Linear::Args& a, const Tiles& tiles, int64_t first_tile, int64_t last_tile,
              const float* x_packed, const Tensor& y, int64_t col, int64_t cols, int vecs,
              float* buffer) {
  const int64_t k_dim = a.x.dim(1);
  const int64_t panel_cols = vecs * kLanes;
  const PackFn pack = pack_of(a.w.dtype);
  const bool has_bias = a.bias.defined();
  float* bias = buffer + kDepth * kTaskCols;
  // A panel at the right edge is one vector wide if that is all there is.
  const auto width_of = [&](int64_t n) {
    return vecs == 2 && cols - n <= kLanes ? kLanes : panel_cols;
  };
  if (has_bias) widen(a.bias, col, cols, bias);
  for (int64_t k = 0; k < k_dim; k += kDepth) {
    const int64_t depth = std::min(kDepth, k_dim - k);
    const bool first = k == 0, last = k + depth == k_dim;
    for (int64_t n = 0; n < cols; n += panel_cols) {
      const auto* w = a.w.as<std::byte>() + ((col + n) * k_dim + k) * dtype_bytes(a.w.dtype);
      pack(w, k_dim, std::min(panel_cols, cols - n), depth, buffer + n * kDepth, width_of(n));
    }
    for (int64_t t = first_tile; t < last_tile; ++t) {
      const int64_t m = tiles.begin(t), height = tiles.height(t);
      const float* x = x_packed + m * k_dim + t * kTilePad + k * height;
      for (int64_t n = 0; n < cols; n += panel_cols) {
        const int64_t width = width_of(n);
        const TileFn tile = tile_of(height, static_cast<int>(width / kLanes));
        const float* b = has_bias && last ? bias + n : nullptr;
        float* out = y.row<float>(m) + col + n;
        if (cols - n >= width) {
          tile(x, buffer + n * kDepth, depth, first, b, out, y.stride(0));
          continue;
        }
        // The panel is wider than what is left of y: the tile works on a copy.
        HWY_ALIGN float edge[kMaxTileRows * 8 * kLanes] = {};
        const auto bytes = static_cast<size_t>(cols - n) * sizeof(float);
        for (int64_t r = 0; r < height && !first; ++r) {
          std::memcpy(edge + r * width, out + r * y.stride(0), bytes);
        }
        tile(x, buffer + n * kDepth, depth, first, b, edge, width);
        for (int64_t r = 0; r < height; ++r) {
          std::memcpy(out + r * y.stride(0), edge + r * width, bytes);
        }
      }
    }
  }
}

}  // namespace

void run_linear_blocked(const Linear::Args& a, const Context& ctx, const Buffers& buffers) {
  const int64_t m_rows = a.x.dim(0), k_dim = a.x.dim(1), n_cols = a.w.dim(0);
  const int64_t num_blocks = ceil_div(m_rows, max_block_rows(k_dim));
  const int64_t step =
      num_blocks == 0 ? 0 : ceil_div(m_rows, num_blocks);  // blocks of nearly equal size
  for (int64_t m = 0; m < m_rows; m += step) {
    const int64_t rows = std::min(step, m_rows - m);
    const Tiles tiles(rows);
    const int vecs = panel_vecs(tiles.max_height());
    const auto pack_tile = [&](int64_t t, int) {
      const int64_t begin = tiles.begin(t);
      pack_x(a.x.row<float>(m + begin), a.x.stride(0), tiles.height(t), k_dim,
             buffers.x + begin * k_dim + t * kTilePad);
    };
    if (rows * k_dim <= kSerialPackElems) {
      for (int64_t t = 0; t < tiles.count; ++t) pack_tile(t, 0);
    } else {
      ctx.threads->parallel_for(tiles.count, pack_tile);
    }
    const TaskGrid grid(tiles, n_cols, vecs * kLanes, ctx.threads->num_threads());
    const Tensor y = a.y.slice(0, m, rows);
    ctx.threads->parallel_for(grid.num_rows * grid.num_cols, [&](int64_t task, int thread) {
      const int64_t tile = task % grid.num_rows * grid.tiles_per_task;
      const int64_t col = task / grid.num_rows * grid.cols_per_task;
      run_task(a, tiles, tile, std::min(tile + grid.tiles_per_task, tiles.count), buffers.x, y, col,
               std::min(grid.cols_per_task, n_cols - col), vecs,
               buffers.threads + thread * kThreadFloats);
    });
  }
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_linear_blocked);

int64_t linear_blocked_workspace(const Linear::Args& a, const Context& ctx) {
  Scratch count;
  lay_out(count, a, ctx);
  return count.used();
}

Status linear_blocked(const Linear::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  const Buffers buffers = lay_out(scratch, a, ctx);
  VLR_RETURN_IF_ERROR(scratch.status("linear/blocked"));
  HWY_DYNAMIC_DISPATCH(run_linear_blocked)(a, ctx, buffers);
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
