/// What the tests of ops on 8-bit rows share: outputs whose rows have different sizes.
#ifndef VLR_TESTS_KERNELS_QUANTIZED_ROWS_H_
#define VLR_TESTS_KERNELS_QUANTIZED_ROWS_H_

#include "kernels/quant/eight_bit.h"
#include "tests/kernels/row_ops.h"

namespace vlr::test {

constexpr DType kCodes[] = {DType::kI8, DType::kF8E4M3};

/// Of a row's scale, where the values that are quantised have a tolerance themselves: it is as far
/// off as the largest of them, and rounded.
inline Tolerance scale_tolerance(const Tolerance& values, DType codes) {
  return {.rel = values.rel + 0x1p-22,
          .abs = values.abs / static_cast<double>(largest_code(codes))};
}

/// The bytes of rows [begin, begin + count) of each output, one after the other.
inline std::vector<std::byte> rows_of(const std::vector<Tensor>& outputs, int64_t begin,
                                      int64_t count) {
  std::vector<std::byte> bytes;
  for (const Tensor& t : outputs) {
    for (int64_t r = begin; r < begin + count; ++r) {
      const Tensor row = t.slice(0, r, 1);
      bytes.insert(bytes.end(), row.as<std::byte>(), row.as<std::byte>() + row.bytes());
    }
  }
  return bytes;
}

/// The rows of `outputs` alone and in groups have the bits that they have together.
/// slice(args, begin, count) are the arguments for some of the rows.
template <class Op, class Slice>
testing::AssertionResult rows_do_not_depend_on_batch(OpTester<Op>& t, const typename Op::Args& args,
                                                     const std::vector<Tensor>& outputs,
                                                     Slice slice) {
  const int64_t rows = outputs[0].dim(0);
  if (rows == 0) return testing::AssertionSuccess();
  struct Group {
    int64_t begin, count;
    std::vector<std::byte> bytes;
  };
  std::vector<Group> groups;
  t.run(args);
  if (!t.error().empty()) return testing::AssertionFailure() << t.error();
  for (int64_t begin : {int64_t{0}, int64_t{1}, rows / 2, rows - 1}) {
    for (int64_t count : {1, 2, 3, 7, 16, 17, 64, 65, 130}) {
      if (begin + count <= rows) groups.push_back({begin, count, rows_of(outputs, begin, count)});
    }
  }
  for (const Group& g : groups) {
    t.run(slice(args, g.begin, g.count));
    if (!t.error().empty()) return testing::AssertionFailure() << t.error();
    if (rows_of(outputs, g.begin, g.count) != g.bytes) {
      return testing::AssertionFailure() << "rows " << g.begin << " + " << g.count << " of " << rows
                                         << " have other bits than among all rows";
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace vlr::test

#endif  // VLR_TESTS_KERNELS_QUANTIZED_ROWS_H_
