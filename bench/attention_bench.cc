// attention at the models' shapes: whole prompts, prompts behind a shared prefix, final tokens,
// images.

#include "bench/support/op_bench.h"
#include "kernels/attention/attention.h"

namespace vlr::bench {
namespace {
using ops::Attention;
using ops::AttentionSegment;

struct Shape {
  const char* what;
  int32_t batch, queries, keys, prefix;  // per sequence
  int64_t heads, kv_heads, dim;
  bool causal;
};

constexpr Shape kShapes[] = {
    {"2b_text", 4, 500, 500, 0, 16, 8, 128, true},
    {"2b_text_prefix", 4, 200, 200, 300, 16, 8, 128, true},
    {"2b_last_layer", 16, 1, 500, 0, 16, 8, 128, true},
    {"8b_text", 2, 500, 500, 0, 32, 8, 128, true},
    {"2b_vision", 1, 1024, 1024, 0, 16, 16, 64, false},
    {"2b_vision", 1, 4096, 4096, 0, 16, 16, 64, false},
    {"8b_vision", 1, 1024, 1024, 0, 16, 16, 72, false},
    {"2b_long", 1, 8000, 8000, 0, 16, 8, 128, true},
    {"demo_text", 20, 50, 50, 0, 8, 4, 64, true},
};

struct Segments {
  std::vector<AttentionSegment> all, first;
};

void register_all(Machine& machine) {
  for (const Shape& s : kShapes) {
    auto segments = std::make_shared<Segments>();
    for (int32_t b = 0; b < s.batch; ++b) {
      segments->all.push_back({b * s.queries, s.queries, b * s.keys, s.keys, 0, s.prefix});
    }
    segments->first = {segments->all[0]};
    segments->first[0].q_len = 1;
    if (s.causal)
      segments->first[0].k_len = s.keys - s.queries + 1;  // the first query sees no more
    const bool small = s.batch * s.queries * s.heads * (s.keys + s.prefix) * s.dim < 200'000'000;
    for (const Impl<Attention>& impl : Attention::impls()) {
      if (impl.device != Device::kCpu || (impl.name == "reference" && !small)) continue;
      const std::string shape = std::string("f32/") + s.what + "/b" + std::to_string(s.batch) +
                                "q" + std::to_string(s.queries) + "k" + std::to_string(s.keys) +
                                "p" + std::to_string(s.prefix);
      add_bench<Attention>(machine, impl, shape, [s, segments](Operands& o) {
        Setup<Attention> setup;
        Attention::Args& a = setup.args;
        a.q = o.random({s.batch * s.queries, s.heads, s.dim});
        a.k = o.random({s.batch * s.keys, s.kv_heads, s.dim});
        a.v = o.random({s.batch * s.keys, s.kv_heads, s.dim});
        if (s.prefix > 0) {
          a.prefix_k = o.random({s.prefix, s.kv_heads, s.dim});
          a.prefix_v = o.random({s.prefix, s.kv_heads, s.dim});
        }
        a.o = o.uninitialised({s.batch * s.queries, s.heads, s.dim});
        a.scale = 1 / std::sqrt(static_cast<float>(s.dim));
        a.causal = s.causal;
        a.segments = segments->all;
        setup.reference_args = a;
        setup.reference_args.segments = segments->first;
        setup.output = a.o.slice(0, 0, 1);
        return setup;
      });
    }
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
