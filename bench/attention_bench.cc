// attention at the models' shapes: whole prompts, prompts behind a shared prefix, final tokens,
// images. FLOPs are the model's own: a query counts the keys that it sees.
#include <deque>

#include "bench/support/shapes.h"
#include "kernels/attention/attention.h"

namespace vlr::bench {
namespace {
using ops::Attention;
using ops::AttentionSegment;

struct Heads {
  int64_t q, kv, dim;
};
constexpr Heads k8bHeads = {32, 8, 128}, k2bHeads = {16, 8, 128}, kDemoHeads = {4, 2, 128};
constexpr Heads k8bVisionHeads = {16, 16, 72}, k2bVisionHeads = {16, 16, 64};

/// Tokens of the 100 pairs of text100, whose first 60 are the same.
constexpr int64_t kText100[] = {
#include "text100_lengths.inc"  // bench/text100_lengths.json
};
constexpr int64_t kText100Prompt = 60;

constexpr int64_t kCausal = 0, kFull = 1;  // the words of axis "mask"

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const char* label, const Heads& h, int64_t mask,
                         int64_t count, int64_t q) {
    return Shape(axes, dtype, label,
                 {{"q", q},
                  {"count", count},
                  {"heads", h.q},
                  {"kv_heads", h.kv},
                  {"head_dim", h.dim},
                  {"mask", mask}});
  };
  // Sequences with other keys than queries, or some of them in a prefix.
  const auto behind = [&](Shape s, int64_t keys, int64_t prefix) {
    return with(with(std::move(s), "k", keys), "prefix", prefix);
  };
  if (device == Device::kCpu) {
    const DType f32 = DType::kF32;
    return {shape(f32, "2b_text", k2bHeads, kCausal, 4, 500),
            behind(shape(f32, "2b_text_prefix", k2bHeads, kCausal, 4, 200), 0, 300),
            behind(shape(f32, "2b_last_layer", k2bHeads, kCausal, 16, 1), 500, 0),
            shape(f32, "8b_text", k8bHeads, kCausal, 2, 500),
            shape(f32, "2b_vision", k2bVisionHeads, kFull, 1, 1024),
            shape(f32, "2b_vision", k2bVisionHeads, kFull, 1, 4096),
            shape(f32, "8b_vision", k8bVisionHeads, kFull, 1, 1024),
            shape(f32, "2b_long", k2bHeads, kCausal, 1, 8000),
            shape(f32, "demo_text", kDemoHeads, kCausal, 20, 50)};
  }
  const DType bf16 = DType::kBF16;
  const auto text100 = [&](const char* label, int64_t prefix) {
    Shape s = with(shape(bf16, label, k8bHeads, kCausal, 1, 0), "prefix", prefix);
    std::vector<int64_t> lengths;
    for (const int64_t length : kText100) lengths.push_back(length - prefix);
    return with(std::move(s), "q", std::move(lengths));
  };
  return {shape(bf16, "8b_pairs", k8bHeads, kCausal, 128, 128),
          shape(bf16, "8b_text", k8bHeads, kCausal, 32, 512),
          shape(bf16, "8b_text", k8bHeads, kCausal, 8, 2048),
          shape(bf16, "8b_long", k8bHeads, kCausal, 2, 8192),
          shape(bf16, "8b_long", k8bHeads, kCausal, 1, 32768),
          shape(bf16, "8b_pair", k8bHeads, kCausal, 1, 128),
          shape(bf16, "2b_text", k2bHeads, kCausal, 32, 512),
          shape(bf16, "8b_vision", k8bVisionHeads, kFull, 1, 4800),
          shape(bf16, "8b_vision", k8bVisionHeads, kFull, 16, 4800),
          shape(bf16, "2b_vision", k2bVisionHeads, kFull, 16, 4800), text100("8b_text100", 0),
          text100("8b_text100_prefix", kText100Prompt),
          // the last layer: one query a sequence
          behind(shape(bf16, "8b_last_layer", k8bHeads, kCausal, 100, 1), 90, kText100Prompt),
          shape(DType::kF16, "8b_text", k8bHeads, kCausal, 32, 512),
          shape(DType::kF16, "8b_vision", k8bVisionHeads, kFull, 16, 4800)};
}

int32_t i32(int64_t v) { return static_cast<int32_t>(v); }

/// Value i of a list, or the one that all have.
int64_t at(const std::vector<int64_t>& list, size_t i, const char* axis, size_t count) {
  if (list.size() == 1) return list[0];
  if (list.size() == count) return list[i];
  throw std::invalid_argument(std::string("attention: ") + axis + " must be one or as many as q");
}

struct Batch {
  std::vector<AttentionSegment> segments;
  int64_t queries = 0, keys = 0, prefix = 0;  // rows
};

Batch batch_of(const Shape& s) {
  Batch b;
  const std::vector<int64_t>&q = s.list("q"), &k = s.list("k"), &of = s.list("prefix_of");
  std::vector<AttentionSegment> prefixes;
  for (const int64_t length : s.list("prefix")) {
    prefixes.push_back({.prefix_begin = i32(b.prefix), .prefix_len = i32(length)});
    b.prefix += length;
  }
  for (int64_t round = 0; round < s["count"]; ++round) {
    for (size_t i = 0; i < q.size(); ++i) {
      const int64_t own = at(k, i, "k", q.size()), keys = own > 0 ? own : q[i];
      const auto which = static_cast<size_t>(at(of, i, "prefix_of", q.size()));
      if (which >= prefixes.size())
        throw std::invalid_argument(
            "attention: prefix_of counts from 0 and stays below the number of prefixes");
      AttentionSegment g = prefixes[which];
      g.q_begin = i32(b.queries), g.q_len = i32(q[i]);
      g.k_begin = i32(b.keys), g.k_len = i32(keys);
      b.segments.push_back(g);
      b.queries += q[i];
      b.keys += keys;
    }
  }
  if (b.segments.empty()) throw std::invalid_argument("attention: no sequences");
  return b;
}

/// What kernels on a device read.
ops::AttentionTable table_of(Operands& o, const std::vector<AttentionSegment>& segments,
                             bool causal) {
  std::vector<int32_t> rows;
  for (const AttentionSegment& g : segments)
    rows.insert(rows.end(), {g.q_begin, g.q_len, g.k_begin, g.k_len, g.prefix_begin, g.prefix_len});
  const std::vector<int32_t> tiles = ops::attention_tiles(segments, causal);
  const auto num_tiles = static_cast<int64_t>(tiles.size()) / 2;
  ops::AttentionTable table;
  table.segments = o.copy_of("segments", rows, {static_cast<int64_t>(segments.size()), 6});
  table.tiles = o.copy_of("tiles", tiles, {num_tiles, 2});
  return table;
}

Setup<Attention> make(Operands& o, const Shape& s) {
  struct State {  // args have views of the segments
    Batch batch;
    std::deque<std::vector<AttentionSegment>> parts;
  };
  const auto state = std::make_shared<State>();
  state->batch = batch_of(s);
  const Batch& b = state->batch;
  const int64_t heads = s["heads"], kv_heads = s["kv_heads"], dim = s["head_dim"];
  Attention::Args a;
  // Queries, keys and values are columns of one product where there are as many rows of each.
  if (b.queries == b.keys) {
    const Tensor qkv = o.random("qkv", {b.queries, (heads + 2 * kv_heads) * dim}, s.dtype);
    a.q = qkv.slice(1, 0, heads * dim).split_last(dim);
    a.k = qkv.slice(1, heads * dim, kv_heads * dim).split_last(dim);
    a.v = qkv.slice(1, (heads + kv_heads) * dim, kv_heads * dim).split_last(dim);
  } else {
    a.q = o.random("q", {b.queries, heads, dim}, s.dtype);
    const Tensor kv = o.random("kv", {b.keys, 2 * kv_heads, dim}, s.dtype);
    a.k = kv.slice(1, 0, kv_heads);
    a.v = kv.slice(1, kv_heads, kv_heads);
  }
  if (b.prefix > 0) {
    const Tensor kv = o.random("prefix_kv", {b.prefix, 2 * kv_heads, dim}, s.dtype);
    a.prefix_k = kv.slice(1, 0, kv_heads);
    a.prefix_v = kv.slice(1, kv_heads, kv_heads);
  }
  a.segments = b.segments;
  a.causal = s["mask"] == kCausal;
  a.table = table_of(o, b.segments, a.causal);
  a.o = o.output("o", {b.queries, heads, dim}, s.dtype);
  a.scale = 1 / std::sqrt(static_cast<float>(dim));

  Setup<Attention> setup{.args = a, .outputs = {a.o}};
  setup.num_rows = static_cast<int64_t>(b.segments.size());
  setup.rows = [a, state, &o](int64_t begin, int64_t count) {
    const auto first = state->batch.segments.begin() + begin;
    std::vector<AttentionSegment>& own = state->parts.emplace_back(first, first + count);
    const int32_t q_begin = own.empty() ? 0 : own[0].q_begin;
    int64_t queries = 0;
    for (AttentionSegment& g : own) {
      g.q_begin -= q_begin;
      queries += g.q_len;
    }
    Attention::Args part = a;
    part.q = a.q.slice(0, q_begin, queries);
    part.o = a.o.slice(0, q_begin, queries);
    part.segments = own;
    part.table = table_of(o, own, a.causal);
    return Part<Attention>{part, {part.o}};
  };
  // The last query: whole sequences take a reference long.
  setup.corner = [a, state] {
    Attention::Args few = a;
    AttentionSegment last = state->batch.segments.back();
    const int32_t queries = std::min(last.q_len, 1);
    const int64_t row = int64_t{last.q_begin} + last.q_len - queries;
    last.q_begin = 0;
    last.q_len = queries;
    few.q = a.q.slice(0, row, queries);
    few.o = a.o.slice(0, row, queries);
    few.segments = state->parts.emplace_back(1, last);
    few.table = {};
    return Part<Attention>{few, {few.o}};
  };
  return setup;
}

/// A list of one value where all are the same.
std::vector<int64_t> shortened(std::vector<int64_t> list) {
  if (std::ranges::adjacent_find(list, std::not_equal_to()) == list.end())
    list.erase(list.begin() + 1, list.end());
  return list;
}

Shape shape_of(const Attention::Args& a, std::span<const Axis> axes) {
  std::vector<int64_t> q, k, prefixes, of;
  std::vector<std::pair<int32_t, int32_t>> seen;  // where prefixes lie
  for (const AttentionSegment& g : a.segments) {
    if (g.q_len == 0) continue;
    const std::pair where(g.prefix_len > 0 ? g.prefix_begin : 0, g.prefix_len);
    const auto known = std::ranges::find(seen, where);
    of.push_back(known - seen.begin());
    if (known == seen.end()) {
      seen.push_back(where);
      prefixes.push_back(g.prefix_len);
    }
    q.push_back(g.q_len);
    k.push_back(g.k_len);
  }
  Shape s(axes, a.q.dtype, "",
          {{"heads", a.q.dim(1)},
           {"kv_heads", a.k.dim(1)},
           {"head_dim", a.q.dim(2)},
           {"mask", a.causal ? kCausal : kFull}});
  if (q.empty()) return s;
  // Sequences that are all alike are counted.
  const auto one = [](const std::vector<int64_t>& list) { return shortened(list).size() == 1; };
  if (one(q) && one(k) && one(of)) {
    s = with(std::move(s), "count", static_cast<int64_t>(q.size()));
    q = shortened(q);
  }
  s = with(std::move(s), "k",
           k == q || (one(k) && one(q) && k[0] == q[0]) ? std::vector<int64_t>{0} : shortened(k));
  s = with(std::move(s), "q", std::move(q));
  s = with(std::move(s), "prefix", std::move(prefixes));
  return with(std::move(s), "prefix_of", shortened(std::move(of)));
}

}  // namespace

OpLab attention_lab() {
  return op_lab<Attention>(
      {.axes = {{"q", 512, "queries of a sequence, or of each", {}, true},
                {"k", 0, "own keys of a sequence, or of each; 0: as many as queries", {}, true},
                {"count", 1, "times these sequences"},
                {"prefix", 0, "keys of a prefix that sequences share, or of several", {}, true},
                {"prefix_of", 0, "which of the prefixes a sequence has, or each", {}, true},
                {"heads", 32},
                {"kv_heads", 8},
                {"head_dim", kHeadDim},
                {"mask", kCausal, "", {"causal", "full"}}},
       .shapes = shapes,
       .make = make,
       .shape_of = shape_of,
       .fields = [](const Attention::Args& a) -> Fields {
         return {{"q", a.q},
                 {"k", a.k},
                 {"v", a.v},
                 {"prefix_k", a.prefix_k},
                 {"prefix_v", a.prefix_v},
                 {"o", a.o},
                 {"segments", a.table.segments},
                 {"tiles", a.table.tiles},
                 {"scale", a.scale}};
       }});
}

}  // namespace vlr::bench
