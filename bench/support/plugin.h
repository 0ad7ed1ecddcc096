#ifndef VLR_BENCH_SUPPORT_PLUGIN_H_
#define VLR_BENCH_SUPPORT_PLUGIN_H_

#include <span>
#include <string>

#include "bench/support/op_lab.h"

namespace vlr::bench {

/// Adds the implementations of a shared object (kernels/core/plugin.h) to their ops' lists; it stays
/// loaded. Those of ops that are not among `ops` are left out. kInvalidArgument where none is left, too.
Status load_plugin(const std::string& path, std::span<const OpLab> ops);

/// Compiles a .cu file (cu_kernel.h) and adds its kernel under the file's name without the suffix.
Status load_cu(const std::string& path, std::span<const OpLab> ops);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_PLUGIN_H_
