/// Tensor views: dtype, dims, strides, data. A view never owns what it shows.
#ifndef VLR_KERNELS_CORE_TENSOR_H_
#define VLR_KERNELS_CORE_TENSOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace vlr {

enum class Device : uint8_t { kCpu, kCuda };
constexpr std::string_view device_name(Device d) { return d == Device::kCpu ? "cpu" : "cuda"; }

/// The element types of the safetensors format.
enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};

constexpr int64_t dtype_bytes(DType t) {
  switch (t) {
    case DType::kBool:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      return 1;
    case DType::kI16:
    case DType::kU16:
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI32:
    case DType::kU32:
    case DType::kF32:
      return 4;
    case DType::kI64:
    case DType::kU64:
    case DType::kF64:
      return 8;
  }
  return 0;
}

/// Lower-case name as in messages: "bf16", "f32", "u8".
std::string_view dtype_name(DType t);

/// Distance between 1 and the next value of a floating-point dtype, halved: the relative error of
/// one round-to-nearest. 0 for integers.
double dtype_epsilon(DType t);

constexpr int kMaxRank = 4;

/// Throws std::length_error: a view was to have axes that it has no room for, or to show what is not
/// there. A bug of ours, which must not become a write past the end of an array.
[[noreturn]] void broken_view(const char* expected);

/// A view of a dense array of up to four axes. Strides count elements; the last axis has stride 1
/// unless a contract says otherwise. `TensorView<void>` may be written through, `<const void>` may
/// not.
template <class Void>
struct TensorView {
  Void* data = nullptr;
  DType dtype = DType::kF32;
  Device device = Device::kCpu;
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{};
  std::array<int64_t, kMaxRank> strides{};

  TensorView() = default;
  /// Contiguous, row-major.
  TensorView(Void* data_, DType dtype_, std::initializer_list<int64_t> dims_,
             Device device_ = Device::kCpu)
      : data(data_), dtype(dtype_), device(device_), rank(static_cast<int>(dims_.size())) {
    if (dims_.size() > kMaxRank) broken_view("at most four axes");
    int i = 0;
    for (int64_t d : dims_) dims[static_cast<size_t>(i++)] = d;
    int64_t stride = 1;
    for (i = rank - 1; i >= 0; --i) {
      strides[static_cast<size_t>(i)] = stride;
      stride *= dims[static_cast<size_t>(i)];
    }
  }
  /// A writable view reads as a constant one.
  template <class Other, class = std::enable_if_t<std::is_const_v<Void> && !std::is_const_v<Other>>>
  TensorView(const TensorView<Other>& o)  // NOLINT: implicit by design
      : data(o.data),
        dtype(o.dtype),
        device(o.device),
        rank(o.rank),
        dims(o.dims),
        strides(o.strides) {}

  bool defined() const { return rank > 0; }  ///< optional operands are views of rank 0
  int64_t dim(int i) const { return dims[static_cast<size_t>(i)]; }
  int64_t stride(int i) const { return strides[static_cast<size_t>(i)]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim(i);
    return n;
  }
  int64_t bytes() const { return numel() * dtype_bytes(dtype); }
  bool contiguous() const {
    int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (dim(i) != 1 && stride(i) != expected) return false;
      expected *= dim(i);
    }
    return true;
  }

  template <class T>
  auto as() const {
    using Out = std::conditional_t<std::is_const_v<Void>, const T, T>;
    return static_cast<Out*>(data);
  }
  /// Start of row i of the first axis.
  template <class T>
  auto row(int64_t i) const {
    return as<T>() + i * stride(0);
  }

  /// Elements [begin, begin + count) of one axis.
  TensorView slice(int axis, int64_t begin, int64_t count) const {
    if (axis < 0 || axis >= rank) broken_view("an axis that there is, to take a part of it");
    if (begin < 0 || count < 0 || begin > dim(axis) - count) broken_view("a part within the axis");
    TensorView v = *this;
    v.dims[static_cast<size_t>(axis)] = count;
    using Byte = std::conditional_t<std::is_const_v<Void>, const std::byte, std::byte>;
    if (data) v.data = static_cast<Byte*>(data) + begin * stride(axis) * dtype_bytes(dtype);
    return v;
  }
  /// The last axis [n * inner] as two axes [n, inner].
  TensorView split_last(int64_t inner) const {
    if (rank < 1 || rank >= kMaxRank) broken_view("one to three axes, to split the last one");
    if (inner < 1 || dim(rank - 1) % inner != 0) broken_view("a last axis of whole parts");
    TensorView v = *this;
    const auto last = static_cast<size_t>(rank - 1);
    v.dims[last] = dims[last] / inner;
    v.strides[last] = strides[last] * inner;
    v.dims[last + 1] = inner;
    v.strides[last + 1] = strides[last];
    v.rank = rank + 1;
    return v;
  }
};

using Tensor = TensorView<void>;
using ConstTensor = TensorView<const void>;

/// A contiguous view with dims that are known at run time; at most kMaxRank of them.
ConstTensor contiguous_view(const void* data, DType dtype, std::span<const int64_t> dims);

/// "bf16[12, 4096]", as error messages show a tensor.
std::string describe(const ConstTensor& t);

/// bf16 <-> f32. Widening is exact; narrowing rounds to nearest even and keeps NaN a NaN.
inline float bf16_to_f32(uint16_t v) {
  const uint32_t bits = static_cast<uint32_t>(v) << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
inline uint16_t f32_to_bf16(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>(bits >> 16);
}
/// f16 <-> f32, IEEE binary16; narrowing rounds to nearest even.
float f16_to_f32(uint16_t v);
uint16_t f32_to_f16(float f);

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_TENSOR_H_
