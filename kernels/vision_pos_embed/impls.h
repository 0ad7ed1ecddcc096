#ifndef VLR_KERNELS_VISION_POS_EMBED_IMPLS_H_
#define VLR_KERNELS_VISION_POS_EMBED_IMPLS_H_

#include "kernels/vision_pos_embed/vision_pos_embed.h"

namespace vlr::ops {

Status vision_pos_embed_reference(const VisionPosEmbed::Args&, Context&);
Status vision_pos_embed_vector(const VisionPosEmbed::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_VISION_POS_EMBED_IMPLS_H_
