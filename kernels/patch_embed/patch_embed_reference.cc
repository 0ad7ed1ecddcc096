#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/patch_embed/impls.h"

namespace vlr::ops {

Status patch_embed_reference(const PatchEmbed::Args& a, Context&) {
  const int64_t k_dim = a.x.dim(1);
  for (int64_t p = 0; p < a.x.dim(0); ++p) {
    const uint8_t* x = a.x.row<uint8_t>(p);
    const Tensor y = row_of(a.y, p);
    for (int64_t n = 0; n < a.w.dim(0); ++n) {
      double sum = 0;
      for (int64_t k = 0; k < k_dim; ++k) {
        sum += static_cast<double>(round_to(y.dtype, normalize_pixel(x[k]))) *
               load_f32(a.w, n * k_dim + k);
      }
      if (y.dtype == DType::kF32) sum = static_cast<float>(sum);  // rounds before the bias as well
      if (a.bias.defined()) sum += load_f32(a.bias, n);
      store_f32(y, n, static_cast<float>(sum));
    }
  }
  return {};
}

}  // namespace vlr::ops
