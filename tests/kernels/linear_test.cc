#include "kernels/linear/linear.h"

#include "tests/support/op_tester.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(LinearCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const auto message = [](const Linear::Args& a) { return Linear::check(a).message(); };
  EXPECT_EQ(message({.x = f32({2, 3}), .w = f32({4, 3}), .bias = f32({4}), .y = f32({2, 4})}), "");
  EXPECT_EQ(message({.x = f32({6}), .w = f32({4, 3}), .bias = {}, .y = f32({2, 4})}),
            "linear: x must be [?, ?], got f32[6]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = f32({4, 5}), .bias = {}, .y = f32({2, 4})}),
            "linear: w must be [?, 3], got f32[4, 5]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = f32({4, 3}), .bias = {}, .y = f32({2, 5})}),
            "linear: y must be [2, 4], got f32[2, 5]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = f32({4, 3}), .bias = f32({3}), .y = f32({2, 4})}),
            "linear: bias must be [4], got f32[3]");
  EXPECT_EQ(message({.x = f32({2, 3}),
                     .w = Tensor(data, DType::kBF16, {4, 3}),
                     .bias = f32({4}),
                     .y = f32({2, 4})}),
            "linear: bias must be bf16, got f32[4]");
  EXPECT_EQ(
      message(
          {.x = f32({2, 3}), .w = Tensor(data, DType::kI8, {4, 3}), .bias = {}, .y = f32({2, 4})}),
      "linear: w must be f32 | bf16 | f16, got i8[4, 3]");
  EXPECT_NE(message({.x = f32({2, 0}), .w = f32({4, 0}), .bias = {}, .y = f32({2, 4})}), "");
  Tensor gap = f32({4, 3});
  gap.strides[0] = 4;
  EXPECT_EQ(message({.x = f32({2, 3}), .w = gap, .bias = {}, .y = f32({2, 4})}),
            "linear: w must be contiguous");
}

TEST(LinearReference, IsWhatTheFormulaSays) {
  const float x[] = {1, 2, 3, /**/ -1, 0, 2}, w[] = {1, 0, 0, /**/ 1, 1, 1}, bias[] = {10, 20};
  float y[4];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const Linear::Args a{.x = ConstTensor(x, DType::kF32, {2, 3}),
                       .w = ConstTensor(w, DType::kF32, {2, 3}),
                       .bias = ConstTensor(bias, DType::kF32, {2}),
                       .y = Tensor(y, DType::kF32, {2, 2})};
  ASSERT_TRUE(test::implementation<Linear>("reference").run(a, ctx).ok());
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{11, 26, 9, 21}));
}

struct Case {
  int64_t m, n, k;
  DType dtype;
  bool bias;
  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) +
           std::string(dtype_name(dtype)) + (bias ? "bias" : "");
  }
};

// Empty, single, odd; around the tile heights (6 and 14 rows), the panel widths (16 to 128 columns)
// and the depth (256); tall and wide; shapes of the models.
constexpr Case kCases[] = {
    {0, 8, 8, DType::kF32, true},        {1, 1, 1, DType::kF32, false},
    {1, 1, 1, DType::kBF16, true},       {1, 129, 257, DType::kBF16, true},
    {2, 127, 31, DType::kF16, false},    {3, 17, 33, DType::kBF16, false},
    {5, 31, 15, DType::kF32, true},      {6, 16, 16, DType::kF16, true},
    {7, 33, 512, DType::kBF16, true},    {13, 64, 300, DType::kF32, false},
    {14, 32, 256, DType::kBF16, true},   {15, 48, 255, DType::kF16, true},
    {29, 130, 77, DType::kBF16, true},   {43, 5, 1000, DType::kF32, true},
    {600, 20, 40, DType::kBF16, true},   {9, 300, 2, DType::kF32, false},
    {50, 256, 512, DType::kBF16, false}, {130, 432, 144, DType::kBF16, true},
    {16, 1024, 256, DType::kBF16, true}, {3, 40, 700, DType::kF16, true},
};

using Param = std::tuple<const Impl<Linear>*, Case>;
class LinearImpl : public testing::TestWithParam<Param> {};

TEST_P(LinearImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<Linear> t(*impl, strided);
    const Tensor x = t.random({c.m, c.k});
    const Tensor w = t.random_dense({c.n, c.k}, c.dtype);
    const Tensor bias = c.bias ? t.random_dense({c.n}, c.dtype) : Tensor();
    EXPECT_TRUE(t.matches_reference({.x = x, .w = w, .bias = bias, .y = t.output({c.m, c.n})}));
  }
}
INSTANTIATE_TEST_SUITE_P(All, LinearImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Linear>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

TEST(LinearBlocked, SameBitsOnEveryTargetAndThreadCount) {
  for (const Case& c : kCases) {
    OpTester<Linear> t(test::implementation<Linear>("blocked"), true);
    const Tensor x = t.random({c.m, c.k});
    const Tensor w = t.random_dense({c.n, c.k}, c.dtype);
    const Tensor bias = c.bias ? t.random_dense({c.n}, c.dtype) : Tensor();
    EXPECT_TRUE(t.same_bits_everywhere({.x = x, .w = w, .bias = bias, .y = t.output({c.m, c.n})}))
        << c.name();
  }
}

/// The contract, literally: one chain of fused multiply-adds over ascending k, then the bias.
TEST(LinearBlocked, IsOneChainOverK) {
  OpTester<Linear> t(test::implementation<Linear>("blocked"));
  const int64_t m = 17, n = 35, k = 700;
  const Tensor x = t.random({m, k}), w = t.random_dense({n, k}, DType::kBF16),
               bias = t.random_dense({n}, DType::kBF16);
  const Tensor y = t.output({m, n});
  t.run({.x = x, .w = w, .bias = bias, .y = y});
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t d = 0; d < k; ++d)
        sum = std::fma(x.row<float>(i)[d], load_f32(w, j * k + d), sum);
      ASSERT_EQ(y.row<float>(i)[j], sum + load_f32(bias, j)) << i << ", " << j;
    }
  }
}

/// A row has the same bits alone as in any batch, wherever it stands there.
TEST(LinearBlocked, RowDoesNotDependOnBatch) {
  const Case shapes[] = {{90, 70, 300, DType::kBF16, true}, {700, 33, 65, DType::kF16, false}};
  for (const Case& c : shapes) {
    OpTester<Linear> t(test::implementation<Linear>("blocked"));
    const Tensor x = t.random({c.m, c.k}), w = t.random_dense({c.n, c.k}, c.dtype);
    const Tensor bias = c.bias ? t.random_dense({c.n}, c.dtype) : Tensor();
    const Tensor y = t.output({c.m, c.n});
    const std::vector<std::byte> all = t.run({.x = x, .w = w, .bias = bias, .y = y});
    const auto row_bytes = static_cast<size_t>(c.n) * 4;
    for (int64_t begin : {int64_t{0}, int64_t{1}, int64_t{13}, c.m - 1}) {
      for (int64_t rows : {1, 2, 3, 7, 15, 16, 60}) {
        if (begin + rows > c.m) continue;
        t.run({.x = x.slice(0, begin, rows), .w = w, .bias = bias, .y = y.slice(0, begin, rows)});
        const size_t from = static_cast<size_t>(begin) * row_bytes;
        ASSERT_EQ(std::memcmp(all.data() + from, y.row<std::byte>(0) + from,
                              row_bytes * static_cast<size_t>(rows)),
                  0)
            << c.name() << ": rows " << begin << " + " << rows;
      }
    }
  }
}

TEST(LinearBlocked, CarriesInfinityAndNan) {
  OpTester<Linear> t(test::implementation<Linear>("blocked"));
  const Tensor x = t.random({3, 40}), w = t.random_dense({20, 40}, DType::kF16);
  x.row<float>(1)[7] = INFINITY;
  w.as<uint16_t>()[5 * 40 + 3] = 0x7e00;  // NaN
  w.as<uint16_t>()[6 * 40 + 3] = 0x0001;  // the smallest subnormal
  w.as<uint16_t>()[6 * 40 + 4] = 0xfc00;  // -infinity
  EXPECT_TRUE(t.matches_reference({.x = x, .w = w, .bias = {}, .y = t.output({3, 20})}));
}

TEST(LinearBlocked, SaysWhenItsWorkspaceIsTooSmall) {
  OpTester<Linear> t(test::implementation<Linear>("blocked"));
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const Linear::Args a{
      .x = t.random({2, 4}), .w = t.random_dense({3, 4}), .bias = {}, .y = t.output({2, 3})};
  const Status s = test::implementation<Linear>("blocked").run(a, ctx);
  EXPECT_EQ(s.code(), Code::kInternal);
  EXPECT_EQ(s.message().find("linear/blocked: needs a workspace of "), 0u) << s.message();
}

}  // namespace
}  // namespace vlr::ops
