/// Quantised weights of random bytes, made of a tester's operands: for the ops that read them.
#ifndef VLR_TESTS_KERNELS_RANDOM_WEIGHT_H_
#define VLR_TESTS_KERNELS_RANDOM_WEIGHT_H_

#include <algorithm>
#include <random>

#include "kernels/core/integer.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quant/formats.h"
#include "kernels/quant/four_bit.h"
#include "kernels/quant/mxfp4.h"
#include "tests/support/op_tester.h"

namespace vlr::test {

/// Whether a weight with so many columns can have the format, on its own.
inline bool can_be(WeightFormat format, int64_t cols) {
  return format != WeightFormat::kMxfp4 || cols % 2 == 0;
}

/// Any code that an encoder makes, and scales that give values of size about 1.
template <class Op>
QuantizedWeight random_weight(OpTester<Op>& t, WeightFormat format, int64_t rows, int64_t cols,
                              int64_t group_blocks = kFourBitNestedBlock) {
  std::mt19937_64 rng(static_cast<uint64_t>(rows * cols));
  const auto bytes = [&](int64_t count, DType dtype, std::initializer_list<int64_t> dims) {
    uint8_t* data = t.random_dense({count}, DType::kU8).template as<uint8_t>();
    std::generate_n(data, count, [&] { return static_cast<uint8_t>(rng()); });
    return Tensor(data, dtype, dims);
  };
  const auto floats = [&](std::initializer_list<int64_t> dims, float least, float most) {
    const Tensor out = t.random_dense(dims);
    std::uniform_real_distribution<float> uniform(least, most);
    std::generate_n(out.as<float>(), out.numel(), [&] { return uniform(rng); });
    return out;
  };
  QuantizedWeight w{.format = format, .rows = rows, .cols = cols};
  if (is_four_bit(format)) {
    const int64_t blocks = ceil_div(rows * cols, kFourBitBlock);
    w.codes = bytes(rows * cols / 2, DType::kU8, {rows * cols / 2});
    w.scales = bytes(blocks, DType::kU8, {blocks});
    w.group_blocks = group_blocks;
    const Tensor nested = floats({ceil_div(blocks, group_blocks), 2}, 0.5f, 1);
    for (int64_t g = 0; g < nested.dim(0); ++g) nested.row<float>(g)[1] += 1;  // absmax > 0
    w.nested = nested;
    const Tensor map = t.random_dense({256});
    std::ranges::copy(dynamic_map(), map.as<float>());
    w.map = map;
    return w;
  }
  if (format == WeightFormat::kMxfp4) {
    const int64_t blocks = mxfp4_row_blocks(cols);
    w.codes = bytes(rows * cols / 2, DType::kU8, {rows, cols / 2});
    const Tensor scales = bytes(rows * blocks, DType::kU8, {rows, blocks});
    for (int64_t i = 0; i < scales.numel(); ++i)  // 2^-4 to 1/2
      scales.as<uint8_t>()[i] = static_cast<uint8_t>(123 + (scales.as<uint8_t>()[i] & 3));
    w.scales = scales;
    return w;
  }
  const DType dtype = format == WeightFormat::kInt8 ? DType::kI8 : DType::kF8E4M3;
  const Tensor codes = bytes(rows * cols, dtype, {rows, cols});
  // Encoders make neither -128 (0x80) nor NaN (0x7f and 0xff).
  for (int64_t i = 0; i < codes.numel(); ++i) {
    uint8_t& code = codes.as<uint8_t>()[i];
    if (dtype == DType::kI8 ? code == 0x80 : (code & 0x7f) == 0x7f) code ^= 1;
  }
  w.codes = codes;
  w.scales = floats({rows}, 1 / largest_code(dtype), 2 / largest_code(dtype));
  return w;
}

}  // namespace vlr::test

#endif  // VLR_TESTS_KERNELS_RANDOM_WEIGHT_H_
