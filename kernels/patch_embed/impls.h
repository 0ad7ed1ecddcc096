#ifndef VLR_KERNELS_PATCH_EMBED_IMPLS_H_
#define VLR_KERNELS_PATCH_EMBED_IMPLS_H_

#include "kernels/patch_embed/patch_embed.h"

namespace vlr::ops {

Status patch_embed_reference(const PatchEmbed::Args&, Context&);
Status patch_embed_blocked(const PatchEmbed::Args&, Context&);
int64_t patch_embed_blocked_workspace(const PatchEmbed::Args&, const Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_PATCH_EMBED_IMPLS_H_
