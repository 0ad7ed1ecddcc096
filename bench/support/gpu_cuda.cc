#include <cublasLt.h>
#include <cuda_profiler_api.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "bench/support/compare_values.h"
#include "bench/support/cuda_peak.h"
#include "bench/support/driver.h"
#include "bench/support/fill_random.h"
#include "bench/support/gpu.h"
#include "bench/support/nvml.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/memory.h"

namespace vlr::bench {
namespace {

constexpr int64_t kChunk = int64_t{1} << 30;  // of memory, shared by operands
constexpr int64_t kMaxLaunches = 20000;       // of a window, but for a round of all sets

Result<double> seconds_between(const cuda::Event& from, const cuda::Event& to) {
  VLR_CUDA_TRY(cudaEventSynchronize(to.get()));
  float ms = 0;
  VLR_CUDA_TRY(cudaEventElapsedTime(&ms, from.get(), to.get()));
  return static_cast<double>(ms) * 1e-3;
}

/// What body() launches on the stream, which does not run.
Result<cuda::CapturedGraph> capture(cudaStream_t stream, const std::function<Status()>& body) {
  VLR_CUDA_TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  const Status status = body();
  cudaGraph_t captured = nullptr;
  const cudaError_t error = cudaStreamEndCapture(stream, &captured);
  cuda::CapturedGraph graph(captured);
  VLR_RETURN_IF_ERROR(status);
  VLR_RETURN_IF_ERROR(cuda::to_status(error, "cudaStreamEndCapture"));
  return graph;
}

/// Launches captured into a graph.
class CudaWindow : public Window {
 public:
  Launch launch;  ///< what it holds is used by the graph
  cuda::GraphExec graph;
};

class CudaTimer : public Timer {
 public:
  explicit CudaTimer(const cuda::Stream& stream) : stream_(stream) {}

  Result<std::unique_ptr<Window>> record(const Launch& launch, int64_t num_sets,
                                         int64_t launches) override {
    // Once without a graph: what an implementation does at its first launch may not be captured.
    for (int64_t i = 0; i < 2; ++i) VLR_RETURN_IF_ERROR(launch(i % num_sets));
    launches = num_sets * std::max<int64_t>(1, std::min(launches, kMaxLaunches) / num_sets);
    VLR_ASSIGN_OR_RETURN(const cuda::CapturedGraph graph, capture(stream_.get(), [&] {
                           Status status;
                           for (int64_t i = 0; i < launches && status.ok(); ++i)
                             status = launch(i % num_sets);
                           return status;
                         }));
    cudaGraphExec_t executable = nullptr;
    VLR_CUDA_TRY(cudaGraphInstantiate(&executable, graph.get(), 0));
    auto window = std::make_unique<CudaWindow>();
    window->launch = launch;
    window->graph = cuda::GraphExec(executable);
    window->launches = launches;
    window->round = num_sets;
    VLR_CUDA_TRY(cudaGraphUpload(executable, stream_.get()));
    return std::unique_ptr<Window>(std::move(window));
  }

  Result<std::vector<double>> run(std::span<const Window* const> windows) override {
    while (events_.size() <= windows.size()) {
      VLR_ASSIGN_OR_RETURN(cuda::Event event, cuda::make_event(true));
      events_.push_back(std::move(event));
    }
    VLR_CUDA_TRY(cudaEventRecord(events_[0].get(), stream_.get()));
    for (size_t i = 0; i < windows.size(); ++i) {
      VLR_CUDA_TRY(
          cudaGraphLaunch(static_cast<const CudaWindow*>(windows[i])->graph.get(), stream_.get()));
      VLR_CUDA_TRY(cudaEventRecord(events_[i + 1].get(), stream_.get()));
    }
    std::vector<double> out;
    for (size_t i = 0; i < windows.size(); ++i) {
      VLR_ASSIGN_OR_RETURN(const double s, seconds_between(events_[i], events_[i + 1]));
      out.push_back(s / static_cast<double>(windows[i]->launches));
    }
    return out;
  }

 private:
  const cuda::Stream& stream_;
  std::vector<cuda::Event> events_;
};

/// Of one kernel node of a graph.
Result<KernelCost> cost_of(CUgraphNode node, const cudaDeviceProp& properties) {
  CUDA_KERNEL_NODE_PARAMS params{};
  VLR_DRIVER_TRY(cuGraphKernelNodeGetParams, node, &params);
  CUfunction function = params.func;
  if (!function && params.kern) VLR_DRIVER_TRY(cuKernelGetFunction, &function, params.kern);
  KernelCost cost;
  const char* name = nullptr;
  VLR_DRIVER_TRY(cuFuncGetName, &name, function);
  cost.name = name;
  cost.blocks = int64_t{params.gridDimX} * params.gridDimY * params.gridDimZ;
  cost.threads = static_cast<int>(params.blockDimX * params.blockDimY * params.blockDimZ);
  int static_shared = 0;
  VLR_DRIVER_TRY(cuFuncGetAttribute, &cost.registers, CU_FUNC_ATTRIBUTE_NUM_REGS, function);
  VLR_DRIVER_TRY(cuFuncGetAttribute, &cost.local_bytes, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
                 function);
  VLR_DRIVER_TRY(cuFuncGetAttribute, &static_shared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function);
  cost.shared_bytes = static_shared + int64_t{params.sharedMemBytes};
  VLR_DRIVER_TRY(cuOccupancyMaxActiveBlocksPerMultiprocessor, &cost.blocks_per_sm, function,
                 cost.threads, params.sharedMemBytes);
  cost.occupancy = static_cast<double>(cost.blocks_per_sm * cost.threads) /
                   properties.maxThreadsPerMultiProcessor;
  return cost;
}

/// Operations of the tensor cores a clock and an SM, dense: what NVIDIA's white papers of
/// GA100, GA102, AD102 and GH100 come to; f32 is the other cores' fused multiply-adds. 0: not known here.
double operations_per_clock(Unit unit, int major, int minor) {
  struct Row {
    int major, minor;
    double f32, half, f8, i8;
  };
  constexpr Row kRows[] = {{8, 0, 128, 2048, 0, 4096},
                           {8, 6, 256, 1024, 0, 2048},
                           {8, 9, 256, 1024, 2048, 2048},
                           {9, 0, 256, 4096, 8192, 8192}};
  for (const Row& r : kRows) {
    if (r.major != major || r.minor != minor) continue;
    if (unit == Unit::kF32) return r.f32;
    if (unit == Unit::kF8) return r.f8;
    return unit == Unit::kI8 ? r.i8 : r.half;
  }
  return 0;
}

class CudaGpu : public Gpu {
 public:
  static Result<std::unique_ptr<Gpu>> create(int index) {
    auto gpu = std::make_unique<CudaGpu>();
    VLR_CUDA_TRY(cudaSetDevice(index));
    VLR_CUDA_TRY(cudaGetDeviceProperties(&gpu->properties_, index));
    VLR_ASSIGN_OR_RETURN(gpu->stream_, cuda::make_stream());
    char address[32] = "";
    VLR_CUDA_TRY(cudaDeviceGetPCIBusId(address, sizeof(address), index));
    gpu->nvml_.emplace(address);
    gpu->timer_.emplace(gpu->stream_);
    return std::unique_ptr<Gpu>(std::move(gpu));
  }
  ~CudaGpu() override {
    for (const Chunk& c : chunks_) cuda::free_device(c.data);
  }

  Result<double> measure_flops(Unit unit) override {
    return measure_matmul(stream_.get(), unit, [&] { peak_mhz_ = nvml_->sm_mhz(); });
  }
  Result<double> measure_bytes(int64_t bytes) override {
    return measure_copy(stream_.get(), bytes);
  }
  double limit_flops(Unit unit, int mhz) const override {
    return operations_per_clock(unit, properties_.major, properties_.minor) *
           properties_.multiProcessorCount * mhz * 1e6;
  }
  double limit_bytes() const override {
    // Two transfers a clock, as the driver's samples have it.
    return 2.0 * nvml_->memory_mhz() * 1e6 * properties_.memoryBusWidth / 8;
  }
  Timer& timer() override { return *timer_; }
  const Nvml& nvml() const override { return *nvml_; }

  Result<std::vector<KernelCost>> kernels_of(const std::function<Status()>& launch) override {
    VLR_ASSIGN_OR_RETURN(const cuda::CapturedGraph graph, capture(stream_.get(), launch));
    size_t count = 0;
    VLR_CUDA_TRY(cudaGraphGetNodes(graph.get(), nullptr, &count));
    std::vector<cudaGraphNode_t> nodes(count);
    VLR_CUDA_TRY(cudaGraphGetNodes(graph.get(), nodes.data(), &count));
    std::vector<KernelCost> out;
    for (const cudaGraphNode_t node : nodes) {
      cudaGraphNodeType type{};
      VLR_CUDA_TRY(cudaGraphNodeGetType(node, &type));
      if (type != cudaGraphNodeTypeKernel) continue;
      VLR_ASSIGN_OR_RETURN(KernelCost cost, cost_of(node, properties_));
      out.push_back(std::move(cost));
    }
    return out;
  }

  std::vector<std::pair<std::string, std::string>> description() override {
    const auto known = [](double v) { return v > 0 ? std::to_string(std::lround(v)) : "unknown"; };
    const auto version = [](int v) {
      return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    };
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    return {
        {"gpu", properties_.name},
        {"gpu_architecture", "sm_" + std::to_string(properties_.major * 10 + properties_.minor)},
        {"gpu_sms", std::to_string(properties_.multiProcessorCount)},
        {"gpu_l2_mbytes", std::to_string(l2_bytes() / 1'000'000)},
        {"gpu_power_limit_watts", known(nvml_->power_limit_watts())},
        {"driver", nvml_->driver()},
        {"cuda_driver", version(driver)},
        {"cuda_runtime", version(runtime)},
        {"cublaslt", std::to_string(cublasLtGetVersion())},
        {"sm_mhz_in_peak_matmul", known(peak_mhz_)},
        {"sm_mhz_max", known(nvml_->max_sm_mhz())}};
  }

  Result<Launch> make_company() override {
    VLR_ASSIGN_OR_RETURN(const auto product, bench::make_company(stream_.get()));
    return Launch([product](int64_t) { return product(); });
  }
  Status profile(const std::function<Status()>& launch) override {
    VLR_CUDA_TRY(cudaDeviceSynchronize());
    VLR_CUDA_TRY(cudaProfilerStart());
    const Status status = launch();
    VLR_CUDA_TRY(cudaDeviceSynchronize());
    VLR_CUDA_TRY(cudaProfilerStop());
    return status;
  }

  int64_t l2_bytes() const override { return properties_.l2CacheSize; }
  int64_t used_bytes() const override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(total - free) : 0;
  }

  int64_t free_bytes() const override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
  }

  Context context(bool exact) override {
    auto& blas = exact ? exact_ : fast_;
    if (!blas && error_.ok()) {
      auto made = cuda::Blas::create(exact);
      made.ok() ? void(blas = std::move(made).value()) : keep(made.error());
    }
    Context ctx;
    ctx.device = Device::kCuda;
    ctx.stream = stream_.get();
    ctx.blas = blas.get();
    return ctx;
  }

  Status choose_algorithms(const Context& ctx, const std::function<Status()>& run) override {
    if (!ctx.blas) return run();
    constexpr int64_t kScratch = int64_t{2} << 30;
    if (!scratch_) {
      VLR_ASSIGN_OR_RETURN(std::byte * data, cuda::allocate_device(kScratch));
      scratch_.reset(data);
    }
    ctx.blas->begin_measuring({scratch_.get(), kScratch});
    const Status status = run();
    ctx.blas->end_measuring();
    return status;
  }

  std::byte* allocate(int64_t bytes) override {
    if (!error_.ok()) return nullptr;
    const int64_t wanted = (std::max<int64_t>(bytes, 1) + 255) / 256 * 256;
    for (Chunk& c : chunks_) {
      if (c.used + wanted <= c.bytes) return c.data + std::exchange(c.used, c.used + wanted);
    }
    Chunk chunk{nullptr, std::max(wanted, kChunk), wanted};
    auto data = cuda::allocate_device(chunk.bytes);
    if (!data.ok() && data.error().code() == Code::kOutOfMemory) {
      // What an earlier shape needed and this one does not.
      std::erase_if(chunks_, [](const Chunk& c) {
        if (c.used == 0) cuda::free_device(c.data);
        return c.used == 0;
      });
      data = cuda::allocate_device(chunk.bytes);
    }
    if (!data.ok()) {
      keep(data.error());
      return nullptr;
    }
    chunk.data = *data;
    chunks_.push_back(chunk);
    return chunk.data;
  }

  void release_all() override {
    for (Chunk& c : chunks_) c.used = 0;
  }

  void fill_random(const Tensor& t, uint64_t seed) override {
    if (error_.ok()) keep(bench::fill_random(t, seed, stream_.get()));
  }
  void poison(std::byte* data, int64_t bytes, uint8_t with) override {
    if (error_.ok())
      keep_cuda(cudaMemsetAsync(data, with, static_cast<size_t>(bytes), stream_.get()), "memset");
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    copy(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void download(void* to, const void* from, int64_t bytes) override {
    copy(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  Status copy(void* to, const void* from, int64_t bytes) override {
    copy(to, from, bytes, cudaMemcpyDeviceToDevice);
    return finish();
  }
  Result<int64_t> first_difference(const Tensor& a, const Tensor& b,
                                   const Tolerance& tolerance) override {
    return bench::first_difference(a, b, tolerance, stream_.get());
  }
  Result<uint64_t> checksum(const std::byte* p, int64_t bytes) override {
    if (!sum_) {
      VLR_ASSIGN_OR_RETURN(std::byte * data, cuda::allocate_device(sizeof(uint64_t)));
      sum_.reset(data);
    }
    return bench::checksum_on_device(p, bytes, sum_.get(), stream_.get());
  }
  Status finish() override {
    keep_cuda(cudaStreamSynchronize(stream_.get()), "after run");
    keep_cuda(cudaGetLastError(), "after run");
    return std::exchange(error_, {});
  }

 private:
  struct Chunk {
    std::byte* data;
    int64_t bytes, used;
  };

  void keep(const Status& s) {
    if (error_.ok()) error_ = s;
  }
  void keep_cuda(cudaError_t e, const char* what) { keep(cuda::to_status(e, what)); }

  void copy(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    if (!error_.ok()) return;
    keep_cuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream_.get()), "copy");
    keep_cuda(cudaStreamSynchronize(stream_.get()), "copy");
  }

  cudaDeviceProp properties_{};
  cuda::Stream stream_;
  std::optional<CudaTimer> timer_;
  std::optional<Nvml> nvml_;
  std::unique_ptr<cuda::Blas> exact_, fast_;
  std::vector<Chunk> chunks_;
  std::unique_ptr<std::byte, void (*)(std::byte*)> scratch_{nullptr, cuda::free_device};
  std::unique_ptr<std::byte, void (*)(std::byte*)> sum_{nullptr, cuda::free_device};
  Status error_;
  int peak_mhz_ = 0;
};

}  // namespace

std::unique_ptr<Gpu> Gpu::open(int index) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || index >= count) return nullptr;
  auto gpu = CudaGpu::create(index);
  return gpu.ok() ? std::move(gpu).value() : nullptr;
}

}  // namespace vlr::bench
