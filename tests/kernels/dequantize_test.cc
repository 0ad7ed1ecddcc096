#include "kernels/dequantize/dequantize.h"

#include "tests/kernels/random_weight.h"
#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(DequantizeCheck, RefusesWhatTheContractExcludes) {
  float data[256] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const auto message = [](const Dequantize::Args& a) { return Dequantize::check(a).message(); };
  const QuantizedWeight int8{.format = WeightFormat::kInt8,
                             .rows = 4,
                             .cols = 6,
                             .codes = ConstTensor(data, DType::kI8, {4, 6}),
                             .scales = f32({4})};
  EXPECT_EQ(message({.w = int8, .y = f32({4, 6})}), "");
  EXPECT_EQ(message({.w = int8, .first_row = 1, .y = f32({3, 6})}), "");
  EXPECT_EQ(message({.w = int8, .first_row = 2, .y = f32({3, 6})}),
            "dequantize: w has 4 rows, not the 3 from row 2");
  EXPECT_EQ(message({.w = int8, .first_row = -1, .y = f32({3, 6})}),
            "dequantize: w has 4 rows, not the 3 from row -1");
  EXPECT_EQ(message({.w = int8, .y = f32({4, 5})}), "dequantize: y must be [?, 6], got f32[4, 5]");
  EXPECT_EQ(message({.w = int8, .y = Tensor(data, DType::kU8, {4, 6})}),
            "dequantize: y must be f32 | bf16 | f16, got u8[4, 6]");
  EXPECT_EQ(message({.w = int8, .y = f32({4, 8}).slice(1, 0, 6)}),
            "dequantize: y must be contiguous");
  EXPECT_EQ(message({.w = {}, .y = f32({4, 6})}),
            "dequantize: w must be nf4 | fp4 | int8 | fp8 | mxfp4, got dense");
}

/// Tiny; a block and more; rows that begin within a block, and, of odd length, within a byte; a
/// model's.
struct Case {
  int64_t rows, cols;  // of the weight
  int64_t first_row, count;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(first_row) + "to" + std::to_string(first_row + count) + "of" +
           std::to_string(rows) + "x" + std::to_string(cols) + std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{1, 2, 0, 1},      {2, 1, 1, 1},      {2, 1, 0, 2},    {6, 8, 3, 2},
                           {4, 64, 1, 3},     {9, 72, 0, 9},     {9, 72, 4, 5},   {8, 269, 0, 8},
                           {8, 269, 3, 4},    {40, 270, 11, 29}, {7, 1024, 2, 5}, {20, 4304, 3, 17},
                           {64, 4096, 32, 32}};

using Param = std::tuple<const Impl<Dequantize>*, Case>;
class DequantizeImpl : public test::ImplTest<Param> {};

TEST_P(DequantizeImpl, GivesTheBitsOfReference) {
  const auto& [impl, c] = GetParam();
  for (const FormatInfo& info : quantized_formats()) {
    const WeightFormat format = info.format;
    for (int64_t group_blocks : {1, 4, 256}) {
      if (!is_four_bit(format) && group_blocks != 1) continue;
      if (!test::can_be(format, c.cols)) continue;
      OpTester<Dequantize> t(*impl);
      const QuantizedWeight w = test::random_weight(t, format, c.rows, c.cols, group_blocks);
      const Tensor y = t.output({c.count, c.cols}, c.dtype);
      const Dequantize::Args args{.w = w, .first_row = c.first_row, .y = y};
      EXPECT_TRUE(test::runs_everywhere<Dequantize>(args));
      if (!test::takes(*impl, args)) continue;
      const std::vector<std::byte> got = t.run(args);
      ASSERT_EQ(t.error(), "") << weight_format_name(format);
      const std::vector<std::byte> want =
          t.run(args, 1, &test::implementation<Dequantize>("reference"));
      ASSERT_EQ(t.error(), "") << weight_format_name(format);
      EXPECT_TRUE(got == want) << weight_format_name(format) << ", groups of " << group_blocks;
      EXPECT_TRUE(t.matches_reference(args)) << weight_format_name(format);  // says where
      EXPECT_TRUE(t.same_bits_everywhere(args)) << weight_format_name(format);
    }
  }
}

TEST_P(DequantizeImpl, KeepsNan) {
  const auto& [impl, c] = GetParam();
  OpTester<Dequantize> t(*impl);
  const QuantizedWeight w = test::random_weight(t, WeightFormat::kFp8, c.rows, c.cols);
  std::memset(const_cast<void*>(w.codes.data), 0xff, static_cast<size_t>(w.codes.bytes()));
  const Tensor y = t.output({c.count, c.cols}, c.dtype);
  const Dequantize::Args args{.w = w, .first_row = c.first_row, .y = y};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}
INSTANTIATE_TEST_SUITE_P(All, DequantizeImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Dequantize>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

template <class T>
ConstTensor tensor(const std::vector<T>& v, DType dtype) {
  return ConstTensor(v.data(), dtype, {static_cast<int64_t>(v.size())});
}

TEST(DequantizeReference, Nf4IsCodebookTimesAbsmax) {
  // Two rows of 48: the second starts within the first block, and the second block within it.
  std::vector<uint8_t> codes(48, 0x77);
  codes[0] = 0xf0;   // 1 absmax, -1 absmax
  codes[24] = 0x78;  // the second row's first byte: 0, and the smallest positive value
  codes[32] = 0x0f;  // values 16 and 17 of the second row, in block 1
  const std::vector<uint8_t> absmax = {255, 0};
  const std::vector<float> nested = {2, 10, /**/ 4, 20};  // groups of one block
  const QuantizedWeight w{.format = WeightFormat::kNf4,
                          .rows = 2,
                          .cols = 48,
                          .codes = tensor(codes, DType::kU8),
                          .scales = tensor(absmax, DType::kU8),
                          .nested = ConstTensor(nested.data(), DType::kF32, {2, 2}),
                          .map = ConstTensor(dynamic_map().data(), DType::kF32, {256}),
                          .group_blocks = 1};
  std::vector<float> y(96);
  const Dequantize::Args args{.w = w, .y = Tensor(y.data(), DType::kF32, {2, 48})};
  ASSERT_EQ(Dequantize::check(args).message(), "");
  Context ctx;
  ASSERT_TRUE(test::implementation<Dequantize>("reference").run(args, ctx).ok());
  const float second = -0.992968738079071f * 4 + 20;
  EXPECT_EQ(y[0], 12);
  EXPECT_EQ(y[1], -12);
  EXPECT_EQ(y[2], 0);
  EXPECT_EQ(y[48], 0);
  EXPECT_EQ(y[49], 0.07958029955625534f * 12);
  EXPECT_EQ(y[64], -second);
  EXPECT_EQ(y[65], second);
}

TEST(DequantizeReference, EightBitIsCodeTimesScaleRoundedOnce) {
  const std::vector<int8_t> codes = {-127, 3, /**/ 100, 0};
  const std::vector<float> scales = {0.5f, 1 + 0x1p-8f};
  QuantizedWeight w{.format = WeightFormat::kInt8,
                    .rows = 2,
                    .cols = 2,
                    .codes = ConstTensor(codes.data(), DType::kI8, {2, 2}),
                    .scales = tensor(scales, DType::kF32)};
  float y[4];
  uint16_t half[2];
  Context ctx;
  const Impl<Dequantize>& reference = test::implementation<Dequantize>("reference");
  ASSERT_TRUE(reference.run({.w = w, .y = Tensor(y, DType::kF32, {2, 2})}, ctx).ok());
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{-63.5f, 1.5f, 100.390625f, 0}));
  ASSERT_TRUE(
      reference.run({.w = w, .first_row = 1, .y = Tensor(half, DType::kBF16, {1, 2})}, ctx).ok());
  EXPECT_EQ(bf16_to_f32(half[0]), 100.5f);

  w.format = WeightFormat::kFp8;
  const std::vector<uint8_t> fp8 = {0x38, 0xfe, /**/ 0x01, 0x7f};  // 1, -448, 2^-9, NaN
  w.codes = ConstTensor(fp8.data(), DType::kF8E4M3, {2, 2});
  ASSERT_TRUE(reference.run({.w = w, .y = Tensor(y, DType::kF32, {2, 2})}, ctx).ok());
  EXPECT_EQ(y[0], 0.5f);
  EXPECT_EQ(y[1], -224);
  EXPECT_EQ(y[2], 0x1p-9f * (1 + 0x1p-8f));
  EXPECT_TRUE(std::isnan(y[3]));
}

TEST(DequantizeReference, Mxfp4IsCodeTimesPowerOfTwo) {
  // Two rows of 34: the second block of each has two values.
  std::vector<uint8_t> codes(34, 0x00);
  codes[0] = 0x7f;                                              // -6, 6
  codes[16] = 0x21;                                             // 0.5, 1
  codes[17] = 0x80;                                             // 0, -0
  codes[33] = 0x13;                                             // 1.5, 0.5
  const std::vector<uint8_t> scales = {128, 0, /**/ 127, 254};  // 2, 2^-127, 1, 2^127
  const QuantizedWeight w{.format = WeightFormat::kMxfp4,
                          .rows = 2,
                          .cols = 34,
                          .codes = ConstTensor(codes.data(), DType::kU8, {2, 17}),
                          .scales = ConstTensor(scales.data(), DType::kU8, {2, 2})};
  float y[68];
  Context ctx;
  for (const auto* impl : test::candidates<Dequantize>()) {
    if (impl->device != Device::kCpu) continue;
    ThreadPool pool(1);
    ctx.threads = &pool;
    ASSERT_TRUE(impl->run({.w = w, .y = Tensor(y, DType::kF32, {2, 34})}, ctx).ok());
    EXPECT_EQ(y[0], -12);
    EXPECT_EQ(y[1], 12);
    EXPECT_EQ(y[2], 0);
    EXPECT_EQ(y[32], 0x1p-128f);
    EXPECT_EQ(y[33], 0x1p-127f);
    EXPECT_EQ(y[34], 0);
    EXPECT_TRUE(std::signbit(y[35]));
    EXPECT_EQ(y[66], 0x1.8p127f);
    EXPECT_EQ(y[67], 0x1p126f);
  }
}

class DequantizeAnyShape : public test::ImplTest<const Impl<Dequantize>*> {};
TEST_P(DequantizeAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<Dequantize>(
      *GetParam(), [](auto& t, const test::RowShape& s, DType dtype) {
        const auto formats = quantized_formats();
        WeightFormat format = formats[static_cast<size_t>(s.choice) % formats.size()].format;
        if (!test::can_be(format, s.dim)) format = WeightFormat::kNf4;
        const int64_t first = s.choice % 7,
                      even = (first + s.rows) * s.dim % 2;  // two codes a byte
        return Dequantize::Args{.w = test::random_weight(t, format, first + s.rows + even, s.dim),
                                .first_row = first,
                                .y = t.output_dense({s.rows, s.dim}, dtype)};
      }));
}
INSTANTIATE_TEST_SUITE_P(All, DequantizeAnyShape, testing::ValuesIn(test::candidates<Dequantize>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
