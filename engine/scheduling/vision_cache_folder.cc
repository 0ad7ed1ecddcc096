#include "engine/scheduling/vision_cache_folder.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <random>
#include <system_error>
#include <tuple>

#include "engine/runtime/safetensors.h"
#include "model/json.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRoot = "vlr-vision-2";  // its number changes with the files' format
constexpr std::string_view kOlderRoots[] = {"vlr-vision-1"};  // nobody reads them any more
constexpr std::string_view kMedia = "media-", kFeatures = "features-", kTemporary = ".tmp";
constexpr int64_t kMaxRecordBytes = 1 << 20;

fs::path media_path(const fs::path& model, const Hash128& key) {
  return model / fmt::format("{}{}.json", kMedia, key.hex());
}
fs::path features_path(const fs::path& model, const Hash128& content) {
  return model / fmt::format("{}{}.safetensors", kFeatures, content.hex());
}

/// Whether a name is one that this file gives, letter for letter, or one of a file that was being
/// written.
bool is_ours(std::string_view name) {
  for (const auto& [prefix, suffix] : {std::pair{kMedia, std::string_view(".json")},
                                       std::pair{kFeatures, std::string_view(".safetensors")}}) {
    if (!name.starts_with(prefix)) continue;
    name.remove_prefix(prefix.size());
    if (!Hash128::from_hex(name.substr(0, 32))) return false;
    name.remove_prefix(32);
    if (!name.starts_with(suffix)) return false;
    name.remove_prefix(suffix.size());
    return name.empty() || (name.front() == '.' && name.find(kTemporary) != name.npos &&
                            name.find_first_not_of(".-0123456789abcdeftmpr") == name.npos);
  }
  return false;
}

/// A link to a folder or a file is not one.
bool is_folder(const fs::path& path) {
  std::error_code gone;
  return fs::symlink_status(path, gone).type() == fs::file_type::directory;
}
bool is_file(const fs::path& path) {
  std::error_code gone;
  return fs::symlink_status(path, gone).type() == fs::file_type::regular;
}

/// A folder that nobody else may look into; one that is there stays as it is.
std::error_code make_private_folder(const fs::path& path) {
  if (::mkdir(path.c_str(), S_IRWXU) == 0 || errno == EEXIST) return {};
  return {errno, std::generic_category()};
}

struct File {
  fs::file_time_type used;
  int64_t bytes = 0;
  fs::path path;
};

/// Calls `visit` for every file of a cache, and follows no links. Files that go away meanwhile are
/// left out.
template <class Visit>
void for_each_file(const fs::path& root, const Visit& visit) {
  std::error_code error;
  if (!is_folder(root)) return;
  for (fs::directory_iterator model(root, error), end; !error && model != end;
       model.increment(error)) {
    if (!Hash128::from_hex(model->path().filename().string()) || !is_folder(model->path()))
      continue;
    std::error_code inner;
    for (fs::directory_iterator file(model->path(), inner); !inner && file != end;
         file.increment(inner)) {
      std::error_code gone;
      if (!is_ours(file->path().filename().string()) || !is_file(file->path())) continue;
      File found{.used = file->last_write_time(gone), .bytes = 0, .path = file->path()};
      if (!gone) found.bytes = static_cast<int64_t>(file->file_size(gone));
      if (!gone) visit(model->path(), found);
    }
  }
}

/// A checksum over a record's values and the names that it has been put under.
Hash128 sum_of(const Hash128& model, const Hash128& key, const MediaRecord& r) {
  Hasher hasher;
  hasher.add(model.high).add(model.low).add(key.high).add(key.low);
  hasher.add(r.content.high).add(r.content.low);
  for (const int64_t n : r.grid) hasher.add(n);
  for (const double s : r.seconds) hasher.add(s);
  return hasher.digest();
}

std::optional<MediaRecord> parse_record(const Hash128& model, const Hash128& key,
                                        std::string_view text) {
  const auto root = parse_json(text);
  if (!root || !root->is_object()) return {};
  const auto content = root->find("content"), grid = root->find("grid"),
             seconds = root->find("seconds"), sum = root->find("sum");
  if (content == root->end() || !content->is_string() || grid == root->end() || !grid->is_array() ||
      grid->size() != 3 || seconds == root->end() || !seconds->is_array() || sum == root->end() ||
      !sum->is_string())
    return {};
  MediaRecord out;
  const auto named = Hash128::from_hex(content->get<std::string>());
  if (!named) return {};
  out.content = *named;
  for (size_t i = 0; i < 3; ++i) {
    constexpr int64_t kMost = 1 << 20;
    if (!(*grid)[i].is_number_integer()) return {};
    out.grid[i] = (*grid)[i].get<int64_t>();
    if (out.grid[i] < 1 || out.grid[i] > kMost) return {};
  }
  for (const nlohmann::json& s : *seconds) {
    if (!s.is_number()) return {};
    out.seconds.push_back(s.get<double>());
  }
  if (Hash128::from_hex(sum->get<std::string>()) != sum_of(model, key, out)) return {};
  return out;
}

}  // namespace

VisionCacheFolder::VisionCacheFolder(fs::path root, int64_t max_bytes, Log log)
    : root_(std::move(root)), max_bytes_(max_bytes), log_(std::move(log)) {
  std::random_device random;  // a process's number is not one of its own across containers
  id_ = uint64_t{random()} << 32 | random();
}

fs::path VisionCacheFolder::temporary(const fs::path& to) {
  return fmt::format("{}.{:016x}.{}{}", to.string(), id_, num_written_++, kTemporary);
}

void VisionCacheFolder::wrote(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  bytes_ += bytes;
  if (bytes_ > max_bytes_) trim();
}

Result<std::unique_ptr<VisionCacheFolder>> VisionCacheFolder::open(const std::string& path,
                                                                   int64_t max_bytes, Log log) {
  const fs::path root = fs::path(path) / kRoot;
  const fs::path folder = root.parent_path();
  std::error_code error;
  fs::create_directories(folder.parent_path(), error);
  error = make_private_folder(folder);
  if (!error) error = make_private_folder(root);
  if (!error && ::access(root.c_str(), W_OK) != 0) error = {errno, std::generic_category()};
  const std::string refusal =
      error ? fmt::format("vision cache: {}: cannot be written: {}", root.string(), error.message())
            : "";
  if (!is_folder(root)) {
    return {Code::kInvalidArgument, error ? refusal
                                          : fmt::format("vision cache: {}: cannot be written: "
                                                        "not a folder",
                                                        root.string())};
  }
  if (error && ::access(root.c_str(), R_OK | X_OK) != 0) return {Code::kInvalidArgument, refusal};
  std::unique_ptr<VisionCacheFolder> out(new VisionCacheFolder(root, max_bytes, std::move(log)));
  out->read_only_ = bool(error);
  if (error && out->log_) out->log_(refusal + "; it is only read");
  for_each_file(root, [&](const fs::path&, const File& f) { out->bytes_ += f.bytes; });
  return out;
}

void VisionCacheFolder::set_model(const Hash128& model) {
  key_ = model;
  model_ = root_ / model.hex();
  if (!read_only_) (void)make_private_folder(model_);  // writing says what is wrong
}

void VisionCacheFolder::write_failed(std::string_view reason) {
  if (log_ && !complained_.exchange(true))
    log_(fmt::format("vision cache: {}; going on without writing it", reason));
}

std::optional<MediaRecord> VisionCacheFolder::read_media(const Hash128& key) {
  const fs::path path = media_path(model_, key);
  if (!is_file(path)) return {};
  const auto text = read_text_file(path.string(), kMaxRecordBytes);
  if (!text) return {};
  std::error_code ignored;
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
  return parse_record(key_, key, *text);
}

/// A file that is complete gets its name.
void VisionCacheFolder::publish(const fs::path& partial, const fs::path& to) {
  std::error_code error;
  const auto bytes = static_cast<int64_t>(fs::file_size(partial, error));
  fs::permissions(partial, fs::perms::owner_read | fs::perms::owner_write, error);
  fs::rename(partial, to, error);
  if (!error) return wrote(bytes);
  write_failed(fmt::format("{}: {}", to.string(), error.message()));
  fs::remove(partial, error);
}

void VisionCacheFolder::write_media(const Hash128& key, const MediaRecord& record) {
  if (read_only_) return;
  std::string seconds;
  for (const double s : record.seconds)
    seconds += fmt::format("{}{}", seconds.empty() ? "" : ", ", s);
  const std::string text = fmt::format(
      "{{\"content\": \"{}\", \"grid\": [{}, {}, {}], \"seconds\": [{}], \"sum\": \"{}\"}}\n",
      record.content.hex(), record.grid[0], record.grid[1], record.grid[2], seconds,
      sum_of(key_, key, record).hex());
  const fs::path to = media_path(model_, key);
  const fs::path partial = temporary(to);
  if (const Status s = write_text_file(partial.string(), text); !s.ok())
    return write_failed(s.message());
  publish(partial, to);
}

std::string VisionCacheFolder::name_of(const Hash128& content) const {
  return key_.hex() + content.hex();
}

bool VisionCacheFolder::has_features(const Hash128& content) const {
  return is_file(features_path(model_, content));
}

std::vector<std::byte> VisionCacheFolder::read_features(const Hash128& content, int64_t bytes) try {
  const fs::path path = features_path(model_, content);
  std::error_code error;
  if (!is_file(path)) return {};
  const auto give_up = [&](std::string_view reason) -> std::vector<std::byte> {
    if (log_) log_(fmt::format("vision cache: {}: {}; it is removed", path.string(), reason));
    fs::remove(path, error);
    return {};
  };
  const auto file = SafetensorsFile::open(path.string());
  if (!file) {
    return file.error().code() == Code::kNotFound ? std::vector<std::byte>()
                                                  : give_up(file.error().message());
  }
  const auto data = file->tensors().find("features"), sum = file->tensors().find("xxh3_128");
  if (data == file->tensors().end() || sum == file->tensors().end() ||
      data->second.bytes() != bytes || sum->second.bytes() != sizeof(Hash128)) {
    return give_up(fmt::format("expected {} bytes of features and their checksum", bytes));
  }
  std::vector<std::byte> out(data->second.data, data->second.data + bytes);
  Hash128 stored;
  std::memcpy(&stored, sum->second.data, sizeof stored);
  if (Hasher().add(name_of(content)).add(out).digest() != stored)
    return give_up("its checksum is another");
  fs::last_write_time(path, fs::file_time_type::clock::now(), error);
  return out;
} catch (const std::bad_alloc&) {
  return {};
}

void VisionCacheFolder::write_features(const Hash128& content,
                                       std::span<const std::span<std::byte>> pieces) {
  if (read_only_) return;
  Hasher hasher;
  hasher.add(name_of(content));
  int64_t bytes = 0;
  for (const std::span<std::byte> piece : pieces) {
    hasher.add(piece);
    bytes += std::ssize(piece);
  }
  if (bytes > max_bytes_) return;
  const Hash128 sum = hasher.digest();
  NamedShape data, checksum;
  data.name = "features";
  data.dtype = checksum.dtype = DType::kU8;
  data.shape = {bytes};
  checksum.name = "xxh3_128";
  checksum.shape = {sizeof sum};
  const auto fill = [&](const NamedShape& t, int64_t begin, std::span<std::byte> out) -> Status {
    if (t.name == checksum.name) {
      std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&sum) + begin, out.size());
      return {};
    }
    for (const std::span<std::byte> piece : pieces) {
      if (begin >= std::ssize(piece)) {
        begin -= std::ssize(piece);
        continue;
      }
      const size_t count = std::min(piece.size() - static_cast<size_t>(begin), out.size());
      std::memcpy(out.data(), piece.data() + begin, count);
      out = out.subspan(count);
      begin = 0;
    }
    return {};
  };
  const fs::path to = features_path(model_, content);
  const fs::path partial = temporary(to);
  if (const Status s = write_safetensors(partial.string(), {data, checksum}, fill); !s.ok())
    return write_failed(s.message());
  publish(partial, to);
}

// To nine tenths of the cap, so that not every write has to look at all files.
void VisionCacheFolder::trim() {
  std::vector<File> files;
  bytes_ = 0;
  for_each_file(root_, [&](const fs::path&, const File& f) {
    files.push_back(f);
    bytes_ += f.bytes;
  });
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) {
    return std::tie(a.used, a.path) < std::tie(b.used, b.path);
  });
  for (const File& f : files) {
    if (bytes_ <= max_bytes_ / 10 * 9) break;
    std::error_code gone;  // another process was first
    fs::remove(f.path, gone);
    bytes_ -= f.bytes;
  }
}

Result<VisionCacheFolder::Contents> VisionCacheFolder::list(const std::string& path) {
  const fs::path root = fs::path(path) / kRoot;
  if (!is_folder(root)) return {Code::kNotFound, fmt::format("{}: no vision cache in it", path)};
  Contents out;
  for_each_file(root, [&](const fs::path& model, const File& f) {
    const std::string name = model.filename().string();
    auto it = std::find_if(out.models.begin(), out.models.end(),
                           [&](const Contents::Model& m) { return m.name == name; });
    if (it == out.models.end()) it = out.models.insert(it, {.name = name});
    it->bytes += f.bytes;
    const std::string file = f.path.filename().string();
    if (file.ends_with(".json")) ++it->media;
    if (file.ends_with(".safetensors")) ++it->features;
  });
  std::sort(out.models.begin(), out.models.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

Result<int64_t> VisionCacheFolder::clear(const std::string& path) {
  std::vector<fs::path> roots{fs::path(path) / kRoot};
  for (const std::string_view older : kOlderRoots) roots.push_back(fs::path(path) / older);
  std::erase_if(roots, [](const fs::path& root) { return !is_folder(root); });
  if (roots.empty()) return {Code::kNotFound, fmt::format("{}: no vision cache in it", path)};
  int64_t bytes = 0;
  for (const fs::path& root : roots) {
    std::error_code error;
    std::vector<fs::path> models;
    for_each_file(root, [&](const fs::path& model, const File& f) {
      if (models.empty() || models.back() != model) models.push_back(model);
      std::error_code gone;
      if (fs::remove(f.path, gone)) bytes += f.bytes;
    });
    for (const fs::path& model : models) fs::remove(model, error);  // only if it is empty
    fs::remove(root, error);
  }
  return bytes;
}

}  // namespace vlr
