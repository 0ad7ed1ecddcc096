/// What a kernel takes of an SM, and what it is made of.
#ifndef VLR_BENCH_SUPPORT_KERNEL_COST_H_
#define VLR_BENCH_SUPPORT_KERNEL_COST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vlr/status.h"

namespace vlr::bench {

/// Instructions of a kernel's machine code.
struct SassCounts {
  int64_t all = 0, wgmma = 0, mma = 0, mufu = 0, local_loads = 0, local_stores = 0;
};

/// One kernel of a launch, as it was launched.
struct KernelCost {
  std::string name;          ///< mangled
  int64_t blocks = 0;        ///< of the grid
  int threads = 0;           ///< of a block
  int registers = 0;         ///< of a thread
  int local_bytes = 0;       ///< of a thread: spills and arrays that are indexed
  int64_t shared_bytes = 0;  ///< of a block, static and dynamic
  int blocks_per_sm = 0;
  double occupancy = 0;              ///< of the threads that an SM can hold
  std::optional<SassCounts> sass{};  ///< where they were counted
};

/// Of the kernel of this mangled name in a program or library, by cuobjdump: "sm_90a" or another
/// architecture. kUnimplemented where cuobjdump is not in PATH, kInvalidArgument where it knows no
/// such kernel.
Result<SassCounts> count_sass(const std::string& file, const std::string& name,
                              const std::string& architecture);
/// Of what cuobjdump -sass printed.
SassCounts count_instructions(const std::string& listing);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_KERNEL_COST_H_
