/// The harness under every op's test: operands between guards, a run of an implementation compared
/// with the reference, and the same run on every instruction set and thread count compared bit by
/// bit. What it must catch is in tests/kernels/op_tester_test.cc.
///
/// Of the environment:
///   VLR_TEST_SOAK=N         one small case of every implementation runs N times, all with the same
///                           bits: an error in one call of ten thousand shows
///   VLR_TEST_SEED=N         where shapes that nobody chose begin (tests/kernels/row_ops.h)
///   VLR_TEST_EVERY_IMPL=1   the program fails if an implementation took the arguments of no case;
///                           for programs that run all of their tests
#ifndef VLR_TESTS_SUPPORT_OP_TESTER_H_
#define VLR_TESTS_SUPPORT_OP_TESTER_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/core/compare.h"
#include "kernels/core/load.h"
#include "kernels/core/op.h"
#include "kernels/core/simd_targets.h"
// After simd_targets.h, so that the tests list the targets that the kernels were compiled for.
#include "hwy/highway.h"

namespace vlr::test {

/// Memory of one operand: rows, perhaps with gaps between them, between two guards. Gaps and guards
/// hold a pattern, which intact() looks for after a run; to a reader it is NaN. Beyond the guards
/// are pages that nobody may touch: who does ends the process, with the implementation's name.
class Operand {
 public:
  Operand(std::vector<int64_t> dims, DType dtype, bool strided);

  const Tensor& view() const { return view_; }
  bool intact() const;
  int64_t numel() const { return view_.numel(); }
  int64_t row_length() const { return view_.rank == 0 ? 1 : view_.dim(view_.rank - 1); }
  double get(int64_t i) const;
  void set(int64_t i, double value);
  /// The bytes of the elements, without gaps.
  std::vector<std::byte> bytes() const;
  void set_bytes(const std::vector<std::byte>& bytes);
  void fill(double value) {
    for (int64_t i = 0; i < numel(); ++i) set(i, value);
  }
  /// The elements that are finite in the opposite order: other contents of the same kind.
  void reverse();
  /// The largest and the smallest element of a third of it change places: nearly the same contents.
  void swap_two(uint64_t seed);
  /// All elements of row r of the first axis.
  void fill_row(int64_t r, double value);
  /// Whether the elements are these bytes.
  bool holds(const std::byte* bytes) const;
  /// Until it may be written again, who writes to it ends the process, as beyond its guards.
  void set_writable(bool writable);
  /// [2, 0, 5] of element i.
  std::string index_name(int64_t i) const;

 private:
  static constexpr int64_t kGuard = 256;  // bytes on both sides, at least; keeps alignment
  static constexpr std::byte kPattern{0xFF};
  int64_t offset(int64_t i) const;  // of element i, in elements of storage
  template <class Body>
  void for_each_row(Body&& body) const;  // body(begin, bytes), in ascending order

  struct Free {
    int64_t bytes;
    void operator()(std::byte* p) const;
  };
  static std::unique_ptr<std::byte[], Free> allocate(int64_t bytes);
  std::unique_ptr<std::byte[], Free> memory_;  // whole pages
  int64_t total_ = 0;
  Tensor view_;
};

/// cuBLASLt for runs on a GPU, exact, one a process; null on a CPU or without a GPU.
cuda::Blas* shared_blas(Device device);

/// What an implementation is asked and run with, without threads and workspace.
inline Context context_of(Device device) {
  Context ctx;
  ctx.device = device;
  ctx.blas = shared_blas(device);
  return ctx;
}

/// What implementations of ops have done in this process.
class Implementations {
 public:
  static void known(std::string_view op, std::string_view impl, Device device);
  /// It runs from now on: its name is what a fault is reported with.
  static void runs(std::string_view op, std::string_view impl, Device device);
  static void refuses();
  static int64_t num_runs();  ///< of implementations that are compared
  static int64_t num_refusals();
  /// "op/name on cpu" of those that ran in no case, though their device is there.
  static std::vector<std::string> not_run();
  /// How often it is to run, where VLR_TEST_SOAK is set: 0 but for the first time of asking.
  static int64_t soaks(std::string_view op, std::string_view impl, Device device);
};

/// Whether an implementation runs the arguments on this machine; OpTester refuses to where not.
template <class Op>
bool takes(const Impl<Op>& impl, const typename Op::Args& args) {
  if (ops::supports(impl, args, context_of(impl.device))) return true;
  Implementations::refuses();
  return false;
}

/// A test of an implementation and a case; skipped if the implementation took none of its arguments.
template <class Param>
class ImplTest : public testing::TestWithParam<Param> {
 protected:
  void TearDown() override {
    if (Implementations::num_runs() == runs_ && Implementations::num_refusals() > refusals_)
      GTEST_SKIP() << "the implementation does not take this case";
  }

 private:
  const int64_t runs_ = Implementations::num_runs(), refusals_ = Implementations::num_refusals();
};

/// Waits until the device is done, and gives its first error; kDevice without a GPU.
Status synchronize(Device device);

/// Instruction sets that this machine has and the kernels were compiled for, as Highway's bits.
std::vector<int64_t> targets();
/// While it lives, kernels run on `target`. Tests are single-threaded when they switch.
class ScopedTarget {
 public:
  explicit ScopedTarget(int64_t target) { hwy::SetSupportedTargetsForTest(target); }
  ~ScopedTarget() { hwy::SetSupportedTargetsForTest(0); }
};

template <class Op>
const Impl<Op>& implementation(std::string_view name) {
  for (const Impl<Op>& impl : Op::impls()) {
    if (impl.name == name && impl.device == Device::kCpu) return impl;
  }
  throw std::invalid_argument("no implementation " + std::string(name));
}

/// The implementations to be compared with the reference, on any device.
template <class Op>
std::vector<const Impl<Op>*> candidates() {
  std::vector<const Impl<Op>*> out;
  for (const Impl<Op>& impl : Op::impls()) {
    if (impl.name == "reference") continue;
    Implementations::known(Op::kName, impl.name, impl.device);
    out.push_back(&impl);
  }
  return out;
}

/// Names a case of Combine(ValuesIn(candidates<Op>()), ValuesIn(cases)): CpuBlocked_3x31; Case has
/// name().
struct CaseName {
  template <class Info>
  std::string operator()(const Info& info) const {
    const auto& [impl, c] = info.param;
    std::string name(impl->name);
    name[0] = static_cast<char>(std::toupper(name[0]));
    return (impl->device == Device::kCpu ? "Cpu" : "Cuda") + name + "_" + c.name();
  }
};

/// Names a case of ValuesIn(candidates<Op>()): CpuBlocked.
struct ImplName {
  template <class Info>
  std::string operator()(const Info& info) const {
    std::string name(info.param->name);
    name[0] = static_cast<char>(std::toupper(name[0]));
    return (info.param->device == Device::kCpu ? "Cpu" : "Cuda") + name;
  }
};

template <class Op>
class OpTester {
 public:
  using Args = typename Op::Args;

  /// `strided`: operands made by random() and output() have gaps between rows and between heads.
  explicit OpTester(const Impl<Op>& impl, bool strided = false, uint64_t seed = 1)
      : impl_(impl), strided_(strided), seed_(seed), rng_(seed) {}

  /// Normal values of the given deviation, rounded to the dtype and saturated where it has no
  /// infinity; their magnitudes for u8.
  Tensor random(std::vector<int64_t> dims, DType dtype = DType::kF32, double deviation = 1) {
    return make(std::move(dims), dtype, strided_, deviation);
  }
  Tensor random_dense(std::vector<int64_t> dims, DType dtype = DType::kF32, double deviation = 1) {
    return make(std::move(dims), dtype, false, deviation);
  }
  /// An output: NaN before every run.
  Tensor output(std::vector<int64_t> dims, DType dtype = DType::kF32) {
    operands_.push_back(std::make_unique<Operand>(std::move(dims), dtype, strided_));
    return mark_output(std::nan(""));
  }
  Tensor output_dense(std::vector<int64_t> dims, DType dtype = DType::kF32) {
    operands_.push_back(std::make_unique<Operand>(std::move(dims), dtype, false));
    return mark_output(std::nan(""));
  }
  /// Input and output at once: random before every run, the same each time.
  Tensor in_place(std::vector<int64_t> dims, DType dtype = DType::kF32) {
    make(std::move(dims), dtype, strided_, 1);
    return mark_output(0);
  }

  /// What the implementation (or another one) leaves in the outputs; empty, with the reason in
  /// error(), when it fails or touches bytes outside of the operands.
  std::vector<std::byte> run(const Args& args, int threads = 2, const Impl<Op>* impl = nullptr) {
    if (!impl) impl = &impl_;
    error_.clear();
    const bool left_over = left_over_ && impl == &impl_;
    reset_outputs(left_over);
    Surroundings around(impl->device, threads);
    Context& ctx = around.ctx;
    if (Status s = synchronize(ctx.device); !s.ok()) return fail(s.message());
    if (Status s = Op::check(args); !s.ok()) return fail("check: " + s.message());
    if (!ops::supports(*impl, args, ctx))
      return fail(ops::unsupported(Op::kName, impl->name, impl->device).message());
    if (left_over) around.scratch = std::move(scratch_);
    around.make_workspace(*impl, args);
    const std::vector<std::vector<std::byte>> before = inputs();
    Implementations::runs(Op::kName, impl->name, impl->device);
    if (Status s = run_once(*impl, args, ctx); !s.ok()) return fail("run: " + s.message());
    if (Status s = synchronize(ctx.device); !s.ok()) return fail("after run: " + s.message());
    if (!around.scratch->intact()) return fail("wrote outside of its workspace");
    if (impl == &impl_) scratch_ = std::move(around.scratch);
    for (const auto& o : operands_) {
      if (!o->intact()) return fail("wrote outside of its operands");
    }
    if (inputs() != before) return fail("changed what it reads");
    return output_bytes();
  }
  const std::string& error() const { return error_; }
  /// Outputs as they are before every run. `left_over`: those that are not read stay as they are.
  void reset_outputs(bool left_over = false) {
    for (Output& o : outputs_) {
      if (o.reads || !left_over) o.operand->set_bytes(o.before);
    }
  }

  /// Every element within Op::tolerance of the reference, or within the tolerance of its output;
  /// then again with the elements of every operand in the opposite order, at the same addresses,
  /// with what the last run left in outputs and scratch; and, where there are few, with nearly the
  /// same operands and with special values. `size`: Tolerance::scaled's, where the terms of the
  /// outputs are not of size 1.
  testing::AssertionResult matches_reference(const Args& args,
                                             const std::vector<Tolerance>& of_outputs = {},
                                             double size = 1) {
    testing::AssertionResult result = matches_as_it_is(args, of_outputs, size);
    if (!result) return result;
    const Contents contents(*this);
    for_each_content([](Operand& o) { o.reverse(); });
    keep_outputs();
    left_over_ = true;
    result = matches_as_it_is(args, of_outputs, size);
    left_over_ = false;
    if (!result) return result << " (operands reversed)";
    if (num_outputs() > kMostSpecial) return result;
    contents.restore();
    for_each_content([&](Operand& o) { o.swap_two(seed_); });
    keep_outputs();
    result = matches_as_it_is(args, of_outputs, size);
    if (!result) return result << " (two elements swapped)";
    for (const Special& special : kSpecials) {
      contents.restore();
      for (const auto& o : operands_) {
        if (is_float(o->view().dtype)) special.fill(*o);
      }
      keep_outputs();
      result = matches_as_it_is(args, of_outputs, size);
      if (!result) return result << " (operands " << special.name << ")";
    }
    return result;
  }

 private:
  testing::AssertionResult matches_as_it_is(const Args& args,
                                            const std::vector<Tolerance>& of_outputs, double size) {
    run(args);
    if (!error_.empty()) return failure() << error_;
    std::vector<std::vector<double>> got;
    for (Output& o : outputs_) got.push_back(values(*o.operand));
    run(args, 1, &implementation<Op>("reference"));
    if (!error_.empty()) return failure() << "reference: " << error_;
    for (size_t n = 0; n < outputs_.size(); ++n) {
      const Tolerance tolerance =
          (of_outputs.empty() ? Op::tolerance(args) : of_outputs[n]).scaled(size);
      const Operand& want = *outputs_[n].operand;
      const auto mismatch = compare(got[n], values(want), want.row_length(), tolerance);
      if (mismatch)
        return failure() << "output " << n << want.index_name(mismatch->index)
                         << mismatch->message();
    }
    return testing::AssertionSuccess();
  }

 public:
  /// NaN, and then infinity, in all of one row of `x` leave the bits of every output's other rows
  /// alone. `x`: all of an operand; its rows are those of the outputs.
  testing::AssertionResult rows_never_meet(const Args& args, const ConstTensor& x) {
    const auto found =
        std::ranges::find_if(operands_, [&](const auto& o) { return o->view().data == x.data; });
    if (found == operands_.end()) return failure() << "x is no operand";
    Operand& input = **found;
    const int64_t rows = input.view().dim(0);
    if (rows < 2 || is_output(input)) return testing::AssertionSuccess();
    const std::vector<std::byte> want = run(args);
    if (!error_.empty()) return failure() << error_;
    const Contents contents(*this);
    for (double value : {std::nan(""), HUGE_VAL}) {
      const int64_t touched = static_cast<int64_t>(seed_ % static_cast<uint64_t>(rows));
      input.fill_row(touched, value);
      const std::vector<std::byte> got = run(args);
      if (!error_.empty()) return failure() << error_;
      size_t at = 0;
      for (const Output& o : outputs_) {
        const auto bytes = static_cast<size_t>(o.operand->view().bytes() / rows);
        for (int64_t r = 0; r < rows; ++r, at += bytes) {
          if (r != touched && std::memcmp(got.data() + at, want.data() + at, bytes) != 0)
            return failure() << "row " << r << " has other bits when row " << touched << " is "
                             << value;
        }
      }
    }
    return testing::AssertionSuccess();
  }

  /// The same bits on every instruction set and on 1, 2 and 3 threads; on a GPU, on every run.
  testing::AssertionResult same_bits_everywhere(const Args& args) {
    const std::vector<std::byte> want = run(args, 1);
    if (!error_.empty()) return failure() << error_;
    if (impl_.device == Device::kCuda) {
      if (run(args) == want && error_.empty()) return soak(args, want);
      return failure() << "a second run differs " << error_;
    }
    for (int64_t target : targets()) {
      const ScopedTarget scoped(target);
      for (int threads : {1, 2, 3}) {
        if (run(args, threads) == want && error_.empty()) continue;
        return failure() << hwy::TargetName(target) << " with " << threads << " threads differs "
                         << error_;
      }
    }
    return soak(args, want);
  }

 private:
  /// What an implementation runs in.
  struct Surroundings {
    Surroundings(Device device, int threads) : pool(threads), ctx(context_of(device)) {
      ctx.threads = &pool;
    }
    /// As many bytes of scratch as it wants: those that are there, or NaN to most readers.
    void make_workspace(const Impl<Op>& impl, const Args& args) {
      const int64_t bytes = impl.workspace ? impl.workspace(args, ctx) : 0;
      if (!scratch || scratch->numel() != bytes)
        scratch = std::make_unique<Operand>(std::vector<int64_t>{bytes}, DType::kU8, false);
      ctx.workspace = {scratch->view().template as<std::byte>(), static_cast<size_t>(bytes)};
    }
    ThreadPool pool;
    Context ctx;
    std::unique_ptr<Operand> scratch;
  };

  /// Nobody on the CPU may write to what is only read, not even what it held.
  Status run_once(const Impl<Op>& impl, const Args& args, Context& ctx) {
    const auto set_writable = [&](bool writable) {
      for (const auto& o : operands_) {
        if (impl.device == Device::kCpu && !is_output(*o)) o->set_writable(writable);
      }
    };
    set_writable(false);
    Status s = impl.run(args, ctx);
    set_writable(true);
    return s;
  }

  struct Output {
    Operand* operand;
    std::vector<std::byte> before;
    bool reads;  // it is an input, too
  };

  /// What all operands hold, to come back to.
  class Contents {
   public:
    explicit Contents(OpTester& tester) : tester_(tester) {
      for (const auto& o : tester.operands_) bytes_.push_back(o->bytes());
      for (const Output& o : tester.outputs_) before_.push_back(o.before);
    }
    ~Contents() { restore(); }
    void restore() const {
      for (size_t i = 0; i < bytes_.size(); ++i) tester_.operands_[i]->set_bytes(bytes_[i]);
      for (size_t i = 0; i < before_.size(); ++i) tester_.outputs_[i].before = before_[i];
    }

   private:
    OpTester& tester_;
    std::vector<std::vector<std::byte>> bytes_, before_;
  };

  struct Special {
    const char* name;
    void (*fill)(Operand&);
  };
  /// Where shortcuts are taken: nothing to add, numbers that flush to zero.
  static constexpr Special kSpecials[] = {
      {"all zero", [](Operand& o) { o.fill(0); }},
      {"with zeros first",
       [](Operand& o) {
         for (int64_t i = 0; i < std::min<int64_t>(o.numel(), 2); ++i) o.set(i, 0);
       }},
      {"subnormal", [](Operand& o) { o.fill(o.view().dtype == DType::kF16 ? 0x1p-20 : 0x1p-130); }},
  };
  static constexpr int64_t kMostSpecial = 4096;

  /// Calls body for what is read, but for whole numbers, which say where things are.
  template <class Body>
  void for_each_content(Body&& body) {
    for (const auto& o : operands_) {
      const bool is_result = std::any_of(outputs_.begin(), outputs_.end(), [&](const Output& out) {
        return out.operand == o.get() && !out.reads;
      });
      if (o->view().dtype != DType::kI32 && !is_result) body(*o);
    }
  }

  static bool is_float(DType dtype) {
    return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
  }
  int64_t num_outputs() const {
    int64_t sum = 0;
    for (const Output& o : outputs_) sum += o.operand->numel();
    return sum;
  }
  bool is_output(const Operand& operand) const {
    return std::any_of(outputs_.begin(), outputs_.end(),
                       [&](const Output& o) { return o.operand == &operand; });
  }
  std::vector<std::vector<std::byte>> inputs() const {
    std::vector<std::vector<std::byte>> out;
    for (const auto& o : operands_) {
      if (!is_output(*o)) out.push_back(o->bytes());
    }
    return out;
  }
  std::vector<std::byte> output_bytes() const {
    std::vector<std::byte> out;
    for (const Output& o : outputs_) {
      const std::vector<std::byte> bytes = o.operand->bytes();
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
    return out;
  }
  /// What outputs that are read hold now is what they hold before every run.
  void keep_outputs() {
    for (Output& o : outputs_) {
      if (o.reads) o.before = o.operand->bytes();
    }
  }

  /// Many runs of a small case, where that is asked for.
  testing::AssertionResult soak(const Args& args, const std::vector<std::byte>& want) {
    constexpr size_t kMostBytes = 1 << 14;
    if (want.empty() || want.size() > kMostBytes) return testing::AssertionSuccess();
    return soaked(args, Implementations::soaks(Op::kName, impl_.name, impl_.device));
  }

 public:
  /// The same bits in each of so many runs.
  testing::AssertionResult soaked(const Args& args, int64_t runs) {
    if (runs == 0) return testing::AssertionSuccess();
    const std::vector<std::byte> want = run(args);
    if (!error_.empty()) return failure() << error_;
    Surroundings around(impl_.device, 2);
    around.make_workspace(impl_, args);
    for (int64_t i = 0; i < runs; ++i) {
      reset_outputs();
      Status s = impl_.run(args, around.ctx);
      if (s.ok()) s = synchronize(impl_.device);
      if (!s.ok()) return failure() << "run " << i << " of " << runs << ": " << s.message();
      const std::byte* bytes = want.data();
      for (const Output& o : outputs_) {
        if (!o.operand->holds(bytes))
          return failure() << "run " << i << " of " << runs << " has other bits than the first";
        bytes += o.operand->view().bytes();
      }
    }
    return testing::AssertionSuccess();
  }

 private:
  Tensor make(std::vector<int64_t> dims, DType dtype, bool strided, double deviation) {
    operands_.push_back(std::make_unique<Operand>(std::move(dims), dtype, strided));
    Operand& o = *operands_.back();
    std::normal_distribution<double> normal(0, deviation);
    for (int64_t i = 0; i < o.numel(); ++i) o.set(i, normal(rng_));
    return o.view();
  }
  Tensor mark_output(double fill) {
    Operand& o = *operands_.back();
    if (std::isnan(fill)) o.fill(fill);
    outputs_.push_back({&o, o.bytes(), !std::isnan(fill)});
    return o.view();
  }
  std::vector<std::byte> fail(std::string why) {
    error_ = std::move(why);
    return {};
  }
  testing::AssertionResult failure() const {
    return testing::AssertionFailure() << Op::kName << "/" << impl_.name << " seed " << seed_
                                       << (strided_ ? " strided: " : ": ");
  }
  static std::vector<double> values(const Operand& o) {
    std::vector<double> out;
    for (int64_t i = 0; i < o.numel(); ++i) out.push_back(o.get(i));
    return out;
  }

  const Impl<Op>& impl_;
  bool strided_;
  uint64_t seed_;
  std::mt19937_64 rng_;
  std::vector<std::unique_ptr<Operand>> operands_;
  std::vector<Output> outputs_;
  std::unique_ptr<Operand> scratch_;  // of the last run
  bool left_over_ = false;            // the next run finds what the last one left
  std::string error_;
};

}  // namespace vlr::test

#endif  // VLR_TESTS_SUPPORT_OP_TESTER_H_
