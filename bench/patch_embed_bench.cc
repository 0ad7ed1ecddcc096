// patch_embed: pixels of 1536 bytes a patch.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/patch_embed/patch_embed.h"

namespace vlr::bench {
namespace {
using ops::PatchEmbed;

Setup<PatchEmbed> make(Operands& o, const Shape& s) {
  using A = PatchEmbed::Args;
  const A a{.x = o.random("x", {s["rows"], s["pixels"]}, DType::kU8),
            .w = o.weights("w", {s["dim"], s["pixels"]}, weight_dtype(s.dtype)),
            .bias = o.weights("bias", {s["dim"]}, weight_dtype(s.dtype)),
            .y = o.output("y", {s["rows"], s["dim"]}, s.dtype)};
  return rowwise<PatchEmbed>(a, {&A::x}, {&A::y});
}

Shape shape_of(const PatchEmbed::Args& a, std::span<const Axis> axes) {
  return {axes, a.y.dtype, "", {{"rows", a.y.dim(0)}, {"dim", a.y.dim(1)}, {"pixels", a.x.dim(1)}}};
}

}  // namespace

OpLab patch_embed_lab() {
  return op_lab<PatchEmbed>(
      {.axes = {{"rows", 16384}, {"dim", 1152}, {"pixels", kPatchDim, "values a patch"}},
       .shapes = vision_rows,
       .make = make,
       .shape_of = shape_of});
}

}  // namespace vlr::bench
