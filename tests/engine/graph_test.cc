#include "model/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/add/add.h"
#include "kernels/linear/linear.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;

/// y = a + b, written to `to`.
Value add(Graph& g, std::string name, Value a, Value b_in, Value to) {
  return g.add<ops::Add>(std::move(name), {a, b_in}, to, [=](const Bindings& b) {
    return ops::Add::Args{.a = b[a], .b = b[b_in], .y = b[to]};
  });
}

Value add_in_place(Graph& g, const std::string& name, Value a, Value b) {
  return add(g, name, a, b, g.in_place(name, a));
}

struct Chain {
  Graph g;
  Value in = g.bound("in", DType::kF32, {Sym::kTokens, 8});
  Value x = g.activation("x", DType::kF32, {Sym::kTokens, 8});
  Value out = g.bound("out", DType::kF32, {Sym::kTokens, 8});
};

std::string problem(const Graph& g) {
  const Status s = g.validate();
  EXPECT_TRUE(s.ok() || s.code() == Code::kInternal);
  return s.message();
}

TEST(GraphValidate, AcceptsAChainAndWorkInPlace) {
  Chain c;
  add(c.g, "first", c.in, c.in, c.x);
  const Value y = add_in_place(c.g, "second", c.x, c.in);
  const Value z = add_in_place(c.g, "third", y, c.in);
  add(c.g, "last", z, z, c.out);
  EXPECT_EQ(problem(c.g), "");
}

TEST(GraphValidate, RefusesReadingBeforeWriting) {
  Chain c;
  add(c.g, "last", c.in, c.x, c.out);
  EXPECT_EQ(problem(c.g), "graph: node last reads x before it is written");
  Chain by_view;
  add(by_view.g, "half", by_view.g.columns(by_view.x, 0, 4), by_view.g.columns(by_view.in, 0, 4),
      by_view.g.activation("y", DType::kF32, {Sym::kTokens, 4}));
  EXPECT_EQ(problem(by_view.g), "graph: node half reads x[:, 0:4] before it is written");
}

TEST(GraphValidate, RefusesReadingWhatWasOverwritten) {
  Chain c;
  add(c.g, "first", c.in, c.in, c.x);
  const Value y = add_in_place(c.g, "second", c.x, c.in);
  add(c.g, "last", y, c.x, c.out);
  EXPECT_EQ(problem(c.g), "graph: node last reads x after it was overwritten");
}

TEST(GraphValidate, RefusesReadingAViewOfWhatWasOverwritten) {
  Chain c;
  add(c.g, "first", c.in, c.in, c.x);
  const Value half = c.g.columns(c.x, 0, 4);
  add_in_place(c.g, "second", c.x, c.in);
  add(c.g, "last", half, half, c.g.activation("z", DType::kF32, {Sym::kTokens, 4}));
  EXPECT_EQ(problem(c.g), "graph: node last reads x after it was overwritten");
}

TEST(GraphValidate, RefusesAnOldNameInAChainOfWorkInPlace) {
  Chain c;
  add(c.g, "first", c.in, c.in, c.x);
  const Value y = add_in_place(c.g, "second", c.x, c.in);
  const Value z = add_in_place(c.g, "third", y, c.in);
  add(c.g, "last", c.g.columns(z, 0, 4), c.g.columns(y, 0, 4),
      c.g.activation("w", DType::kF32, {Sym::kTokens, 4}));
  EXPECT_EQ(problem(c.g), "graph: node last reads second after it was overwritten");
}

// Keys are rotated in their columns, then read together with the values beside them.
TEST(GraphValidate, AcceptsReadingTheWholeAfterWorkOnAPart) {
  Chain c;
  add(c.g, "first", c.in, c.in, c.x);
  const Value left = c.g.columns(c.x, 0, 4), right = c.g.columns(c.x, 4, 4);
  add_in_place(c.g, "left", left, right);
  add(c.g, "last", c.x, c.in, c.out);
  EXPECT_EQ(problem(c.g), "");
}

TEST(GraphValidate, RefusesARegionOfOtherRows) {
  Chain c;
  c.g.begin_rows(Sym::kTokens);
  add(c.g, "first", c.in, c.in, c.x);
  add(c.g, "last", c.x, c.x, c.out);
  c.g.end_rows();
  EXPECT_EQ(problem(c.g), "");
  const Value few = c.g.bound("few", DType::kF32, {Sym::kSequences, 8});
  c.g.begin_rows(Sym::kTokens);
  add(c.g, "more", few, few, few);
  c.g.end_rows();
  EXPECT_EQ(problem(c.g), "graph: node more has few, which has no rows of T");
}

TEST(Graph, ViewsHaveTheShapesThatTheirDimsSay) {
  Graph g;
  const Value x = g.activation("x", DType::kF32, {Sym::kTokens, 48});
  const Value fixed = g.activation("fixed", DType::kF32, {12, 6});
  const Value cols = g.columns(x, 16, 24);
  const std::vector<Value> views = {cols,
                                    g.rows(x, 2, 3),
                                    g.heads(cols, 8),
                                    g.flat(g.heads(x, 8)),
                                    g.merge_rows(x, 4),
                                    g.merge_rows(fixed, 4),
                                    g.in_place("y", x)};
  Sizes sizes{};
  size_of(sizes, Sym::kTokens) = 8;
  std::vector<float> data(8 * 48);
  std::vector<Tensor> tensors(g.values().size());
  tensors[static_cast<size_t>(x.id)] = Tensor(data.data(), DType::kF32, {8, 48});
  tensors[static_cast<size_t>(fixed.id)] = Tensor(data.data(), DType::kF32, {12, 6});
  for (size_t i = 0; i < g.values().size(); ++i) {
    const ValueInfo& v = g.values()[i];
    if (v.kind != ValueKind::kView) continue;
    tensors[i] = v.view(tensors[static_cast<size_t>(v.base.id)]);
    ASSERT_EQ(static_cast<size_t>(tensors[i].rank), v.dims.size()) << v.name;
    for (int a = 0; a < tensors[i].rank; ++a) {
      EXPECT_EQ(tensors[i].dim(a), v.dims[static_cast<size_t>(a)].at(sizes)) << v.name;
    }
  }
  const auto tensor = [&](Value v) { return tensors[static_cast<size_t>(v.id)]; };
  const auto offset = [&](Value v) { return tensor(v).as<float>() - data.data(); };
  EXPECT_EQ(describe(tensor(views[0])), "f32[8, 24]");
  EXPECT_EQ(offset(views[0]), 16);
  EXPECT_EQ(tensor(views[0]).stride(0), 48);
  EXPECT_EQ(describe(tensor(views[1])), "f32[3, 48]");
  EXPECT_EQ(offset(views[1]), 2 * 48);
  EXPECT_EQ(describe(tensor(views[2])), "f32[8, 3, 8]");
  EXPECT_EQ(offset(views[2]), 16);
  EXPECT_EQ(tensor(views[2]).stride(0), 48);
  EXPECT_EQ(tensor(views[2]).stride(1), 8);
  EXPECT_EQ(describe(tensor(views[3])), "f32[8, 48]");
  EXPECT_EQ(describe(tensor(views[4])), "f32[2, 192]");
  EXPECT_EQ(describe(tensor(views[5])), "f32[3, 24]");
  EXPECT_EQ(describe(tensor(views[6])), "f32[8, 48]");
}

TEST(Graph, RootOwnsTheStorage) {
  Graph g;
  const Value x = g.activation("x", DType::kF32, {Sym::kTokens, 48});
  EXPECT_EQ(g.root(g.heads(g.columns(g.in_place("y", x), 0, 16), 8)).id, x.id);
  EXPECT_EQ(g.root(x).id, x.id);
}

TEST(Graph, AWeightIsOneValue) {
  Graph g;
  const Value a = g.weight("a"), b = g.weight("b");
  EXPECT_NE(a.id, b.id);
  EXPECT_EQ(g.weight("a").id, a.id);
  EXPECT_EQ(g.find("b").id, b.id);
  EXPECT_FALSE(g.find("c").defined());
  EXPECT_EQ(g.values().size(), 2u);
}

TEST(Dim, SizesAndTexts) {
  Sizes sizes{};
  size_of(sizes, Sym::kPatches) = 24;
  EXPECT_EQ(Dim(7).at(sizes), 7);
  EXPECT_EQ(Dim(Sym::kPatches).at(sizes), 24);
  EXPECT_EQ(Dim(Sym::kPatches, 3, 4).at(sizes), 18);
  EXPECT_EQ(Dim(Sym::kTokens).at(sizes), 0);
  EXPECT_EQ(Dim(7).text(), "7");
  EXPECT_EQ(Dim(Sym::kTokens).text(), "T");
  EXPECT_EQ(Dim(Sym::kPatches, 1, 4).text(), "P/4");
  EXPECT_EQ(Dim(Sym::kPatches, 3, 4).text(), "3*P/4");
  EXPECT_EQ(Dim(Sym::kPrefixTokens).text(), "Tp");
}

/// x W + x, once more in place.
Graph example() {
  Graph g;
  const Value x = g.bound("x", DType::kF32, {Sym::kTokens, 8}), w = g.weight("proj.weight");
  const Value h = g.activation("h", DType::kF32, {Sym::kTokens, 8});
  g.add<ops::Linear>("proj", {x, w, {}}, h, [=](const Bindings& b) {
    return ops::Linear::Args{.x = b[x], .w = b[w], .bias = {}, .y = b[h]};
  });
  const Value r = add_in_place(g, "residual", h, x);
  add(g, "store", r, x, g.bound("y", DType::kF32, {Sym::kTokens, 8}));
  return g;
}

TEST(Graph, TextHasALineForEveryNode) {
  const std::string text = example().to_text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_THAT(text, HasSubstr("linear           h f32[T, 8] <- x, proj.weight\n"));
  EXPECT_THAT(text, HasSubstr("add              y f32[T, 8] <- residual, x\n"));
}

TEST(Graph, JsonHoldsValuesAndNodes) {
  const Graph g = example();
  const auto json = nlohmann::json::parse(g.to_json(), nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << g.to_json();
  ASSERT_EQ(json["values"].size(), 5u);
  EXPECT_EQ(json["values"][0],
            (nlohmann::json{{"id", 0}, {"name", "x"}, {"kind", "bound"}, {"type", "f32[T, 8]"}}));
  EXPECT_EQ(json["values"][1]["kind"], "weight");
  EXPECT_EQ(json["values"][3]["kind"], "view");
  EXPECT_EQ(json["values"][3].value("base", -1), 2);
  ASSERT_EQ(json["nodes"].size(), 3u);
  EXPECT_EQ(
      json["nodes"][0],
      (nlohmann::json{{"name", "proj"}, {"op", "linear"}, {"inputs", {0, 1}}, {"output", 2}}));
}

TEST(Graph, DotHasTheEdges) {
  const std::string dot = example().to_dot();
  EXPECT_THAT(dot, HasSubstr("\"x\" -> n0;"));
  EXPECT_THAT(dot, HasSubstr("n0 -> n1 [label=\"f32[T, 8]\"]"));
  EXPECT_THAT(dot, HasSubstr("n1 -> n2 "));
}

}  // namespace
}  // namespace vlr
