#include "engine/scheduling/vision_cache_folder.h"

#include <fmt/format.h>
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

constexpr std::string_view kRoot = "vlr-vision-1";  // its number changes with the files' format
constexpr std::string_view kMedia = "media-", kFeatures = "features-", kTemporary = ".tmp";
constexpr int64_t kMaxRecordBytes = 1 << 20;

fs::path media_path(const fs::path& model, const Hash128& key) {
  return model / fmt::format("{}{}.json", kMedia, key.hex());
}
fs::path features_path(const fs::path& model, const Hash128& content) {
  return model / fmt::format("{}{}.safetensors", kFeatures, content.hex());
}

bool is_ours(std::string_view name) {
  return name.starts_with(kMedia) || name.starts_with(kFeatures);
}

struct File {
  fs::file_time_type used;
  int64_t bytes = 0;
  fs::path path;
};

/// Calls `visit` for every file of a cache. Files that go away meanwhile are left out.
template <class Visit>
void for_each_file(const fs::path& root, const Visit& visit) {
  std::error_code error;
  for (fs::directory_iterator model(root, error), end; !error && model != end;
       model.increment(error)) {
    std::error_code inner;
    for (fs::directory_iterator file(model->path(), inner); !inner && file != end;
         file.increment(inner)) {
      std::error_code gone;
      File found{.used = file->last_write_time(gone), .bytes = 0, .path = file->path()};
      if (!gone) found.bytes = static_cast<int64_t>(file->file_size(gone));
      if (!gone && is_ours(found.path.filename().string())) visit(model->path(), found);
    }
  }
}

/// A checksum of a record's values.
Hash128 sum_of(const MediaRecord& r) {
  Hasher hasher;
  hasher.add(r.content.high).add(r.content.low);
  for (const int64_t n : r.grid) hasher.add(n);
  for (const double s : r.seconds) hasher.add(s);
  return hasher.digest();
}

std::optional<MediaRecord> parse_record(std::string_view text) {
  const auto root = parse_json(text);
  if (!root || !root->is_object()) return {};
  const auto content = root->find("content"), grid = root->find("grid"),
             seconds = root->find("seconds"), sum = root->find("sum");
  if (content == root->end() || !content->is_string() || grid == root->end() || !grid->is_array() ||
      grid->size() != 3 || seconds == root->end() || !seconds->is_array() || sum == root->end() ||
      !sum->is_string())
    return {};
  MediaRecord out;
  const auto key = Hash128::from_hex(content->get<std::string>());
  if (!key) return {};
  out.content = *key;
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
  if (Hash128::from_hex(sum->get<std::string>()) != sum_of(out)) return {};
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
  std::error_code error;
  fs::create_directories(root, error);
  if (error || ::access(root.c_str(), W_OK) != 0) {
    return {Code::kInvalidArgument,
            fmt::format("vision cache: {}: cannot be written: {}", root.string(),
                        error ? error.message() : std::generic_category().message(errno))};
  }
  std::unique_ptr<VisionCacheFolder> out(new VisionCacheFolder(root, max_bytes, std::move(log)));
  for_each_file(root, [&](const fs::path&, const File& f) { out->bytes_ += f.bytes; });
  return out;
}

void VisionCacheFolder::set_model(const Hash128& model) {
  model_ = root_ / model.hex();
  std::error_code ignored;  // writing says what is wrong
  fs::create_directories(model_, ignored);
}

void VisionCacheFolder::write_failed(std::string_view reason) {
  if (log_ && !complained_.exchange(true))
    log_(fmt::format("vision cache: {}; going on without writing it", reason));
}

std::optional<MediaRecord> VisionCacheFolder::read_media(const Hash128& key) {
  const fs::path path = media_path(model_, key);
  const auto text = read_text_file(path.string(), kMaxRecordBytes);
  if (!text) return {};
  std::error_code ignored;
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
  return parse_record(*text);
}

void VisionCacheFolder::write_media(const Hash128& key, const MediaRecord& record) {
  std::string seconds;
  for (const double s : record.seconds)
    seconds += fmt::format("{}{}", seconds.empty() ? "" : ", ", s);
  const std::string text = fmt::format(
      "{{\"content\": \"{}\", \"grid\": [{}, {}, {}], \"seconds\": [{}], \"sum\": \"{}\"}}\n",
      record.content.hex(), record.grid[0], record.grid[1], record.grid[2], seconds,
      sum_of(record).hex());
  const fs::path to = media_path(model_, key);
  const fs::path partial = temporary(to);
  if (const Status s = write_text_file(partial.string(), text); !s.ok())
    return write_failed(s.message());
  std::error_code error;
  fs::rename(partial, to, error);
  if (error) return write_failed(fmt::format("{}: {}", to.string(), error.message()));
  wrote(std::ssize(text));
}

bool VisionCacheFolder::has_features(const Hash128& content) const {
  std::error_code ignored;
  return fs::exists(features_path(model_, content), ignored);
}

std::vector<std::byte> VisionCacheFolder::read_features(const Hash128& content, int64_t bytes) try {
  const fs::path path = features_path(model_, content);
  std::error_code error;
  if (!fs::exists(path, error)) return {};
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
  if (Hasher().add(out).digest() != stored) return give_up("its checksum is another");
  fs::last_write_time(path, fs::file_time_type::clock::now(), error);
  return out;
} catch (const std::bad_alloc&) {
  return {};
}

void VisionCacheFolder::write_features(const Hash128& content,
                                       std::span<const std::span<std::byte>> pieces) {
  Hasher hasher;
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
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(partial, error));
  fs::rename(partial, to, error);
  if (error) return write_failed(fmt::format("{}: {}", to.string(), error.message()));
  wrote(size);
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
  std::error_code error;
  if (!fs::is_directory(root, error))
    return {Code::kNotFound, fmt::format("{}: no vision cache in it", path)};
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
  const fs::path root = fs::path(path) / kRoot;
  std::error_code error;
  if (!fs::is_directory(root, error))
    return {Code::kNotFound, fmt::format("{}: no vision cache in it", path)};
  int64_t bytes = 0;
  std::vector<fs::path> models;
  for_each_file(root, [&](const fs::path& model, const File& f) {
    if (models.empty() || models.back() != model) models.push_back(model);
    std::error_code gone;
    if (fs::remove(f.path, gone)) bytes += f.bytes;
  });
  for (const fs::path& model : models) fs::remove(model, error);  // only if it is empty
  fs::remove(root, error);
  return bytes;
}

}  // namespace vlr
