#ifndef VLR_KERNELS_GATHER_ROWS_IMPLS_H_
#define VLR_KERNELS_GATHER_ROWS_IMPLS_H_

#include "kernels/gather_rows/gather_rows.h"

namespace vlr::ops {

Status gather_rows_reference(const GatherRows::Args&, Context&);
Status gather_rows_vector(const GatherRows::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_GATHER_ROWS_IMPLS_H_
