#include "kernels/rope/rope.h"

#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(RopeCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  EXPECT_TRUE(
      Rope::check({.x = f32({2, 3, 4}), .table = f32({2, 2, 2}), .y = f32({2, 3, 4})}).ok());
  EXPECT_EQ(
      Rope::check({.x = f32({2, 3, 5}), .table = f32({2, 2, 2}), .y = f32({2, 3, 5})}).message(),
      "rope: head_dim must be even, got x f32[2, 3, 5]");
  EXPECT_EQ(
      Rope::check({.x = f32({2, 3, 4}), .table = f32({2, 2, 4}), .y = f32({2, 3, 4})}).message(),
      "rope: table must be [2, 2, 2], got f32[2, 2, 4]");
  EXPECT_EQ(
      Rope::check({.x = f32({2, 3, 4}), .table = f32({2, 2, 2}), .y = f32({2, 3, 6})}).message(),
      "rope: y must have the shape of f32[2, 3, 4], got f32[2, 3, 6]");
}

TEST(RopeReference, TurnsPairs) {
  // Two pairs, (1, 3) by a quarter turn and (2, 4) by half a turn.
  const float x[] = {1, 2, 3, 4}, table[] = {/*cos*/ 0, -1, /*sin*/ 1, 0};
  float y[4];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const Rope::Args args{.x = ConstTensor(x, DType::kF32, {1, 1, 4}),
                        .table = ConstTensor(table, DType::kF32, {1, 2, 2}),
                        .y = Tensor(y, DType::kF32, {1, 1, 4})};
  ASSERT_TRUE(test::implementation<Rope>("reference").run(args, ctx).ok());
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{-3, -2, 1, -4}));
}

struct Case {
  int64_t tokens, heads, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(tokens) + "x" + std::to_string(heads) + "x" + std::to_string(dim) +
           std::string(dtype_name(dtype));
  }
};
// Halves of one pair, of a few, of 4 and of 8 in a row; heads of one vector of 16 bytes, of a warp
// of them, and of one more; more heads than a thread, a warp or a block takes.
constexpr Case kCases[] = {{0, 2, 8},    {1, 1, 2},   {3, 2, 6},   {5, 3, 72},    {40, 16, 128},
                           {300, 4, 64}, {9, 32, 72}, {3, 5, 40},  {2, 300, 128}, {2, 3, 2050},
                           {4, 70, 8},   {7, 37, 24}, {3, 2, 256}, {3, 2, 264}};

/// Cosines and sines of random angles.
Tensor random_table(OpTester<Rope>& t, const Case& c) {
  const Tensor table = t.random_dense({c.tokens, 2, c.dim / 2});
  for (int64_t token = 0; token < c.tokens; ++token) {
    float* row = table.row<float>(token);
    for (int64_t d = 0; d < c.dim / 2; ++d) {
      const float angle = 100 * row[d];
      row[d] = std::cos(angle);
      row[c.dim / 2 + d] = std::sin(angle);
    }
  }
  return table;
}

Rope::Args slice(Rope::Args some, int64_t begin, int64_t count) {
  some.x = some.x.slice(0, begin, count);
  some.table = some.table.slice(0, begin, count);
  some.y = some.y.slice(0, begin, count);
  return some;
}

using Param = std::tuple<const Impl<Rope>*, Case>;
class RopeImpl : public test::ImplTest<Param> {};

TEST_P(RopeImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<Rope> t(*impl, strided);
    const Tensor x = t.random({c.tokens, c.heads, c.dim}, c.dtype), table = random_table(t, c);
    const Tensor y = t.output({c.tokens, c.heads, c.dim}, c.dtype);
    const Rope::Args args{.x = x, .table = table, .y = y};
    EXPECT_TRUE(test::runs_everywhere<Rope>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, args, c.tokens, slice));
  }
}

/// Heads of another size make what cancelling leaves as many times as large.
TEST_P(RopeImpl, IsAsExactForHeadsOfAnotherSize) {
  const auto& [impl, c] = GetParam();
  for (double size : {1e-3, 1e3}) {
    if (size < 1 && c.dtype == DType::kF16) continue;  // whose least step stays what it is
    OpTester<Rope> t(*impl);
    const Rope::Args args{.x = t.random({c.tokens, c.heads, c.dim}, c.dtype, size),
                          .table = random_table(t, c),
                          .y = t.output({c.tokens, c.heads, c.dim}, c.dtype)};
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args, {}, size)) << size;
  }
}

/// Heads that are columns of a wider product, in whole vectors, and turned where they stand.
TEST_P(RopeImpl, TurnsColumnsOfAProduct) {
  const auto& [impl, c] = GetParam();
  OpTester<Rope> t(*impl);
  const Tensor table = random_table(t, c);
  const Tensor product = t.in_place({c.tokens, (c.heads + 1) * c.dim}, c.dtype);
  const Tensor y = product.slice(1, c.dim, c.heads * c.dim).split_last(c.dim);
  const Rope::Args args{.x = y, .table = table, .y = y};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}

/// Columns of a product of whole vectors that begin within one: run() may take another
/// implementation for them, with the same bits.
TEST_P(RopeImpl, BitsDoNotDependOnAlignment) {
  const auto& [impl, c] = GetParam();
  if (c.dtype == DType::kF32 || c.dim % 8 != 0) return;
  OpTester<Rope> t(*impl);
  const Tensor table = random_table(t, c);
  Rope::Args args{.x = t.random({c.tokens, c.heads, c.dim}, c.dtype),
                  .table = table,
                  .y = t.output({c.tokens, c.heads, c.dim}, c.dtype)};
  if (!test::takes(*impl, args)) return;
  const std::vector<std::byte> want = t.run(args);
  const Tensor product = t.random({c.tokens, c.heads * c.dim + 8}, c.dtype);
  const Tensor columns = product.slice(1, 4, c.heads * c.dim);
  for (int64_t token = 0; token < c.tokens; ++token)
    std::copy_n(args.x.row<uint16_t>(token), c.heads * c.dim, columns.row<uint16_t>(token));
  args.x = columns.split_last(c.dim);
  const auto chosen = choose<Rope>(args, test::context_of(impl->device));
  ASSERT_TRUE(chosen.ok()) << chosen.error().message();
  EXPECT_EQ(t.run(args, 2, test::takes(*impl, args) ? impl : *chosen), want) << t.error();
}

TEST_P(RopeImpl, WorksInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<Rope> t(*impl, true);
  const Tensor table = random_table(t, c), y = t.in_place({c.tokens, c.heads, c.dim}, c.dtype);
  const Rope::Args args{.x = y, .table = table, .y = y};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}

TEST_P(RopeImpl, KeepsLengths) {
  const auto& [impl, c] = GetParam();
  OpTester<Rope> t(*impl);
  const Tensor x = t.random({c.tokens, c.heads, c.dim}, c.dtype), table = random_table(t, c);
  const Tensor y = t.output({c.tokens, c.heads, c.dim}, c.dtype);
  const Rope::Args args{.x = x, .table = table, .y = y};
  if (!test::takes(*impl, args)) return;
  t.run(args);
  ASSERT_EQ(t.error(), "");
  const double allowed = 1e-5 + 4 * dtype_epsilon(c.dtype);
  for (int64_t i = 0; i < c.tokens * c.heads; ++i) {
    double before = 0, after = 0;
    for (int64_t d = i * c.dim; d < (i + 1) * c.dim; ++d) {
      before += std::pow(load_f32(x, d), 2);
      after += std::pow(load_f32(y, d), 2);
    }
    ASSERT_NEAR(after / before, 1, allowed);
  }
}
INSTANTIATE_TEST_SUITE_P(All, RopeImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Rope>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class RopeAnyShape : public test::ImplTest<const Impl<Rope>*> {};
TEST_P(RopeAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<Rope>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        const Case c{s.rows, 1 + s.choice % 5, (s.dim + 1) / 2 * 2, dtype};
        const std::vector<int64_t> dims = {c.tokens, c.heads, c.dim};
        return Rope::Args{
            .x = t.random(dims, dtype), .table = random_table(t, c), .y = t.output(dims, dtype)};
      },
      {.rows = &Rope::Args::x}));
}
INSTANTIATE_TEST_SUITE_P(All, RopeAnyShape, testing::ValuesIn(test::candidates<Rope>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
