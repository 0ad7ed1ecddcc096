/// Implementations from outside: a shared object exports one function, and `vlr lab` and the one-op
/// programs take it by --load.
///
///   using vlr::ops::RmsNorm;
///   vlr::Status mine(const RmsNorm::Args& a, vlr::Context& ctx);
///
///   extern "C" VLR_PLUGIN_EXPORT const vlr::Plugin* vlr_kernels() {
///     static const vlr::PluginImpl impls[] = {
///         vlr::plugin_impl<RmsNorm>({"mine", vlr::Device::kCpu, mine})};
///     static const vlr::Plugin plugin = {vlr::kPluginAbi, impls};
///     return &plugin;
///   }
///
/// It is compiled against the headers of the program that loads it (the CMake package vlr::kernels):
/// what a contract's Args are is not kept from version to version.
#ifndef VLR_KERNELS_CORE_PLUGIN_H_
#define VLR_KERNELS_CORE_PLUGIN_H_

#include <cstddef>
#include <span>

#include "kernels/core/op.h"
#include "vlr/version.h"

#define VLR_PLUGIN_EXPORT __attribute__((visibility("default")))

namespace vlr {

/// Of the headers that a plugin was compiled against; sizes of arguments are compared, too.
inline constexpr const char* kPluginAbi = VLR_VERSION;

/// An Impl of some op: its functions as they are there, without their types.
struct PluginImpl {
  std::string_view op, name;
  Device device;
  size_t args_bytes, context_bytes;
  void (*run)();
  void (*supports)();
  void (*workspace)();
};

struct Plugin {
  const char* abi;
  std::span<const PluginImpl> impls;
};

template <class Op>
PluginImpl plugin_impl(const Impl<Op>& impl) {
  return {Op::kName,
          impl.name,
          impl.device,
          sizeof(typename Op::Args),
          sizeof(Context),
          reinterpret_cast<void (*)()>(impl.run),
          reinterpret_cast<void (*)()>(impl.supports),
          reinterpret_cast<void (*)()>(impl.workspace)};
}

/// Adds an implementation of Op behind those of its list. kInvalidArgument: it was compiled against
/// other headers, or its name is taken.
template <class Op>
Status add_impl(const PluginImpl& p) {
  if (p.args_bytes != sizeof(typename Op::Args) || p.context_bytes != sizeof(Context))
    return ops::invalid(Op::kName, std::string(p.name) + " was compiled against other headers");
  if (!p.run) return ops::invalid(Op::kName, std::string(p.name) + " has no function");
  if (ops::expect_impl<Op>(p.name, p.device).ok())
    return ops::invalid(Op::kName, "there is an implementation '" + std::string(p.name) + "' on " +
                                       std::string(device_name(p.device)));
  using Args = typename Op::Args;
  ops::added<Op>().push_back(
      {p.name, p.device, reinterpret_cast<Status (*)(const Args&, Context&)>(p.run),
       reinterpret_cast<bool (*)(const Args&, const Context&)>(p.supports),
       reinterpret_cast<int64_t (*)(const Args&, const Context&)>(p.workspace)});
  return {};
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_PLUGIN_H_
