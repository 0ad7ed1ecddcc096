/// Where a bench's operands live. The same code makes them on the host and on a device, once for
/// every set of them that a bench rotates among.
#ifndef VLR_BENCH_SUPPORT_OPERANDS_H_
#define VLR_BENCH_SUPPORT_OPERANDS_H_

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "bench/support/checksum.h"
#include "bench/support/fill_random.h"
#include "bench/support/gpu.h"
#include "kernels/core/load.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/eight_bit.h"

namespace vlr::bench {

/// What operands are filled with.
struct Data {
  /// Values that weights have, again and again; empty: normal ones of deviation 1.
  std::vector<float> weights;
};

/// What outputs hold before a launch: NaN in every floating-point dtype, or numbers, 0.75 or so, for
/// who takes a number that is there for work that is done. The byte that all of it is made of.
enum class Poison : uint8_t { kNan = 0xFF, kNumbers = 0x3F };

/// What inputs of activations hold: normal values, or zeros in the first third, numbers that flush to
/// zero in the next one and normal values in the last. Where shortcuts are taken.
enum class Contents : uint8_t { kNormal, kSpecial };

/// Makes contiguous operands, each with a name and between guards, and owns them. An op asks for the
/// same ones in the same order every time, which is how a MirrorOperands finds the original of each.
class Operands {
 public:
  static constexpr int64_t kGuard = 256;       ///< bytes on both sides; keeps alignment
  static constexpr uint8_t kGuardByte = 0xFF;  ///< to a reader NaN

  explicit Operands(Device device) : device_(device) {}
  /// Those of `first` with these names are shared with it, and only it fills them.
  Operands(Device device, const Operands* first, const std::set<std::string>& shared)
      : device_(device) {
    if (!first) return;
    for (const Named& n : first->all()) {
      if (shared.contains(n.name)) shared_[n.name] = n.tensor.as<std::byte>();
    }
  }
  virtual ~Operands() = default;
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;

  Device device() const { return device_; }
  int64_t bytes() const { return bytes_; }  ///< of all operands so far

  enum class Kind { kRandom, kWeights, kOutput, kValues };
  struct Named {
    std::string name;
    Tensor tensor;
    Kind kind;
  };
  /// In the order in which they were made.
  const std::vector<Named>& all() const { return all_; }

  /// Normal values of deviation 1. Of i8 and f8e4m3 what they become where the largest of a row is
  /// the largest code; of u8 all codes alike. The first one is the same whatever the seed, for who
  /// tells operands apart by it.
  Tensor random(std::string name, std::initializer_list<int64_t> dims, DType dtype = DType::kF32) {
    return filled(std::move(name), dims, dtype, Kind::kRandom);
  }
  /// A weight: the same, or a model's.
  Tensor weights(std::string name, std::initializer_list<int64_t> dims, DType dtype) {
    return filled(std::move(name), dims, dtype, Kind::kWeights);
  }
  /// What an implementation will write: NaN.
  Tensor output(std::string name, std::initializer_list<int64_t> dims, DType dtype = DType::kF32) {
    const Tensor t = make(std::move(name), dims, dtype, Kind::kOutput);
    if (t.data) poison(t, Poison::kNan);
    return t;
  }
  /// Values that the op's description made: indices, positions, segments.
  template <class T>
  Tensor copy_of(std::string name, const std::vector<T>& values,
                 std::initializer_list<int64_t> dims, DType dtype = DType::kI32) {
    const Tensor t = make(std::move(name), dims, dtype, Kind::kValues);
    if (!is_shared(all_.back())) fill_from(t, values.data());
    return t;
  }
  void poison_outputs(Poison with = Poison::kNan) {
    for (const Named& n : all_) {
      if (n.kind == Kind::kOutput) poison(n.tensor, with);
    }
    reset_guards();
  }
  /// Of one place in an output.
  void poison_at(std::byte* p, int64_t bytes, Poison with) {
    poison(Tensor(p, DType::kU8, {bytes}, device_), with);
  }
  /// Other contents at the same addresses: those that operands made from this seed have.
  void refill(uint64_t seed, Contents contents = Contents::kNormal) {
    reseed(seed);
    for (const Named& n : all_) {
      if (n.kind == Kind::kRandom || n.kind == Kind::kWeights) fill(n);
      if (n.kind == Kind::kRandom && contents == Contents::kSpecial) fill_special(n);
      if (n.kind == Kind::kOutput) poison(n.tensor, Poison::kNan);
    }
    reset_guards();
  }
  /// kInternal, with the operand's name, where a guard is not as it was made.
  Status guards_intact() {
    static const uint64_t intact = [] {
      const std::vector<std::byte> bytes(kGuard, std::byte{kGuardByte});
      return bench::checksum(bytes.data(), kGuard);
    }();
    for (const Named& n : all_) {
      for (const bool behind : {false, true}) {
        std::byte* const guard = guard_of(n, behind);
        if (!guard) continue;
        VLR_ASSIGN_OR_RETURN(const uint64_t sum, checksum(guard, kGuard));
        if (sum != intact)
          return {Code::kInternal,
                  "wrote " + std::string(behind ? "behind" : "before") + " the operand " + n.name};
      }
    }
    return {};
  }
  /// Of bytes where the operands are.
  virtual Result<uint64_t> checksum(const std::byte* p, int64_t bytes) {
    return bench::checksum(p, bytes);
  }

 protected:
  virtual std::byte* allocate(int64_t bytes) = 0;
  virtual bool has_guards() const { return false; }
  virtual void fill_random(const Tensor& t) = 0;
  virtual void fill_weights(const Tensor& t) { fill_random(t); }
  virtual void fill_from(const Tensor& t, const void* values) = 0;
  /// Of what will be written, before anything is filled.
  virtual void poison(const Tensor& t, Poison with) = 0;
  virtual void reseed(uint64_t seed) = 0;

 private:
  Tensor make(std::string name, std::initializer_list<int64_t> dims, DType dtype, Kind kind) {
    Tensor t(nullptr, dtype, dims, device_);
    const auto it = shared_.find(name);
    t.data = it != shared_.end() ? it->second
             : has_guards()      ? between_guards(t.bytes())
                                 : allocate(t.bytes());
    bytes_ += t.bytes();
    all_.push_back({std::move(name), t, kind});
    for (const bool behind : {false, true}) reset_guard(all_.back(), behind);
    return t;
  }
  std::byte* between_guards(int64_t bytes) {
    std::byte* const p = allocate(bytes + 2 * kGuard);
    return p ? p + kGuard : nullptr;
  }
  /// Null where there is none: those of shared operands are the first set's.
  std::byte* guard_of(const Named& n, bool behind) const {
    auto* const p = n.tensor.as<std::byte>();
    if (!has_guards() || !p || is_shared(n)) return nullptr;
    return behind ? p + n.tensor.bytes() : p - kGuard;
  }
  void reset_guard(const Named& n, bool behind) {
    if (std::byte* const p = guard_of(n, behind)) poison_at(p, kGuard, Poison{kGuardByte});
  }
  void reset_guards() {
    for (const Named& n : all_) {
      for (const bool behind : {false, true}) reset_guard(n, behind);
    }
  }
  void fill_special(const Named& n) {
    const Tensor& t = n.tensor;
    if (is_shared(n) || dtype_bytes(t.dtype) == 1 || !t.data) return;
    const int64_t third = t.numel() / 3, bytes = third * dtype_bytes(t.dtype);
    std::vector<std::byte> values(static_cast<size_t>(bytes));
    Tensor part(t.data, t.dtype, {third}, device_);
    fill_from(part, values.data());  // zeros
    const Tensor host(values.data(), t.dtype, {third});
    for (int64_t i = 0; i < third; ++i)
      store_f32(host, i, t.dtype == DType::kF16 ? 0x1p-20f : 0x1p-130f);
    part.data = t.as<std::byte>() + bytes;
    fill_from(part, values.data());
  }
  Tensor filled(std::string name, std::initializer_list<int64_t> dims, DType dtype, Kind kind) {
    make(std::move(name), dims, dtype, kind);
    fill(all_.back());
    return all_.back().tensor;
  }
  bool is_shared(const Named& n) const { return shared_.contains(n.name); }
  void fill(const Named& n) {
    if (is_shared(n)) return;
    n.kind == Kind::kWeights ? fill_weights(n.tensor) : fill_random(n.tensor);
  }

  Device device_;
  int64_t bytes_ = 0;
  std::vector<Named> all_;
  std::map<std::string, std::byte*> shared_;
};

/// Values of a row of numbers, again and again from some place on, in the dtype of t.
inline void fill_repeated(const Tensor& t, const std::vector<float>& values, uint64_t start) {
  for (int64_t i = 0; i < t.numel(); ++i)
    store_f32(t, i, values[(start + static_cast<uint64_t>(i)) % values.size()]);
}

/// Shapes and dtypes only: for asking an implementation what it supports.
class ShapeOperands : public Operands {
 public:
  using Operands::Operands;

 private:
  std::byte* allocate(int64_t) override { return nullptr; }
  void fill_random(const Tensor&) override {}
  void fill_from(const Tensor&, const void*) override {}
  void poison(const Tensor&, Poison) override {}
  void reseed(uint64_t) override {}
};

/// 64-byte aligned memory of the host.
class HostOperands : public Operands {
 public:
  explicit HostOperands(uint64_t seed = 1, const Data* data = nullptr,
                        const Operands* first = nullptr, const std::set<std::string>& shared = {})
      : Operands(Device::kCpu, first, shared), data_(data) {
    reseed(seed);
  }

 private:
  bool has_guards() const override { return true; }
  std::byte* allocate(int64_t bytes) override {
    memory_.emplace_back(std::aligned_alloc(64, static_cast<size_t>((bytes + 127) / 64 * 64)),
                         std::free);
    if (!memory_.back()) throw std::bad_alloc();
    return static_cast<std::byte*>(memory_.back().get());
  }
  void fill_random(const Tensor& t) override {
    if (t.dtype == DType::kU8) {
      for (int64_t i = 0; i < t.numel(); ++i)
        t.as<uint8_t>()[i] = i == 0 ? kFirstCode : static_cast<uint8_t>(rng_());
      return;
    }
    // Values repeat with a period that no shape shares: making them must not take longer than
    // timing.
    std::vector<float> values(9973);
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(rng_);
    values[0] = kFirstValue;
    if (dtype_bytes(t.dtype) > 1) return fill_repeated(t, values, 0);
    // Quantised rows, whose largest value is about four deviations away.
    for (int64_t i = 0; i < t.numel(); ++i) {
      const float v = values[static_cast<size_t>(i) % values.size()] * largest_code(t.dtype) / 4;
      t.as<uint8_t>()[i] =
          t.dtype == DType::kI8 ? static_cast<uint8_t>(to_int8(v, 1)) : f32_to_e4m3(v);
    }
  }
  void fill_weights(const Tensor& t) override {
    if (!data_ || data_->weights.empty() || dtype_bytes(t.dtype) == 1) return fill_random(t);
    fill_repeated(t, data_->weights, rng_());
  }
  void fill_from(const Tensor& t, const void* values) override {
    std::copy_n(static_cast<const std::byte*>(values), t.bytes(), t.as<std::byte>());
  }
  void poison(const Tensor& t, Poison with) override {
    std::memset(t.data, static_cast<int>(with), static_cast<size_t>(t.bytes()));
  }
  void reseed(uint64_t seed) override { rng_.seed(static_cast<uint32_t>(seed)); }

  std::mt19937 rng_;
  const Data* data_;
  std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
};

/// Memory of a GPU, filled there; what will be written holds NaN. Errors are the Gpu's.
class DeviceOperands : public Operands {
 public:
  /// Another seed gives other values.
  DeviceOperands(Gpu& gpu, uint64_t seed, const Data* data = nullptr,
                 const Operands* first = nullptr, const std::set<std::string>& shared = {})
      : Operands(Device::kCuda, first, shared), gpu_(gpu), seed_(seed << 16), data_(data) {}

  Result<uint64_t> checksum(const std::byte* p, int64_t bytes) override {
    return gpu_.checksum(p, bytes);
  }

 private:
  bool has_guards() const override { return true; }
  std::byte* allocate(int64_t bytes) override { return gpu_.allocate(bytes); }
  void poison(const Tensor& t, Poison with) override {
    gpu_.poison(t.as<std::byte>(), t.bytes(), static_cast<uint8_t>(with));
  }
  void reseed(uint64_t seed) override { seed_ = seed << 16; }
  void fill_random(const Tensor& t) override { gpu_.fill_random(t, seed_++); }
  void fill_weights(const Tensor& t) override {
    if (!data_ || data_->weights.empty() || dtype_bytes(t.dtype) == 1) return fill_random(t);
    std::vector<std::byte> host(static_cast<size_t>(t.bytes()));
    Tensor copy = t;
    copy.data = host.data();
    fill_repeated(copy, data_->weights, seed_++ * 7919);
    gpu_.upload(t.data, host.data(), t.bytes());
  }
  void fill_from(const Tensor& t, const void* values) override {
    gpu_.upload(t.data, values, t.bytes());
  }

  Gpu& gpu_;
  uint64_t seed_;
  const Data* data_;
};

/// A copy on the host of what other operands hold now, for the reference.
class MirrorOperands : public Operands {
 public:
  /// `gpu`: where the original is; null: on the host.
  MirrorOperands(Gpu* gpu, const Operands& original)
      : Operands(Device::kCpu), gpu_(gpu), original_(original) {}

 private:
  std::byte* allocate(int64_t bytes) override {
    const Named& from = original_.all()[memory_.size()];
    // Not touched before something is written: a reference of a few rows costs a few pages.
    memory_.emplace_back(new std::byte[static_cast<size_t>(bytes)]);
    std::byte* to = memory_.back().get();
    if (from.kind == Kind::kOutput) return to;
    gpu_ ? gpu_->download(to, from.tensor.data, bytes)
         : void(std::copy_n(from.tensor.as<std::byte>(), bytes, to));
    return to;
  }
  void fill_random(const Tensor&) override {}
  void fill_from(const Tensor&, const void*) override {}
  void poison(const Tensor&, Poison) override {}  // not touched, see allocate()
  void reseed(uint64_t) override {}

  Gpu* gpu_;
  const Operands& original_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_OPERANDS_H_
