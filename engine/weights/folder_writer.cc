#include "engine/weights/folder_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <vector>

#include "model/json.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPart = ".vlr-part-";
constexpr std::string_view kConfig = "config.json";
constexpr int64_t kConfigBytes = int64_t{4} << 20;

Status failed(const fs::path& path, const std::error_code& error) {
  return {Code::kInvalidArgument, fmt::format("{}: {}", path.string(), error.message())};
}
Status failed(const fs::path& path) { return failed(path, {errno, std::generic_category()}); }

/// Weights and their index: what a reader would take for the checkpoint's.
bool is_weights(std::string_view name) {
  return name.starts_with("model") &&
         (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"));
}

Result<std::vector<std::string>> names_in(const fs::path& folder) {
  std::vector<std::string> out;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    out.push_back(it->path().filename().string());
  if (error) return failed(folder, error);
  return out;
}

Status sync(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return failed(path);
  const Status status = ::fsync(fd) == 0 ? Status() : failed(path);
  ::close(fd);
  return status;
}

Status check_may_replace(const fs::path& folder, const FolderWriter::Replace& replace) {
  if (replace.anything) return {};
  VLR_ASSIGN_OR_RETURN(const std::vector<std::string> names, names_in(folder));
  std::string there;
  for (const std::string& name : names) {
    if (name == kConfig) there = name;
    if (is_weights(name) && there.empty()) there = name;
  }
  if (there.empty()) return {};
  if (there == kConfig) {
    const auto config = read_text_file((folder / kConfig).string(), kConfigBytes);
    if (config && replace.like_it && replace.like_it(*config)) return {};
  }
  return {Code::kInvalidArgument,
          fmt::format("{}: has another checkpoint ({}), which only --force replaces",
                      folder.string(), there)};
}

}  // namespace

Result<FolderWriter> FolderWriter::begin(const std::string& folder, const Replace& replace) {
  FolderWriter w;
  w.folder_ = folder;
  std::error_code error;
  w.made_ = fs::create_directories(w.folder_, error);
  if (error) return failed(w.folder_, error);
  w.lock_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (w.lock_ < 0) return failed(w.folder_);
  const bool locked = ::flock(w.lock_, LOCK_EX | LOCK_NB) == 0;
  if (!locked && errno == EWOULDBLOCK) {
    w.made_ = false;
    return {Code::kInvalidArgument, folder + ": another process is writing a checkpoint there"};
  }
  VLR_RETURN_IF_ERROR(check_may_replace(w.folder_, replace));
  if (locked) {  // what a killed process left
    VLR_ASSIGN_OR_RETURN(const std::vector<std::string> names, names_in(w.folder_));
    for (const std::string& name : names)
      if (name.starts_with(kPart)) fs::remove_all(w.folder_ / name, error);
  }
  std::string part = (w.folder_ / (std::string(kPart) + "XXXXXX")).string();
  if (!::mkdtemp(part.data())) return failed(part);
  w.path_ = part;
  return w;
}

FolderWriter::~FolderWriter() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
  if (!path_.empty() && made_) fs::remove(folder_, ignored);  // if nothing is in it
  if (lock_ >= 0) ::close(lock_);
}

Status FolderWriter::commit() {
  VLR_ASSIGN_OR_RETURN(const std::vector<std::string> names, names_in(path_));
  for (const std::string& name : names) VLR_RETURN_IF_ERROR(sync(path_ / name));
  VLR_RETURN_IF_ERROR(sync(path_));
  std::error_code error;
  fs::remove(folder_ / kConfig, error);
  if (error) return failed(folder_ / kConfig, error);
  VLR_RETURN_IF_ERROR(sync(folder_));
  VLR_ASSIGN_OR_RETURN(const std::vector<std::string> old, names_in(folder_));
  for (const std::string& name : old) {
    if (!is_weights(name)) continue;
    fs::remove(folder_ / name, error);
    if (error) return failed(folder_ / name, error);
  }
  const auto move = [&](std::string_view name) -> Status {
    fs::rename(path_ / name, folder_ / name, error);
    return error ? failed(folder_ / name, error) : Status();
  };
  for (const std::string& name : names)
    if (name != kConfig) VLR_RETURN_IF_ERROR(move(name));
  VLR_RETURN_IF_ERROR(sync(folder_));  // before the config, in which it can be opened
  VLR_RETURN_IF_ERROR(move(kConfig));
  VLR_RETURN_IF_ERROR(sync(folder_));
  made_ = false;
  return {};
}

}  // namespace vlr
