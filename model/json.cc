#include "model/json.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>

#include "kernels/core/json_tree.h"
#include "kernels/core/regular_file.h"

namespace vlr {
namespace {

using nlohmann::json;

constexpr size_t kMaxBytes = size_t{64} << 20;

}  // namespace

Result<json> parse_json(std::string_view text) {
  VLR_ASSIGN_OR_RETURN(JsonTree<json> tree, JsonTree<json>::parse(text, kMaxBytes));
  return std::move(tree).take();
}

bool is_lfs_pointer(std::string_view text) {
  return text.starts_with("version https://git-lfs.github.com/spec/");
}

Status lfs_pointer(const std::string& path) {
  return {Code::kDataLoss,
          path + ": a Git LFS pointer, not the file that it stands for; `git lfs pull` fetches it"};
}

Result<std::string> read_text_file(const std::string& path, int64_t max_bytes, bool pipes) {
  std::FILE* opened = nullptr;
  if (pipes) {
    opened = std::fopen(path.c_str(), "rb");
  } else {
    VLR_ASSIGN_OR_RETURN(const int fd, open_regular(path));
    opened = ::fdopen(fd, "rb");
    if (!opened) ::close(fd);
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(opened, std::fclose);
  if (!file) {
    return {Code::kNotFound, fmt::format("{}: {}", path, std::generic_category().message(errno))};
  }
  std::string text;
  char block[1 << 14];
  while (const size_t n = std::fread(block, 1, sizeof block, file.get())) {
    if (static_cast<int64_t>(text.size() + n) > max_bytes) {
      return {Code::kDataLoss, fmt::format("{}: longer than {} bytes", path, max_bytes)};
    }
    text.append(block, n);
  }
  if (std::ferror(file.get())) {
    return {Code::kDataLoss, fmt::format("{}: {}", path, std::generic_category().message(errno))};
  }
  if (is_lfs_pointer(text)) return lfs_pointer(path);
  return text;
}

std::string shown(const nlohmann::json& value) {
  using nlohmann::json;
  const std::string quoted = in_quotes(value.dump(-1, ' ', false, json::error_handler_t::replace));
  return quoted.substr(1, quoted.size() - 2);
}

Status write_text_file(const std::string& path, std::string_view text) {
  VLR_ASSIGN_OR_RETURN(std::FILE* const file, open_output(path));
  int why = std::fwrite(text.data(), 1, text.size(), file) == text.size() ? 0 : errno;
  if (std::fclose(file) != 0 && why == 0) why = errno;
  if (why == 0) return {};
  remove_partial(path);
  return {Code::kInvalidArgument,
          fmt::format("{}: cannot write: {}", path, std::generic_category().message(why))};
}

}  // namespace vlr
