#ifndef VLR_KERNELS_ROPE_TABLE_IMPLS_H_
#define VLR_KERNELS_ROPE_TABLE_IMPLS_H_

#include "kernels/rope_table/rope_table.h"

namespace vlr::ops {

Status rope_table_reference(const RopeTable::Args&, Context&);
Status rope_table_per_pair(const RopeTable::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ROPE_TABLE_IMPLS_H_
