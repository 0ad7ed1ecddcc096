#include "engine/runtime/executor.h"
#include "engine/runtime/safetensors.h"
#include "engine/weights/weight_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/add/add.h"
#include "kernels/attention/attention.h"
#include "kernels/core/integer.h"
#include "kernels/linear/linear.h"
#include "tests/support/poisoned_arena.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::PoisonedArena;

/// y = x, after it has overwritten all of its scratch memory: 64 bytes for a row.
struct Spill {
  static constexpr std::string_view kName = "spill";
  struct Args {
    ConstTensor x;
    Tensor y;
  };
  static Status check(const Args& a) { return ops::expect_same_shape(kName, "y", a.y, a.x); }
  static Cost cost(const Args& a) {
    return {.bytes = 2.0 * static_cast<double>(a.x.bytes()), .flops = 0};
  }
  static std::span<const Impl<Spill>> impls() {
    static constexpr Impl<Spill> kImpls[] = {{"fill", Device::kCpu, run, nullptr, workspace}};
    return kImpls;
  }
  static int64_t workspace(const Args& a, const Context&) { return 64 * a.x.dim(0); }
  static Status run(const Args& a, Context& ctx) {
    if (static_cast<int64_t>(ctx.workspace.size()) < workspace(a, ctx))
      return {Code::kInternal, "no room"};
    if (reinterpret_cast<uintptr_t>(ctx.workspace.data()) % 64 != 0)
      return {Code::kInternal, "unaligned"};
    if (a.x.numel() == 0) return {};
    std::memset(ctx.workspace.data(), 0x7f, ctx.workspace.size());
    std::memcpy(a.y.data, a.x.data, static_cast<size_t>(a.x.bytes()));
    return {};
  }
};

constexpr int64_t kWidth = 8;

/// A graph over x, a matrix w and out, and the ops that write it down.
struct Sketch {
  Graph g;
  Value x = g.bound("x", DType::kF32, {Sym::kTokens, kWidth});
  Value out = g.bound("out", DType::kF32, {Sym::kTokens, kWidth});
  Value w = g.weight("w");

  Value rows(std::string name) {
    return g.activation(std::move(name), DType::kF32, {Sym::kTokens, kWidth});
  }
  Value proj(std::string name, Value from) {
    const Value y = rows(name);
    return g.add<ops::Linear>(std::move(name), {from, w, {}}, y, [=, w = w](const Bindings& b) {
      return ops::Linear::Args{.x = b[from], .w = b[w], .bias = {}, .y = b[y]};
    });
  }
  Value spill(std::string name, Value from, Value to) {
    return g.add<Spill>(std::move(name), {from}, to,
                        [=](const Bindings& b) { return Spill::Args{.x = b[from], .y = b[to]}; });
  }
  Value add(std::string name, Value a, Value b_in, Value to) {
    return g.add<ops::Add>(std::move(name), {a, b_in}, to, [=](const Bindings& b) {
      return ops::Add::Args{.a = b[a], .b = b[b_in], .y = b[to]};
    });
  }
};

/// out = 2 * (x W^T + x) + x, through every kind of value.
///   proj: h = x W^T   residual: h += x, in place   copy: c = h   twice: c + h   last: out = .. + x
struct Example : Sketch {
  Example() {
    const Value h = proj("proj", x);
    const Value r = add("residual", h, x, g.in_place("residual", h));
    const Value c = spill("copy", r, rows("copy"));
    const Value t = add("twice", c, r, rows("twice"));
    add("last", t, x, out);
  }
};

float weight_at(int64_t i) { return static_cast<float>((i * 7) % 11) - 5; }

/// A store with one matrix "w" of these rows and columns, element i being weight_at(i).
Result<WeightStore> store(int64_t rows = kWidth, int64_t columns = kWidth) {
  testing::TempFolder folder;
  NamedShape w;
  w.name = "w";
  w.dtype = DType::kF32;
  w.shape = {rows, columns};
  VLR_RETURN_IF_ERROR(
      write_safetensors(folder / "model.safetensors", {w},
                        [](const NamedShape&, int64_t begin, std::span<std::byte> out) {
                          for (size_t i = 0; i < out.size() / 4; ++i) {
                            const float v = weight_at(begin / 4 + static_cast<int64_t>(i));
                            std::memcpy(out.data() + 4 * i, &v, 4);
                          }
                          return Status();
                        }));
  VLR_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(folder.path()));
  return WeightStore::load(
      std::move(checkpoint),
      {{.name = "w",
        .shape = {rows, columns},
        .parts = {{.source = "w", .shape = {rows, columns}, .num_rows = rows}}}});
}

/// An example with everything it needs for T tokens.
class ExecutorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto weights = store();
    ASSERT_TRUE(weights) << weights.error().message();
    weights_.emplace(std::move(*weights));
    auto executor = Executor::create(example_.g, *weights_);
    ASSERT_TRUE(executor) << executor.error().message();
    executor_.emplace(std::move(*executor));
    ctx_.threads = &pool_;
  }

  /// Small whole numbers, so that every sum is exact.
  RunArgs args_for(int64_t tokens) {
    x_.resize(static_cast<size_t>(tokens * kWidth));
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>((i * 5) % 13) - 6;
    out_.assign(x_.size(), -1);
    RunArgs args;
    size_of(args.sizes, Sym::kTokens) = tokens;
    args.bound = {{"x", Tensor(x_.data(), DType::kF32, {tokens, kWidth})},
                  {"out", Tensor(out_.data(), DType::kF32, {tokens, kWidth})}};
    return args;
  }

  std::vector<float> expected() const {
    std::vector<float> y(x_.size());
    const auto width = static_cast<size_t>(kWidth);
    for (size_t i = 0; i < y.size(); ++i) {
      float h = x_[i];
      for (size_t k = 0; k < width; ++k) {
        h += x_[i / width * width + k] * weight_at(static_cast<int64_t>(i % width * width + k));
      }
      y[i] = 2 * h + x_[i];
    }
    return y;
  }

  RunPlan plan(const RunArgs& args) {
    auto plan = executor_->plan(args, ctx_);
    EXPECT_TRUE(plan) << plan.error().message();
    return plan ? *plan : RunPlan{};
  }

  Status run(const RunArgs& args) {
    const RunPlan p = plan(args);
    PoisonedArena arena(p.total());
    return executor_->run(args, p, arena.span(), ctx_);
  }

  Example example_;
  std::optional<WeightStore> weights_;
  std::optional<Executor> executor_;
  ThreadPool pool_{2};
  Context ctx_;
  std::vector<float> x_, out_;
};

TEST_F(ExecutorTest, ComputesForEverySize) {
  for (const int64_t tokens : {3, 1, 70, 0, 7}) {
    const RunArgs args = args_for(tokens);
    const Status s = run(args);
    ASSERT_TRUE(s.ok()) << s.message();
    EXPECT_EQ(out_, expected()) << tokens << " tokens";
  }
}

TEST_F(ExecutorTest, OldContentsOfTheArenaDoNotMatter) {
  const RunArgs args = args_for(9);
  for (float& v : x_) v *= 0.1f;  // sums that round
  const RunPlan p = plan(args);
  std::vector<std::vector<float>> results;
  for (const int fill : {0xff, 0x00, 0x7f, 0xff}) {
    PoisonedArena arena(p.total(), fill);
    ASSERT_TRUE(executor_->run(args, p, arena.span(), ctx_).ok());
    ASSERT_TRUE(executor_->run(args, p, arena.span(), ctx_).ok());  // on its own remains
    results.push_back(out_);
  }
  for (const std::vector<float>& r : results) {
    EXPECT_EQ(std::memcmp(r.data(), results[0].data(), 4 * r.size()), 0);
  }
}

TEST_F(ExecutorTest, PlanGrowsWithTheSizes) {
  for (const int64_t tokens : {0, 1, 8, 100}) {
    const RunPlan p = plan(args_for(tokens));
    // h, as long as copy and twice, and both of these: never more than three live matrices.
    const int64_t matrix = tokens * kWidth * 4;
    const int64_t stride = round_up(matrix, kArenaAlignment);
    EXPECT_EQ(p.activation_bytes, 3 * stride) << tokens << " tokens";
    EXPECT_GE(p.workspace_bytes, 64 * tokens) << tokens << " tokens";  // copy's; proj may want more
    EXPECT_EQ(p.total(), p.activation_bytes + p.workspace_bytes);
  }
}

// Two steps on, a value's place is another's.
TEST_F(ExecutorTest, PlanReusesMemory) {
  Example e;
  Value v = e.g.find("x");
  for (int i = 0; i < 20; ++i) v = e.add("step", v, v, e.rows("step" + std::to_string(i)));
  const auto executor = Executor::create(e.g, *weights_);
  ASSERT_TRUE(executor) << executor.error().message();
  const auto p = executor->plan(args_for(8), ctx_);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->activation_bytes, 3 * 8 * kWidth * 4);  // as without the twenty
}

// All of the example works row by row: with a region, its values are as large as a chunk.
TEST_F(ExecutorTest, RegionsRunForSomeRowsAtATime) {
  Sketch e;
  Graph& g = e.g;
  g.begin_rows(Sym::kTokens);
  const Value h = e.proj("proj", e.x);
  const Value r = e.add("residual", h, e.x, g.in_place("residual", h));
  const Value c = e.spill("copy", r, e.rows("copy"));
  g.end_rows();
  const Value t = e.add("twice", c, r, e.rows("twice"));  // reads r and c whole
  g.begin_rows(Sym::kTokens);
  const Value again = e.add("again", t, e.x, e.rows("again"));
  e.spill("last", again, e.out);
  g.end_rows();
  const auto executor = Executor::create(g, *weights_);
  ASSERT_TRUE(executor) << executor.error().message();
  for (const int64_t tokens : {0, 1, 64, 65, 128, 200}) {
    SCOPED_TRACE(tokens);
    RunArgs args = args_for(tokens);
    const auto whole = executor->plan(args, ctx_);
    args.row_chunk = 64;
    std::vector<NodeTime> times;
    args.times = &times;
    const auto p = executor->plan(args, ctx_);
    ASSERT_TRUE(p && whole);
    const int64_t chunk = std::min<int64_t>(tokens, 64);
    EXPECT_EQ(p->node_workspace[2], 64 * chunk);  // of "copy"
    EXPECT_LE(p->activation_bytes, whole->activation_bytes);
    EXPECT_EQ(p->tensors[static_cast<size_t>(again.id)].dim(0), chunk);
    EXPECT_EQ(p->tensors[static_cast<size_t>(r.id)].dim(0), tokens);
    PoisonedArena arena(p->total());
    const Status s = executor->run(args, *p, arena.span(), ctx_);
    ASSERT_TRUE(s.ok()) << s.message();
    EXPECT_EQ(out_, expected());
    EXPECT_EQ(times.size(), g.nodes().size());  // whatever the number of chunks
  }
}

TEST_F(ExecutorTest, PlanNeedsNoTensors) {
  RunArgs sizes_only;
  size_of(sizes_only.sizes, Sym::kTokens) = 5;
  const RunPlan p = plan(sizes_only);
  const RunArgs args = args_for(5);
  EXPECT_EQ(p.total(), plan(args).total());
  PoisonedArena arena(p.total());
  const Status s = executor_->run(args, p, arena.span(), ctx_);
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(out_, expected());
}

TEST_F(ExecutorTest, RunUsesItsOwnTensors) {
  const RunPlan p = plan(args_for(5));
  std::vector<float> other(5 * kWidth, -1);
  RunArgs args = args_for(5);
  args.bound["out"].data = other.data();
  PoisonedArena arena(p.total());
  ASSERT_TRUE(executor_->run(args, p, arena.span(), ctx_).ok());
  EXPECT_EQ(other, expected());
  EXPECT_EQ(out_, std::vector<float>(5 * kWidth, -1));
}

TEST_F(ExecutorTest, TimesEveryNode) {
  RunArgs args = args_for(6);
  std::vector<NodeTime> times;
  args.times = &times;
  ASSERT_TRUE(run(args).ok());
  ASSERT_EQ(times.size(), 5u);
  std::vector<std::string> names, ops;
  for (const NodeTime& t : times) {
    names.emplace_back(t.name);
    ops.emplace_back(t.op);
    EXPECT_GE(t.seconds, 0);
    EXPECT_LT(t.seconds, 10);
  }
  EXPECT_THAT(names, ElementsAre("proj", "residual", "copy", "twice", "last"));
  EXPECT_THAT(ops, ElementsAre("linear", "add", "spill", "add", "add"));
  EXPECT_EQ(times[0].cost.flops, 2 * 6 * kWidth * kWidth);
  ASSERT_TRUE(run(args).ok());
  EXPECT_EQ(times.size(), 10u);  // appended
}

TEST_F(ExecutorTest, ShowsEveryValueAsItsNodeWroteIt) {
  RunArgs args = args_for(6);
  std::vector<std::string> names;
  std::map<std::string, std::vector<float>> values;
  args.on_value = [&](std::string_view name, const ConstTensor& t) {
    EXPECT_EQ(describe(t), "f32[6, 8]");
    names.emplace_back(name);
    values[names.back()].assign(t.as<float>(), t.as<float>() + t.numel());
    return Status();
  };
  ASSERT_TRUE(run(args).ok());
  EXPECT_THAT(names, ElementsAre("proj", "residual", "copy", "twice", "out"));
  EXPECT_EQ(values["copy"], values["residual"]);
  EXPECT_EQ(values["out"], out_);
  for (size_t i = 0; i < x_.size(); ++i) {
    EXPECT_EQ(values["residual"][i], values["proj"][i] + x_[i]);
    EXPECT_EQ(values["twice"][i], 2 * values["residual"][i]);
  }
}

TEST_F(ExecutorTest, NamesAMissingWeight) {
  Example e;
  e.g.weight("layers.7.up.weight");
  const auto executor = Executor::create(e.g, *weights_);
  ASSERT_FALSE(executor);
  EXPECT_EQ(executor.error().code(), Code::kNotFound);
  EXPECT_THAT(executor.error().message(), HasSubstr("layers.7.up.weight"));
}

TEST_F(ExecutorTest, RefusesAGraphThatIsWrong) {
  Example e;
  const Value ghost = e.rows("ghost");
  e.add("reader", ghost, ghost, e.rows("y"));
  const auto executor = Executor::create(e.g, *weights_);
  ASSERT_FALSE(executor);
  EXPECT_EQ(executor.error().code(), Code::kInternal);
  EXPECT_EQ(executor.error().message(), "graph: node reader reads ghost before it is written");
}

TEST_F(ExecutorTest, NamesAMissingTensor) {
  RunArgs args = args_for(4);
  args.bound.erase("x");
  const Status s = run(args);
  EXPECT_EQ(s.code(), Code::kInternal);
  EXPECT_EQ(s.message(), "executor: nothing is bound to x");
  EXPECT_EQ(out_[0], -1);
}

TEST_F(ExecutorTest, RefusesATensorOfAnotherKind) {
  RunArgs args = args_for(4);
  const RunPlan p = plan(args);
  PoisonedArena arena(p.total());
  const auto refused = [&](Tensor t, std::string_view message) {
    args.bound["x"] = t;
    const auto planned = executor_->plan(args, ctx_);
    ASSERT_FALSE(planned);
    EXPECT_EQ(planned.error().code(), Code::kInternal);
    EXPECT_EQ(planned.error().message(), message);
    EXPECT_EQ(executor_->run(args, p, arena.span(), ctx_).message(), message);
  };
  refused(Tensor(x_.data(), DType::kF32, {3, kWidth}),
          "executor: x is bound to f32[3, 8], expected f32[4, 8]");
  refused(Tensor(x_.data(), DType::kI32, {4, kWidth}),
          "executor: x is bound to i32[4, 8], expected f32[4, 8]");
  refused(Tensor(x_.data(), DType::kF32, {4 * kWidth}),
          "executor: x is bound to f32[32], expected f32[4, 8]");
}

TEST_F(ExecutorTest, RefusesASmallArena) {
  const RunArgs args = args_for(4);
  const RunPlan p = plan(args);
  PoisonedArena arena(p.total());
  const Status s = executor_->run(args, p, arena.span().first(arena.span().size() - 1), ctx_);
  EXPECT_EQ(s.code(), Code::kInternal);
  EXPECT_EQ(s.message(), "executor: an arena of " + std::to_string(p.total() - 1) + " bytes, " +
                             std::to_string(p.total()) + " are needed");
  EXPECT_EQ(out_[0], -1);
}

TEST_F(ExecutorTest, NamesTheNodeThatFails) {
  const auto narrow = store(kWidth, kWidth - 1);
  ASSERT_TRUE(narrow) << narrow.error().message();
  const auto executor = Executor::create(example_.g, *narrow);
  ASSERT_TRUE(executor);
  const RunArgs args = args_for(4);
  const auto p = executor->plan(args, ctx_);
  ASSERT_TRUE(p) << p.error().message();
  PoisonedArena arena(p->total());
  const Status s = executor->run(args, *p, arena.span(), ctx_);
  EXPECT_EQ(s.code(), Code::kInvalidArgument);
  EXPECT_THAT(s.message(), ::testing::StartsWith("proj: linear: "));
  EXPECT_THAT(s.message(), HasSubstr("f32[8, 7]"));
  EXPECT_EQ(out_[0], -1);
}

TEST_F(ExecutorTest, NamesTheNodeWithoutAnImplementation) {
  const ImplChoices choices = {{"linear", "telepathic"}};
  ctx_.choices = &choices;
  const auto p = executor_->plan(args_for(4), ctx_);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code(), Code::kUnimplemented);
  EXPECT_THAT(
      p.error().message(),
      ::testing::StartsWith("proj: linear: no implementation 'telepathic' on cpu; there are "
                            "blocked, reference"));
}

TEST_F(ExecutorTest, WantsEveryAttentionTable) {
  Graph g;
  const Value q = g.bound("q", DType::kF32, {Sym::kTokens, 1, 4});
  const Value o = g.bound("o", DType::kF32, {Sym::kTokens, 1, 4});
  g.use_segments(1);
  g.add<ops::Attention>("attention", {q}, o, [=](const Bindings& b) {
    return ops::Attention::Args{.q = b[q],
                                .k = b[q],
                                .v = b[q],
                                .prefix_k = {},
                                .prefix_v = {},
                                .segments = b.segments(1),
                                .o = b[o],
                                .scale = 1,
                                .causal = false};
  });
  const auto executor = Executor::create(g, *weights_);
  ASSERT_TRUE(executor);
  RunArgs args;
  size_of(args.sizes, Sym::kTokens) = 2;
  const std::vector<ops::AttentionSegment> segments = {
      {.q_begin = 0, .q_len = 2, .k_begin = 0, .k_len = 2, .prefix_begin = 0, .prefix_len = 0}};
  args.segments = {segments};
  const auto p = executor->plan(args, ctx_);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code(), Code::kInternal);
  EXPECT_EQ(p.error().message(), "executor: 1 attention tables, the graph reads 2");
  args.segments.push_back(segments);
  EXPECT_TRUE(executor->plan(args, ctx_));
}

}  // namespace
}  // namespace vlr
