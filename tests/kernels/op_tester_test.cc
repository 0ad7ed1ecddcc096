// The harness itself: what it lets through, and that it catches what a wrong kernel does.

#include "tests/support/op_tester.h"

#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "tests/kernels/row_ops.h"

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
    return a.x.dim(0) > 3000 ? Status(Code::kInvalidArgument, "twice: too long") : Status();
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
Status far_past(const Twice::Args& a, Context&) {
  a.y.row<float>(a.y.dim(0) - 1)[a.y.dim(1) + 2048] = 0;
  return twice_first(a, a.x.numel(), 2);
}
Status reads_past(const Twice::Args& a, Context&) {
  Status s = twice_first(a, a.x.numel(), 2);
  const int64_t last = a.x.dim(0) - 1;
  a.y.row<float>(last)[0] += 0 * a.x.row<float>(last)[a.x.dim(1)];
  return s;
}
Status adds_to_what_is_there(const Twice::Args& a, Context&) {
  for (int64_t r = 0; r < a.x.dim(0); ++r)
    for (int64_t c = 0; c < a.x.dim(1); ++c)
      a.y.row<float>(r)[c] = 0 * a.y.row<float>(r)[c] + 2 * a.x.row<float>(r)[c];
  return {};
}
Status wants_a_clear_workspace(const Twice::Args& a, Context& ctx) {
  return twice_first(a, a.x.numel(), 2 + *reinterpret_cast<const float*>(ctx.workspace.data()));
}
Status above_400_rows(const Twice::Args& a, Context&) {
  Status s = twice_first(a, a.x.numel(), 2);
  if (a.x.dim(0) > 400) a.y.row<float>(401 - 1)[0] *= 1.01f;
  return s;
}
Status two_mod_four(const Twice::Args& a, Context&) {
  return twice_first(a, a.x.numel() - (a.x.dim(1) % 4 == 2 ? 1 : 0), 2);
}
Status skips_where_zero(const Twice::Args& a, Context&) {
  return a.x.numel() > 0 && a.x.as<float>()[0] == 0 ? Status() : twice_first(a, a.x.numel(), 2);
}
Status skips_subnormals(const Twice::Args& a, Context&) {
  if (a.x.numel() > 0 && std::fpclassify(a.x.as<float>()[0]) == FP_SUBNORMAL) return {};
  return twice_first(a, a.x.numel(), 2);
}
/// The answer of the first call, for whoever comes with the same address.
Status remembers(const Twice::Args& a, Context&) {
  static std::map<const void*, std::vector<float>> answers;
  std::vector<float>& known = answers[a.x.data];
  if (known.empty()) {
    for (int64_t i = 0; i < a.x.numel(); ++i)
      known.push_back(2 * a.x.row<float>(i / a.x.dim(1))[i % a.x.dim(1)]);
  }
  for (int64_t i = 0; i < a.x.numel(); ++i)
    a.y.row<float>(i / a.x.dim(1))[i % a.x.dim(1)] = known[static_cast<size_t>(i)];
  return {};
}
/// Works once per address, where there is much to do.
Status works_once(const Twice::Args& a, Context&) {
  static std::set<const void*> seen;
  if (a.x.numel() > 5000 && !seen.insert(a.x.data).second) return {};
  return twice_first(a, a.x.numel(), 2);
}
Status destroys_its_input(const Twice::Args& a, Context&) {
  for (int64_t i = 0; i < a.x.numel(); ++i) {
    const int64_t row = i / a.x.dim(1), col = i % a.x.dim(1);
    const_cast<float*>(a.x.row<float>(row))[col] = 0;
    a.y.row<float>(row)[col] = 0;
  }
  return {};
}
Status wrong_once(const Twice::Args& a, Context&) {
  static int64_t calls = 0;
  return twice_first(a, a.x.numel(), ++calls % 10000 == 0 ? 2.0000002f : 2);
}
Status forty_two(const Twice::Args& a, Context&) {
  for (int64_t i = 0; i < a.x.numel(); ++i)
    a.y.row<float>(i / a.x.dim(1))[i % a.x.dim(1)] =
        std::isinf(2 * a.x.row<float>(i / a.x.dim(1))[i % a.x.dim(1)])
            ? 42
            : 2 * a.x.row<float>(i / a.x.dim(1))[i % a.x.dim(1)];
  return {};
}
/// The answer of an earlier call, for whoever comes with the same first row.
Status knows_first_row(const Twice::Args& a, Context&) {
  static std::map<std::vector<float>, std::vector<float>> answers;
  if (a.x.numel() == 0) return {};
  const int64_t dim = a.x.dim(1);
  std::vector<float>& known = answers[{a.x.row<float>(0), a.x.row<float>(0) + dim}];
  for (int64_t i = static_cast<int64_t>(known.size()); i < a.x.numel(); ++i)
    known.push_back(2 * a.x.row<float>(i / dim)[i % dim]);
  for (int64_t i = 0; i < a.x.numel(); ++i)
    a.y.row<float>(i / dim)[i % dim] = known[static_cast<size_t>(i)];
  return {};
}
/// What is a number already was its own work.
Status believes_a_number(const Twice::Args& a, Context&) {
  if (a.y.numel() > 0 && !std::isnan(a.y.row<float>(0)[0])) return {};
  return twice_first(a, a.x.numel(), 2);
}
/// Harmless, if slow: it reads what it writes, and does not use it.
Status writes_what_differs(const Twice::Args& a, Context&) {
  for (int64_t i = 0; i < a.x.numel(); ++i) {
    const float want = 2 * a.x.row<float>(i / a.x.dim(1))[i % a.x.dim(1)];
    float& y = a.y.row<float>(i / a.x.dim(1))[i % a.x.dim(1)];
    if (y != want) y = want;
  }
  return {};
}
/// Prepares its first row once, in scratch that it takes for its own.
Status keeps_its_workspace(const Twice::Args& a, Context& ctx) {
  constexpr float kMagic = 1234;
  auto* kept = reinterpret_cast<float*>(ctx.workspace.data());
  Status s = twice_first(a, a.x.numel(), 2);
  if (a.x.numel() == 0) return s;
  if (kept[0] != kMagic) kept[1] = a.y.row<float>(0)[0];
  kept[0] = kMagic;
  a.y.row<float>(0)[0] = kept[1];
  return s;
}
/// Reads where the first call's operand was.
Status keeps_an_address(const Twice::Args& a, Context&) {
  static const float* const first = a.x.row<float>(0);
  Status s = twice_first(a, a.x.numel(), 2);
  a.y.row<float>(0)[0] = 2 * first[0];
  return s;
}
/// Has room for the elements of the first call.
Status has_room_for_the_first(const Twice::Args& a, Context&) {
  static const int64_t room = a.x.numel();
  return twice_first(a, std::min(a.x.numel(), room), 2);
}
Status changes_and_restores(const Twice::Args& a, Context&) {
  float& x = *const_cast<float*>(a.x.row<float>(0));
  const float before = x;
  x = 0;
  Status s = twice_first(a, a.x.numel(), 2);
  x = before;
  a.y.row<float>(0)[0] = 2 * before;
  return s;
}
/// Comes back before it is done.
std::vector<std::thread> late;
Status is_late(const Twice::Args& a, Context&) {
  late.emplace_back([a] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    (void)twice_first(a, a.x.numel(), 2);
  });
  return {};
}
Status adds_nothing_of_the_row_before(const Twice::Args& a, Context&) {
  Status s = twice_first(a, a.x.numel(), 2);
  for (int64_t r = 1; r < a.x.dim(0); ++r) a.y.row<float>(r)[0] += 0 * a.x.row<float>(r - 1)[0];
  return s;
}
int64_t forty_bytes(const Twice::Args&, const Context&) { return 40; }
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
      {"far_past", Device::kCpu, far_past},
      {"reads_past", Device::kCpu, reads_past},
      {"adds_to_what_is_there", Device::kCpu, adds_to_what_is_there},
      {"wants_a_clear_workspace", Device::kCpu, wants_a_clear_workspace, nullptr, ten_bytes},
      {"above_400_rows", Device::kCpu, above_400_rows},
      {"two_mod_four", Device::kCpu, two_mod_four},
      {"skips_where_zero", Device::kCpu, skips_where_zero},
      {"skips_subnormals", Device::kCpu, skips_subnormals},
      {"remembers", Device::kCpu, remembers},
      {"works_once", Device::kCpu, works_once},
      {"destroys_its_input", Device::kCpu, destroys_its_input},
      {"wrong_once", Device::kCpu, wrong_once},
      {"forty_two", Device::kCpu, forty_two},
      {"knows_first_row", Device::kCpu, knows_first_row},
      {"believes_a_number", Device::kCpu, believes_a_number},
      {"writes_what_differs", Device::kCpu, writes_what_differs},
      {"keeps_its_workspace", Device::kCpu, keeps_its_workspace, nullptr, forty_bytes},
      {"keeps_an_address", Device::kCpu, keeps_an_address},
      {"has_room_for_the_first", Device::kCpu, has_room_for_the_first},
      {"changes_and_restores", Device::kCpu, changes_and_restores},
      {"is_late", Device::kCpu, is_late},
      {"adds_nothing_of_the_row_before", Device::kCpu, adds_nothing_of_the_row_before},
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
  EXPECT_FALSE(matches("right", false, 3001)) << "check() refuses it";
}

/// What is wrong only with other contents, or only now and then, and what a run does beside its
/// outputs: by the protection that catches it.
TEST(OpTester, CatchesShortcuts) {
  const auto says = [](std::string_view name, bool strided = false, int64_t rows = 3) {
    const testing::AssertionResult result = matches(name, strided, rows);
    EXPECT_FALSE(result) << name;
    return std::string(result.message());
  };
  const auto has = [](const std::string& message, std::string_view part) {
    return message.find(part) != message.npos ? testing::AssertionSuccess()
                                              : testing::AssertionFailure() << message;
  };
  EXPECT_TRUE(has(says("knows_first_row", false, 60), "(two elements swapped)"));
  EXPECT_TRUE(has(says("believes_a_number"), "(operands reversed)"));
  EXPECT_TRUE(has(says("keeps_its_workspace"), "(operands reversed)"));
  EXPECT_TRUE(matches("writes_what_differs", false));
  EXPECT_TRUE(has(says("remembers"), "(operands reversed)"));
  EXPECT_TRUE(has(says("works_once", false, 999), "(operands reversed)"));
  EXPECT_TRUE(has(says("skips_where_zero"), "(operands all zero)"));
  EXPECT_TRUE(has(says("skips_subnormals"), "(operands subnormal)"));
  EXPECT_TRUE(has(says("adds_to_what_is_there"), "nan, reference "));
  EXPECT_TRUE(has(says("wants_a_clear_workspace"), "nan, reference "));
  EXPECT_TRUE(has(says("reads_past"), "nan, reference "));
}

TEST(OpTester, CatchesWhatIsWrongForSomeShapes) {
  EXPECT_TRUE(matches("above_400_rows", false));
  EXPECT_TRUE(matches("two_mod_four", false));
  const auto in_any_shape = [](std::string_view name) {
    const auto make = [](auto& t, const test::RowShape& s, DType) {
      return Twice::Args{.x = t.random({s.rows, s.dim}), .y = t.output({s.rows, s.dim})};
    };
    return test::matches_in_any_shape<Twice>(test::implementation<Twice>(name), make,
                                             {.rows = &Twice::Args::x});
  };
  EXPECT_TRUE(in_any_shape("right"));
  for (const char* name : {"above_400_rows", "two_mod_four", "keeps_an_address",
                           "has_room_for_the_first", "adds_nothing_of_the_row_before"})
    EXPECT_FALSE(in_any_shape(name)) << name;
  EXPECT_NE(std::string(in_any_shape("adds_nothing_of_the_row_before").message())
                .find("has other bits when row"),
            std::string::npos);
}

TEST(OpTester, CatchesWhatIsDoneAfterwards) {
  test::OpTester<Twice> t(test::implementation<Twice>("is_late"));
  const Tensor x = t.random({3, 7});
  EXPECT_FALSE(t.matches_reference({.x = x, .y = t.output({3, 7})}));
  for (std::thread& thread : late) thread.join();
  late.clear();
}

TEST(OpTester, AnInfiniteReferenceWantsInfinity) {
  for (const auto& [name, good] : {std::pair{"right", true}, {"forty_two", false}}) {
    test::OpTester<Twice> t(test::implementation<Twice>(name));
    const Tensor x = t.random({3, 7});
    x.as<float>()[5] = 3e38f;
    EXPECT_EQ(bool{t.matches_reference({.x = x, .y = t.output({3, 7})})}, good) << name;
  }
}

TEST(OpTester, AWriteFarOutsideEndsTheProcessWithAName) {
  EXPECT_EXIT(matches("far_past", false), testing::ExitedWithCode(1),
              "twice/far_past: touched memory outside of its operands");
}

TEST(OpTester, AWriteToWhatIsReadEndsTheProcessWithAName) {
  for (const char* name : {"destroys_its_input", "changes_and_restores"}) {
    EXPECT_EXIT(matches(name, false), testing::ExitedWithCode(1),
                std::string("twice/") + name + ": .*wrote to one that it reads");
  }
}

TEST(OpTester, SoakCatchesOneCallInTenThousand) {
  const auto soaked = [](const char* name) {
    test::OpTester<Twice> t(test::implementation<Twice>(name));
    const Tensor x = t.random({3, 7});
    return t.soaked({.x = x, .y = t.output({3, 7})}, 20000);
  };
  EXPECT_TRUE(soaked("right"));
  const testing::AssertionResult wrong = soaked("wrong_once");
  EXPECT_FALSE(wrong);
  EXPECT_NE(std::string(wrong.message()).find("of 20000 has other bits than the first"),
            std::string::npos)
      << wrong.message();
}

/// In a process of its own, as it fails what runs in it.
TEST(OpTester, AnImplementationThatRanInNoCaseFailsTheProgram) {
  const auto program = [](const char* ran) {
    test::Implementations::known("some_op", "mine", Device::kCpu);
    if (ran) test::Implementations::runs("some_op", ran, Device::kCpu);
    return test::Implementations::not_run();
  };
  const auto names_it = [](const std::vector<std::string>& names) {
    return std::ranges::count(names, "some_op/mine on cpu") == 1;
  };
  EXPECT_EXIT(std::_Exit(names_it(program(nullptr)) ? 7 : 0), testing::ExitedWithCode(7), "");
  EXPECT_EXIT(std::_Exit(names_it(program("mine")) ? 7 : 0), testing::ExitedWithCode(0), "");
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

/// Errors that no element shows, in a row of 4: each is off by 0.5, as large as the reference.
TEST(Compare, LooksAtWholeRows) {
  const std::vector<float> want = {0, 0, 0, 0, 0.5f, -0.5f, 0.5f, -0.5f};
  const std::vector<float> got = {0, 0, 0, 0, 1, -1, 0, 0};
  EXPECT_FALSE(compare(got, want, 4, {.abs = 0.6}));
  EXPECT_FALSE(compare(got, want, 4, {.abs = 0.6, .row_rel = 1.1}));
  EXPECT_FALSE(compare(got, want, 4, {.abs = 0.6, .row_rel = 0.2, .row_abs = 0.41}));
  EXPECT_TRUE(compare(got, want, 4, {.abs = 0.6, .row_rel = 0.2, .row_abs = 0.39}));
  const auto mismatch = compare(got, want, 4, {.abs = 0.6, .row_rel = 0.25});
  ASSERT_TRUE(mismatch);
  EXPECT_EQ(mismatch->index, 4);
  EXPECT_EQ(mismatch->message(),
            " and the rest of its row: errors of size 0.5 in a reference of size 0.5, off by 4 "
            "tolerances");
  // What is not finite has to be the same, and a row's size leaves it out.
  const float inf = INFINITY, nan = NAN;
  EXPECT_FALSE(compare<float>({inf, nan, 1}, {inf, nan, 1}, 3, {.row_rel = 0.1}));
  EXPECT_TRUE(compare<float>({inf, 3, 1}, {inf, nan, 1}, 3, {.rel = 10, .row_rel = 10}));
  EXPECT_TRUE(compare<float>({3, 3, 1}, {inf, 3, 1}, 3, {.rel = 10, .row_rel = 10}));
}

TEST(OpTester, RunsOnMoreThanOneTarget) {
  // The baseline is always there, so on any machine with SIMD there are two.
  EXPECT_GE(test::targets().size(), 2u);
}

}  // namespace
}  // namespace vlr
