#include "bench/support/cuda_peak.h"

#include <cublasLt.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/support/fill_random.h"
#include "bench/support/statistics.h"
#include "kernels/core/clock.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/memory.h"

#define VLR_LT_TRY(call) VLR_RETURN_IF_ERROR(lt_status((call), #call))

namespace vlr::bench {
namespace {

Status lt_status(cublasStatus_t s, const char* what) {
  if (s == CUBLAS_STATUS_SUCCESS) return {};
  return {Code::kDevice, std::string(what) + ": " + cublasLtGetStatusString(s)};
}

using DeviceMemory = std::unique_ptr<std::byte, void (*)(std::byte*)>;

Result<DeviceMemory> device_memory(int64_t bytes) {
  VLR_ASSIGN_OR_RETURN(std::byte * p, cuda::allocate_device(bytes));
  return DeviceMemory(p, cuda::free_device);
}

/// The median of runs, in seconds, queued one behind the other for about `sample` seconds after
/// they ran for `settle` seconds.
template <class Run>
Result<double> median_seconds(CUstream_st* stream, double settle, double sample, Run&& run,
                              const std::function<void()>& watch = {}) {
  const auto many = [&](int count) -> Result<std::vector<double>> {
    std::vector<cuda::Event> events;
    for (int i = 0; i <= count; ++i) {
      VLR_ASSIGN_OR_RETURN(cuda::Event event, cuda::make_event(true));
      events.push_back(std::move(event));
    }
    VLR_CUDA_TRY(cudaEventRecord(events[0].get(), stream));
    for (size_t i = 1; i < events.size(); ++i) {
      VLR_RETURN_IF_ERROR(run());
      VLR_CUDA_TRY(cudaEventRecord(events[i].get(), stream));
    }
    if (watch) watch();
    VLR_CUDA_TRY(cudaStreamSynchronize(stream));
    std::vector<double> seconds;
    for (size_t i = 1; i < events.size(); ++i) {
      float ms = 0;
      VLR_CUDA_TRY(cudaEventElapsedTime(&ms, events[i - 1].get(), events[i].get()));
      seconds.push_back(static_cast<double>(ms) * 1e-3);
    }
    return seconds;
  };
  VLR_ASSIGN_OR_RETURN(std::vector<double> seconds, many(5));
  const double rough = std::max(median(seconds), 1e-6);
  const auto in = [&](double s) { return std::clamp(static_cast<int>(s / rough), 5, 2000); };
  for (const double start = seconds_now(); seconds_now() - start < settle;) {
    VLR_RETURN_IF_ERROR(many(in(0.05)).error());
  }
  VLR_ASSIGN_OR_RETURN(seconds, many(in(sample)));
  return median(seconds);
}

/// What cuBLASLt wants told; freed on every way out.
struct Lt {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  ~Lt() {
    if (preference) cublasLtMatmulPreferenceDestroy(preference);
    for (cublasLtMatrixLayout_t layout : {a, b, c}) {
      if (layout) cublasLtMatrixLayoutDestroy(layout);
    }
    if (operation) cublasLtMatmulDescDestroy(operation);
    if (handle) cublasLtDestroy(handle);
  }
};

}  // namespace

Result<double> measure_copy(CUstream_st* stream, int64_t bytes) {
  const int64_t half = bytes / 2;
  VLR_ASSIGN_OR_RETURN(const DeviceMemory from, device_memory(half));
  VLR_ASSIGN_OR_RETURN(const DeviceMemory to, device_memory(half));
  const Tensor source(from.get(), DType::kF32, {half / 4}, Device::kCuda);
  VLR_RETURN_IF_ERROR(fill_random(source, 1, stream));
  VLR_ASSIGN_OR_RETURN(
      const double seconds, median_seconds(stream, 0.2, 0.1, [&]() -> Status {
        VLR_CUDA_TRY(cudaMemcpyAsync(to.get(), from.get(), static_cast<size_t>(half),
                                     cudaMemcpyDeviceToDevice, stream));
        return {};
      }));
  return 2.0 * static_cast<double>(half) / seconds;
}

namespace {

/// How cuBLASLt multiplies operands of a unit.
struct Types {
  DType operand;
  cudaDataType_t in, out;
  cublasComputeType_t compute;
  cudaDataType_t scale;
};

std::optional<Types> types_of(Unit unit) {
  switch (unit) {
    case Unit::kBF16:
      return Types{DType::kBF16, CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F};
    case Unit::kF16:
      return Types{DType::kF16, CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F, CUDA_R_32F};
    case Unit::kF8:
      return Types{DType::kF8E4M3, CUDA_R_8F_E4M3, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F};
    case Unit::kI8:
      return Types{DType::kI8, CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, CUDA_R_32I};
    default:
      return std::nullopt;
  }
}

/// A product of [m, k] and [n, k] by cuBLASLt, with its operands, by the fastest algorithm offered.
class Product {
 public:
  /// Without an algorithm where this card has no such unit: see offered().
  static Result<std::unique_ptr<Product>> create(CUstream_st* stream, const Types& types, int64_t m,
                                                 int64_t n, int64_t k) {
    std::unique_ptr<Product> p(new Product(stream, types));
    for (const auto& [memory, bytes] :
         {std::pair(&p->a_, m * k * dtype_bytes(types.operand)),
          std::pair(&p->b_, n * k * dtype_bytes(types.operand)), std::pair(&p->c_, m * n * 4),
          std::pair(&p->workspace_, kWorkspace)}) {
      VLR_ASSIGN_OR_RETURN(*memory, device_memory(bytes));
    }
    const auto fill = [&](const DeviceMemory& to, int64_t rows, uint64_t seed) {
      return fill_random(Tensor(to.get(), types.operand, {rows, k}, Device::kCuda), seed, stream);
    };
    VLR_RETURN_IF_ERROR(fill(p->a_, m, 1));
    VLR_RETURN_IF_ERROR(fill(p->b_, n, 2));
    VLR_RETURN_IF_ERROR(p->choose(m, n, k));
    return p;
  }
  bool offered() const { return best_.has_value(); }
  Status run() const { return run(*best_); }

 private:
  static constexpr int64_t kWorkspace = 64 << 20;

  Product(CUstream_st* stream, const Types& types) : stream_(stream), types_(types) {}

  Status choose(int64_t m, int64_t n, int64_t k) {
    VLR_LT_TRY(cublasLtCreate(&lt_.handle));
    VLR_LT_TRY(cublasLtMatmulDescCreate(&lt_.operation, types_.compute, types_.scale));
    // A linear layer's product: rows of both operands run along K.
    const cublasOperation_t transposed = CUBLAS_OP_T;
    VLR_LT_TRY(cublasLtMatmulDescSetAttribute(lt_.operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                              &transposed, sizeof(transposed)));
    const auto size = [](int64_t v) { return static_cast<uint64_t>(v); };
    VLR_LT_TRY(cublasLtMatrixLayoutCreate(&lt_.a, types_.in, size(k), size(n), k));
    VLR_LT_TRY(cublasLtMatrixLayoutCreate(&lt_.b, types_.in, size(k), size(m), k));
    VLR_LT_TRY(cublasLtMatrixLayoutCreate(&lt_.c, types_.out, size(n), size(m), n));
    VLR_LT_TRY(cublasLtMatmulPreferenceCreate(&lt_.preference));
    const size_t workspace_bytes = kWorkspace;
    VLR_LT_TRY(cublasLtMatmulPreferenceSetAttribute(lt_.preference,
                                                    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &workspace_bytes, sizeof(workspace_bytes)));
    std::vector<cublasLtMatmulHeuristicResult_t> offers(8);
    int count = 0;
    if (cublasLtMatmulAlgoGetHeuristic(lt_.handle, lt_.operation, lt_.a, lt_.b, lt_.c, lt_.c,
                                       lt_.preference, static_cast<int>(offers.size()),
                                       offers.data(), &count) != CUBLAS_STATUS_SUCCESS)
      return {};  // this card does not have the unit
    double best_seconds = 0;
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulAlgo_t& algorithm = offers[static_cast<size_t>(i)].algo;
      VLR_ASSIGN_OR_RETURN(const double seconds,
                           median_seconds(stream_, 0, 0.005, [&] { return run(algorithm); }));
      if (best_ && seconds >= best_seconds) continue;
      best_ = algorithm;
      best_seconds = seconds;
    }
    return {};
  }

  Status run(const cublasLtMatmulAlgo_t& algorithm) const {
    static const float one = 1, zero = 0;
    static const int32_t whole_one = 1, whole_zero = 0;
    const bool whole = types_.scale == CUDA_R_32I;
    const void* const alpha = whole ? static_cast<const void*>(&whole_one) : &one;
    const void* const beta = whole ? static_cast<const void*>(&whole_zero) : &zero;
    VLR_LT_TRY(cublasLtMatmul(lt_.handle, lt_.operation, alpha, b_.get(), lt_.a, a_.get(), lt_.b,
                              beta, c_.get(), lt_.c, c_.get(), lt_.c, &algorithm, workspace_.get(),
                              kWorkspace, stream_));
    return {};
  }

  CUstream_st* stream_;
  Types types_;
  DeviceMemory a_{nullptr, cuda::free_device}, b_{nullptr, cuda::free_device},
      c_{nullptr, cuda::free_device}, workspace_{nullptr, cuda::free_device};
  Lt lt_;
  std::optional<cublasLtMatmulAlgo_t> best_;
};

}  // namespace

Result<double> measure_matmul(CUstream_st* stream, Unit unit, const std::function<void()>& watch) {
  const auto types = types_of(unit);
  if (!types) return 0.0;
  struct Size {
    int64_t m, n, k;
  };
  double flops = 0;
  for (const Size& s : {Size{8192, 8192, 8192}, Size{8192, 6144, 4096}}) {
    VLR_ASSIGN_OR_RETURN(const auto product, Product::create(stream, *types, s.m, s.n, s.k));
    if (!product->offered()) continue;
    VLR_ASSIGN_OR_RETURN(const double seconds,
                         median_seconds(
                             stream, 0.8, 0.2, [&] { return product->run(); }, watch));
    const double operations = 2.0 * static_cast<double>(s.m * s.n) * static_cast<double>(s.k);
    flops = std::max(flops, operations / seconds);
  }
  return flops;
}

Result<std::function<Status()>> make_company(CUstream_st* stream) {
  VLR_ASSIGN_OR_RETURN(std::shared_ptr<Product> product,
                       Product::create(stream, *types_of(Unit::kBF16), 8192, 6144, 4096));
  if (!product->offered()) return Status(Code::kUnimplemented, "no bf16 product on this card");
  return std::function<Status()>([product] { return product->run(); });
}

}  // namespace vlr::bench
