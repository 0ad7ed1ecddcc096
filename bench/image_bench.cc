// CPU time of load_image() and of its decoding alone, for files; one JSON object a file. The other
// half of bench/image_throughput.py.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "multimodal/media.h"
#include "multimodal/source.h"

namespace {

double cpu_ms() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

[[noreturn]] void fail(const std::string& message) {
  fmt::print(stderr, "image_bench: {}\n", message);
  std::exit(1);
}

template <class F>
std::string times(int repetitions, F work) {
  std::string list;
  for (int i = 0; i < repetitions; ++i) {
    const double start = cpu_ms();
    if (const vlr::Status status = work(); !status.ok()) fail(status.message());
    list += fmt::format("{}{:.4f}", i == 0 ? "" : ", ", cpu_ms() - start);
  }
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) fail("usage: image_bench REPETITIONS FILE [PATCHES]");
  const auto bytes = vlr::read_file(argv[2], int64_t{1} << 30);
  if (!bytes) fail(bytes.error().message());
  // Patches go where the last ones were, as in an engine that reuses its memory.
  std::shared_ptr<uint8_t[]> memory;
  size_t capacity = 0;
  vlr::MediaOptions options;
  options.memory = [&](size_t size) {
    if (size > capacity) memory = std::make_unique_for_overwrite<uint8_t[]>(capacity = size);
    return memory;
  };
  const int repetitions = std::atoi(argv[1]);
  const std::string decode = times(repetitions, [&] { return vlr::decode_image(*bytes).error(); });
  vlr::Patches patches;
  const std::string load = times(repetitions, [&]() -> vlr::Status {
    VLR_ASSIGN_OR_RETURN(patches, vlr::load_image(*bytes, options));
    return {};
  });
  if (argc == 4) {
    std::ofstream(argv[3], std::ios::binary)
        .write(reinterpret_cast<const char*>(patches.data.data()),
               static_cast<std::streamsize>(patches.data.size()));
  }
  fmt::print("{{\"grid_h\": {}, \"grid_w\": {}, \"decode_ms\": [{}], \"load_ms\": [{}]}}\n",
             patches.grid_h, patches.grid_w, decode, load);
}
