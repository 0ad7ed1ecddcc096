/// Spreads the rows of a row-wise op over threads.
#ifndef VLR_KERNELS_CORE_PARALLEL_ROWS_H_
#define VLR_KERNELS_CORE_PARALLEL_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "kernels/core/integer.h"
#include "kernels/core/thread_pool.h"

namespace vlr {

/// Calls body(row) once for every row in [0, rows), in pieces of about 64 KB of f32: large enough
/// to be worth a hand-over, small enough to share out evenly. One piece runs on the caller alone.
template <class Body>
void parallel_rows(ThreadPool& threads, int64_t rows, int64_t elements_per_row, Body&& body) {
  constexpr int64_t kPieceElements = 16 * 1024;
  const int64_t step =
      std::max<int64_t>(1, kPieceElements / std::max<int64_t>(1, elements_per_row));
  threads.parallel_for(ceil_div(rows, step), [&](int64_t piece, int) {
    const int64_t end = std::min(rows, (piece + 1) * step);
    for (int64_t r = piece * step; r < end; ++r) body(r);
  });
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_PARALLEL_ROWS_H_
