#include "tests/support/op_tester.h"

#include <algorithm>
#include <cstdlib>

#if VLR_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace vlr::test {
namespace {

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

bool Operand::intact() const {
  const int64_t size = dtype_bytes(view_.dtype);
  std::vector<bool> element(static_cast<size_t>(total_));
  for (int64_t i = 0; i < numel(); ++i) {
    std::fill_n(element.begin() + kGuard + offset(i) * size, size, true);
  }
  for (int64_t b = 0; b < total_; ++b) {
    if (!element[static_cast<size_t>(b)] && memory_[static_cast<size_t>(b)] != kPattern)
      return false;
  }
  return true;
}

double Operand::get(int64_t i) const {
  const int64_t at = offset(i);
  switch (view_.dtype) {
    case DType::kI32:
      return view_.as<int32_t>()[at];
    case DType::kU8:
      return view_.as<uint8_t>()[at];
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
  const int64_t size = dtype_bytes(view_.dtype);
  std::vector<std::byte> out(static_cast<size_t>(numel() * size));
  for (int64_t i = 0; i < numel(); ++i) {
    std::memcpy(out.data() + i * size, view_.as<std::byte>() + offset(i) * size,
                static_cast<size_t>(size));
  }
  return out;
}

void Operand::set_bytes(const std::vector<std::byte>& bytes) {
  const int64_t size = dtype_bytes(view_.dtype);
  for (int64_t i = 0; i < numel(); ++i) {
    std::memcpy(view_.as<std::byte>() + offset(i) * size, bytes.data() + i * size,
                static_cast<size_t>(size));
  }
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
