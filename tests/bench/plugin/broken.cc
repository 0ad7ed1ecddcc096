// Shared objects that the lab does not take: each of what its macro says.
#include "kernels/core/plugin.h"
#include "kernels/rmsnorm/rmsnorm.h"

#if defined(PLUGIN_ABI) || defined(PLUGIN_ARGS_BYTES) || defined(PLUGIN_NAME) || defined(PLUGIN_OP)
#ifndef PLUGIN_ABI
#define PLUGIN_ABI vlr::kPluginAbi
#endif
#ifndef PLUGIN_NAME
#define PLUGIN_NAME "some"
#endif

namespace {
vlr::Status some(const vlr::ops::RmsNorm::Args&, vlr::Context&) { return {}; }

vlr::PluginImpl impl() {
  auto p = vlr::plugin_impl<vlr::ops::RmsNorm>({PLUGIN_NAME, vlr::Device::kCpu, some});
#ifdef PLUGIN_ARGS_BYTES
  p.args_bytes = PLUGIN_ARGS_BYTES;
#endif
#ifdef PLUGIN_OP
  p.op = PLUGIN_OP;
#endif
  return p;
}
}  // namespace

extern "C" VLR_PLUGIN_EXPORT const vlr::Plugin* vlr_kernels() {
  static const vlr::PluginImpl impls[] = {impl()};
  static const vlr::Plugin plugin = {PLUGIN_ABI, impls};
  return &plugin;
}
#else
extern "C" VLR_PLUGIN_EXPORT int vlr_nothing() { return 0; }
#endif
