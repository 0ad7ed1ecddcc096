/// How many CPUs this process may use: its affinity, and the CPU quotas of its control groups.
#ifndef VLR_KERNELS_CORE_CPUS_H_
#define VLR_KERNELS_CORE_CPUS_H_

#include <filesystem>
#include <string_view>

namespace vlr {

/// 1 or more.
int usable_cpus();

/// The smallest CPU quota of a process's control groups and of those that they are in, rounded up
/// to whole CPUs; 0: none. `groups` is the text of /proc/self/cgroup, `mount` where their files are
/// (/sys/fs/cgroup).
int cpu_quota(std::string_view groups, const std::filesystem::path& mount);

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_CPUS_H_
