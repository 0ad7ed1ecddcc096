// The row-wise ops at the shapes of 512 tokens (2b), 1024 patches, and the demo checkpoint's 1000
// tokens. Caches are warm, as they are behind the linear layer that wrote the operand: roof_pct,
// which counts bytes from memory, can be above 100.

#include "bench/support/op_bench.h"
#include "kernels/add/add.h"
#include "kernels/gelu/gelu.h"
#include "kernels/layernorm/layernorm.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rope/rope.h"
#include "kernels/swiglu/swiglu.h"

namespace vlr::bench {
namespace {

template <class Op>
void add_all(Machine& machine, const std::string& shape,
             std::function<typename Op::Args(Operands&)> make) {
  for (const Impl<Op>& impl : Op::impls()) {
    if (impl.device != Device::kCpu) continue;
    add_bench<Op>(machine, impl, shape, [make](Operands& o) {
      const typename Op::Args args = make(o);
      return Setup<Op>{args, args, args.y};
    });
  }
}

struct Rows {
  int64_t rows, dim;
  std::string name() const { return "f32/" + std::to_string(rows) + "x" + std::to_string(dim); }
};

void register_all(Machine& machine) {
  for (const Rows& s : {Rows{512, 2048}, Rows{1000, 256}}) {
    add_all<ops::RmsNorm>(machine, s.name(), [s](Operands& o) {
      return ops::RmsNorm::Args{.x = o.random({s.rows, s.dim}),
                                .weight = o.random({s.dim}, DType::kBF16),
                                .y = o.uninitialised({s.rows, s.dim})};
    });
    add_all<ops::Add>(machine, s.name(), [s](Operands& o) {
      return ops::Add::Args{.a = o.random({s.rows, s.dim}),
                            .b = o.random({s.rows, s.dim}),
                            .y = o.uninitialised({s.rows, s.dim})};
    });
  }
  for (const Rows& s : {Rows{1024, 1024}, Rows{1000, 144}}) {
    add_all<ops::LayerNorm>(machine, s.name(), [s](Operands& o) {
      return ops::LayerNorm::Args{.x = o.random({s.rows, s.dim}),
                                  .weight = o.random({s.dim}, DType::kBF16),
                                  .bias = o.random({s.dim}, DType::kBF16),
                                  .y = o.uninitialised({s.rows, s.dim})};
    });
  }
  for (const Rows& s : {Rows{512, 6144}, Rows{1000, 768}}) {
    add_all<ops::SwiGlu>(machine, s.name(), [s](Operands& o) {
      return ops::SwiGlu::Args{.gate = o.random({s.rows, s.dim}),
                               .up = o.random({s.rows, s.dim}),
                               .y = o.uninitialised({s.rows, s.dim})};
    });
  }
  for (const Rows& s : {Rows{1024, 4096}, Rows{1000, 576}}) {
    for (auto kind : {ops::GeluKind::kTanh, ops::GeluKind::kErf}) {
      const std::string form = kind == ops::GeluKind::kTanh ? "/tanh" : "/erf";
      add_all<ops::Gelu>(machine, s.name() + form, [s, kind](Operands& o) {
        return ops::Gelu::Args{
            .x = o.random({s.rows, s.dim}), .y = o.uninitialised({s.rows, s.dim}), .kind = kind};
      });
    }
  }
  add_all<ops::RmsNorm>(machine, "f32/512x16x128", [](Operands& o) {
    return ops::RmsNorm::Args{.x = o.random({512, 16, 128}),
                              .weight = o.random({128}, DType::kBF16),
                              .y = o.uninitialised({512, 16, 128})};
  });
  add_all<ops::Rope>(machine, "f32/512x16x128", [](Operands& o) {
    return ops::Rope::Args{.x = o.random({512, 16, 128}),
                           .table = o.random({512, 2, 64}),
                           .y = o.uninitialised({512, 16, 128})};
  });
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
