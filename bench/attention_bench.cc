// attention at the models' shapes: whole prompts, prompts behind a shared prefix, final tokens,
// images. FLOPs are the model's own: a query counts the keys that it sees.

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/attention/attention.h"

namespace vlr::bench {
namespace {
using ops::Attention;
using ops::AttentionSegment;

struct Heads {
  int64_t q, kv, dim;
};
constexpr Heads k8bHeads = {32, 8, 128}, k2bHeads = {16, 8, 128};
constexpr Heads k8bVisionHeads = {16, 16, 72}, k2bVisionHeads = {16, 16, 64};

struct Batch {
  std::vector<AttentionSegment> segments;
  int64_t queries = 0, keys = 0, prefix = 0;  // rows

  void add(int64_t num_queries, int64_t num_keys) {
    segments.push_back({static_cast<int32_t>(queries), static_cast<int32_t>(num_queries),
                        static_cast<int32_t>(keys), static_cast<int32_t>(num_keys), 0,
                        static_cast<int32_t>(prefix)});
    queries += num_queries;
    keys += num_keys;
  }
};

/// `count` sequences that share a prefix, which may be empty.
Batch equal_batch(int64_t count, int64_t queries, int64_t keys, int64_t prefix = 0) {
  Batch batch;
  batch.prefix = prefix;
  for (int64_t i = 0; i < count; ++i) batch.add(queries, keys);
  return batch;
}

/// The 100 pairs of text100, whose first 60 tokens are the same.
Batch text100(bool share_prefix) {
  constexpr int64_t kPrompt = 60;
  std::ifstream file(VLR_SOURCE_DIR "/bench/text100_lengths.json");
  Batch batch;
  if (share_prefix) batch.prefix = kPrompt;
  for (const int64_t length : nlohmann::json::parse(file).get<std::vector<int64_t>>())
    batch.add(length - batch.prefix, length - batch.prefix);
  return batch;
}

void add_case(Machine& machine, const std::string& what, Batch batch, const Heads& h, bool causal,
              DType dtype) {
  // Made once: args have views of both.
  struct Segments {
    Batch batch;
    std::vector<AttentionSegment> last;  // the last query of the last sequence
    std::vector<int32_t> table, tiles;
  };
  auto s = std::make_shared<Segments>();
  double flops = 0;
  for (const AttentionSegment& g : batch.segments) {
    s->table.insert(s->table.end(),
                    {g.q_begin, g.q_len, g.k_begin, g.k_len, g.prefix_begin, g.prefix_len});
    flops += 4.0 * g.q_len * (g.k_len + g.prefix_len) * static_cast<double>(h.q * h.dim);
  }
  s->tiles = ops::attention_tiles(batch.segments, causal);
  s->last = {batch.segments.back()};
  s->last[0].q_begin = 0;
  s->last[0].q_len = 1;
  s->batch = std::move(batch);

  const auto make = [=](Operands& o) {
    const Batch& b = s->batch;
    Setup<Attention> setup;
    Attention::Args& a = setup.args;
    // Queries, keys and values are columns of one product where there are as many rows of each.
    if (b.queries == b.keys) {
      const Tensor qkv = o.random({b.queries, (h.q + 2 * h.kv) * h.dim}, dtype);
      a.q = qkv.slice(1, 0, h.q * h.dim).split_last(h.dim);
      a.k = qkv.slice(1, h.q * h.dim, h.kv * h.dim).split_last(h.dim);
      a.v = qkv.slice(1, (h.q + h.kv) * h.dim, h.kv * h.dim).split_last(h.dim);
    } else {
      a.q = o.random({b.queries, h.q, h.dim}, dtype);
      const Tensor kv = o.random({b.keys, 2 * h.kv, h.dim}, dtype);
      a.k = kv.slice(1, 0, h.kv);
      a.v = kv.slice(1, h.kv, h.kv);
    }
    if (b.prefix > 0) {
      const Tensor kv = o.random({b.prefix, 2 * h.kv, h.dim}, dtype);
      a.prefix_k = kv.slice(1, 0, h.kv);
      a.prefix_v = kv.slice(1, h.kv, h.kv);
    }
    a.segments = b.segments;
    const auto count = static_cast<int64_t>(b.segments.size());
    a.table.segments = o.copy_of(s->table, {count, 6});
    a.table.tiles = o.copy_of(s->tiles, {static_cast<int64_t>(s->tiles.size()) / 2, 2});
    a.o = o.uninitialised({b.queries, h.q, h.dim}, dtype);
    a.scale = 1 / std::sqrt(static_cast<float>(h.dim));
    a.causal = causal;
    Attention::Args& few = setup.reference_args;
    few = a;
    few.q = last_rows(a.q, 1);
    few.o = setup.output = last_rows(a.o, 1);
    few.segments = s->last;
    few.table = {};
    return setup;
  };
  add_benches<Attention>(machine, std::string(dtype_name(dtype)) + "/" + what, make,
                         {.time_reference = flops < 1e9});
}

std::string name(const Heads& h, bool causal) {
  return fmt::format("h{}_kv{}_d{}_{}", h.q, h.kv, h.dim, causal ? "causal" : "full");
}

/// Whole sequences of one length: "b32_s512_h32_kv8_d128_causal".
void add_whole(Machine& machine, int64_t batch, int64_t length, const Heads& h, bool causal,
               DType dtype) {
  add_case(machine, fmt::format("b{}_s{}_{}", batch, length, name(h, causal)),
           equal_batch(batch, length, length), h, causal, dtype);
}

void register_on_gpu(Machine& machine) {
  const DType bf16 = DType::kBF16;
  add_whole(machine, 128, 128, k8bHeads, true, bf16);
  add_whole(machine, 32, 512, k8bHeads, true, bf16);
  add_whole(machine, 8, 2048, k8bHeads, true, bf16);
  add_whole(machine, 2, 8192, k8bHeads, true, bf16);
  add_whole(machine, 1, 32768, k8bHeads, true, bf16);
  add_whole(machine, 1, 128, k8bHeads, true, bf16);
  add_whole(machine, 32, 512, k2bHeads, true, bf16);
  add_whole(machine, 1, 4800, k8bVisionHeads, false, bf16);
  add_whole(machine, 16, 4800, k8bVisionHeads, false, bf16);
  add_whole(machine, 16, 4800, k2bVisionHeads, false, bf16);
  add_case(machine, "text100_" + name(k8bHeads, true), text100(false), k8bHeads, true, bf16);
  add_case(machine, "text100_prefix60_" + name(k8bHeads, true), text100(true), k8bHeads, true,
           bf16);
  // the last layer: one query a sequence
  add_case(machine, "b100_q1_k90_prefix60_" + name(k8bHeads, true), equal_batch(100, 1, 90, 60),
           k8bHeads, true, bf16);
  add_whole(machine, 32, 512, k8bHeads, true, DType::kF16);
  add_whole(machine, 16, 4800, k8bVisionHeads, false, DType::kF16);
}

void register_on_host(Machine& machine) {
  const auto add = [&](const char* what, int64_t batch, int64_t queries, int64_t keys,
                       int64_t prefix, const Heads& h, bool causal) {
    add_case(machine, fmt::format("{}/b{}q{}k{}p{}", what, batch, queries, keys, prefix),
             equal_batch(batch, queries, keys, prefix), h, causal, DType::kF32);
  };
  add("2b_text", 4, 500, 500, 0, k2bHeads, true);
  add("2b_text_prefix", 4, 200, 200, 300, k2bHeads, true);
  add("2b_last_layer", 16, 1, 500, 0, k2bHeads, true);
  add("8b_text", 2, 500, 500, 0, k8bHeads, true);
  add("2b_vision", 1, 1024, 1024, 0, k2bVisionHeads, false);
  add("2b_vision", 1, 4096, 4096, 0, k2bVisionHeads, false);
  add("8b_vision", 1, 1024, 1024, 0, k8bVisionHeads, false);
  add("2b_long", 1, 8000, 8000, 0, k2bHeads, true);
  add("demo_text", 20, 50, 50, 0, {8, 4, 64}, true);
}

void register_all(Machine& machine) {
  machine.is_gpu() ? register_on_gpu(machine) : register_on_host(machine);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
