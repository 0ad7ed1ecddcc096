#include "bench/support/plugin.h"

#include <dlfcn.h>

#include <cstring>
#include <filesystem>

#include "kernels/core/text.h"

namespace vlr::bench {
namespace {

/// What a command line can name, and a result can hold.
bool is_name(std::string_view name) {
  return !name.empty() && name.find(',') == name.npos && printable(name) == name;
}

}  // namespace

Status load_plugin(const std::string& path, std::span<const OpLab> ops) {
  const auto invalid = [&](const std::string& what) {
    return Status(Code::kInvalidArgument, path + ": " + what);
  };
  // A name without a slash would be looked for in the system's folders.
  const std::string file = path.find('/') == path.npos ? "./" + path : path;
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return invalid(dlerror());
  const auto entry = reinterpret_cast<const Plugin* (*)()>(dlsym(library, "vlr_kernels"));
  if (!entry) return invalid("exports no function vlr_kernels (kernels/core/plugin.h)");
  const Plugin* const plugin = entry();
  if (!plugin || !plugin->abi) return invalid("vlr_kernels() gives nothing");
  if (std::strcmp(plugin->abi, kPluginAbi) != 0)
    return invalid("was compiled for " + std::string(plugin->abi) + ", this is " + kPluginAbi);
  bool any = false;
  for (const PluginImpl& impl : plugin->impls) {
    if (!is_name(impl.name))
      return invalid("a name must be printable UTF-8 without a comma, got " + in_quotes(impl.name));
    // These names say that rows need not keep their bits.
    if (impl.name == "cublaslt_fast" || impl.name == "openblas")
      return invalid("the name " + std::string(impl.name) + " is taken");
    for (const OpLab& op : ops) {
      if (op.name != impl.op) continue;
      VLR_RETURN_IF_ERROR(op.add(impl).with_context(path));
      any = true;
    }
  }
  return any ? Status() : invalid("has no implementation of an op that is here");
}

Status load_cu(const std::string& path, std::span<const OpLab> ops) {
  VLR_ASSIGN_OR_RETURN(auto kernel, CuKernel::load(path));
  const std::string op = kernel->header().op;
  for (const OpLab& o : ops) {
    if (o.name == op)
      return o.add_cu(std::filesystem::path(path).stem().string(), std::move(kernel))
          .with_context(path);
  }
  return {Code::kInvalidArgument, path + ": there is no op '" + op + "' here"};
}

}  // namespace vlr::bench
