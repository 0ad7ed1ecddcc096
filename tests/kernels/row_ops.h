/// What the tests of row-wise ops share: dtypes, what an implementation takes, and that a row's
/// bits do not depend on the rows beside it.
#ifndef VLR_TESTS_KERNELS_ROW_OPS_H_
#define VLR_TESTS_KERNELS_ROW_OPS_H_

#include <cstdlib>
#include <random>

#include "tests/support/op_tester.h"

namespace vlr::test {

constexpr DType kActivations[] = {DType::kF32, DType::kBF16, DType::kF16};

/// Every case with activations of every dtype; Case has a member `dtype`.
template <class Case, size_t kCount>
std::vector<Case> in_every_dtype(const Case (&cases)[kCount]) {
  std::vector<Case> out;
  for (const Case& c : cases) {
    for (DType dtype : kActivations) {
      out.push_back(c);
      out.back().dtype = dtype;
    }
  }
  return out;
}

struct RowShape {
  int64_t rows, dim;
  uint64_t seed;
};
/// Shapes that nobody chose: row lengths of every residue mod 32, few rows and many. VLR_TEST_SEED
/// says where they begin; what fails names its seed.
inline std::vector<RowShape> any_shapes() {
  const char* text = std::getenv("VLR_TEST_SEED");
  const uint64_t seed = text ? std::strtoull(text, nullptr, 10) : 1;
  std::mt19937_64 rng(seed);
  std::vector<RowShape> out;
  for (int64_t residue = 0; residue < 32; ++residue) {
    const auto blocks = static_cast<int64_t>(rng() % 12);
    out.push_back(
        {static_cast<int64_t>(rng() % 40) + 1, std::max<int64_t>(32 * blocks + residue, 1), seed});
  }
  out.push_back(
      {static_cast<int64_t>(500 + rng() % 1500), static_cast<int64_t>(8 + rng() % 40), seed});
  out.push_back({3, static_cast<int64_t>(3000 + rng() % 3000), seed});
  return out;
}

/// An implementation against the reference in shapes that nobody chose. make(tester, shape, dtype)
/// gives the arguments.
template <class Op, class Make>
testing::AssertionResult matches_in_any_shape(const Impl<Op>& impl, Make make) {
  for (const RowShape& shape : any_shapes()) {
    for (DType dtype : kActivations) {
      OpTester<Op> t(impl, shape.rows % 2 != 0, shape.seed);
      const typename Op::Args args = make(t, shape, dtype);
      if (!takes(impl, args)) continue;
      if (testing::AssertionResult result = t.matches_reference(args); !result)
        return result << ", " << shape.rows << " x " << shape.dim << " " << dtype_name(dtype);
    }
  }
  return testing::AssertionSuccess();
}

/// Some implementation takes the arguments, on the CPU and, where the library has CUDA, there.
template <class Op>
testing::AssertionResult runs_everywhere(const typename Op::Args& args) {
  for (Device device : {Device::kCpu, Device::kCuda}) {
#if !VLR_WITH_CUDA
    if (device == Device::kCuda) continue;
#endif
    Context ctx;
    ctx.device = device;
    if (auto impl = ops::choose<Op>(args, ctx); !impl.has_value())
      return testing::AssertionFailure() << impl.error().message();
  }
  return testing::AssertionSuccess();
}

/// The rows of `args` alone and in groups have the bits that they have together.
/// slice(args, begin, count) are the arguments for some of the rows; each of the tester's
/// `num_outputs` outputs has the same number of bytes per row.
template <class Op, class Slice>
testing::AssertionResult rows_do_not_depend_on_batch(OpTester<Op>& t, const typename Op::Args& args,
                                                     int64_t rows, Slice slice,
                                                     size_t num_outputs = 1) {
  if (rows == 0) return testing::AssertionSuccess();
  const std::vector<std::byte> all = t.run(args);
  if (!t.error().empty()) return testing::AssertionFailure() << t.error();
  const size_t output_bytes = all.size() / num_outputs;
  const size_t row_bytes = output_bytes / static_cast<size_t>(rows);
  for (int64_t begin : {int64_t{0}, int64_t{1}, rows / 2, rows - 1}) {
    for (int64_t count : {1, 2, 3, 7}) {
      if (begin + count > rows) continue;
      const std::vector<std::byte> some = t.run(slice(args, begin, count));
      if (!t.error().empty()) return testing::AssertionFailure() << t.error();
      for (size_t output = 0; output < num_outputs; ++output) {
        const size_t at = output * output_bytes + static_cast<size_t>(begin) * row_bytes;
        if (std::memcmp(all.data() + at, some.data() + at,
                        static_cast<size_t>(count) * row_bytes) != 0) {
          return testing::AssertionFailure()
                 << "rows " << begin << " + " << count << " of " << rows << ": output " << output
                 << " has other bits than among all rows";
        }
      }
    }
  }
  return testing::AssertionSuccess();
}

/// The rows of x (16 bits), written into the first columns of `wide`.
inline Tensor spread(const ConstTensor& x, const Tensor& wide) {
  const Tensor out = wide.slice(1, 0, x.dim(1));
  for (int64_t r = 0; r < x.dim(0); ++r)
    std::copy_n(x.row<uint16_t>(r), x.dim(1), out.row<uint16_t>(r));
  return out;
}

}  // namespace vlr::test

#endif  // VLR_TESTS_KERNELS_ROW_OPS_H_
