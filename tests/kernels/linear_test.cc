#include "kernels/linear/linear.h"

#include "tests/kernels/row_ops.h"

#if VLR_WITH_CUDA
#include "kernels/cuda/blas.h"
#include "kernels/cuda/memory.h"
#endif

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(LinearCheck, RefusesWhatTheContractExcludes) {
  void* const data = nullptr;  // shapes alone are looked at
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
  const auto bf16 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kBF16, dims);
  };
  EXPECT_EQ(message({.x = bf16({2, 3}), .w = bf16({4, 3}), .bias = {}, .y = bf16({2, 4})}), "");
  EXPECT_EQ(message({.x = bf16({2, 3}), .w = f32({4, 3}), .bias = {}, .y = bf16({2, 4})}),
            "linear: w must be bf16, got f32[4, 3]");
  EXPECT_EQ(message({.x = bf16({2, 3}), .w = bf16({4, 3}), .bias = {}, .y = f32({2, 4})}),
            "linear: y must be bf16, got f32[2, 4]");
  EXPECT_EQ(message({.x = bf16({2, 3}),
                     .w = bf16({4, 3}),
                     .bias = {},
                     .residual = bf16({2, 3}),
                     .y = bf16({2, 4})}),
            "linear: residual must be [2, 4], got bf16[2, 3]");
  EXPECT_EQ(message({.x = bf16({2, 3}),
                     .w = bf16({4, 3}),
                     .bias = {},
                     .residual = bf16({2, 4}),
                     .y = bf16({2, 4}),
                     .activation = Activation::kGeluTanh}),
            "linear: residual and activation exclude each other");
  Tensor gap = f32({4, 3});
  gap.strides[0] = 4;
  EXPECT_EQ(message({.x = f32({2, 3}), .w = gap, .bias = {}, .y = f32({2, 4})}),
            "linear: w must be contiguous");
}

TEST(LinearCheck, RefusesOverlap) {
  float data[64] = {};
  const auto at = [&](int64_t begin, std::initializer_list<int64_t> dims) {
    return Tensor(data + begin, DType::kF32, dims);
  };
  const auto message = [](const Linear::Args& a) { return Linear::check(a).message(); };
  Linear::Args a{.x = at(0, {2, 3}), .w = at(6, {4, 3}), .bias = at(18, {4}), .y = at(22, {2, 4})};
  EXPECT_EQ(message(a), "");
  a.residual = a.y;
  EXPECT_EQ(message(a), "");
  a.residual = at(24, {2, 4});
  EXPECT_EQ(message(a), "linear: y must not overlap residual, which begins 8 bytes from it");
  a.residual = at(30, {2, 4});
  EXPECT_EQ(message(a), "");
  a.y = at(20, {2, 4});
  EXPECT_EQ(message(a), "linear: y must not overlap bias, which begins -8 bytes from it");
  a.y = at(4, {2, 4});
  EXPECT_EQ(message(a), "linear: y must not overlap x, which begins -16 bytes from it");
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

TEST(LinearReference, AddsActivationAndResidualLast) {
  // 1 and 2^-9 together are a bf16 only after the residual took the 1 away: one rounding.
  const uint16_t x[] = {f32_to_bf16(1), f32_to_bf16(0x1p-9f)}, w[] = {0x3f80, 0x3f80};
  const uint16_t bias[] = {f32_to_bf16(4)};
  uint16_t y[] = {f32_to_bf16(-5)};
  Context ctx;
  Linear::Args a{.x = ConstTensor(x, DType::kBF16, {1, 2}),
                 .w = ConstTensor(w, DType::kBF16, {1, 2}),
                 .bias = ConstTensor(bias, DType::kBF16, {1}),
                 .residual = ConstTensor(y, DType::kBF16, {1, 1}),
                 .y = Tensor(y, DType::kBF16, {1, 1})};
  ASSERT_TRUE(test::implementation<Linear>("reference").run(a, ctx).ok());
  EXPECT_EQ(bf16_to_f32(y[0]), 0x1p-9f);
  a.bias = a.residual = {};
  a.activation = Activation::kGeluTanh;  // of 1 + 2^-9
  ASSERT_TRUE(test::implementation<Linear>("reference").run(a, ctx).ok());
  EXPECT_EQ(y[0], f32_to_bf16(0.84331f));
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
class LinearImpl : public test::ImplTest<Param> {};

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

TEST_P(LinearImpl, IsAsExactForOperandsOfAnotherSize) {
  const auto& [impl, c] = GetParam();
  for (double size : {1e-6, 1e6}) {
    OpTester<Linear> t(*impl);
    const Tensor x = t.random({c.m, c.k}, DType::kF32, size);
    const Tensor w = t.random_dense({c.n, c.k}, c.dtype);
    const Tensor bias = c.bias ? t.random_dense({c.n}, c.dtype) : Tensor();
    // Terms are of the size of x times w, or of the bias.
    const double terms = c.bias ? std::max(size, 1.0) : size;
    EXPECT_TRUE(
        t.matches_reference({.x = x, .w = w, .bias = bias, .y = t.output({c.m, c.n})}, {}, terms))
        << size;
  }
}

/// Candidates on a device.
std::vector<const Impl<Linear>*> candidates_on(Device device) {
  std::vector<const Impl<Linear>*> out = test::candidates<Linear>();
  std::erase_if(out, [device](const auto* impl) { return impl->device != device; });
  return out;
}
INSTANTIATE_TEST_SUITE_P(All, LinearImpl,
                         testing::Combine(testing::ValuesIn(candidates_on(Device::kCpu)),
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

/// Operands of size about 1; with GELU the sums are too, so that the curve is met where it bends.
Linear::Args operands(OpTester<Linear>& t, int64_t m, int64_t n, int64_t k, DType dtype,
                      const Epilogue& e) {
  Linear::Args a;
  a.x = t.random({m, k}, dtype);
  a.w = t.random_dense({n, k}, dtype, e.gelu ? 1 / std::sqrt(static_cast<double>(k)) : 1);
  if (e.bias) a.bias = t.random_dense({n}, dtype);
  if (e.residual && !e.in_place) a.residual = t.random({m, n}, dtype, 10);
  a.y = e.in_place ? t.in_place({m, n}, dtype) : t.output({m, n}, dtype);
  if (e.in_place) a.residual = a.y;
  if (e.gelu) a.activation = Activation::kGeluTanh;
  return a;
}

class LinearAnyShape : public test::ImplTest<const Impl<Linear>*> {};
TEST_P(LinearAnyShape, MatchesReference) {
  const size_t known = GetParam()->device == Device::kCpu ? 2 : std::size(kEpilogues);
  const auto make = [&](auto& t, const test::ProductShape& s, DType dtype) {
    return operands(t, s.m, s.n, s.k, dtype, kEpilogues[static_cast<size_t>(s.choice) % known]);
  };
  EXPECT_TRUE(
      test::matches_in_any(*GetParam(), test::any_products(), make, {.rows = &Linear::Args::x}));
}
INSTANTIATE_TEST_SUITE_P(All, LinearAnyShape, testing::ValuesIn(test::candidates<Linear>()),
                         test::ImplName());

/// Right up to 400 rows, and in all but one element above.
Status above_400_rows(const Linear::Args& a, Context& ctx) {
  Status s = test::implementation<Linear>("reference").run(a, ctx);
  if (a.x.dim(0) > 400) {
    const Tensor last = a.y.slice(0, a.x.dim(0) - 1, 1);
    store_f32(last, 0, load_f32(last, 0) * 1.05f + 0.5f);
  }
  return s;
}
TEST(LinearShapes, HaveManyRows) {
  const Impl<Linear> planted{"planted", Device::kCpu, above_400_rows};
  const auto make = [](auto& t, const test::ProductShape& s, DType dtype) {
    return operands(t, s.m, s.n, s.k, dtype, kEpilogues[0]);
  };
  const testing::AssertionResult wrong = test::matches_in_any(planted, test::any_products(), make);
  EXPECT_FALSE(wrong);
  EXPECT_NE(std::string(wrong.message()).find(", 0] = "), std::string::npos) << wrong.message();
}

#if VLR_WITH_CUDA

/// Rows [begin, begin + rows) of everything.
Linear::Args slice(Linear::Args a, int64_t begin, int64_t rows) {
  a.x = a.x.slice(0, begin, rows);
  a.y = a.y.slice(0, begin, rows);
  if (a.residual.defined()) a.residual = a.residual.slice(0, begin, rows);
  return a;
}

struct DeviceCase {
  int64_t m, n, k;
  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
  }
};

// Empty, single; around the tiles (64 and 128), the depth of a stage (32 and 64) and of a step
// (16); rows that are no multiple of 16 bytes.
constexpr DeviceCase kDeviceCases[] = {
    {0, 8, 8},     {1, 8, 8},       {1, 256, 512},   {5, 200, 72},    {16, 72, 144},   {63, 64, 64},
    {65, 136, 24}, {127, 144, 256}, {128, 256, 200}, {129, 432, 144}, {300, 144, 432}, {1, 1, 1},
    {3, 7, 9},     {5, 33, 130},    {129, 65, 77},   {64, 16, 37},    {130, 131, 40},
};

using DeviceParam = std::tuple<const Impl<Linear>*, DeviceCase>;
class LinearDeviceImpl : public test::ImplTest<DeviceParam> {};

TEST_P(LinearDeviceImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    bool strided = dtype == DType::kF16;
    for (const Epilogue& e : kEpilogues) {
      strided = !strided;
      OpTester<Linear> t(*impl, strided);
      const Linear::Args a = operands(t, c.m, c.n, c.k, dtype, e);
      if (!test::takes(*impl, a)) continue;
      EXPECT_TRUE(t.matches_reference(a)) << dtype_name(dtype) << " " << e.name;
      EXPECT_TRUE(t.same_bits_everywhere(a)) << dtype_name(dtype) << " " << e.name;
    }
  }
}
TEST_P(LinearDeviceImpl, IsAsExactForOperandsOfAnotherSize) {
  const auto& [impl, c] = GetParam();
  for (double size : {1e-3, 1e3}) {
    OpTester<Linear> t(*impl);
    Linear::Args a;
    a.x = t.random({c.m, c.k}, DType::kBF16, size);
    a.w = t.random_dense({c.n, c.k}, DType::kBF16);
    a.y = t.output({c.m, c.n}, DType::kBF16);
    if (!test::takes(*impl, a)) continue;
    EXPECT_TRUE(t.matches_reference(a, {}, size)) << size;
  }
}
INSTANTIATE_TEST_SUITE_P(All, LinearDeviceImpl,
                         testing::Combine(testing::ValuesIn(candidates_on(Device::kCuda)),
                                          testing::ValuesIn(kDeviceCases)),
                         test::CaseName());

/// The rows of `a` alone, in groups and together: the same bits, whatever runs them.
void expect_rows_do_not_depend_on_batch(OpTester<Linear>& t, const Linear::Args& a,
                                        std::string_view what) {
  const std::vector<std::byte> all = t.run(a);
  ASSERT_EQ(t.error(), "") << what;
  const auto row_bytes = static_cast<size_t>(a.y.dim(1) * dtype_bytes(a.y.dtype));
  const int64_t m = a.x.dim(0);
  for (int64_t begin : {int64_t{0}, int64_t{1}, int64_t{13}, m / 2, m - 1}) {
    for (int64_t rows : {1, 2, 7, 16, 17, 33, 64, 65, 100, 128, 129, 200, 257, 700}) {
      if (begin + rows > m) continue;
      t.run(slice(a, begin, rows));
      ASSERT_EQ(t.error(), "") << what;
      for (int64_t r = begin; r < begin + rows; ++r) {
        ASSERT_EQ(std::memcmp(all.data() + static_cast<size_t>(r) * row_bytes, a.y.row<uint16_t>(r),
                              row_bytes),
                  0)
            << what << ": row " << r << " of " << begin << " + " << rows;
      }
    }
  }
}

class LinearDeviceRows : public test::ImplTest<const Impl<Linear>*> {};

TEST_P(LinearDeviceRows, DoNotDependOnBatch) {
  // The last one has enough tiles for mma's large one.
  constexpr DeviceCase kShapes[] = {{300, 144, 200}, {300, 64, 1024}, {1500, 1544, 104}};
  for (const DeviceCase& c : kShapes) {
    for (DType dtype : {DType::kBF16, DType::kF16}) {
      for (const Epilogue& e : {kEpilogues[0], kEpilogues[3], kEpilogues[7]}) {
        OpTester<Linear> t(*GetParam());
        const Linear::Args a = operands(t, c.m, c.n, c.k, dtype, e);
        if (!test::takes(*GetParam(), a)) continue;
        expect_rows_do_not_depend_on_batch(t, a, c.name() + " " + e.name);
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, LinearDeviceRows, testing::ValuesIn(candidates_on(Device::kCuda)),
                         [](const auto& p) { return "Cuda_" + std::string(p.param->name); });

const Impl<Linear>& on_gpu(std::string_view name) {
  for (const Impl<Linear>* impl : candidates_on(Device::kCuda))
    if (impl->name == name) return *impl;
  throw std::invalid_argument("no implementation " + std::string(name));
}

/// Scalar loads and stores give the bits that 16-byte ones do.
TEST(CudaLinearMma, BitsDoNotDependOnAlignment) {
  const int64_t m = 150, n = 136, k = 200;
  for (const Epilogue& e : kEpilogues) {
    OpTester<Linear> t(on_gpu("mma"));
    const Linear::Args a = operands(t, m, n, k, DType::kBF16, e);
    const std::vector<std::byte> want = t.run(a);
    ASSERT_EQ(t.error(), "");
    // The same x in rows that lie k + 3 elements apart.
    Linear::Args b = a;
    const Tensor wide = t.random_dense({m, k + 3}, DType::kBF16).slice(1, 0, k);
    for (int64_t i = 0; i < m; ++i) {
      std::memcpy(wide.row<uint16_t>(i), a.x.row<uint16_t>(i), static_cast<size_t>(2 * k));
    }
    b.x = wide;
    EXPECT_EQ(t.run(b), want) << e.name << t.error();
  }
}

/// Shapes that are too large for the reference: two implementations that have nothing in common.
TEST(CudaLinearMma, AgreesWithCublasLt) {
  const int64_t m = 1500, n = 1544, k = 1000;
  for (const Epilogue& e : {kEpilogues[0], kEpilogues[3], kEpilogues[7]}) {
    OpTester<Linear> t(on_gpu("mma"));
    const Linear::Args a = operands(t, m, n, k, DType::kBF16, e);
    const std::vector<std::byte> mma = t.run(a);
    ASSERT_EQ(t.error(), "");
    const std::vector<std::byte> lt = t.run(a, 1, &on_gpu("cublaslt"));
    ASSERT_EQ(t.error(), "");
    const Tolerance tolerance = Linear::tolerance(a);
    const ConstTensor got(mma.data(), DType::kBF16, {m, n}), want(lt.data(), DType::kBF16, {m, n});
    for (int64_t i = 0; i < m * n; ++i) {
      const double g = load_f32(got, i), w = load_f32(want, i);
      ASSERT_LE(std::fabs(g - w), 2 * (tolerance.rel * std::fabs(w) + tolerance.abs))
          << e.name << " element " << i << ": " << g << ", " << w;
    }
  }
}

/// A Blas of one's own, with device memory to measure in.
struct Measured {
  std::unique_ptr<cuda::Blas> blas;
  std::byte *scratch = nullptr, *workspace = nullptr;
  Context ctx;

  Status init(bool exact, int64_t max_outputs) {
    VLR_ASSIGN_OR_RETURN(blas, cuda::Blas::create(exact));
    VLR_ASSIGN_OR_RETURN(workspace, cuda::allocate_device(blas->workspace_bytes()));
    const int64_t bytes = blas->measuring_bytes(max_outputs);
    VLR_ASSIGN_OR_RETURN(scratch, cuda::allocate_device(bytes));
    ctx.device = Device::kCuda;
    ctx.blas = blas.get();
    ctx.workspace = {workspace, static_cast<size_t>(blas->workspace_bytes())};
    blas->begin_measuring({scratch, static_cast<size_t>(bytes)});
    return {};
  }
  ~Measured() {
    if (scratch) cuda::free_device(scratch);
    if (workspace) cuda::free_device(workspace);
  }
  Status run(const Linear::Args& a) {
    VLR_RETURN_IF_ERROR(on_gpu("cublaslt").run(a, ctx));
    return test::synchronize(Device::kCuda);
  }
};

TEST(CudaLinearCublasLt, BitsDoNotDependOnMeasuredChoices) {
  const int64_t m = 2048, n = 264, k = 512;
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    for (const Epilogue& e : kEpilogues) {
      if (e.in_place) continue;  // measured below; runs would add up
      OpTester<Linear> t(on_gpu("cublaslt"));
      const Linear::Args a = operands(t, m, n, k, dtype, e);
      Measured measured;
      Status s = measured.init(true, m * n);
      ASSERT_TRUE(s.ok()) << s.message();
      for (int64_t top : cuda::Blas::buckets()) {
        if (top > m || top == 96) continue;  // 96 has to borrow
        s = measured.run(slice(a, 0, top));
        ASSERT_TRUE(s.ok()) << s.message();
      }
      measured.blas->end_measuring();
      const std::string choices = measured.blas->describe();
      EXPECT_EQ(choices.find("not measured"), std::string::npos) << choices;
      s = measured.run(a);
      ASSERT_TRUE(s.ok()) << s.message();
      const std::vector<std::byte> all(a.y.as<std::byte>(), a.y.as<std::byte>() + a.y.bytes());
      for (int64_t rows : {1,   2,   8,   16,  17,  31,  33,  64,  65,   90,   96,   97,
                           128, 129, 200, 256, 300, 384, 500, 768, 1000, 1025, 1536, 2047}) {
        const int64_t begin = (m - rows) / 3;
        std::memset(a.y.data, 0xFF, static_cast<size_t>(a.y.bytes()));
        s = measured.run(slice(a, begin, rows));
        ASSERT_TRUE(s.ok()) << s.message();
        ASSERT_EQ(std::memcmp(a.y.row<uint16_t>(begin), all.data() + begin * n * 2,
                              static_cast<size_t>(rows * n * 2)),
                  0)
            << rows << " rows, " << e.name << "\n"
            << choices;
      }
    }
  }
}

TEST(CudaLinearCublasLt, MeasuresInPlaceWithLittleScratchAndOnce) {
  OpTester<Linear> t(on_gpu("cublaslt"));
  const Linear::Args a = operands(t, 200, 64, 128, DType::kBF16, kEpilogues[6]);
  const std::vector<std::byte> y(a.y.as<std::byte>(), a.y.as<std::byte>() + a.y.bytes());
  Measured measured;
  Status s = measured.init(true, 64 * 50);  // rows of scratch for a quarter of them
  ASSERT_TRUE(s.ok()) << s.message();
  // What is there for the largest L2 would do for all of them on a card with a smaller one.
  int l2_bytes = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, 0), cudaSuccess);
  const int64_t slack = 2 * ((int64_t{128} << 20) - l2_bytes);
  measured.blas->begin_measuring(
      {measured.scratch,
       static_cast<size_t>(measured.blas->measuring_bytes(64 * 50) - std::max<int64_t>(0, slack))});
  s = measured.run(a);
  ASSERT_TRUE(s.ok()) << s.message();
  const std::string choices = measured.blas->describe();
  EXPECT_NE(choices.find("64 x 128 bf16 residual: id "), std::string::npos) << choices;
  EXPECT_NE(choices.find("; M 256: "), std::string::npos) << choices;
  s = measured.run(a);
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(measured.blas->describe(), choices);
  EXPECT_EQ(std::vector<std::byte>(a.y.as<std::byte>(), a.y.as<std::byte>() + a.y.bytes()), y);

  s = measured.run(operands(t, 2, 1 << 15, 8, DType::kBF16, kEpilogues[0]));
  EXPECT_EQ(s.code(), Code::kOutOfMemory) << s.message();
}

TEST(CudaLinearCublasLt, FastMatchesReference) {
  for (bool measure : {false, true}) {
    for (const Epilogue& e : kEpilogues) {
      OpTester<Linear> t(on_gpu("cublaslt"));
      const Linear::Args a = operands(t, 20, 64, 2048, DType::kBF16, e);
      Measured measured;
      Status s = measured.init(false, 20 * 64);
      ASSERT_TRUE(s.ok()) << s.message();
      t.run(a, 1, &test::implementation<Linear>("reference"));
      const std::vector<std::byte> want(a.y.as<std::byte>(), a.y.as<std::byte>() + a.y.bytes());
      if (measure) {
        OpTester<Linear> other(on_gpu("cublaslt"));  // the same problem, operands to be spoiled
        s = measured.run(operands(other, 20, 64, 2048, DType::kBF16, e));
        ASSERT_TRUE(s.ok()) << s.message();
      }
      measured.blas->end_measuring();
      t.reset_outputs();
      s = measured.run(a);
      ASSERT_TRUE(s.ok()) << s.message();
      const Tolerance tolerance = Linear::tolerance(a);
      const ConstTensor reference(want.data(), DType::kBF16, {20, 64});
      for (int64_t i = 0; i < 20 * 64; ++i) {
        const double got = load_f32(a.y, i), ref = load_f32(reference, i);
        ASSERT_LE(std::fabs(got - ref), tolerance.rel * std::fabs(ref) + tolerance.abs)
            << e.name << "\n"
            << measured.blas->describe();
      }
    }
  }
}

#endif  // VLR_WITH_CUDA

}  // namespace
}  // namespace vlr::ops
