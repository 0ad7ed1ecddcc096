#include "kernels/swiglu/swiglu.h"

#include "tests/support/op_tester.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(SwiGluCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  EXPECT_TRUE(SwiGlu::check({.gate = f32({2, 3}), .up = f32({2, 3}), .y = f32({2, 3})}).ok());
  EXPECT_EQ(SwiGlu::check({.gate = f32({2, 3}), .up = f32({2, 4}), .y = f32({2, 3})}).message(),
            "swiglu: up must have the shape of f32[2, 3], got f32[2, 4]");
  EXPECT_EQ(SwiGlu::check({.gate = f32({6}), .up = f32({6}), .y = f32({6})}).message(),
            "swiglu: gate must be [?, ?], got f32[6]");
}

TEST(SwiGluReference, IsWhatTheFormulaSays) {
  const float gate[] = {0, std::log(3.0f), -200, 200}, up[] = {5, 2, 3, 2};
  float y[4];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const SwiGlu::Args args{.gate = ConstTensor(gate, DType::kF32, {1, 4}),
                          .up = ConstTensor(up, DType::kF32, {1, 4}),
                          .y = Tensor(y, DType::kF32, {1, 4})};
  ASSERT_TRUE(test::implementation<SwiGlu>("reference").run(args, ctx).ok());
  EXPECT_EQ(y[0], 0);
  EXPECT_NEAR(y[1], std::log(3.0) * 0.75 * 2, 1e-6);  // sigmoid(ln 3) = 3 / 4
  EXPECT_NEAR(y[2], 0, 1e-30);
  EXPECT_EQ(y[3], 400);
}

struct Case {
  int64_t rows, dim;
  std::string name() const { return std::to_string(rows) + "x" + std::to_string(dim); }
};
constexpr Case kCases[] = {{0, 8}, {1, 1}, {3, 31}, {5, 16}, {7, 33}, {20, 6144}, {300, 70}};

using Param = std::tuple<const Impl<SwiGlu>*, Case>;
class SwiGluImpl : public testing::TestWithParam<Param> {};

TEST_P(SwiGluImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (double deviation : {1.0, 40.0}) {  // the second reaches where exp overflows
    OpTester<SwiGlu> t(*impl, true);
    const Tensor gate = t.random({c.rows, c.dim}, DType::kF32, deviation),
                 up = t.random({c.rows, c.dim});
    const SwiGlu::Args args{.gate = gate, .up = up, .y = t.output({c.rows, c.dim})};
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
  }
}

TEST_P(SwiGluImpl, ReadsTheHalvesOfOneProductInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<SwiGlu> t(*impl);
  const Tensor both = t.in_place({c.rows, 2 * c.dim});
  const Tensor gate = both.slice(1, 0, c.dim), up = both.slice(1, c.dim, c.dim);
  EXPECT_TRUE(t.matches_reference({.gate = gate, .up = up, .y = gate}));
}
INSTANTIATE_TEST_SUITE_P(All, SwiGluImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<SwiGlu>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

}  // namespace
}  // namespace vlr::ops
