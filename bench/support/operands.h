/// Where a bench's operands live. The same code makes them on the host and on a device, once for
/// every set of them that a bench rotates among.
#ifndef VLR_BENCH_SUPPORT_OPERANDS_H_
#define VLR_BENCH_SUPPORT_OPERANDS_H_

#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "bench/support/gpu.h"
#include "kernels/core/load.h"
#include "kernels/core/tensor.h"

namespace vlr::bench {

/// Makes contiguous operands and owns them. A bench asks for the same ones in the same order every
/// time, which is how a MirrorOperands finds the original of each.
class Operands {
 public:
  explicit Operands(Device device) : device_(device) {}
  virtual ~Operands() = default;
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;

  Device device() const { return device_; }
  int64_t bytes() const { return bytes_; }  ///< of all operands so far

  /// Normal values of deviation 1; of 8 bits all values alike, but no NaN.
  Tensor random(std::initializer_list<int64_t> dims, DType dtype = DType::kF32) {
    const Tensor t = make(dims, dtype);
    fill_random(t);
    random_.push_back(t);
    return t;
  }
  /// What an implementation will write: NaN.
  Tensor uninitialised(std::initializer_list<int64_t> dims, DType dtype = DType::kF32) {
    const Tensor t = make(dims, dtype);
    if (t.data) poison(t);
    written_.push_back(t);
    return t;
  }
  /// Other contents at the same addresses: those that operands made from this seed have.
  void refill(uint64_t seed) {
    reseed(seed);
    for (const Tensor& t : random_) fill_random(t);
    for (const Tensor& t : written_) poison(t);
  }
  /// Values that the bench made: indices, positions, segments.
  template <class T>
  Tensor copy_of(const std::vector<T>& values, std::initializer_list<int64_t> dims,
                 DType dtype = DType::kI32) {
    const Tensor t = make(dims, dtype);
    fill_from(t, values.data());
    return t;
  }

 protected:
  Tensor make(std::initializer_list<int64_t> dims, DType dtype) {
    Tensor t(nullptr, dtype, dims, device_);
    t.data = allocate(t.bytes());
    bytes_ += t.bytes();
    return t;
  }
  virtual std::byte* allocate(int64_t bytes) = 0;
  virtual void fill_random(const Tensor& t) = 0;
  virtual void fill_from(const Tensor& t, const void* values) = 0;
  /// What will be written holds NaN again, before anything is filled.
  virtual void poison(const Tensor& t) = 0;
  virtual void reseed(uint64_t seed) = 0;

  std::vector<Tensor> random_, written_;  // in the order in which they were made

 private:
  Device device_;
  int64_t bytes_ = 0;
};

/// Shapes and dtypes only: for asking an implementation what it supports.
class ShapeOperands : public Operands {
 public:
  using Operands::Operands;

 private:
  std::byte* allocate(int64_t) override { return nullptr; }
  void fill_random(const Tensor&) override {}
  void fill_from(const Tensor&, const void*) override {}
  void poison(const Tensor&) override {}
  void reseed(uint64_t) override {}
};

/// 64-byte aligned memory of the host.
class HostOperands : public Operands {
 public:
  explicit HostOperands(uint64_t seed = 1) : Operands(Device::kCpu) { reseed(seed); }

 private:
  std::byte* allocate(int64_t bytes) override {
    memory_.emplace_back(std::aligned_alloc(64, static_cast<size_t>((bytes + 127) / 64 * 64)),
                         std::free);
    return static_cast<std::byte*>(memory_.back().get());
  }
  void fill_random(const Tensor& t) override {
    if (dtype_bytes(t.dtype) == 1) {
      for (int64_t i = 0; i < t.numel(); ++i) {
        const auto byte = static_cast<uint8_t>(rng_());
        const bool is_nan = t.dtype == DType::kF8E4M3 && (byte & 0x7f) == 0x7f;
        t.as<uint8_t>()[i] = is_nan ? 0 : byte;
      }
      return;
    }
    // Values repeat with a period that no shape shares: making them must not take longer than
    // timing.
    std::vector<float> values(9973);
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(rng_);
    for (int64_t i = 0; i < t.numel(); ++i)
      store_f32(t, i, values[static_cast<size_t>(i) % values.size()]);
  }
  void fill_from(const Tensor& t, const void* values) override {
    std::copy_n(static_cast<const std::byte*>(values), t.bytes(), t.as<std::byte>());
  }
  void poison(const Tensor& t) override {
    std::memset(t.data, 0xFF, static_cast<size_t>(t.bytes()));
  }
  void reseed(uint64_t seed) override { rng_.seed(static_cast<uint32_t>(seed)); }

  std::mt19937 rng_;
  std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
};

/// Memory of a GPU, filled there; what will be written holds NaN. Errors are the Gpu's.
class DeviceOperands : public Operands {
 public:
  /// Another seed gives other values.
  DeviceOperands(Gpu& gpu, uint64_t seed) : Operands(Device::kCuda), gpu_(gpu), seed_(seed << 16) {}

  /// Every operand, in the order in which they were made.
  struct Block {
    std::byte* data;
    int64_t bytes;
    bool is_input;
  };
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  std::byte* allocate(int64_t bytes) override {
    blocks_.push_back({gpu_.allocate(bytes), bytes, false});
    return blocks_.back().data;
  }
  void poison(const Tensor& t) override { gpu_.poison(t.as<std::byte>(), t.bytes()); }
  void reseed(uint64_t seed) override { seed_ = seed << 16; }
  void fill_random(const Tensor& t) override {
    blocks_.back().is_input = true;
    gpu_.fill_random(t, seed_++);
  }
  void fill_from(const Tensor& t, const void* values) override {
    blocks_.back().is_input = true;
    gpu_.upload(t.data, values, t.bytes());
  }

  Gpu& gpu_;
  uint64_t seed_;
  std::vector<Block> blocks_;
};

/// A copy on the host of what DeviceOperands made, for the reference.
class MirrorOperands : public Operands {
 public:
  MirrorOperands(Gpu& gpu, const DeviceOperands& original)
      : Operands(Device::kCpu), gpu_(gpu), original_(original) {}

  /// The original's address of a byte of the copy.
  const std::byte* original(const std::byte* copy) const {
    for (size_t i = 0; i < memory_.size(); ++i) {
      const auto& block = original_.blocks()[i];
      if (copy >= memory_[i].get() && copy < memory_[i].get() + block.bytes)
        return block.data + (copy - memory_[i].get());
    }
    return nullptr;
  }

 private:
  std::byte* allocate(int64_t bytes) override {
    const auto& block = original_.blocks()[memory_.size()];
    // Not touched before something is written: a reference of a few rows costs a few pages.
    memory_.emplace_back(new std::byte[static_cast<size_t>(bytes)]);
    if (block.is_input) gpu_.download(memory_.back().get(), block.data, bytes);
    return memory_.back().get();
  }
  void fill_random(const Tensor&) override {}
  void fill_from(const Tensor&, const void*) override {}
  void poison(const Tensor&) override {}  // not touched, see allocate()
  void reseed(uint64_t) override {}

  Gpu& gpu_;
  const DeviceOperands& original_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_OPERANDS_H_
