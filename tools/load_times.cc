#include "tools/load_times.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <vector>

#include "engine/runtime/safetensors.h"

namespace vlr::tools {

Status drop_from_page_cache(const std::string& folder) {
  std::vector<std::string> paths;
  {
    VLR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(folder));
    for (const SafetensorsFile& file : checkpoint.files()) paths.push_back(file.path());
  }  // pages that are mapped would stay
  for (const std::string& path : paths) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
      return {Code::kNotFound, path + ": open: " + std::generic_category().message(errno)};
    ::fdatasync(fd);  // so would pages that are not written yet
    const int error = ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
    if (error != 0)
      return {Code::kDevice, path + ": posix_fadvise: " + std::generic_category().message(error)};
  }
  return {};
}

Result<ReadStats> read_whole_files(const std::string& folder, const ReadOptions& options) {
  VLR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(folder));
  VLR_ASSIGN_OR_RETURN(const FileReader files, checkpoint.reader(options));
  std::vector<Extent> all;
  for (const SafetensorsFile& file : checkpoint.files())
    all.push_back({.file = static_cast<int>(all.size()), .offset = 0, .bytes = file.bytes()});
  const auto start = std::chrono::steady_clock::now();
  VLR_RETURN_IF_ERROR(files.read_all(all));
  ReadStats stats = files.stats();
  stats.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return stats;
}

nlohmann::ordered_json to_json(const ReadStats& stats) {
  return {{"bytes", stats.bytes},
          {"page_cache_bytes", stats.page_cache_bytes},
          {"direct_bytes", stats.direct_bytes},
          {"seconds", stats.seconds},
          {"GB/s", gb_per_second(stats.bytes, stats.seconds)}};
}

}  // namespace vlr::tools
