// The picture of an arena: well-formed, complete, and true to the plan.
#include "engine/runtime/arena_picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/add/add.h"
#include "kernels/core/thread_pool.h"

namespace vlr {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// y = x + x with 4096 bytes of workspace.
struct Roomy {
  static constexpr std::string_view kName = "roomy";
  struct Args {
    ConstTensor x;
    Tensor y;
  };
  static Status check(const Args&) { return {}; }
  static Cost cost(const Args&) { return {}; }
  static std::span<const Impl<Roomy>> impls() {
    static constexpr Impl<Roomy> kImpls[] = {{"plain", Device::kCpu, run, nullptr, workspace}};
    return kImpls;
  }
  static int64_t workspace(const Args&, const Context&) { return 4096; }
  static Status run(const Args&, Context&) { return {}; }
};

using Attributes = std::map<std::string, std::string>;
struct Element {
  std::string name;
  Attributes attributes;
  std::string text;  ///< of it and all that is in it
};

/// All elements of a document, in order; fails the test where it is not well-formed. Knows what a
/// picture may consist of: elements, quoted attributes, text, entities.
std::vector<Element> parse(const std::string& xml) {
  std::vector<Element> out;
  std::vector<size_t> open;
  size_t at = 0;
  const auto wrong = [&](const char* what) {
    ADD_FAILURE() << what << " at " << at << ": " << xml.substr(at, 60);
    return out;
  };
  while (at < xml.size()) {
    if (xml[at] != '<') {
      const size_t end = std::min(xml.find('<', at), xml.size());
      std::string text = xml.substr(at, end - at);
      for (const auto& [entity, c] : {std::pair{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}}) {
        for (size_t i; (i = text.find(entity)) != text.npos;)
          text.replace(i, std::string(entity).size(), c);
      }
      for (size_t i = 0; (i = text.find('&', i)) != text.npos; ++i) {
        if (text.compare(i, 5, "&amp;") != 0) return wrong("a bare &");
        text.replace(i, 5, "&");
      }
      if (open.empty() && text != "\n") return wrong("text outside the document");
      for (const size_t e : open) out[e].text += text;
      at = end;
      continue;
    }
    const size_t end = xml.find('>', at);
    if (end == xml.npos) return wrong("an open tag");
    std::string tag = xml.substr(at + 1, end - at - 1);
    if (tag[0] == '/') {
      if (open.empty() || out[open.back()].name != tag.substr(1)) return wrong("unbalanced");
      open.pop_back();
    } else {
      const bool closed = tag.back() == '/';
      if (closed) tag.pop_back();
      Element& e = out.emplace_back();
      size_t i = std::min(tag.find(' '), tag.size());
      e.name = tag.substr(0, i);
      while (i < tag.size()) {
        const size_t equals = tag.find("=\"", i);
        const size_t quote = equals == tag.npos ? tag.npos : tag.find('"', equals + 2);
        if (quote == tag.npos) return wrong("an attribute");
        e.attributes[tag.substr(i + 1, equals - i - 1)] =
            tag.substr(equals + 2, quote - equals - 2);
        i = quote + 1;
      }
      if (!closed) open.push_back(out.size() - 1);
    }
    at = end + 1;
  }
  if (!open.empty()) ADD_FAILURE() << "not closed: " << out[open.back()].name;
  return out;
}

/// Two layers of residual blocks of different widths, and a value with a difficult name.
struct Model {
  Graph g;
  Model() {
    Value x = g.bound("in", DType::kF32, {Sym::kTokens, 64});
    for (int layer = 0; layer < 2; ++layer) {
      const std::string scope = "layers." + std::to_string(layer) + ".";
      const Value up = roomy(scope + "mlp.up", x), again = roomy(scope + "mlp.again", up);
      x = add(scope + "<a> & \"b\"", up, again);
    }
    add("last", x, x);
  }
  Value make(const std::string& name) {
    return g.activation(name, DType::kF32, {Sym::kTokens, 64});
  }
  Value roomy(const std::string& name, Value x) {
    const Value y = make(name);
    return g.add<Roomy>(name, {x}, y,
                        [=](const Bindings& b) { return Roomy::Args{.x = b[x], .y = b[y]}; });
  }
  Value add(const std::string& name, Value a, Value c) {
    const Value y = make(name);
    return g.add<ops::Add>(name, {a, c}, y, [=](const Bindings& b) {
      return ops::Add::Args{.a = b[a], .b = b[c], .y = b[y]};
    });
  }
};

struct Planned {
  Model model;
  RunPlan plan;
};

Planned planned(int64_t tokens) {
  Planned out;
  const auto executor = Executor::create(out.model.g, [](std::string_view) -> Result<ConstTensor> {
    return {Code::kNotFound, "no weights"};
  });
  EXPECT_TRUE(executor) << executor.error().message();
  ThreadPool threads(1);
  Context ctx;
  ctx.threads = &threads;
  RunArgs args;
  size_of(args.sizes, Sym::kTokens) = tokens;
  auto plan = executor->plan(args, ctx);
  EXPECT_TRUE(plan) << plan.error().message();
  out.plan = *std::move(plan);
  return out;
}

std::vector<Element> of_class(const std::vector<Element>& all, const std::string& name) {
  std::vector<Element> out;
  for (const Element& e : all) {
    const auto it = e.attributes.find("class");
    if (it != e.attributes.end() && it->second == name) out.push_back(e);
  }
  return out;
}

double number(const Element& e, const char* attribute) {
  return std::stod(e.attributes.at(attribute));
}

TEST(ArenaPicture, EveryActivationIsThereAsItWasPlanned) {
  const Planned p = planned(1000);
  const std::vector<Element> rects =
      of_class(parse(arena_svg(p.model.g, p.plan, "a test")), "activation");
  ASSERT_EQ(rects.size(), 7u);
  size_t at = 0;
  for (size_t v = 0; v < p.plan.offsets.size(); ++v) {
    if (p.plan.offsets[v] < 0) continue;
    const Element& r = rects[at++];
    EXPECT_EQ(number(r, "data-offset"), static_cast<double>(p.plan.offsets[v]));
    EXPECT_EQ(number(r, "data-bytes"), 1000.0 * 64 * 4);
    EXPECT_EQ(number(r, "data-first"), p.plan.lifetimes[v].first);
    EXPECT_EQ(number(r, "data-last"), p.plan.lifetimes[v].last);
    EXPECT_THAT(r.text, AllOf(HasSubstr(p.model.g.values()[v].name + ": f32[1000, 64]"),
                              HasSubstr("250.00 KiB")));
  }
  EXPECT_THAT(rects[2].text, HasSubstr("layers.0.<a> & \"b\": "));
  EXPECT_THAT(rects[2].text, HasSubstr("to layers.1.mlp.up (node 3)"));
}

TEST(ArenaPicture, WhatIsAliveTogetherDoesNotOverlap) {
  const Planned p = planned(100);
  const std::vector<Element> all = parse(arena_svg(p.model.g, p.plan, ""));
  std::vector<Element> rects = of_class(all, "activation");
  const std::vector<Element> workspaces = of_class(all, "workspace");
  EXPECT_EQ(workspaces.size(), 4u);
  rects.insert(rects.end(), workspaces.begin(), workspaces.end());
  constexpr double kRounding = 0.02;  // coordinates have two digits
  for (size_t a = 0; a < rects.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      const auto apart = [&](const char* from, const char* size) {
        const double first = number(rects[a], from), second = number(rects[b], from);
        return first + number(rects[a], size) <= second + kRounding ||
               second + number(rects[b], size) <= first + kRounding;
      };
      EXPECT_TRUE(apart("x", "width") || apart("y", "height")) << rects[a].text << rects[b].text;
    }
  }
  // All of it is inside the picture.
  const double width = number(all[0], "width"), height = number(all[0], "height");
  for (const Element& r : rects) {
    EXPECT_GE(number(r, "x"), 0);
    EXPECT_GE(number(r, "y"), 0);
    EXPECT_LE(number(r, "x") + number(r, "width"), width);
    EXPECT_LE(number(r, "y") + number(r, "height"), height);
  }
}

TEST(ArenaPicture, SaysWhatThereIs) {
  const Planned p = planned(50'000);
  const std::string svg = arena_svg(p.model.g, p.plan, "<model> & co");
  const std::vector<Element> all = parse(svg);
  EXPECT_EQ(all[0].name, "svg");
  EXPECT_THAT(
      all[0].text,
      AllOf(HasSubstr("<model> & co"),
            HasSubstr("7 nodes, 7 activations in 36.62 MiB, workspace 4.00 KiB"),
            HasSubstr("alive at once at most 36.62 MiB, at layers.0."), HasSubstr("peak 36.62 MiB"),
            HasSubstr("layers.1"), HasSubstr("workspace of layers.0.mlp.up (roomy, node 0)")));
  EXPECT_EQ(of_class(all, "layer").size(), 2u);  // where one layer ends and the next one begins
  EXPECT_EQ(of_class(all, "peak").size(), 1u);
  EXPECT_THAT(svg, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("href"))));
  EXPECT_EQ(svg, arena_svg(p.model.g, p.plan, "<model> & co"));
}

TEST(ArenaPicture, NothingToDraw) {
  const Planned empty = planned(0);
  EXPECT_EQ(of_class(parse(arena_svg(empty.model.g, empty.plan, "")), "activation").size(), 7u);
  EXPECT_FALSE(parse(arena_svg(Graph(), RunPlan(), "no graph")).empty());
}

}  // namespace
}  // namespace vlr
