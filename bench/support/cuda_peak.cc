#include "bench/support/cuda_peak.h"

#include <cublasLt.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bench/support/fill_random.h"
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

/// The median of `count` runs, in seconds, queued one behind the other.
template <class Run>
Result<double> median_seconds(CUstream_st* stream, int count, Run&& run,
                              const std::function<void()>& watch = {}) {
  std::vector<cuda::Event> events;
  for (int i = 0; i <= count; ++i) {
    VLR_ASSIGN_OR_RETURN(cuda::Event event, cuda::make_event(true));
    events.push_back(std::move(event));
  }
  VLR_RETURN_IF_ERROR(run());  // warm
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
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

/// What cuBLASLt wants told; freed on every way out.
struct Lt {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t matrix = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  ~Lt() {
    if (preference) cublasLtMatmulPreferenceDestroy(preference);
    if (matrix) cublasLtMatrixLayoutDestroy(matrix);
    if (operation) cublasLtMatmulDescDestroy(operation);
    if (handle) cublasLtDestroy(handle);
  }
};

}  // namespace

Result<double> measure_copy(CUstream_st* stream) {
  constexpr size_t kBytes = size_t{1} << 30;
  VLR_ASSIGN_OR_RETURN(const DeviceMemory from, device_memory(kBytes));
  VLR_ASSIGN_OR_RETURN(const DeviceMemory to, device_memory(kBytes));
  const Tensor source(from.get(), DType::kF32, {static_cast<int64_t>(kBytes / 4)}, Device::kCuda);
  VLR_RETURN_IF_ERROR(fill_random(source, 1, stream));
  VLR_ASSIGN_OR_RETURN(const double seconds, median_seconds(stream, 20, [&]() -> Status {
                         VLR_CUDA_TRY(cudaMemcpyAsync(to.get(), from.get(), kBytes,
                                                      cudaMemcpyDeviceToDevice, stream));
                         return {};
                       }));
  return 2.0 * kBytes / seconds;
}

Result<double> measure_matmul(CUstream_st* stream, const std::function<void()>& watch) {
  constexpr int64_t kSize = 8192, kBytes = kSize * kSize * 2, kWorkspace = 64 << 20;
  VLR_ASSIGN_OR_RETURN(const DeviceMemory a, device_memory(kBytes));
  VLR_ASSIGN_OR_RETURN(const DeviceMemory b, device_memory(kBytes));
  VLR_ASSIGN_OR_RETURN(const DeviceMemory c, device_memory(kBytes));
  VLR_ASSIGN_OR_RETURN(const DeviceMemory workspace, device_memory(kWorkspace));
  uint64_t seed = 1;
  for (const DeviceMemory* m : {&a, &b}) {
    const Tensor t(m->get(), DType::kBF16, {kSize, kSize}, Device::kCuda);
    VLR_RETURN_IF_ERROR(fill_random(t, seed++, stream));
  }
  Lt lt;
  VLR_LT_TRY(cublasLtCreate(&lt.handle));
  VLR_LT_TRY(cublasLtMatmulDescCreate(&lt.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  // A linear layer's product: rows of both operands run along K.
  const cublasOperation_t transposed = CUBLAS_OP_T;
  VLR_LT_TRY(cublasLtMatmulDescSetAttribute(lt.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                            sizeof(transposed)));
  VLR_LT_TRY(cublasLtMatrixLayoutCreate(&lt.matrix, CUDA_R_16BF, kSize, kSize, kSize));
  VLR_LT_TRY(cublasLtMatmulPreferenceCreate(&lt.preference));
  const size_t workspace_bytes = kWorkspace;
  VLR_LT_TRY(cublasLtMatmulPreferenceSetAttribute(lt.preference,
                                                  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                  &workspace_bytes, sizeof(workspace_bytes)));
  std::vector<cublasLtMatmulHeuristicResult_t> offers(8);
  int count = 0;
  VLR_LT_TRY(cublasLtMatmulAlgoGetHeuristic(
      lt.handle, lt.operation, lt.matrix, lt.matrix, lt.matrix, lt.matrix, lt.preference,
      static_cast<int>(offers.size()), offers.data(), &count));
  offers.resize(static_cast<size_t>(count));
  const auto product = [&](const cublasLtMatmulAlgo_t& algorithm) -> Status {
    const float one = 1, zero = 0;
    VLR_LT_TRY(cublasLtMatmul(lt.handle, lt.operation, &one, a.get(), lt.matrix, b.get(), lt.matrix,
                              &zero, c.get(), lt.matrix, c.get(), lt.matrix, &algorithm,
                              workspace.get(), kWorkspace, stream));
    return {};
  };
  const cublasLtMatmulAlgo_t* best = nullptr;
  double best_seconds = 0;
  for (const auto& offer : offers) {
    const auto seconds = median_seconds(stream, 5, [&] { return product(offer.algo); });
    if (!seconds.ok()) return seconds.error();
    if (!best || *seconds < best_seconds) {
      best = &offer.algo;
      best_seconds = *seconds;
    }
  }
  if (!best) return {Code::kUnimplemented, "cuBLASLt offers no algorithm for bf16 8192^3"};
  VLR_ASSIGN_OR_RETURN(const double seconds,
                       median_seconds(
                           stream, 40, [&] { return product(*best); }, watch));
  return 2.0 * kSize * kSize * kSize / seconds;
}

}  // namespace vlr::bench
