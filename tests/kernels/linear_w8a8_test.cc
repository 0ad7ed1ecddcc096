#include "kernels/linear_w8a8/linear_w8a8.h"

#include <algorithm>

#include "kernels/quant/eight_bit.h"
#include "tests/kernels/quantized_rows.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(LinearW8A8Check, RefusesWhatTheContractExcludes) {
  void* const data = nullptr;  // shapes alone are looked at
  const auto make = [&](DType dtype, std::initializer_list<int64_t> dims) {
    return Tensor(data, dtype, dims);
  };
  const auto f32 = [&](std::initializer_list<int64_t> dims) { return make(DType::kF32, dims); };
  const auto i8 = [&](std::initializer_list<int64_t> dims) { return make(DType::kI8, dims); };
  const auto message = [](const LinearW8A8::Args& a) { return LinearW8A8::check(a).message(); };
  const LinearW8A8::Args good{.x = i8({2, 3}),
                              .x_scale = f32({2}),
                              .w = i8({4, 3}),
                              .w_scale = f32({4}),
                              .bias = f32({4}),
                              .residual = f32({2, 4}),
                              .y = f32({2, 4})};
  EXPECT_EQ(message(good), "");
  LinearW8A8::Args a = good;
  a.x = i8({6});
  EXPECT_EQ(message(a), "linear_w8a8: x must be [?, ?], got i8[6]");
  a = good;
  a.x = f32({2, 3});
  EXPECT_EQ(message(a), "linear_w8a8: x must be i8 | f8_e4m3, got f32[2, 3]");
  a = good;
  a.w = i8({4, 5});
  EXPECT_EQ(message(a), "linear_w8a8: w must be [?, 3], got i8[4, 5]");
  a = good;
  a.w = make(DType::kF8E4M3, {4, 3});
  EXPECT_EQ(message(a), "linear_w8a8: w must be i8, got f8_e4m3[4, 3]");
  a = good;
  a.x_scale = f32({4});
  EXPECT_EQ(message(a), "linear_w8a8: x_scale must be [2], got f32[4]");
  a = good;
  a.w_scale = make(DType::kBF16, {4});
  EXPECT_EQ(message(a), "linear_w8a8: w_scale must be f32, got bf16[4]");
  a = good;
  a.y = i8({2, 4});
  EXPECT_EQ(message(a), "linear_w8a8: y must be f32 | bf16 | f16, got i8[2, 4]");
  a = good;
  a.bias = make(DType::kBF16, {4});
  EXPECT_EQ(message(a), "");
  a.residual = a.y = make(DType::kF16, {2, 4});
  EXPECT_EQ(message(a), "linear_w8a8: bias must be f16, got bf16[4]");
  a = good;
  a.residual = f32({2, 3});
  EXPECT_EQ(message(a), "linear_w8a8: residual must be [2, 4], got f32[2, 3]");
  a = good;
  a.activation = Activation::kGeluTanh;
  EXPECT_EQ(message(a), "linear_w8a8: residual and activation exclude each other");
  a = good;
  a.x.strides[0] = 4;
  EXPECT_EQ(message(a), "linear_w8a8: x must be contiguous");
  a = good;
  a.x = i8({2, 0});
  a.w = i8({4, 0});
  EXPECT_EQ(message(a), "linear_w8a8: N and K must be at least 1, got w i8[4, 0]");
  a = good;
  a.x = i8({2, 1 << 17});
  a.w = i8({4, 1 << 17});
  EXPECT_EQ(message(a), "linear_w8a8: K must be below 131072 for i8, got x i8[2, 131072]");
  a.x.dtype = a.w.dtype = DType::kF8E4M3;
  EXPECT_EQ(message(a), "");
}

TEST(LinearW8A8Reference, IsWhatTheFormulaSays) {
  const int8_t x[] = {1, 2, 3, /**/ -1, 0, 127}, w[] = {1, 0, 0, /**/ 1, 1, -127};
  const float x_scale[] = {2, 0.5f}, w_scale[] = {3, 1}, bias[] = {10, 20};
  float y[] = {1, 2, 3, 4};
  Context ctx;
  LinearW8A8::Args a{.x = ConstTensor(x, DType::kI8, {2, 3}),
                     .x_scale = ConstTensor(x_scale, DType::kF32, {2}),
                     .w = ConstTensor(w, DType::kI8, {2, 3}),
                     .w_scale = ConstTensor(w_scale, DType::kF32, {2}),
                     .bias = ConstTensor(bias, DType::kF32, {2}),
                     .residual = ConstTensor(y, DType::kF32, {2, 2}),
                     .y = Tensor(y, DType::kF32, {2, 2})};
  ASSERT_TRUE(test::implementation<LinearW8A8>("reference").run(a, ctx).ok());
  // Sums 1, -378 and -1, -16130.
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{17, -734, 11.5f, -8041}));

  const uint8_t one = f32_to_e4m3(1), ninth = f32_to_e4m3(1.125f);
  a = {.x = ConstTensor(&one, DType::kF8E4M3, {1, 1}),
       .x_scale = ConstTensor(x_scale, DType::kF32, {1}),
       .w = ConstTensor(&ninth, DType::kF8E4M3, {1, 1}),
       .w_scale = ConstTensor(w_scale + 1, DType::kF32, {1}),
       .y = Tensor(y, DType::kF32, {1, 1}),
       .activation = Activation::kGeluTanh};
  ASSERT_TRUE(test::implementation<LinearW8A8>("reference").run(a, ctx).ok());
  EXPECT_NEAR(y[0], 2.22280, 1e-5);  // GELU of 2.25
}

/// What follows the product.
struct Epilogue {
  const char* name;
  bool bias = false, residual = false, in_place = false, gelu = false;
};
constexpr Epilogue kEpilogues[] = {
    {.name = "plain"},
    {.name = "bias", .bias = true},  // what a CPU's implementations take ends here
    {.name = "gelu", .gelu = true},
    {.name = "bias, gelu", .bias = true, .gelu = true},
    {.name = "residual", .residual = true},
    {.name = "bias, residual", .bias = true, .residual = true},
    {.name = "residual in place", .residual = true, .in_place = true},
    {.name = "bias, residual in place", .bias = true, .residual = true, .in_place = true},
};

/// Codes times scales are of size about 1; with GELU the sums are, so that the curve is met where
/// it bends. Scales are from half to one and a half of that.
LinearW8A8::Args operands(OpTester<LinearW8A8>& t, int64_t m, int64_t n, int64_t k, DType codes,
                          DType dtype, const Epilogue& e) {
  const double size = codes == DType::kI8 ? 40 : 100;
  const auto scales = [&](int64_t count, double around) {
    const Tensor s = t.random_dense({count});
    for (int64_t i = 0; i < count; ++i) {
      float& v = s.as<float>()[i];
      v = static_cast<float>(around) * (1 + std::clamp(v / 4, -0.5f, 0.5f));
    }
    return s;
  };
  LinearW8A8::Args a;
  a.x = t.random_dense({m, k}, codes, size);
  a.w = t.random_dense({n, k}, codes, size);
  a.x_scale = scales(m, 1 / size);
  a.w_scale = scales(n, (e.gelu ? 1 / std::sqrt(static_cast<double>(k)) : 1) / size);
  if (e.bias) a.bias = t.random_dense({n}, dtype);
  if (e.residual && !e.in_place) a.residual = t.random({m, n}, dtype, 10);
  a.y = e.in_place ? t.in_place({m, n}, dtype) : t.output({m, n}, dtype);
  if (e.in_place) a.residual = a.y;
  if (e.gelu) a.activation = Activation::kGeluTanh;
  return a;
}

/// Rows [begin, begin + rows) of everything.
LinearW8A8::Args slice(LinearW8A8::Args a, int64_t begin, int64_t rows) {
  a.x = a.x.slice(0, begin, rows);
  a.x_scale = a.x_scale.slice(0, begin, rows);
  a.y = a.y.slice(0, begin, rows);
  if (a.residual.defined()) a.residual = a.residual.slice(0, begin, rows);
  return a;
}

struct Case {
  int64_t m, n, k;
  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
  }
};

// Empty, single, odd; around a CPU's vectors (8, 16, 32), tiles (2 and 4), tasks (64) and pieces
// (256), and a GPU's tiles (64 and 128) and depths (32 to 128); rows that are no multiple of 16.
constexpr Case kCases[] = {
    {0, 8, 8},      {1, 1, 1},      {1, 129, 257},  {2, 127, 31},    {3, 17, 33},
    {5, 31, 15},    {4, 16, 16},    {7, 33, 512},   {15, 48, 255},   {63, 64, 64},
    {65, 144, 32},  {128, 256, 96}, {129, 65, 130}, {43, 5, 1000},   {300, 144, 400},
    {20, 272, 160}, {260, 20, 40},  {9, 300, 2},    {16, 256, 2048},
};

using Param = std::tuple<const Impl<LinearW8A8>*, Case>;
class LinearW8A8Impl : public test::ImplTest<Param> {};

TEST_P(LinearW8A8Impl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  bool strided = false;
  for (DType codes : test::kCodes) {
    for (DType dtype : test::kActivations) {
      for (const Epilogue& e : kEpilogues) {
        strided = !strided;
        OpTester<LinearW8A8> t(*impl, strided);
        const LinearW8A8::Args a = operands(t, c.m, c.n, c.k, codes, dtype, e);
        if (!test::takes(*impl, a)) continue;
        EXPECT_TRUE(t.matches_reference(a))
            << dtype_name(codes) << " " << dtype_name(dtype) << " " << e.name;
        EXPECT_TRUE(t.same_bits_everywhere(a))
            << dtype_name(codes) << " " << dtype_name(dtype) << " " << e.name;
      }
    }
  }
}

TEST_P(LinearW8A8Impl, RowsDoNotDependOnBatch) {
  const auto& [impl, c] = GetParam();
  for (DType codes : test::kCodes) {
    for (DType dtype : test::kActivations) {
      for (const Epilogue& e : {kEpilogues[0], kEpilogues[1], kEpilogues[3], kEpilogues[5]}) {
        OpTester<LinearW8A8> t(*impl);
        const LinearW8A8::Args a = operands(t, c.m, c.n, c.k, codes, dtype, e);
        if (!test::takes(*impl, a)) continue;
        EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, a, {a.y}, slice))
            << dtype_name(codes) << " " << dtype_name(dtype) << " " << e.name;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, LinearW8A8Impl,
                         testing::Combine(testing::ValuesIn(test::candidates<LinearW8A8>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

class LinearW8A8Exact : public test::ImplTest<const Impl<LinearW8A8>*> {};

/// Sums of i8 are those of integers, however large: columns of all 127 against rows of all 127 and
/// -127, and random ones. Scales of powers of two keep the sum visible in y.
TEST_P(LinearW8A8Exact, SumsOfIntegersAreExact) {
  const int64_t m = 5, n = 37, k = 12288;
  for (DType dtype : test::kActivations) {
    OpTester<LinearW8A8> t(*GetParam());
    LinearW8A8::Args a = operands(t, m, n, k, DType::kI8, dtype, kEpilogues[0]);
    if (!test::takes(*GetParam(), a)) continue;
    auto* x = static_cast<int8_t*>(const_cast<void*>(a.x.data));
    auto* w = static_cast<int8_t*>(const_cast<void*>(a.w.data));
    std::fill_n(x, k, int8_t{127});
    std::fill_n(x + k, k, int8_t{-127});
    std::fill_n(w, k, int8_t{127});
    for (int64_t i = 0; i < k; ++i) w[k + i] = i % 2 ? 127 : -127;
    const auto fill = [](const ConstTensor& scales, float value) {
      std::fill_n(static_cast<float*>(const_cast<void*>(scales.data)), scales.numel(), value);
    };
    fill(a.x_scale, 0x1p-4f);
    fill(a.w_scale, 0x1p-10f);
    t.run(a);
    ASSERT_EQ(t.error(), "");
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        int64_t sum = 0;
        for (int64_t d = 0; d < k; ++d) sum += int64_t{x[i * k + d]} * w[j * k + d];
        ASSERT_EQ(load_f32(a.y, i * n + j), round_to(dtype, static_cast<float>(sum) * 0x1p-14f))
            << dtype_name(dtype) << " " << i << ", " << j << ": sum " << sum;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, LinearW8A8Exact, testing::ValuesIn(test::candidates<LinearW8A8>()),
                         [](const auto& p) {
                           const bool cpu = p.param->device == Device::kCpu;
                           return (cpu ? "Cpu_" : "Cuda_") + std::string(p.param->name);
                         });

/// f8e4m3, literally: one chain of fused multiply-adds over ascending k, then scales and bias.
TEST(LinearW8A8Blocked, IsOneChainOverK) {
  OpTester<LinearW8A8> t(test::implementation<LinearW8A8>("blocked"));
  const int64_t m = 17, n = 35, k = 700;
  const LinearW8A8::Args a =
      operands(t, m, n, k, DType::kF8E4M3, DType::kF32, {.name = "bias", .bias = true});
  t.run(a);
  ASSERT_EQ(t.error(), "");
  const auto* x = a.x.as<uint8_t>();
  const auto* w = a.w.as<uint8_t>();
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t d = 0; d < k; ++d)
        sum = std::fma(e4m3_to_f32(x[i * k + d]), e4m3_to_f32(w[j * k + d]), sum);
      const float scale = a.x_scale.as<float>()[i] * a.w_scale.as<float>()[j];
      ASSERT_EQ(a.y.row<float>(i)[j], sum * scale + load_f32(a.bias, j)) << i << ", " << j;
    }
  }
}

TEST(LinearW8A8Blocked, SaysWhenItsWorkspaceIsTooSmall) {
  const Impl<LinearW8A8>& impl = test::implementation<LinearW8A8>("blocked");
  OpTester<LinearW8A8> t(impl);
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const Status s = impl.run(operands(t, 2, 3, 4, DType::kF8E4M3, DType::kF32, kEpilogues[0]), ctx);
  EXPECT_EQ(s.code(), Code::kInternal);
  EXPECT_EQ(s.message().find("linear_w8a8/blocked: needs a workspace of "), 0u) << s.message();
}

class LinearW8A8AnyShape : public test::ImplTest<const Impl<LinearW8A8>*> {};
TEST_P(LinearW8A8AnyShape, MatchesReference) {
  const size_t known = GetParam()->device == Device::kCpu ? 2 : std::size(kEpilogues);
  const auto make = [&](auto& t, const test::ProductShape& s, DType dtype) {
    const Epilogue& e = kEpilogues[static_cast<size_t>(s.choice) % known];
    return operands(t, s.m, s.n, s.k, test::kCodes[s.choice / 8 % 2], dtype, e);
  };
  EXPECT_TRUE(test::matches_in_any(*GetParam(), test::any_products(), make,
                                   {.rows = &LinearW8A8::Args::x_scale}));
}
INSTANTIATE_TEST_SUITE_P(All, LinearW8A8AnyShape, testing::ValuesIn(test::candidates<LinearW8A8>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
