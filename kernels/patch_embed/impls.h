#ifndef VLR_KERNELS_PATCH_EMBED_IMPLS_H_
#define VLR_KERNELS_PATCH_EMBED_IMPLS_H_

#include "kernels/linear/linear.h"
#include "kernels/patch_embed/patch_embed.h"

namespace vlr::ops {

/// The product that follows once the pixels [P, K] are normalised, in the dtype of y.
Linear::Args linear_args(const PatchEmbed::Args&, const void* pixels);

Status patch_embed_reference(const PatchEmbed::Args&, Context&);
Status patch_embed_normalize_linear(const PatchEmbed::Args&, Context&);  // CUDA
int64_t patch_embed_normalize_linear_workspace(const PatchEmbed::Args&, const Context&);
Status patch_embed_blocked(const PatchEmbed::Args&, Context&);
int64_t patch_embed_blocked_workspace(const PatchEmbed::Args&, const Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_PATCH_EMBED_IMPLS_H_
