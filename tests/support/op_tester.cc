#include "tests/support/op_tester.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <tuple>
#include <utility>

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

constexpr int64_t kPage = 4096, kForbidden = 16 * kPage;  // on both sides

struct Seen {
  bool ran = false, soaked = false;
};
using Key = std::tuple<std::string, std::string, Device>;
std::map<Key, Seen>& seen() {
  static std::map<Key, Seen> all;
  return all;
}
int64_t runs = 0, refusals = 0;
char running[128] = "nothing";  // for a signal handler

void on_fault(int) {
  const auto say = [](const char* text) { (void)!::write(STDERR_FILENO, text, std::strlen(text)); };
  say(running);
  say(": touched memory outside of its operands, or wrote to one that it reads\n");
  _exit(1);
}

class EveryImplementationRan : public testing::Environment {
 public:
  void TearDown() override {
    const char* wanted = std::getenv("VLR_TEST_EVERY_IMPL");
    if (!wanted || *wanted == '0') return;
    for (const std::string& name : Implementations::not_run())
      ADD_FAILURE() << name << " took the arguments of no case";
  }
};
[[maybe_unused]] testing::Environment* const environment =
    testing::AddGlobalTestEnvironment(new EveryImplementationRan);

}  // namespace

void Implementations::known(std::string_view op, std::string_view impl, Device device) {
  seen()[{std::string(op), std::string(impl), device}];
}

void Implementations::runs(std::string_view op, std::string_view impl, Device device) {
  static const bool handled = [] {
    std::signal(SIGSEGV, on_fault);
    std::signal(SIGBUS, on_fault);
    return true;
  }();
  (void)handled;
  std::snprintf(running, sizeof running, "%.*s/%.*s", static_cast<int>(op.size()), op.data(),
                static_cast<int>(impl.size()), impl.data());
  const auto it = seen().find({std::string(op), std::string(impl), device});
  if (it == seen().end()) return;
  it->second.ran = true;
  ++test::runs;
}

std::vector<std::string> Implementations::not_run() {
  std::vector<std::string> out;
  for (const auto& [key, what] : seen()) {
    const auto& [op, impl, device] = key;
    if (what.ran || (device == Device::kCuda && !has_gpu())) continue;
    out.push_back(op + "/" + impl + " on " + std::string(device_name(device)));
  }
  return out;
}

void Implementations::refuses() { ++refusals; }
int64_t Implementations::num_runs() { return test::runs; }
int64_t Implementations::num_refusals() { return refusals; }

int64_t Implementations::soaks(std::string_view op, std::string_view impl, Device device) {
  static const int64_t wanted = [] {
    const char* text = std::getenv("VLR_TEST_SOAK");
    return text ? std::strtoll(text, nullptr, 10) : 0;
  }();
  Seen& s = seen()[{std::string(op), std::string(impl), device}];
  return std::exchange(s.soaked, true) ? 0 : wanted;
}

std::unique_ptr<std::byte[], Operand::Free> Operand::allocate(int64_t bytes) {
  const auto whole = static_cast<size_t>(bytes + 2 * kForbidden);
  void* const all =
      ::mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  std::byte* const p = static_cast<std::byte*>(all) + kForbidden;
  if (::mprotect(p, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE) != 0)
    throw std::bad_alloc();
#if VLR_WITH_CUDA
  // Pinned memory has one address on both sides, so that an operand can be given to any
  // implementation.
  if (has_gpu() && cudaHostRegister(p, static_cast<size_t>(bytes), 0) != cudaSuccess)
    throw std::bad_alloc();
#endif
  return {p, Free{bytes}};
}

void Operand::Free::operator()(std::byte* p) const {
#if VLR_WITH_CUDA
  if (has_gpu()) cudaHostUnregister(p);
#endif
  ::munmap(p - kForbidden, static_cast<size_t>(bytes + 2 * kForbidden));
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
  total_ = (stride * dtype_bytes(dtype) + 2 * kGuard + kPage - 1) / kPage * kPage;
  memory_ = allocate(total_);
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
  const int64_t row = row_length();
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

void Operand::reverse() {
  const auto size = static_cast<size_t>(dtype_bytes(view_.dtype));
  std::vector<std::byte> all = bytes();
  std::vector<size_t> places;  // of numbers: what tests poison stays where it is
  for (int64_t i = 0; i < numel(); ++i) {
    if (std::isfinite(get(i))) places.push_back(static_cast<size_t>(i) * size);
  }
  for (size_t i = 0; 2 * i + 1 < places.size(); ++i) {
    const auto at = [&](size_t n) { return all.begin() + static_cast<std::ptrdiff_t>(places[n]); };
    std::swap_ranges(at(i), at(i) + static_cast<std::ptrdiff_t>(size), at(places.size() - 1 - i));
  }
  set_bytes(all);
}

void Operand::swap_two(uint64_t seed) {
  const auto size = static_cast<size_t>(dtype_bytes(view_.dtype));
  const int64_t third = numel() / 3 + 1;
  const int64_t begin = static_cast<int64_t>(std::mt19937_64(seed)() >> 1) % third;
  int64_t least = -1, most = -1;
  for (int64_t i = 2 * begin; i < std::min(2 * begin + third, numel()); ++i) {
    if (!std::isfinite(get(i))) continue;
    if (least < 0 || get(i) < get(least)) least = i;
    if (most < 0 || get(i) > get(most)) most = i;
  }
  if (least == most) return;
  std::byte* const bytes = view_.as<std::byte>();
  const auto at = [&](int64_t i) { return bytes + offset(i) * static_cast<int64_t>(size); };
  std::swap_ranges(at(least), at(least) + size, at(most));
}

void Operand::fill_row(int64_t r, double value) {
  const int64_t row = numel() / view_.dim(0);
  for (int64_t i = r * row; i < (r + 1) * row; ++i) set(i, value);
}

bool Operand::holds(const std::byte* bytes) const {
  bool same = true;
  for_each_row([&](const std::byte* row, size_t count) {
    same = same && std::memcmp(row, bytes, count) == 0;
    bytes += count;
  });
  return same;
}

void Operand::set_writable(bool writable) {
  ::mprotect(memory_.get(), static_cast<size_t>(total_),
             writable ? PROT_READ | PROT_WRITE : PROT_READ);
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
