#ifndef VLR_KERNELS_GATHER_ROWS_IMPLS_H_
#define VLR_KERNELS_GATHER_ROWS_IMPLS_H_

#include "kernels/gather_rows/gather_rows.h"

namespace vlr::ops {

Status gather_rows_reference(const GatherRows::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_GATHER_ROWS_IMPLS_H_
