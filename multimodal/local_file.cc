#include "multimodal/local_file.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>

#include "multimodal/source.h"

namespace vlr::media {
namespace {

namespace fs = std::filesystem;

/// The parts of a path below a folder, one step at a time.
class Walk {
 public:
  Walk(const fs::path& root, std::string name) : name_(std::move(name)) {
    std::error_code error;
    root_ = fs::absolute(root.empty() ? "." : root, error).lexically_normal();
    canonical_root_ = fs::canonical(root_, error);
    folders_.emplace_back(open(root_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }

  Result<Descriptor> open_file(const fs::path& path) {
    if (folders_.front().get() < 0)
      return {Code::kNotFound, fmt::format("the media root {}: {}", root_.string(), error_text())};
    VLR_RETURN_IF_ERROR(push(path));
    while (!left_.empty()) {
      const std::string part = std::move(left_.front());
      left_.pop_front();
      if (part.empty() || part == ".") continue;
      if (part == "..") {
        if (folders_.size() == 1) return outside();
        folders_.pop_back();
        continue;
      }
      Descriptor next(openat(folders_.back().get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      struct stat info {};
      if (next.get() < 0 || fstat(next.get(), &info) != 0) return not_there();
      if (S_ISLNK(info.st_mode)) {
        VLR_RETURN_IF_ERROR(follow(next.get()));
      } else if (left_.empty()) {
        if (!S_ISREG(info.st_mode)) return not_regular(info.st_mode);
        Descriptor file(openat(folders_.back().get(), part.c_str(), kReadOnly | O_NOFOLLOW));
        if (file.get() < 0) return not_there();
        return file;
      } else {
        folders_.push_back(std::move(next));
      }
    }
    return not_regular(S_IFDIR);  // the root, or a path that ends in ".."
  }

 private:
  // Parts of a path that is to be gone before what is left.
  Status push(const fs::path& path) {
    fs::path below = path;
    if (path.is_absolute()) {
      below = relative_to(root_, path).value_or(relative_to(canonical_root_, path).value_or(""));
      if (below.empty()) return outside();
      folders_.erase(folders_.begin() + 1, folders_.end());
    }
    std::deque<std::string> parts;
    for (const fs::path& part : below) parts.push_back(part.string());
    left_.insert(left_.begin(), parts.begin(), parts.end());
    return {};
  }

  static std::optional<fs::path> relative_to(const fs::path& root, const fs::path& path) {
    const fs::path below = path.lexically_relative(root);
    if (below.empty() || *below.begin() == "..") return std::nullopt;
    return below;
  }

  Status follow(int link) {
    constexpr int kMaxLinks = 40;  // Linux's own limit
    char target[4096];
    const ssize_t size = readlinkat(link, "", target, sizeof target);
    if (size <= 0 || static_cast<size_t>(size) == sizeof target || ++links_ > kMaxLinks)
      return {Code::kDataLoss, name_ + ": too many symbolic links, or too long ones"};
    return push(fs::path(std::string_view(target, static_cast<size_t>(size))));
  }

  Status outside() const {
    return {Code::kInvalidArgument,
            fmt::format("{}: is not below the media root, and no other files are allowed "
                        "(local_files is below_media_root)",
                        name_)};
  }
  Status not_there() const {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    return {missing ? Code::kNotFound : Code::kDataLoss,
            fmt::format("{}: {}", name_, missing ? "no such file" : error_text())};
  }
  Status not_regular(mode_t mode) const {
    return {Code::kInvalidArgument,
            not_a_file(name_, fs::file_status(S_ISDIR(mode) ? fs::file_type::directory
                                                            : fs::file_type::unknown))};
  }
  static std::string error_text() { return std::strerror(errno); }

  std::string name_;
  fs::path root_, canonical_root_;
  std::vector<Descriptor> folders_;  // from the root to where the walk is
  std::deque<std::string> left_;
  int links_ = 0;
};

}  // namespace

std::string not_a_file(std::string_view name, fs::file_status status) {
  return fmt::format("{}: {}", name,
                     fs::is_directory(status) ? "is a folder, expected a file"
                                              : "is neither a file nor a link to one");
}

Result<std::vector<std::byte>> read_open_file(int fd, std::string_view name, int64_t max_bytes) {
  struct stat info {};
  if (fstat(fd, &info) != 0)
    return {Code::kDataLoss, fmt::format("{}: {}", name, std::strerror(errno))};
  if (!S_ISREG(info.st_mode)) return {Code::kInvalidArgument, not_a_file(name, fs::file_status())};
  const int64_t size = info.st_size;
  if (size == 0) return {Code::kInvalidArgument, fmt::format("{}: is empty", name)};
  if (size > max_bytes) {
    return {Code::kInvalidArgument,
            fmt::format("{}: has {} bytes, at most {} are allowed", name, size, max_bytes)};
  }
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = read(fd, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return {Code::kDataLoss,
              fmt::format("{}: gave {} of {} bytes{}", name, done, size,
                          count < 0 ? fmt::format(": {}", std::strerror(errno)) : std::string())};
    }
    done += static_cast<size_t>(count);
  }
  return bytes;
}

Result<std::vector<std::byte>> read_file_below(const fs::path& root, std::string_view path,
                                               int64_t max_bytes) {
  const std::string name = describe_source(path);
  VLR_ASSIGN_OR_RETURN(const Descriptor file, Walk(root, name).open_file(fs::path(path)));
  return read_open_file(file.get(), name, max_bytes);
}

}  // namespace vlr::media
