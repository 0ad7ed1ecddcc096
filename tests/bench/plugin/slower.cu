// attention/flash_mma_slower: flash_mma, behind which a kernel waits VLR_TEST_SLOWER_NS nanoseconds. What
// a verdict has to see:
//   vlr lab ab attention --load slower.so --impl flash_mma,flash_mma_slower --shape q=2048,count=8
#include <cuda_runtime_api.h>

#include <cstdlib>

#include "kernels/attention/attention.h"
#include "kernels/core/plugin.h"
#include "kernels/cuda/check.h"

namespace {

using vlr::Context;
using vlr::Device;
using vlr::Impl;
using vlr::Status;
using vlr::ops::Attention;

__device__ unsigned long long nanoseconds() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

__global__ void wait_kernel(unsigned long long length) {
  for (const unsigned long long start = nanoseconds(); nanoseconds() - start < length;) continue;
}

const Impl<Attention>& flash_mma() {
  for (const Impl<Attention>& impl : Attention::impls()) {
    if (impl.name == "flash_mma") return impl;
  }
  std::abort();
}

Status slower(const Attention::Args& args, Context& ctx) {
  static const unsigned long long length = [] {
    const char* text = std::getenv("VLR_TEST_SLOWER_NS");
    return text ? std::strtoull(text, nullptr, 10) : 0;
  }();
  VLR_RETURN_IF_ERROR(flash_mma().run(args, ctx));
  wait_kernel<<<1, 1, 0, ctx.stream>>>(length);
  return vlr::cuda::to_status(cudaGetLastError(), "wait_kernel launch");
}

bool supports(const Attention::Args& args, const Context& ctx) {
  return vlr::ops::supports(flash_mma(), args, ctx);
}

int64_t workspace(const Attention::Args& args, const Context& ctx) {
  return flash_mma().workspace ? flash_mma().workspace(args, ctx) : 0;
}

}  // namespace

extern "C" VLR_PLUGIN_EXPORT const vlr::Plugin* vlr_kernels() {
  static const vlr::PluginImpl impls[] = {vlr::plugin_impl<Attention>(
      {"flash_mma_slower", Device::kCuda, slower, supports, workspace})};
  static const vlr::Plugin plugin = {vlr::kPluginAbi, impls};
  return &plugin;
}
