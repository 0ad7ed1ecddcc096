// quantize_rows/threads: rows over threads. With outliers by column, pieces of columns over threads
// first: each goes down all rows and marks the columns in which a value stands out.
#include <algorithm>
#include <cmath>

#include "kernels/core/integer.h"
#include "kernels/core/load.h"
#include "kernels/core/parallel_rows.h"
#include "kernels/core/rows.h"
#include "kernels/core/scratch.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quantize_rows/impls.h"

namespace vlr::ops {
namespace {

constexpr int64_t kPieceColumns = 256;

bool is_by_column(const QuantizeRows::Args& a) { return a.outliers.defined() && a.by_column; }

/// One byte a column; null unless outliers are set apart by column.
uint8_t* lay_out(Scratch& scratch, const QuantizeRows::Args& a) {
  return is_by_column(a) ? scratch.take<uint8_t>(a.x.dim(1)) : nullptr;
}

void mark_columns(const QuantizeRows::Args& a, ThreadPool& threads, uint8_t* marks) {
  const int64_t dim = a.x.dim(1);
  threads.parallel_for(ceil_div(dim, kPieceColumns), [&](int64_t piece, int) {
    const int64_t begin = piece * kPieceColumns, end = std::min(dim, begin + kPieceColumns);
    std::fill(marks + begin, marks + end, uint8_t{0});
    for (int64_t m = 0; m < a.x.dim(0); ++m) {
      const ConstTensor x = row_of(a.x, m);
      for (int64_t k = begin; k < end; ++k) {
        if (std::fabs(load_f32(x, k)) >= a.threshold) marks[k] = 1;
      }
    }
  });
}

void quantize_row(const QuantizeRows::Args& a, int64_t m, const uint8_t* marks) {
  const ConstTensor x = row_of(a.x, m);
  const int64_t dim = x.dim(0);
  const bool sets_apart = a.outliers.defined();
  const auto stands_out = [&](int64_t k, float v) {
    return marks ? marks[k] != 0 : sets_apart && std::fabs(v) >= a.threshold;
  };
  float absmax = 0;
  for (int64_t k = 0; k < dim; ++k) {
    const float v = load_f32(x, k), size = std::fabs(v);
    // A NaN fails every comparison: it comes in, and nothing displaces it.
    if (!stands_out(k, v) && (size > absmax || std::isnan(size))) absmax = size;
  }
  const float largest = largest_code(a.q.dtype);
  a.scale.as<float>()[m] = absmax / largest;
  const float inverse = inverse_scale(absmax, largest);
  const auto put_codes = [&](auto* q, auto code) {
    for (int64_t k = 0; k < dim; ++k) {
      const float v = load_f32(x, k);
      q[k] = stands_out(k, v) ? 0 : code(v);
    }
  };
  if (a.q.dtype == DType::kI8) {
    put_codes(a.q.row<int8_t>(m), [&](float v) { return to_int8(v, inverse); });
  } else {
    put_codes(a.q.row<uint8_t>(m), [&](float v) { return f32_to_e4m3(v * inverse); });
  }
  if (!sets_apart) return;
  const Tensor outliers = row_of(a.outliers, m);
  for (int64_t k = 0; k < dim; ++k) {
    const float v = load_f32(x, k);
    store_f32(outliers, k, stands_out(k, v) ? v : 0);
  }
}

}  // namespace

int64_t quantize_rows_threads_workspace(const QuantizeRows::Args& a, const Context&) {
  Scratch count;
  lay_out(count, a);
  return count.used();
}

Status quantize_rows_threads(const QuantizeRows::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  uint8_t* marks = lay_out(scratch, a);
  VLR_RETURN_IF_ERROR(scratch.status("quantize_rows/threads"));
  if (marks) mark_columns(a, *ctx.threads, marks);
  parallel_rows(*ctx.threads, a.x.dim(0), a.x.dim(1),
                [&](int64_t m) { quantize_row(a, m, marks); });
  return {};
}

}  // namespace vlr::ops
