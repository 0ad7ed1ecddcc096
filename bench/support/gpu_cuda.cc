#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "bench/support/cuda_peak.h"
#include "bench/support/fill_random.h"
#include "bench/support/gpu.h"
#include "bench/support/nvml.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/memory.h"

namespace vlr::bench {
namespace {

constexpr int64_t kChunk = int64_t{1} << 30;  // of memory, shared by operands
constexpr double kSampleSeconds = 1e-3;       // at least, between two events
constexpr int64_t kSamples = 20;              // so that a tenth and nine tenths of them are some
constexpr int64_t kMaxLaunches = 200;         // of a sample, but for a round of all sets

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
    return std::unique_ptr<Gpu>(std::move(gpu));
  }
  ~CudaGpu() override {
    for (const Chunk& c : chunks_) cuda::free_device(c.data);
  }

  Result<Peak> measure_peak() override {
    VLR_ASSIGN_OR_RETURN(const double bytes, measure_copy(stream_.get()));
    VLR_ASSIGN_OR_RETURN(const double flops,
                         measure_matmul(stream_.get(), [&] { peak_mhz_ = nvml_->sm_mhz(); }));
    return Peak{flops, bytes, "cublaslt bf16 8192^3, cudaMemcpyAsync 1 GiB"};
  }

  std::vector<std::pair<std::string, std::string>> description() override {
    const auto known = [](double v) { return v > 0 ? std::to_string(std::lround(v)) : "unknown"; };
    const auto version = [](int v) {
      return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    };
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    return {{"gpu", properties_.name},
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

  int64_t l2_bytes() const override { return properties_.l2CacheSize; }
  int sm_mhz() const override { return nvml_->sm_mhz(); }
  int64_t used_bytes() const override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(total - free) : 0;
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
    std::byte* scratch = allocate(kScratch);
    VLR_RETURN_IF_ERROR(error_);
    ctx.blas->begin_measuring({scratch, kScratch});
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
  void poison(std::byte* data, int64_t bytes) override {
    if (error_.ok())
      keep_cuda(cudaMemsetAsync(data, 0xFF, static_cast<size_t>(bytes), stream_.get()), "memset");
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    copy(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void download(void* to, const void* from, int64_t bytes) override {
    copy(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  Status finish() override {
    keep_cuda(cudaStreamSynchronize(stream_.get()), "after run");
    keep_cuda(cudaGetLastError(), "after run");
    return std::exchange(error_, {});
  }

  Result<Timing> time(const std::function<Status(int64_t)>& launch, int64_t num_sets) override {
    // Roughly, so as to know how many to queue. The first ones warm up.
    constexpr int kWarm = 2, kRough = 3;
    VLR_ASSIGN_OR_RETURN(const cuda::Event start, cuda::make_event(true));
    VLR_ASSIGN_OR_RETURN(const cuda::Event stop, cuda::make_event(true));
    for (int64_t i = 0; i < kWarm + kRough; ++i) {
      if (i == kWarm) VLR_CUDA_TRY(cudaEventRecord(start.get(), stream_.get()));
      VLR_RETURN_IF_ERROR(launch(i % num_sets));
    }
    VLR_CUDA_TRY(cudaEventRecord(stop.get(), stream_.get()));
    VLR_ASSIGN_OR_RETURN(const double rough_seconds, seconds_between(start, stop));
    const double rough = std::max(rough_seconds / kRough, 1e-6);

    // Whole rounds, so that no set comes back before all the others.
    const auto wanted = static_cast<int64_t>(std::ceil(kSampleSeconds / rough));
    const int64_t rounds = std::max<int64_t>(1, std::min(wanted, kMaxLaunches) / num_sets);
    const int64_t launches = rounds * num_sets;
    const int64_t samples = kSamples;

    VLR_ASSIGN_OR_RETURN(const cuda::GraphExec graph, record(launch, num_sets, launches));
    std::vector<cuda::Event> events;
    for (int64_t i = 0; i <= samples; ++i) {
      VLR_ASSIGN_OR_RETURN(cuda::Event event, cuda::make_event(true));
      events.push_back(std::move(event));
    }
    VLR_CUDA_TRY(cudaGraphLaunch(graph.get(), stream_.get()));
    VLR_CUDA_TRY(cudaEventRecord(events[0].get(), stream_.get()));
    for (size_t i = 1; i < events.size(); ++i) {
      VLR_CUDA_TRY(cudaGraphLaunch(graph.get(), stream_.get()));
      VLR_CUDA_TRY(cudaEventRecord(events[i].get(), stream_.get()));
    }
    Timing timing;
    timing.sm_mhz = nvml_->sm_mhz();
    std::vector<double> seconds;
    for (size_t i = 1; i < events.size(); ++i) {
      VLR_ASSIGN_OR_RETURN(const double s, seconds_between(events[i - 1], events[i]));
      seconds.push_back(s / static_cast<double>(launches));
    }
    std::sort(seconds.begin(), seconds.end());
    const auto at = [&](double share) {
      return seconds[static_cast<size_t>(std::lround(share * static_cast<double>(samples - 1)))];
    };
    timing.median = at(0.5);
    timing.p10 = at(0.1);
    timing.p90 = at(0.9);
    return timing;
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

  static Result<double> seconds_between(const cuda::Event& from, const cuda::Event& to) {
    VLR_CUDA_TRY(cudaEventSynchronize(to.get()));
    float ms = 0;
    VLR_CUDA_TRY(cudaEventElapsedTime(&ms, from.get(), to.get()));
    return static_cast<double>(ms) * 1e-3;
  }

  Result<cuda::GraphExec> record(const std::function<Status(int64_t)>& launch, int64_t num_sets,
                                 int64_t launches) {
    VLR_CUDA_TRY(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal));
    Status status;
    for (int64_t i = 0; i < launches && status.ok(); ++i) status = launch(i % num_sets);
    cudaGraph_t captured = nullptr;
    const cudaError_t error = cudaStreamEndCapture(stream_.get(), &captured);
    const cuda::CapturedGraph graph(captured);
    VLR_RETURN_IF_ERROR(status);
    VLR_RETURN_IF_ERROR(cuda::to_status(error, "cudaStreamEndCapture"));
    cudaGraphExec_t executable = nullptr;
    VLR_CUDA_TRY(cudaGraphInstantiate(&executable, captured, 0));
    return cuda::GraphExec(executable);
  }

  cudaDeviceProp properties_{};
  cuda::Stream stream_;
  std::optional<Nvml> nvml_;
  std::unique_ptr<cuda::Blas> exact_, fast_;
  std::vector<Chunk> chunks_;
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
