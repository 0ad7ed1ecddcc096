#include <nvrtc.h>

#include <deque>
#include <fstream>
#include <iterator>

#include "bench/support/cu_kernel.h"
#include "bench/support/driver.h"
#include "kernels/cuda/check.h"

namespace vlr::bench {
namespace {

Status nvrtc_status(nvrtcResult result, const char* what) {
  if (result == NVRTC_SUCCESS) return {};
  return {Code::kInvalidArgument, std::string(what) + ": " + nvrtcGetErrorString(result)};
}
#define VLR_NVRTC_TRY(call) VLR_RETURN_IF_ERROR(nvrtc_status((call), #call))

struct Program {
  nvrtcProgram handle = nullptr;
  ~Program() {
    if (handle) nvrtcDestroyProgram(&handle);
  }
};

class NvrtcKernel : public CuKernel {
 public:
  Status compile(const std::string& path) {
    std::ifstream in(path);
    if (!in) return {Code::kNotFound, path + ": cannot be read"};
    const std::string source{std::istreambuf_iterator<char>(in), {}};
    VLR_ASSIGN_OR_RETURN(header_, parse_cu_header(source));
    int device = 0, major = 0, minor = 0;
    VLR_CUDA_TRY(cudaGetDevice(&device));
    VLR_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    VLR_CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    // wgmma and what else only one generation has is behind the letter.
    const std::string architecture =
        "sm_" + std::to_string(10 * major + minor) + (major >= 9 ? "a" : "");
    const std::string options[] = {"--gpu-architecture=" + architecture,
                                   "--std=c++20",
                                   "--include-path=" VLR_SOURCE_DIR,
                                   "--include-path=" VLR_CUDA_INCLUDE_DIR,
                                   "--include-path=" VLR_CUDA_INCLUDE_DIR "/cccl",
                                   "--generate-line-info"};
    std::vector<const char*> list;
    for (const std::string& option : options) list.push_back(option.c_str());
    Program program;
    VLR_NVRTC_TRY(
        nvrtcCreateProgram(&program.handle, source.c_str(), path.c_str(), 0, nullptr, nullptr));
    VLR_NVRTC_TRY(nvrtcAddNameExpression(program.handle, header_.kernel.c_str()));
    if (nvrtcCompileProgram(program.handle, static_cast<int>(list.size()), list.data()) !=
        NVRTC_SUCCESS) {
      size_t bytes = 0;
      nvrtcGetProgramLogSize(program.handle, &bytes);
      std::string log(bytes, '\0');
      nvrtcGetProgramLog(program.handle, log.data());
      return {Code::kInvalidArgument, log.c_str()};
    }
    const char* lowered = nullptr;
    VLR_NVRTC_TRY(nvrtcGetLoweredName(program.handle, header_.kernel.c_str(), &lowered));
    size_t bytes = 0;
    VLR_NVRTC_TRY(nvrtcGetCUBINSize(program.handle, &bytes));
    std::vector<char> cubin(bytes);
    VLR_NVRTC_TRY(nvrtcGetCUBIN(program.handle, cubin.data()));
    VLR_CUDA_TRY(cudaFree(nullptr));  // the runtime's context is the current one from here on
    VLR_DRIVER_TRY(cuModuleLoadData, &module_, cubin.data());
    VLR_DRIVER_TRY(cuModuleGetFunction, &function_, module_, lowered);
    return {};
  }

  Status launch(const Fields& fields, CUstream_st* stream) override {
    unsigned grid[3], block[3];
    for (size_t i = 0; i < 3; ++i) {
      VLR_ASSIGN_OR_RETURN(const int64_t g, evaluate(header_.grid[i], fields));
      VLR_ASSIGN_OR_RETURN(const int64_t b, evaluate(header_.block[i], fields));
      if (g == 0) return {};  // no rows
      const int64_t most = i == 0 ? INT32_MAX : 65535;
      if (g < 0 || g > most || b < 1 || b > 1024)
        return {Code::kInvalidArgument, header_.kernel + ": a grid of " + std::to_string(g) +
                                            " or a block of " + std::to_string(b)};
      grid[i] = static_cast<unsigned>(g);
      block[i] = static_cast<unsigned>(b);
    }
    VLR_ASSIGN_OR_RETURN(const int64_t shared, evaluate(header_.shared, fields));
    constexpr int64_t kWithoutAsking = 48 << 10;
    if (shared > kWithoutAsking)
      VLR_DRIVER_TRY(cuFuncSetAttribute, function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                     static_cast<int>(shared));
    std::deque<const void*> addresses;
    std::deque<int64_t> sizes;
    std::deque<float> numbers;
    std::vector<void*> parameters;
    for (const std::string& arg : header_.args) {
      const Field* field = nullptr;
      for (const Field& f : fields) {
        if (f.name == arg) field = &f;
      }
      if (!field) {
        VLR_ASSIGN_OR_RETURN(const int64_t size, evaluate(arg, fields));
        parameters.push_back(&sizes.emplace_back(size));
      } else if (field->is_number) {
        parameters.push_back(&numbers.emplace_back(static_cast<float>(field->number)));
      } else {
        parameters.push_back(&addresses.emplace_back(field->tensor.data));
      }
    }
    VLR_DRIVER_TRY(cuLaunchKernel, function_, grid[0], grid[1], grid[2], block[0], block[1],
                   block[2], static_cast<unsigned>(shared), stream, parameters.data(), nullptr);
    return {};
  }

 private:
  CUmodule module_ = nullptr;  // as long as the process
  CUfunction function_ = nullptr;
};

}  // namespace

Result<std::shared_ptr<CuKernel>> CuKernel::load(const std::string& path) {
  auto kernel = std::make_shared<NvrtcKernel>();
  VLR_RETURN_IF_ERROR(kernel->compile(path).with_context(path));
  return std::shared_ptr<CuKernel>(std::move(kernel));
}

}  // namespace vlr::bench
