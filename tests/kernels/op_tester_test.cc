// The harness itself: what it lets through, and that it catches what a wrong kernel does.

#include "tests/support/op_tester.h"

namespace vlr {
namespace {

/// y = 2 x, by implementations that are wrong in one way each.
struct Twice {
  static constexpr std::string_view kName = "twice";
  struct Args {
    ConstTensor x;
    Tensor y;
  };
  static Status check(const Args& a) {
    return a.x.dim(0) > 1000 ? Status(Code::kInvalidArgument, "twice: too long") : Status();
  }
  static Tolerance tolerance(const Args&) { return {.rel = 1e-6}; }
  static std::span<const Impl<Twice>> impls();
};

Status twice_first(const Twice::Args& a, int64_t count, float factor) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = i / a.x.dim(1), col = i % a.x.dim(1);
    a.y.row<float>(row)[col] = factor * a.x.row<float>(row)[col];
  }
  return {};
}
Status right(const Twice::Args& a, Context&) { return twice_first(a, a.x.numel(), 2); }
Status misses_last(const Twice::Args& a, Context&) { return twice_first(a, a.x.numel() - 1, 2); }
Status writes_nothing(const Twice::Args&, Context&) { return {}; }
Status slightly_off(const Twice::Args& a, Context&) {
  return twice_first(a, a.x.numel(), 2.00001f);
}
Status one_past(const Twice::Args& a, Context&) {
  a.y.row<float>(a.y.dim(0) - 1)[a.y.dim(1)] = 0;
  return twice_first(a, a.x.numel(), 2);
}
Status one_before(const Twice::Args& a, Context&) {
  a.y.as<float>()[-1] = 0;
  return twice_first(a, a.x.numel(), 2);
}
Status past_first_row(const Twice::Args& a, Context&) {
  a.y.row<float>(0)[a.y.dim(1)] =
      0;  // harmless where rows follow each other, wrong where they do not
  return twice_first(a, a.x.numel(), 2);
}
Status past_workspace(const Twice::Args& a, Context& ctx) {
  ctx.workspace.data()[ctx.workspace.size()] = std::byte{0};
  return twice_first(a, a.x.numel(), 2);
}
Status fails(const Twice::Args&, Context&) { return {Code::kInternal, "twice: no"}; }
Status by_threads(const Twice::Args& a, Context& ctx) {
  return twice_first(a, a.x.numel(), ctx.threads->num_threads() == 3 ? 2.0000002f : 2);
}
bool takes_nothing(const Twice::Args&, const Context&) { return false; }
int64_t ten_bytes(const Twice::Args&, const Context&) { return 10; }

std::span<const Impl<Twice>> Twice::impls() {
  static constexpr Impl<Twice> kImpls[] = {
      {"right", Device::kCpu, right},
      {"misses_last", Device::kCpu, misses_last},
      {"writes_nothing", Device::kCpu, writes_nothing},
      {"slightly_off", Device::kCpu, slightly_off},
      {"one_past", Device::kCpu, one_past},
      {"one_before", Device::kCpu, one_before},
      {"past_first_row", Device::kCpu, past_first_row},
      {"past_workspace", Device::kCpu, past_workspace, nullptr, ten_bytes},
      {"fails", Device::kCpu, fails},
      {"by_threads", Device::kCpu, by_threads},
      {"takes_nothing", Device::kCpu, right, takes_nothing},
      {"reference", Device::kCpu, right},
  };
  return kImpls;
}

testing::AssertionResult matches(std::string_view name, bool strided, int64_t rows = 3) {
  test::OpTester<Twice> t(test::implementation<Twice>(name), strided);
  const Tensor x = t.random({rows, 7});
  return t.matches_reference({.x = x, .y = t.output({rows, 7})});
}

TEST(OpTester, AcceptsWhatIsRight) {
  EXPECT_TRUE(matches("right", false));
  EXPECT_TRUE(matches("right", true));
  EXPECT_TRUE(matches("right", true, 0));
  EXPECT_TRUE(matches("past_first_row", false));
}

TEST(OpTester, CatchesWhatIsWrong) {
  for (bool strided : {false, true}) {
    for (const char* name : {"misses_last", "writes_nothing", "slightly_off", "one_past",
                             "one_before", "past_workspace", "fails"}) {
      EXPECT_FALSE(matches(name, strided)) << name << " strided " << strided;
    }
  }
  EXPECT_FALSE(matches("past_first_row", true));
  EXPECT_FALSE(matches("right", false, 1001)) << "check() refuses it";
}

TEST(OpTester, NamesElementAndDistance) {
  const std::string message = matches("misses_last", true).message();
  EXPECT_NE(message.find("twice/misses_last seed 1 strided: output 0[2, 6] = nan, reference "),
            std::string::npos)
      << message;
}

TEST(OpTester, CatchesBitsThatDependOnThreads) {
  for (const auto& [name, same] : {std::pair{"right", true}, {"by_threads", false}}) {
    test::OpTester<Twice> t(test::implementation<Twice>(name));
    const Tensor x = t.random({3, 7});
    EXPECT_EQ(bool{t.same_bits_everywhere({.x = x, .y = t.output({3, 7})})}, same) << name;
  }
}

TEST(OpTester, RunsNothingThatAnImplementationDoesNotTake) {
  test::OpTester<Twice> t(test::implementation<Twice>("takes_nothing"));
  const Tensor x = t.random({3, 7});
  const Twice::Args args{.x = x, .y = t.output({3, 7})};
  EXPECT_FALSE(test::takes(test::implementation<Twice>("takes_nothing"), args));
  t.run(args);
  EXPECT_EQ(t.error(), "twice: 'takes_nothing' on cpu does not take these arguments");
}

TEST(OpTester, ToleratesInProportionToTheSizeOfTerms) {
  test::OpTester<Twice> t(test::implementation<Twice>("slightly_off"));
  const Tensor x = t.random({3, 7}, DType::kF32, 1000);
  const Twice::Args args{.x = x, .y = t.output({3, 7})};
  EXPECT_FALSE(t.matches_reference(args, {{.rel = 0, .abs = 1e-4}}));
  EXPECT_TRUE(t.matches_reference(args, {{.rel = 0, .abs = 1e-4}}, 1000));
  EXPECT_FALSE(t.matches_reference(args, {{.rel = 0, .abs = 1e-4}}, 0.001));
}

TEST(OpTester, RunsOnMoreThanOneTarget) {
  // The baseline is always there, so on any machine with SIMD there are two.
  EXPECT_GE(test::targets().size(), 2u);
}

}  // namespace
}  // namespace vlr
