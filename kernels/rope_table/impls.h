#ifndef VLR_KERNELS_ROPE_TABLE_IMPLS_H_
#define VLR_KERNELS_ROPE_TABLE_IMPLS_H_

#include "kernels/rope_table/rope_table.h"

namespace vlr::ops {

Status rope_table_reference(const RopeTable::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ROPE_TABLE_IMPLS_H_
