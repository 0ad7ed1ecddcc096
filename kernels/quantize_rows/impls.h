#ifndef VLR_KERNELS_QUANTIZE_ROWS_IMPLS_H_
#define VLR_KERNELS_QUANTIZE_ROWS_IMPLS_H_

#include "kernels/quantize_rows/quantize_rows.h"

namespace vlr::ops {

Status quantize_rows_reference(const QuantizeRows::Args&, Context&);
Status quantize_rows_threads(const QuantizeRows::Args&, Context&);
int64_t quantize_rows_threads_workspace(const QuantizeRows::Args&, const Context&);
#if VLR_WITH_CUDA
Status quantize_rows_block_per_row(const QuantizeRows::Args&, Context&);
int64_t quantize_rows_block_per_row_workspace(const QuantizeRows::Args&, const Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_QUANTIZE_ROWS_IMPLS_H_
