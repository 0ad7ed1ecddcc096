#include "bench/support/machine.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <ctime>
#include <fstream>
#include <limits>

namespace vlr::bench {
namespace {

/// Each thread on a CPU of its own among those that the process may use, so that none moves while
/// something is timed.
void pin(ThreadPool& threads) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  const int n = threads.num_threads();
  if (n > static_cast<int>(cpus.size())) return;
  std::atomic<int> here = 0;
  threads.parallel_for(n, [&](int64_t, int thread) {
    ++here;
    while (here < n) sched_yield();  // so that every thread takes one
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpus[static_cast<size_t>(thread)], &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
  });
}

/// Of the host; no bound where the kernel does not tell.
int64_t available_bytes() {
  std::ifstream in("/proc/meminfo");
  for (std::string key, line; in >> key && std::getline(in, line);) {
    if (key == "MemAvailable:") return std::stoll(line) * 1024;
  }
  return std::numeric_limits<int64_t>::max();
}

}  // namespace

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32] = "";
  std::strftime(text, sizeof(text), "%FT%TZ", &parts);
  return text;
}

Machine::Machine(std::unique_ptr<Gpu> g, int num_threads)
    : gpu(std::move(g)), threads(num_threads), roofs(gpu.get(), threads) {
  CPU_ZERO(&before_);
  sched_getaffinity(0, sizeof before_, &before_);
  if (!gpu) pin(threads);
}

Machine::~Machine() {
  // The pool's own threads end with it; this one goes on, perhaps with a model.
  if (!gpu && CPU_COUNT(&before_) > 0) sched_setaffinity(0, sizeof before_, &before_);
}

Result<std::unique_ptr<Machine>> Machine::open(const std::string& device, int num_threads) {
  std::unique_ptr<Gpu> gpu;
  if (device != "cpu") {
    int index = 0;
    const std::string number = device.starts_with("cuda:") ? device.substr(5) : "0";
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
    if (error != std::errc() || end != number.data() + number.size() ||
        (!device.empty() && device != "cuda" && !device.starts_with("cuda:")) || index < 0)
      return Status(Code::kInvalidArgument, "--device must be cpu, cuda or cuda:N, got " + device);
    gpu = Gpu::open(index);
    if (!gpu && !device.empty())
      return Status(Code::kDevice, "--device " + device + ": there is no such GPU");
  }
  return std::unique_ptr<Machine>(new Machine(std::move(gpu), num_threads));
}

int64_t Machine::bytes_for_sets() const {
  const int64_t free = gpu ? gpu->free_bytes() : available_bytes();
  return std::min(free / 4, int64_t{gpu ? 16 : 1} << 30);
}

std::vector<std::pair<std::string, std::string>> Machine::description() {
  if (gpu) return gpu->description();
  return {{"cpu", cpu_name()}, {"threads", std::to_string(threads.num_threads())}};
}

}  // namespace vlr::bench
