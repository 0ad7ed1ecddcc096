#ifndef VLR_KERNELS_ADD_RMSNORM_IMPLS_H_
#define VLR_KERNELS_ADD_RMSNORM_IMPLS_H_

#include "kernels/add/add.h"
#include "kernels/add_rmsnorm/add_rmsnorm.h"
#include "kernels/rmsnorm/rmsnorm.h"

namespace vlr::ops {

/// The two ops that add_rmsnorm is.
Add::Args add_part(const AddRmsNorm::Args&);
RmsNorm::Args rmsnorm_part(const AddRmsNorm::Args&);

Status add_rmsnorm_reference(const AddRmsNorm::Args&, Context&);
Status add_rmsnorm_in_registers(const AddRmsNorm::Args&, Context&);  // CUDA
bool add_rmsnorm_fits_registers(const AddRmsNorm::Args&, const Context&);
Status add_rmsnorm_parts(const AddRmsNorm::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ADD_RMSNORM_IMPLS_H_
