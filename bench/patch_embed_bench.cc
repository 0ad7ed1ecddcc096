// patch_embed: pixels of 1536 bytes a patch.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/patch_embed/patch_embed.h"

namespace vlr::bench {
namespace {
using ops::PatchEmbed;

void register_all(Machine& machine) {
  for (const Rows& s : vision_rows(machine)) {
    add_benches<PatchEmbed>(machine, s.name() + "x" + std::to_string(kPatchDim),
                            [s](Operands& o) {
                              PatchEmbed::Args a;
                              a.x = o.random({s.rows, kPatchDim}, DType::kU8);
                              a.w = o.random({s.dim, kPatchDim}, weight_dtype(s.dtype));
                              a.bias = o.random({s.dim}, weight_dtype(s.dtype));
                              a.y = o.uninitialised({s.rows, s.dim}, s.dtype);
                              PatchEmbed::Args few = a;
                              few.x = last_rows(a.x);
                              few.y = last_rows(a.y);
                              return Setup<PatchEmbed>{a, few, few.y};
                            },
                            {.time_reference = s.dim < 256});
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
