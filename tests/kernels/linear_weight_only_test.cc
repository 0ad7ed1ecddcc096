#include "kernels/linear_weight_only/linear_weight_only.h"

#include "kernels/dequantize/dequantize.h"
#include "tests/kernels/random_weight.h"
#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(LinearWeightOnlyCheck, RefusesWhatTheContractExcludes) {
  void* const data = nullptr;  // shapes alone are looked at
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const auto bf16 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kBF16, dims);
  };
  const QuantizedWeight w{.format = WeightFormat::kInt8,
                          .rows = 4,
                          .cols = 3,
                          .codes = ConstTensor(data, DType::kI8, {4, 3}),
                          .scales = f32({4})};
  const auto message = [](const LinearWeightOnly::Args& a) {
    return LinearWeightOnly::check(a).message();
  };
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .bias = bf16({4}), .y = f32({2, 4})}), "");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .first_row = 1, .y = f32({2, 3})}), "");
  EXPECT_EQ(message({.x = bf16({2, 3}), .w = w, .residual = bf16({2, 4}), .y = bf16({2, 4})}), "");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .first_row = 2, .y = f32({2, 3})}),
            "linear_weight_only: w has 4 rows, not the 3 from row 2");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .first_row = -1, .y = f32({2, 3})}),
            "linear_weight_only: w has 4 rows, not the 3 from row -1");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = {}, .y = f32({2, 4})}),
            "linear_weight_only: w must be nf4 | fp4 | int8 | fp8 | mxfp4, got dense");
  EXPECT_EQ(message({.x = f32({2, 5}), .w = w, .y = f32({2, 4})}),
            "linear_weight_only: x must be [?, 3], got f32[2, 5]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .y = f32({1, 4})}),
            "linear_weight_only: y must be [2, ?], got f32[1, 4]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .y = f32({2, 0})}),
            "linear_weight_only: N must be at least 1, got y f32[2, 0]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .y = bf16({2, 4})}),
            "linear_weight_only: y must be f32, got bf16[2, 4]");
  EXPECT_EQ(message({.x = bf16({2, 3}), .w = w, .bias = f32({4}), .y = bf16({2, 4})}),
            "linear_weight_only: bias must be bf16, got f32[4]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .bias = f32({3}), .y = f32({2, 4})}),
            "linear_weight_only: bias must be [4], got f32[3]");
  EXPECT_EQ(message({.x = f32({2, 3}), .w = w, .residual = f32({2, 3}), .y = f32({2, 4})}),
            "linear_weight_only: residual must have the shape of f32[2, 4], got f32[2, 3]");
  EXPECT_EQ(message({.x = bf16({2, 3}),
                     .w = w,
                     .residual = bf16({2, 4}),
                     .y = bf16({2, 4}),
                     .activation = Activation::kGeluTanh}),
            "linear_weight_only: residual and activation exclude each other");
}

TEST(LinearWeightOnlyReference, IsWhatTheFormulaSays) {
  const int8_t codes[] = {9, 9, 9, /**/ 1, 0, 0, /**/ 1, 1, 1};
  const float scales[] = {1, 2, 0.5f}, x[] = {1, 2, 3, /**/ -1, 0, 2}, bias[] = {10, 20};
  const float residual[] = {100, 200, /**/ 300, 400};
  float y[4];
  Context ctx;
  LinearWeightOnly::Args a{.x = ConstTensor(x, DType::kF32, {2, 3}),
                           .w = {.format = WeightFormat::kInt8,
                                 .rows = 3,
                                 .cols = 3,
                                 .codes = ConstTensor(codes, DType::kI8, {3, 3}),
                                 .scales = ConstTensor(scales, DType::kF32, {3})},
                           .first_row = 1,
                           .y = Tensor(y, DType::kF32, {2, 2})};
  const Impl<LinearWeightOnly>& reference = test::implementation<LinearWeightOnly>("reference");
  ASSERT_EQ(LinearWeightOnly::check(a).message(), "");
  ASSERT_TRUE(reference.run(a, ctx).ok());
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{2, 3, -2, 0.5f}));
  a.bias = ConstTensor(bias, DType::kF32, {2});
  a.residual = ConstTensor(residual, DType::kF32, {2, 2});
  ASSERT_TRUE(reference.run(a, ctx).ok());
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{112, 223, 308, 420.5f}));
}

TEST(LinearWeightOnlyReference, RoundsTheWeightToTheDtypeOfX) {
  // The scale is 1 + 2^-8. In bf16, 3, 2 and 1 times that are 3 + 2^-6, 2 and 1.
  const int8_t codes[] = {3, 2, 1};
  const float scale = 1 + 0x1p-8f;
  const uint16_t x[] = {f32_to_bf16(1), f32_to_bf16(-1), f32_to_bf16(-1)};
  uint16_t y;
  Context ctx;
  const LinearWeightOnly::Args a{.x = ConstTensor(x, DType::kBF16, {1, 3}),
                                 .w = {.format = WeightFormat::kInt8,
                                       .rows = 1,
                                       .cols = 3,
                                       .codes = ConstTensor(codes, DType::kI8, {1, 3}),
                                       .scales = ConstTensor(&scale, DType::kF32, {1})},
                                 .y = Tensor(&y, DType::kBF16, {1, 1})};
  ASSERT_TRUE(test::implementation<LinearWeightOnly>("reference").run(a, ctx).ok());
  EXPECT_EQ(bf16_to_f32(y), 0x1p-6f);
}

/// What follows the product.
struct Epilogue {
  const char* name;
  bool bias = false, residual = false, in_place = false, gelu = false;
};
constexpr Epilogue kEpilogues[] = {
    {.name = "plain"},
    {.name = "bias", .bias = true},  // what a CPU's implementations take ends here
    {.name = "bias, gelu", .bias = true, .gelu = true},
    {.name = "residual", .residual = true},
    {.name = "bias, residual", .bias = true, .residual = true},
    {.name = "residual in place", .residual = true, .in_place = true},
};

/// n rows of a weight that has `first_row` more before them and two more after.
struct Case {
  int64_t m, n, k, first_row = 0;
  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + "from" +
           std::to_string(first_row);
  }
};

LinearWeightOnly::Args operands(OpTester<LinearWeightOnly>& t, const Case& c, WeightFormat format,
                                DType dtype, const Epilogue& e = kEpilogues[0]) {
  LinearWeightOnly::Args a;
  // With GELU the sums are of size about 1, so that the curve is met where it bends.
  a.x = t.random({c.m, c.k}, dtype, e.gelu ? 1 / std::sqrt(static_cast<double>(c.k)) : 1);
  int64_t rows = c.first_row + c.n + 2;
  if (rows * c.k % 2 != 0) ++rows;
  a.w = test::random_weight(t, format, rows, c.k);
  a.first_row = c.first_row;
  if (e.bias) a.bias = t.random_dense({c.n}, dtype);
  if (e.residual && !e.in_place) a.residual = t.random({c.m, c.n}, dtype, 10);
  a.y = e.in_place ? t.in_place({c.m, c.n}, dtype) : t.output({c.m, c.n}, dtype);
  if (e.in_place) a.residual = a.y;
  if (e.gelu) a.activation = Activation::kGeluTanh;
  return a;
}

/// Rows [begin, begin + count) of everything.
LinearWeightOnly::Args slice(LinearWeightOnly::Args a, int64_t begin, int64_t count) {
  a.x = a.x.slice(0, begin, count);
  a.y = a.y.slice(0, begin, count);
  if (a.residual.defined()) a.residual = a.residual.slice(0, begin, count);
  return a;
}

/// The same product for `linear`: the weight's values, rounded to the dtype of x, in an operand of
/// `t`.
Linear::Args dequantized(OpTester<LinearWeightOnly>& t, const LinearWeightOnly::Args& a) {
  const Tensor w = t.random_dense({a.y.dim(1), a.w.cols}, a.x.dtype);
  Context ctx;
  const Dequantize::Args decode{.w = a.w, .first_row = a.first_row, .y = w};
  EXPECT_TRUE(test::implementation<Dequantize>("reference").run(decode, ctx).ok());
  return {.x = a.x,
          .w = w,
          .bias = a.bias,
          .residual = a.residual,
          .y = a.y,
          .activation = a.activation};
}

// Empty, single; odd rows and columns; rows that straddle blocks; around a tile.
constexpr Case kCases[] = {{0, 8, 8},        {1, 1, 1},     {1, 1, 2, 1},   {2, 5, 269, 3},
                           {3, 33, 72, 1},   {7, 64, 64},   {15, 130, 100}, {1, 200, 512, 7},
                           {65, 40, 270, 2}, {130, 96, 256}};

using Param = std::tuple<const Impl<LinearWeightOnly>*, Case>;
class LinearWeightOnlyImpl : public test::ImplTest<Param> {};

TEST_P(LinearWeightOnlyImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  bool strided = false;
  for (const FormatInfo& info : quantized_formats()) {
    const WeightFormat format = info.format;
    if (!test::can_be(format, c.k)) continue;
    for (DType dtype : test::kActivations) {
      for (const Epilogue& e : kEpilogues) {
        strided = !strided;
        OpTester<LinearWeightOnly> t(*impl, strided);
        const LinearWeightOnly::Args a = operands(t, c, format, dtype, e);
        if (!test::takes(*impl, a)) continue;
        const std::string what = std::string(weight_format_name(format)) + " " +
                                 std::string(dtype_name(dtype)) + " " + e.name;
        EXPECT_TRUE(t.matches_reference(a)) << what;
        EXPECT_TRUE(t.same_bits_everywhere(a)) << what;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, LinearWeightOnlyImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<LinearWeightOnly>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

class LinearWeightOnlyAnyShape : public test::ImplTest<const Impl<LinearWeightOnly>*> {};
TEST_P(LinearWeightOnlyAnyShape, MatchesReference) {
  const size_t known = GetParam()->device == Device::kCpu ? 2 : std::size(kEpilogues);
  const auto make = [&](auto& t, const test::ProductShape& s, DType dtype) {
    const auto formats = quantized_formats();
    WeightFormat format = formats[static_cast<size_t>(s.choice / 8) % formats.size()].format;
    if (!test::can_be(format, s.k)) format = WeightFormat::kNf4;
    const Epilogue& e = kEpilogues[static_cast<size_t>(s.choice) % known];
    return operands(t, {s.m, s.n, s.k, s.choice % 3}, format, dtype, e);
  };
  EXPECT_TRUE(test::matches_in_any(*GetParam(), test::any_products(), make,
                                   {.rows = &LinearWeightOnly::Args::x}));
}
INSTANTIATE_TEST_SUITE_P(All, LinearWeightOnlyAnyShape,
                         testing::ValuesIn(test::candidates<LinearWeightOnly>()), test::ImplName());

TEST(LinearWeightOnly, SomethingTakesEverything) {
  for (const FormatInfo& info : quantized_formats()) {
    const WeightFormat format = info.format;
    for (DType dtype : {DType::kBF16, DType::kF16}) {
      for (const Epilogue& e : kEpilogues) {
        OpTester<LinearWeightOnly> t(test::implementation<LinearWeightOnly>("reference"));
        const LinearWeightOnly::Args a = operands(t, {3, 5, 10, 1}, format, dtype, e);
        EXPECT_TRUE(test::runs_everywhere<LinearWeightOnly>(a));
      }
    }
  }
}

/// The last shape makes several pieces.
TEST(LinearWeightOnlyBlocked, GivesTheBitsOfLinearBlocked) {
  constexpr Case kShapes[] = {{1, 40, 72, 3}, {17, 300, 270, 1}, {5, 700, 4096, 2}};
  for (const Case& c : kShapes) {
    for (const FormatInfo& info : quantized_formats()) {
      const WeightFormat format = info.format;
      for (const Epilogue& e : {kEpilogues[0], kEpilogues[1]}) {
        OpTester<LinearWeightOnly> t(test::implementation<LinearWeightOnly>("blocked"));
        const LinearWeightOnly::Args a = operands(t, c, format, DType::kF32, e);
        const Linear::Args dense = dequantized(t, a);
        OpTester<Linear> linear(test::implementation<Linear>("blocked"));
        linear.run(dense);
        ASSERT_EQ(linear.error(), "");
        const auto* y = a.y.as<std::byte>();
        const std::vector<std::byte> want(y, y + a.y.bytes());
        EXPECT_TRUE(t.run(a) == want) << c.name() << " " << weight_format_name(format) << t.error();
      }
    }
  }
}

TEST(LinearWeightOnlyBlocked, RowsDoNotDependOnBatch) {
  for (const FormatInfo& info : quantized_formats()) {
    const WeightFormat format = info.format;
    OpTester<LinearWeightOnly> t(test::implementation<LinearWeightOnly>("blocked"));
    const LinearWeightOnly::Args a =
        operands(t, {90, 70, 300, 1}, format, DType::kF32, kEpilogues[1]);
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, a, 90, slice));
  }
}

TEST(LinearWeightOnlyBlocked, SaysWhenItsWorkspaceIsTooSmall) {
  OpTester<LinearWeightOnly> t(test::implementation<LinearWeightOnly>("blocked"));
  const LinearWeightOnly::Args a = operands(t, {2, 3, 4}, WeightFormat::kInt8, DType::kF32);
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const Status s = test::implementation<LinearWeightOnly>("blocked").run(a, ctx);
  EXPECT_EQ(s.code(), Code::kInternal);
  EXPECT_EQ(s.message().find("linear_weight_only/blocked: needs a workspace of "), 0u)
      << s.message();
}

#if VLR_WITH_CUDA

std::vector<const Impl<LinearWeightOnly>*> on_gpu() {
  std::vector<const Impl<LinearWeightOnly>*> out = test::candidates<LinearWeightOnly>();
  std::erase_if(out, [](const auto* impl) { return impl->device != Device::kCuda; });
  return out;
}

/// What the `linear` that a GPU runs on the dequantised weight leaves in y.
std::vector<std::byte> bits_of_linear(OpTester<LinearWeightOnly>& t,
                                      const LinearWeightOnly::Args& a) {
  const Linear::Args dense = dequantized(t, a);
  const auto impl = choose<Linear>(dense, test::context_of(Device::kCuda));
  if (!impl) throw std::invalid_argument(impl.error().message());
  OpTester<Linear> linear(**impl);
  t.reset_outputs();
  linear.run(dense);
  EXPECT_EQ(linear.error(), "");
  const auto* y = a.y.as<std::byte>();
  return {y, y + a.y.bytes()};
}

class LinearWeightOnlyDevice : public test::ImplTest<Param> {};

TEST_P(LinearWeightOnlyDevice, GivesTheBitsOfLinear) {
  const auto& [impl, c] = GetParam();
  for (const FormatInfo& info : quantized_formats()) {
    const WeightFormat format = info.format;
    if (!test::can_be(format, c.k)) continue;
    for (DType dtype : {DType::kBF16, DType::kF16}) {
      for (const Epilogue& e : kEpilogues) {
        OpTester<LinearWeightOnly> t(*impl);
        const LinearWeightOnly::Args a = operands(t, c, format, dtype, e);
        if (!test::takes(*impl, a)) continue;
        const std::vector<std::byte> want = bits_of_linear(t, a);
        EXPECT_TRUE(t.run(a) == want)
            << weight_format_name(format) << " " << dtype_name(dtype) << " " << e.name << t.error();
      }
    }
  }
}

// Multiples of 256 deep; widths around the tiles of 64 and 128 columns, and rows around theirs.
constexpr Case kDeviceCases[] = {
    {1, 64, 256},      {1, 384, 1024, 5},  {7, 96, 512, 1},     {16, 128, 4096},
    {64, 200, 256, 3}, {65, 384, 512},     {65, 64, 2048, 9},   {128, 96, 256, 2},
    {128, 384, 1024},  {300, 200, 512, 1}, {300, 64, 1024, 32}, {33, 256, 12288},
};
INSTANTIATE_TEST_SUITE_P(All, LinearWeightOnlyDevice,
                         testing::Combine(testing::ValuesIn(on_gpu()),
                                          testing::ValuesIn(kDeviceCases)),
                         test::CaseName());

class LinearWeightOnlyDeviceRows : public test::ImplTest<const Impl<LinearWeightOnly>*> {};

/// Alone, in groups and together they have the bits of `linear` on all of them.
TEST_P(LinearWeightOnlyDeviceRows, DoNotDependOnBatch) {
  constexpr Case kShapes[] = {{300, 200, 256, 1}, {300, 64, 1024}, {300, 384, 512, 64}};
  for (const Case& c : kShapes) {
    for (DType dtype : {DType::kBF16, DType::kF16}) {
      for (const Epilogue& e : {kEpilogues[0], kEpilogues[3], kEpilogues[5]}) {
        OpTester<LinearWeightOnly> t(*GetParam());
        const LinearWeightOnly::Args all = operands(t, c, WeightFormat::kNf4, dtype, e);
        const std::vector<std::byte> want = bits_of_linear(t, all);
        const auto row_bytes = want.size() / static_cast<size_t>(c.m);
        for (int64_t begin : {int64_t{0}, int64_t{1}, int64_t{13}, c.m / 2, c.m - 1}) {
          for (int64_t rows : {1, 2, 7, 16, 17, 33, 64, 65, 100, 128, 129, 200, 257, 300}) {
            if (begin + rows > c.m) continue;
            const LinearWeightOnly::Args a = slice(all, begin, rows);
            if (!test::takes(*GetParam(), a)) continue;
            t.run(a);
            ASSERT_EQ(t.error(), "");
            ASSERT_EQ(std::memcmp(want.data() + static_cast<size_t>(begin) * row_bytes, a.y.data,
                                  static_cast<size_t>(a.y.bytes())),
                      0)
                << c.name() << " " << dtype_name(dtype) << " " << e.name << ": rows " << begin
                << " + " << rows;
          }
        }
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, LinearWeightOnlyDeviceRows, testing::ValuesIn(on_gpu()),
                         [](const auto& p) { return "Cuda_" + std::string(p.param->name); });

#endif  // VLR_WITH_CUDA

}  // namespace
}  // namespace vlr::ops
