/// What the tests of row-wise ops share: dtypes, what an implementation takes, and that a row's
/// bits do not depend on the rows beside it.
#ifndef VLR_TESTS_KERNELS_ROW_OPS_H_
#define VLR_TESTS_KERNELS_ROW_OPS_H_

#include <cstdlib>
#include <memory>
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

/// VLR_TEST_SEED, or 1: where shapes that nobody chose begin. What fails names it.
inline uint64_t shapes_seed() {
  const char* text = std::getenv("VLR_TEST_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

struct RowShape {
  int64_t rows, dim;
  int64_t choice;  ///< any number, for what else an op has
  bool strided() const { return rows % 2 != 0; }
  std::string name() const { return std::to_string(rows) + " x " + std::to_string(dim); }
};
/// Row lengths of every residue mod 32, few rows and many.
inline std::vector<RowShape> any_shapes() {
  std::mt19937_64 rng(shapes_seed());
  const auto below = [&](int64_t n) { return static_cast<int64_t>(rng() >> 1) % n; };
  std::vector<RowShape> out;
  for (int64_t residue = 0; residue < 32; ++residue)
    out.push_back({below(40) + 1, std::max<int64_t>(32 * below(12) + residue, 1), below(1000)});
  out.push_back({500 + below(1500), 8 + below(40), below(1000)});
  out.push_back({3, 3000 + below(3000), below(1000)});
  return out;
}

/// y[m, n] = x[m, k] w[n, k]^T
struct ProductShape {
  int64_t m, n, k;
  int64_t choice;
  bool strided() const { return m % 2 != 0; }
  std::string name() const {
    return std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k);
  }
};
/// Odd widths and depths, and those that are multiples of 8 and of 256, which kernels on a device
/// ask for; in each, many rows, many columns and much depth once.
inline std::vector<ProductShape> any_products() {
  std::mt19937_64 rng(shapes_seed());
  const auto below = [&](int64_t n) { return static_cast<int64_t>(rng() >> 1) % n; };
  std::vector<ProductShape> out;
  for (int64_t step : {1, 8, 256}) {
    const int64_t wide = std::min<int64_t>(step, 8);
    const auto add = [&](const ProductShape& s) {
      out.push_back({s.m, wide * (s.n / wide + 1), step * (s.k / step + 1), s.choice});
    };
    for (int i = 0; i < 3; ++i) add({1 + below(40), below(90), below(300), below(1000)});
    add({401 + below(200), below(20), below(40), below(1000)});
    add({1 + below(6), 401 + below(200), below(40), below(1000)});
    add({1 + below(6), below(20), 1000 + below(1000), below(1000)});
  }
  return out;
}

/// What else is looked at in shapes that nobody chose.
template <class Op>
struct InAnyShape {
  /// An operand whose rows are those of the outputs, and meet no other row.
  ConstTensor Op::Args::*rows = nullptr;
  /// Of each output, where Op::tolerance is not that of all.
  std::vector<Tolerance> (*tolerances)(const typename Op::Args&) = nullptr;
};

/// An implementation against the reference, in every shape and dtype of activations that it takes.
/// make(tester, shape, dtype) gives the arguments. Operands are never where those before them were,
/// which are still there: an address that an implementation kept has another's numbers.
template <class Op, class Shape, class Make>
testing::AssertionResult matches_in_any(const Impl<Op>& impl, const std::vector<Shape>& shapes,
                                        Make make, const InAnyShape<Op>& what = {}) {
  std::unique_ptr<OpTester<Op>> before;
  for (const Shape& shape : shapes) {
    for (DType dtype : kActivations) {
      auto t = std::make_unique<OpTester<Op>>(impl, shape.strided(), shapes_seed());
      const typename Op::Args args = make(*t, shape, dtype);
      if (!takes(impl, args)) continue;
      const auto tolerances = what.tolerances ? what.tolerances(args) : std::vector<Tolerance>();
      testing::AssertionResult result = t->matches_reference(args, tolerances);
      if (result && what.rows) result = t->rows_never_meet(args, args.*what.rows);
      if (!result) return result << ", " << shape.name() << " " << dtype_name(dtype);
      before = std::move(t);
    }
  }
  return testing::AssertionSuccess();
}
template <class Op, class Make>
testing::AssertionResult matches_in_any_shape(const Impl<Op>& impl, Make make,
                                              const InAnyShape<Op>& what = {}) {
  return matches_in_any(impl, any_shapes(), make, what);
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
