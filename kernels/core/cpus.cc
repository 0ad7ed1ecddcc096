#include "kernels/core/cpus.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

namespace vlr {
namespace {

namespace fs = std::filesystem;

int cpus_of_affinity() {
  for (size_t sets = 1; sets <= 64; sets *= 2) {  // one set has 1024 CPUs
    std::vector<cpu_set_t> mask(sets);
    const size_t bytes = sets * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) == 0)
      return std::max(1, CPU_COUNT_S(bytes, mask.data()));
    if (errno != EINVAL) break;
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// Microseconds of CPU time a period, as whole CPUs; 0: no quota ("max" or -1), or no such file.
int whole_cpus(int64_t quota, int64_t period) {
  return quota > 0 && period > 0 ? static_cast<int>((quota + period - 1) / period) : 0;
}

int quota_of_group(const fs::path& group) {
  int64_t quota = 0, period = 0;
  if (std::ifstream v2(group / "cpu.max"); v2 >> quota >> period) return whole_cpus(quota, period);
  std::ifstream v1(group / "cpu.cfs_quota_us"), v1_period(group / "cpu.cfs_period_us");
  return v1 >> quota && v1_period >> period ? whole_cpus(quota, period) : 0;
}

/// Of the group and of all that it is in, up to and including `mount`.
int quota_upwards(const fs::path& mount, fs::path group) {
  int least = 0;
  while (true) {
    const int quota = quota_of_group(mount / group);
    if (quota > 0) least = least == 0 ? quota : std::min(least, quota);
    if (group.empty()) return least;
    group = group.parent_path();
  }
}

}  // namespace

int cpu_quota(std::string_view groups, const fs::path& mount) {
  int least = 0;
  // A line is "0::/path" (version 2) or "4:cpu,cpuacct:/path" (version 1).
  while (!groups.empty()) {
    const std::string_view line = groups.substr(0, groups.find('\n'));
    groups.remove_prefix(std::min(groups.size(), line.size() + 1));
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers(line.substr(first + 1, second - first - 1));
    if (!controllers.empty() && ("," + controllers + ",").find(",cpu,") == std::string::npos)
      continue;
    const std::string_view path = line.substr(second + 1);
    const fs::path group(path.substr(std::min(path.size(), path.find_first_not_of('/'))));
    const int quota = quota_upwards(controllers.empty() ? mount : mount / controllers, group);
    if (quota > 0) least = least == 0 ? quota : std::min(least, quota);
  }
  return least;
}

int usable_cpus() {
  std::ifstream file("/proc/self/cgroup");
  const std::string groups(std::istreambuf_iterator<char>(file), {});
  const int cpus = cpus_of_affinity(), quota = cpu_quota(groups, "/sys/fs/cgroup");
  return quota > 0 ? std::min(cpus, quota) : cpus;
}

}  // namespace vlr
