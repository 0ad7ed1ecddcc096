#include "tests/support/op_tester.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/quant/eight_bit.h"

#if VLR_WITH_CUDA
#include <cuda_runtime_api.h>

#include "kernels/cuda/blas.h"
#endif

namespace vlr::test {
namespace {

constexpr int8_t kNoInt8 = -128;  // no code that anyone writes: stands for NaN

bool has_gpu() {
#if VLR_WITH_CUDA
  static const bool found = [] {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  }();
  return found;
#else
  return false;
#endif
}

std::byte* allocate(int64_t bytes) {
#if VLR_WITH_CUDA
  // Pinned memory has one address on both sides, so that an operand can be given to any
  // implementation.
  void* pinned = nullptr;
  if (has_gpu())
    return cudaMallocHost(&pinned, static_cast<size_t>(bytes)) == cudaSuccess
               ? static_cast<std::byte*>(pinned)
               : nullptr;
#endif
  return static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(bytes)));
}

}  // namespace

void Operand::Free::operator()(std::byte* p) const {
#if VLR_WITH_CUDA
  if (has_gpu()) {
    cudaFreeHost(p);
    return;
  }
#endif
  std::free(p);
}

cuda::Blas* shared_blas(Device device) {
#if VLR_WITH_CUDA
  if (device == Device::kCuda && has_gpu()) {
    static cuda::Blas* const blas = [] {  // never freed: at exit CUDA may be gone first
      auto made = cuda::Blas::create(true);
      return made ? std::move(made).value().release() : nullptr;
    }();
    return blas;
  }
#endif
  (void)device;
  return nullptr;
}

Status synchronize(Device device) {
  if (device == Device::kCpu) return {};
  if (!has_gpu()) return {Code::kDevice, "no GPU"};
#if VLR_WITH_CUDA
  if (const cudaError_t e = cudaDeviceSynchronize(); e != cudaSuccess)
    return {Code::kDevice, cudaGetErrorString(e)};
#endif
  return {};
}

Operand::Operand(std::vector<int64_t> dims, DType dtype, bool strided) {
  view_.dtype = dtype;
  view_.rank = static_cast<int>(dims.size());
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    view_.dims[i] = dims[i];
    view_.strides[i] = stride;
    stride *= dims[i];
    // 16 bytes or more of gap after each row and after each plane of rows.
    if (strided && i > 0) stride += 5 + static_cast<int64_t>(i) * 3;
  }
  const int64_t bytes = (stride * dtype_bytes(dtype) + 63) / 64 * 64;
  total_ = bytes + 2 * kGuard;
  memory_.reset(allocate(total_));
  std::fill_n(memory_.get(), total_, kPattern);
  view_.data = memory_.get() + kGuard;
}

int64_t Operand::offset(int64_t i) const {
  int64_t at = 0;
  for (int axis = view_.rank - 1; axis >= 0; --axis) {
    at += i % view_.dim(axis) * view_.stride(axis);
    i /= view_.dim(axis);
  }
  return at;
}

template <class Body>
void Operand::for_each_row(Body&& body) const {
  const int64_t size = dtype_bytes(view_.dtype);
  const int64_t row = view_.rank == 0 ? 1 : view_.dim(view_.rank - 1);
  for (int64_t i = 0; i < numel(); i += row)
    body(memory_.get() + kGuard + offset(i) * size, static_cast<size_t>(row * size));
}

bool Operand::intact() const {
  const auto untouched = [](const std::byte* begin, const std::byte* end) {
    return std::all_of(begin, end, [](std::byte b) { return b == kPattern; });
  };
  const std::byte* past = memory_.get();  // the row before
  bool all = true;
  for_each_row([&](const std::byte* row, size_t bytes) {
    all = all && untouched(past, row);
    past = row + bytes;
  });
  return all && untouched(past, memory_.get() + total_);
}

double Operand::get(int64_t i) const {
  const int64_t at = offset(i);
  switch (view_.dtype) {
    case DType::kI32:
      return view_.as<int32_t>()[at];
    case DType::kU8:
      return view_.as<uint8_t>()[at];
    case DType::kI8: {
      const int8_t code = view_.as<int8_t>()[at];
      return code == kNoInt8 ? std::nan("") : code;
    }
    case DType::kF8E4M3:
      return static_cast<double>(e4m3_to_f32(view_.as<uint8_t>()[at]));
    default:
      return static_cast<double>(load_f32(view_, at));
  }
}

void Operand::set(int64_t i, double value) {
  const int64_t at = offset(i);
  switch (view_.dtype) {
    case DType::kI32:
      view_.as<int32_t>()[at] = static_cast<int32_t>(value);
      break;
    case DType::kU8:
      view_.as<uint8_t>()[at] = static_cast<uint8_t>(std::lround(std::fabs(value)));
      break;
    case DType::kI8:
      view_.as<int8_t>()[at] = std::isnan(value) ? kNoInt8 : to_int8(static_cast<float>(value), 1);
      break;
    case DType::kF8E4M3:
      view_.as<uint8_t>()[at] = f32_to_e4m3(static_cast<float>(value));
      break;
    case DType::kBF16:
      view_.as<uint16_t>()[at] = f32_to_bf16(static_cast<float>(value));
      break;
    case DType::kF16:
      view_.as<uint16_t>()[at] = f32_to_f16(static_cast<float>(value));
      break;
    default:
      view_.as<float>()[at] = static_cast<float>(value);
  }
}

std::vector<std::byte> Operand::bytes() const {
  std::vector<std::byte> out;
  out.reserve(static_cast<size_t>(view_.bytes()));
  for_each_row(
      [&](const std::byte* row, size_t bytes) { out.insert(out.end(), row, row + bytes); });
  return out;
}

void Operand::set_bytes(const std::vector<std::byte>& bytes) {
  const std::byte* from = bytes.data();
  for_each_row([&](std::byte* row, size_t count) {
    std::memcpy(row, from, count);
    from += count;
  });
}

std::string Operand::index_name(int64_t i) const {
  std::string name;
  for (int axis = view_.rank - 1; axis >= 0; --axis) {
    name = (axis > 0 ? ", " : "[") + std::to_string(i % view_.dim(axis)) + name;
    i /= view_.dim(axis);
  }
  return name + "]";
}

std::vector<int64_t> targets() { return hwy::SupportedAndGeneratedTargets(); }

}  // namespace vlr::test
