// deepstack_add: image documents' features of one level, in place.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/deepstack_add/deepstack_add.h"

namespace vlr::bench {
namespace {
using ops::DeepstackAdd;

void register_all(Machine& machine) {
  for (const Rows& s : text_rows(machine)) {
    if (machine.is_gpu() && s.rows < 1280) continue;
    const std::vector<int32_t> rows = visual_rows(s.rows);
    const int64_t num_visual = *std::max_element(rows.begin(), rows.end()) + 1;
    add_benches<DeepstackAdd>(machine, s.name(), [=](Operands& o) {
      DeepstackAdd::Args a;
      a.y = o.random({s.rows, s.dim}, s.dtype);
      a.x = a.y;
      a.visual_row = o.copy_of(rows, {s.rows});
      a.features = o.random({num_visual, s.dim}, s.dtype);
      DeepstackAdd::Args few = a;
      few.y = last_rows(a.y, 600);  // the end of an image, text, the next image
      few.x = few.y;
      few.visual_row = last_rows(a.visual_row, 600);
      return Setup<DeepstackAdd>{a, few, few.y};
    });
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
