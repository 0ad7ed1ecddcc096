#include "kernels/quantize_rows/quantize_rows.h"

#include "kernels/quant/eight_bit.h"
#include "tests/kernels/quantized_rows.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(QuantizeRowsCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const auto i8 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kI8, dims);
  };
  const auto message = [](const QuantizeRows::Args& a) { return QuantizeRows::check(a).message(); };
  QuantizeRows::Args good{.x = f32({2, 3}),
                          .q = i8({2, 3}),
                          .scale = f32({2}),
                          .outliers = f32({2, 3}),
                          .threshold = 6};
  EXPECT_EQ(message(good), "");
  EXPECT_EQ(message({.x = f32({2, 3}), .q = i8({2, 3}), .scale = f32({2})}), "");
  EXPECT_EQ(message({.x = f32({6}), .q = i8({2, 3}), .scale = f32({2})}),
            "quantize_rows: x must be [?, ?], got f32[6]");
  EXPECT_EQ(message({.x = f32({2, 3}), .q = i8({2, 4}), .scale = f32({2})}),
            "quantize_rows: q must have the shape of f32[2, 3], got i8[2, 4]");
  EXPECT_EQ(message({.x = f32({2, 3}), .q = f32({2, 3}), .scale = f32({2})}),
            "quantize_rows: q must be i8 | f8_e4m3, got f32[2, 3]");
  EXPECT_EQ(message({.x = f32({2, 3}), .q = i8({2, 3}), .scale = f32({3})}),
            "quantize_rows: scale must be [2], got f32[3]");
  EXPECT_EQ(message({.x = i8({2, 3}), .q = i8({2, 3}), .scale = f32({2})}),
            "quantize_rows: x must be f32 | bf16 | f16, got i8[2, 3]");
  EXPECT_EQ(message({.x = f32({2, 0}), .q = i8({2, 0}), .scale = f32({2})}),
            "quantize_rows: K must be at least 1, got f32[2, 0]");
  QuantizeRows::Args a = good;
  a.q.strides[0] = 4;
  EXPECT_EQ(message(a), "quantize_rows: q must be contiguous");
  a = good;
  a.outliers.strides[0] = 4;
  EXPECT_EQ(message(a), "quantize_rows: outliers must be contiguous");
  a = good;
  a.outliers.dtype = DType::kBF16;
  EXPECT_EQ(message(a), "quantize_rows: outliers must be f32, got bf16[2, 3]");
  a = good;
  a.threshold = 0;
  EXPECT_EQ(message(a), "quantize_rows: threshold must be above 0");
  a = good;
  a.x.strides[1] = 2;
  EXPECT_EQ(message(a), "quantize_rows: x must be contiguous in its last axis, got stride 2");
}

/// What the reference makes of rows of f32.
struct Quantized {
  std::vector<float> codes, scales, outliers;
};
Quantized quantize(std::vector<float> x, int64_t rows, DType codes, float threshold = 0,
                   bool by_column = false) {
  const int64_t dim = static_cast<int64_t>(x.size()) / rows;
  std::vector<uint8_t> q(x.size());
  Quantized out{.codes = {},
                .scales = std::vector<float>(static_cast<size_t>(rows)),
                .outliers = std::vector<float>(threshold > 0 ? x.size() : 0)};
  QuantizeRows::Args args{.x = ConstTensor(x.data(), DType::kF32, {rows, dim}),
                          .q = Tensor(q.data(), codes, {rows, dim}),
                          .scale = Tensor(out.scales.data(), DType::kF32, {rows}),
                          .threshold = threshold,
                          .by_column = by_column};
  if (threshold > 0) args.outliers = Tensor(out.outliers.data(), DType::kF32, {rows, dim});
  Context ctx;
  EXPECT_EQ(QuantizeRows::check(args).message(), "");
  EXPECT_TRUE(test::implementation<QuantizeRows>("reference").run(args, ctx).ok());
  for (uint8_t code : q)
    out.codes.push_back(codes == DType::kI8 ? static_cast<int8_t>(code) : e4m3_to_f32(code));
  return out;
}
using Floats = std::vector<float>;

TEST(QuantizeRowsReference, IsWhatTheFormulaSays) {
  const Floats x = {127, 64, -1, 0, /**/ 0.5f, -1, 0.25f, 0};
  const Quantized i8 = quantize(x, 2, DType::kI8);
  EXPECT_EQ(i8.codes, (Floats{127, 64, -1, 0, /**/ 64, -127, 32, 0}));  // 63.5 and 31.75
  EXPECT_EQ(i8.scales, (Floats{1, 1.0f / 127}));
  const Quantized f8 = quantize(x, 2, DType::kF8E4M3);
  // 64 * 448 / 127 = 225.8 and -3.53 among neighbours 16 and 0.25 apart.
  EXPECT_EQ(f8.codes, (Floats{448, 224, -3.5f, 0, /**/ 224, -448, 112, 0}));
  EXPECT_EQ(f8.scales, (Floats{127.0f / 448, 1.0f / 448}));
}

TEST(QuantizeRowsReference, RoundsTiesToEven) {
  EXPECT_EQ(quantize({127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f}, 1, DType::kI8).codes,
            (Floats{127, 0, 2, 2, 0, -2, -2}));
  // Steps of 2 from 16, of 32 from 256, and of 2^-9 below 2^-6.
  EXPECT_EQ(quantize({448, 17, -19, 304, 0x1p-10f, 0x3p-10f}, 1, DType::kF8E4M3).codes,
            (Floats{448, 16, -20, 320, 0, 0x1p-8f}));
}

TEST(QuantizeRowsReference, TakesTinyRowsForZeros) {
  // Of 1e-38 the inverse scale would be infinite.
  EXPECT_EQ(quantize({1e-38f, -1e-39f}, 1, DType::kI8).codes, (Floats{0, 0}));
  EXPECT_EQ(quantize({1e-38f, -1e-39f}, 1, DType::kF8E4M3).codes, (Floats{0, 0}));
  EXPECT_EQ(quantize({0x1p-99f, 0}, 1, DType::kI8).codes, (Floats{127, 0}));
  EXPECT_EQ(quantize({0x1p-99f, 0}, 1, DType::kF8E4M3).codes, (Floats{448, 0}));
}

TEST(QuantizeRowsReference, GivesZerosForZeros) {
  for (DType codes : test::kCodes) {
    const Quantized out = quantize({0, 0, 0, /**/ 0, 1, 0}, 2, codes);
    const float most = largest_code(codes);
    EXPECT_EQ(out.codes, (Floats{0, 0, 0, /**/ 0, most, 0}));
    EXPECT_EQ(out.scales, (Floats{0, 1 / most}));
  }
}

TEST(QuantizeRowsReference, ShowsNanAndInfinityInTheScale) {
  for (DType codes : test::kCodes) {
    EXPECT_TRUE(std::isnan(quantize({1, NAN, 3}, 1, codes).scales[0]));
    EXPECT_TRUE(std::isnan(quantize({NAN, INFINITY, 3}, 1, codes).scales[0]));
    EXPECT_EQ(quantize({1, -INFINITY, 3}, 1, codes).scales[0], INFINITY);
  }
}

TEST(QuantizeRowsReference, SetsOutliersApart) {
  const Floats x = {1, -6, 3, 2, /**/ 2, 4, 1, 7, /**/ 8, 9, -7, 6};
  const Quantized alone = quantize(x, 3, DType::kI8, 6);
  EXPECT_EQ(alone.codes, (Floats{42, 0, 127, 85, /**/ 64, 127, 32, 0, /**/ 0, 0, 0, 0}));
  EXPECT_EQ(alone.scales, (Floats{3.0f / 127, 4.0f / 127, 0}));
  EXPECT_EQ(alone.outliers, (Floats{0, -6, 0, 0, /**/ 0, 0, 0, 7, /**/ 8, 9, -7, 6}));
  // Without the last row, whose every value stands out: columns 1 and 3 do.
  const Quantized together =
      quantize({x.begin(), x.begin() + 8}, 2, DType::kI8, 6, /*by_column=*/true);
  EXPECT_EQ(together.codes, (Floats{42, 0, 127, 0, /**/ 127, 0, 64, 0}));
  EXPECT_EQ(together.scales, (Floats{3.0f / 127, 2.0f / 127}));
  EXPECT_EQ(together.outliers, (Floats{0, -6, 0, 2, /**/ 0, 4, 0, 7}));
}

struct Case {
  int64_t rows, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
// Empty, single; around vectors, warps and blocks, and the columns that are marked at a time (256);
// rows of the models.
constexpr Case kCases[] = {{0, 8},    {1, 1},     {3, 31},   {5, 16},   {7, 33},
                           {9, 264},  {300, 70},  {2, 1283}, {6, 2048}, {5, 4096},
                           {3, 6144}, {2, 12288}, {1, 12301}};

/// How outliers are found, if at all.
enum class Outliers { kNone, kByRow, kByColumn };
constexpr Outliers kOutliers[] = {Outliers::kNone, Outliers::kByRow, Outliers::kByColumn};

struct Operands {
  QuantizeRows::Args args;
  std::vector<Tensor> outputs;
};
/// About one value in 16 stands out by row, so by column most do where there are many rows.
Operands operands(OpTester<QuantizeRows>& t, const Case& c, DType codes, Outliers outliers) {
  Operands o;
  o.args = {.x = t.random({c.rows, c.dim}, c.dtype),
            .q = t.output_dense({c.rows, c.dim}, codes),
            .scale = t.output_dense({c.rows})};
  o.outputs = {o.args.q, o.args.scale};
  if (outliers == Outliers::kNone) return o;
  o.args.outliers = t.output_dense({c.rows, c.dim}, c.dtype);
  o.args.threshold = 1.875f;  // a value of every dtype, so that some are equal to it
  o.args.by_column = outliers == Outliers::kByColumn;
  o.outputs.push_back(o.args.outliers);
  return o;
}

QuantizeRows::Args slice(QuantizeRows::Args some, int64_t begin, int64_t count) {
  some.x = some.x.slice(0, begin, count);
  some.q = some.q.slice(0, begin, count);
  some.scale = some.scale.slice(0, begin, count);
  if (some.outliers.defined()) some.outliers = some.outliers.slice(0, begin, count);
  return some;
}

using Param = std::tuple<const Impl<QuantizeRows>*, Case>;
class QuantizeRowsImpl : public test::ImplTest<Param> {};

TEST_P(QuantizeRowsImpl, HasTheBitsOfTheReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    for (DType codes : test::kCodes) {
      for (Outliers outliers : kOutliers) {
        OpTester<QuantizeRows> t(*impl, strided);
        const auto [args, outputs] = operands(t, c, codes, outliers);
        EXPECT_TRUE(test::runs_everywhere<QuantizeRows>(args));
        EXPECT_TRUE(t.matches_reference(args));
        const std::vector<std::byte> got = t.run(args);
        ASSERT_EQ(t.error(), "");
        EXPECT_EQ(got, t.run(args, 1, &test::implementation<QuantizeRows>("reference")));
        EXPECT_TRUE(t.same_bits_everywhere(args));
      }
    }
  }
}

TEST_P(QuantizeRowsImpl, RowsDoNotDependOnTheirNeighboursUnlessByColumn) {
  const auto& [impl, c] = GetParam();
  for (DType codes : test::kCodes) {
    for (Outliers outliers : kOutliers) {
      OpTester<QuantizeRows> t(*impl);
      const auto [args, outputs] = operands(t, c, codes, outliers);
      if (outliers != Outliers::kByColumn) {
        EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, args, outputs, slice));
      } else if (c.rows > 1 && c.dim > 16) {
        t.run(args);
        const std::vector<std::byte> among_others = test::rows_of(outputs, 0, 1);
        t.run(slice(args, 0, 1));
        EXPECT_NE(test::rows_of(outputs, 0, 1), among_others);
      }
    }
  }
}

/// Rows of zeros, rows of nothing but outliers, and one large value: as the reference has them.
TEST_P(QuantizeRowsImpl, TakesUnusualRows) {
  const auto& [impl, c] = GetParam();
  if (c.rows < 3) return;
  for (DType codes : test::kCodes) {
    for (Outliers outliers : kOutliers) {
      OpTester<QuantizeRows> t(*impl, true);
      const auto [args, outputs] = operands(t, c, codes, outliers);
      const Tensor x(const_cast<void*>(args.x.data), c.dtype, {1});
      for (int64_t k = 0; k < c.dim; ++k) {
        store_f32(x, k, 0);
        if (outliers == Outliers::kByRow) store_f32(x, args.x.stride(0) + k, k % 2 ? 2 : -2);
      }
      store_f32(x, 2 * args.x.stride(0) + c.dim - 1, -60000);
      const std::vector<std::byte> got = t.run(args);
      ASSERT_EQ(t.error(), "");
      EXPECT_EQ(got, t.run(args, 1, &test::implementation<QuantizeRows>("reference")));
      EXPECT_EQ(args.scale.as<float>()[0], 0);
      if (outliers == Outliers::kByRow) {
        EXPECT_EQ(args.scale.as<float>()[1], 0);
      }
    }
  }
}

/// A code times its scale is the value, to half a step.
TEST_P(QuantizeRowsImpl, CodesTimesScaleAreTheValues) {
  const auto& [impl, c] = GetParam();
  for (DType codes : test::kCodes) {
    OpTester<QuantizeRows> t(*impl);
    const auto [args, outputs] = operands(t, c, codes, Outliers::kByRow);
    t.run(args);
    ASSERT_EQ(t.error(), "");
    for (int64_t i = 0; i < args.x.numel(); ++i) {
      const float scale = args.scale.as<float>()[i / c.dim];
      const float code =
          codes == DType::kI8 ? args.q.as<int8_t>()[i] : e4m3_to_f32(args.q.as<uint8_t>()[i]);
      const float rest = load_f32(args.x, i) - load_f32(args.outliers, i);
      const float step = codes == DType::kI8 ? 0.5f : std::max(0x1p-10f, std::fabs(code) * 0x1p-4f);
      EXPECT_LE(std::fabs(code * scale - rest), step * scale * 1.1f) << i;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, QuantizeRowsImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<QuantizeRows>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class QuantizeRowsAnyShape : public test::ImplTest<const Impl<QuantizeRows>*> {};
TEST_P(QuantizeRowsAnyShape, MatchesReference) {
  for (Outliers outliers : kOutliers) {
    const auto make = [&](auto& t, const test::RowShape& s, DType dtype) {
      return operands(t, {s.rows, s.dim, dtype}, test::kCodes[s.choice % 2], outliers).args;
    };
    const bool rows_meet = outliers == Outliers::kByColumn;
    EXPECT_TRUE(test::matches_in_any_shape<QuantizeRows>(
        *GetParam(), make, {.rows = rows_meet ? nullptr : &QuantizeRows::Args::x}));
  }
}
INSTANTIATE_TEST_SUITE_P(All, QuantizeRowsAnyShape,
                         testing::ValuesIn(test::candidates<QuantizeRows>()), test::ImplName());

}  // namespace
}  // namespace vlr::ops
