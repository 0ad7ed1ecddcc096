#include "engine/runtime/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <system_error>
#include <utility>

#include "kernels/core/descriptor.h"
#include "kernels/core/regular_file.h"
#include "model/json.h"

namespace vlr {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensor data are used as they are stored");

using nlohmann::json;

constexpr int64_t kLengthBytes = 8;               // the u64 in front of the header
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the safetensors library's own limit
constexpr std::string_view kMetadataKey = "__metadata__";

struct DTypeName {
  DType dtype;
  std::string_view name;
};
// In the order in which the safetensors library ranks them when it sorts tensors, narrowest first.
constexpr std::array kDTypes = {
    DTypeName{DType::kBool, "BOOL"},      DTypeName{DType::kU8, "U8"},
    DTypeName{DType::kI8, "I8"},          DTypeName{DType::kF8E5M2, "F8_E5M2"},
    DTypeName{DType::kF8E4M3, "F8_E4M3"}, DTypeName{DType::kI16, "I16"},
    DTypeName{DType::kU16, "U16"},        DTypeName{DType::kF16, "F16"},
    DTypeName{DType::kBF16, "BF16"},      DTypeName{DType::kI32, "I32"},
    DTypeName{DType::kU32, "U32"},        DTypeName{DType::kF32, "F32"},
    DTypeName{DType::kF64, "F64"},        DTypeName{DType::kI64, "I64"},
    DTypeName{DType::kU64, "U64"},
};

size_t dtype_rank(DType t) {
  return static_cast<size_t>(std::ranges::find(kDTypes, t, &DTypeName::dtype) - kDTypes.begin());
}

Status damaged(std::string message) { return {Code::kDataLoss, std::move(message)}; }

/// Product of the axes times the size of an element; nullopt if it exceeds int64_t on the way.
std::optional<int64_t> checked_bytes(const StoredShape& t) {
  int64_t bytes = dtype_bytes(t.dtype);
  for (const int64_t d : t.shape) {
    if (d < 0 || __builtin_mul_overflow(bytes, d, &bytes)) return std::nullopt;
  }
  return bytes;
}

/// Reads the header's JSON as a stream of events, so that nothing but the table of tensors is ever
/// built and equal names are seen. Every callback returns false to stop; error() then says why.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  struct Tensor : StoredShape {
    int64_t begin = 0, end = 0;  // data_offsets
  };

  std::map<std::string, Tensor, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;

  const Status& error() const { return error_; }

  bool start_object(std::size_t) override {
    if (level_ == Level::kFile) {
      level_ = Level::kNames;
      return true;
    }
    if (level_ != Level::kNames) return unexpected("an object");
    if (name_ == kMetadataKey) {
      level_ = Level::kMetadata;
    } else {
      level_ = Level::kTensor;
      tensor_ = {};
      has_ = {};
      field_.clear();
    }
    return true;
  }

  bool key(string_t& text) override {
    if (level_ == Level::kNames) {
      name_ = text;
      if (tensors.contains(name_) || (name_ == kMetadataKey && has_metadata_)) {
        return fail(fmt::format("{} is there twice", in_quotes(name_)));
      }
      has_metadata_ |= name_ == kMetadataKey;
      return true;
    }
    field_ = text;
    if (level_ == Level::kMetadata) return true;
    const auto field = std::ranges::find(kFields, field_);
    if (field == kFields.end())
      return fail(fmt::format("{} has an unknown key {}", in_quotes(name_), in_quotes(field_)));
    bool& seen = has_[static_cast<size_t>(field - kFields.begin())];
    if (seen) return fail(fmt::format("{} has {} twice", in_quotes(name_), field_));
    return seen = true;
  }

  bool string(string_t& text) override {
    if (level_ == Level::kMetadata) {
      if (!metadata.emplace(field_, text).second) {
        return fail(fmt::format("metadata has {} twice", in_quotes(field_)));
      }
      return true;
    }
    if (level_ != Level::kTensor || field_ != "dtype") return unexpected("a string");
    const auto known = std::ranges::find(kDTypes, text, &DTypeName::name);
    if (known == kDTypes.end()) {
      error_ = {Code::kUnimplemented,
                fmt::format("{} has dtype {}, which is not one of BOOL, U8 ... F64",
                            in_quotes(name_), in_quotes(text))};
      return false;
    }
    tensor_.dtype = known->dtype;
    return true;
  }

  bool start_array(std::size_t) override {
    if (level_ != Level::kTensor || field_ == "dtype") return unexpected("an array");
    level_ = Level::kNumbers;
    numbers_.clear();
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (level_ != Level::kNumbers) return unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return fail(fmt::format("{}: {} holds {}", in_quotes(name_), field_, value));
    }
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    level_ = Level::kTensor;
    if (field_ == "shape") {
      tensor_.shape = numbers_;
      return true;
    }
    if (numbers_.size() != 2) {
      return fail(fmt::format("{}: data_offsets must be 2 numbers, got {}", in_quotes(name_),
                              numbers_.size()));
    }
    tensor_.begin = numbers_[0];
    tensor_.end = numbers_[1];
    return true;
  }

  bool end_object() override {
    if (level_ == Level::kTensor) {
      for (size_t i = 0; i < kFields.size(); ++i) {
        if (!has_[i]) return fail(fmt::format("{} has no {}", in_quotes(name_), kFields[i]));
      }
      tensors.emplace(name_, std::move(tensor_));
    }
    level_ = level_ == Level::kNames ? Level::kFile : Level::kNames;
    return true;
  }

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return unexpected("a number that is no 64-bit integer");
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }
  bool parse_error(std::size_t, const std::string&, const json::exception& e) override {
    return fail(fmt::format("the header is not JSON: {}", in_quotes(e.what())));
  }

 private:
  enum class Level { kFile, kNames, kMetadata, kTensor, kNumbers };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  bool fail(std::string message) {
    error_ = damaged(std::move(message));
    return false;
  }
  bool unexpected(std::string_view what) {
    static constexpr std::array<std::string_view, 5> kWhere = {
        "at the top", "as a tensor's entry", "in the metadata", "in a tensor's entry",
        "in an array"};
    return fail(fmt::format("the header has {} {}, near {}", what,
                            kWhere[static_cast<size_t>(level_)], in_quotes(name_)));
  }

  Level level_ = Level::kFile;
  std::string name_, field_;
  Tensor tensor_;
  std::array<bool, 3> has_{};  // by kFields
  bool has_metadata_ = false;
  std::vector<int64_t> numbers_;
  Status error_;
};

/// Every tensor's range is as long as its shape says, and the ranges fill [0, data_bytes) exactly.
Status check_ranges(const std::map<std::string, HeaderReader::Tensor, std::less<>>& tensors,
                    int64_t data_bytes) {
  using Entry = std::pair<const std::string, HeaderReader::Tensor>;
  std::vector<const Entry*> by_offset;
  by_offset.reserve(tensors.size());
  for (const Entry& entry : tensors) {
    const auto& [name, t] = entry;
    const std::optional<int64_t> bytes = checked_bytes(t);
    if (!bytes) {
      return damaged(
          fmt::format("{}: {} elements exceed 64 bits", in_quotes(name), describe_shape(t.shape)));
    }
    if (t.end < t.begin || t.end - t.begin != *bytes) {
      return damaged(fmt::format("{}: {} takes {} bytes, data_offsets are [{}, {})",
                                 in_quotes(name), describe(t), *bytes, t.begin, t.end));
    }
    by_offset.push_back(&entry);
  }
  std::ranges::sort(by_offset, {},
                    [](const Entry* e) { return std::pair(e->second.begin, e->second.end); });
  int64_t pos = 0;
  for (const Entry* e : by_offset) {
    if (e->second.begin != pos) {
      return damaged(fmt::format("{} starts at byte {} of the data, {} one that ends at {}",
                                 in_quotes(e->first), e->second.begin,
                                 e->second.begin < pos ? "inside" : "with a gap after", pos));
    }
    pos = e->second.end;
  }
  if (pos != data_bytes) {
    return damaged(fmt::format("the tensors take {} bytes, the file has {} after the header", pos,
                               data_bytes));
  }
  return {};
}

Status system_error(Code code, const std::string& path, std::string_view what) {
  return {code, fmt::format("{}: {}: {}", path, what, std::generic_category().message(errno))};
}

Result<std::string> header_text(const std::vector<NamedShape>& tensors) {
  std::string text = fmt::format(R"({{"{}":{{"format":"pt"}})", kMetadataKey);
  int64_t begin = 0;
  for (const NamedShape& t : tensors) {
    const std::optional<int64_t> bytes = checked_bytes(t);
    int64_t end = 0;
    if (!bytes || __builtin_add_overflow(begin, *bytes, &end)) {
      return {Code::kInvalidArgument,
              fmt::format("{}: cannot store shape {}", in_quotes(t.name), describe_shape(t.shape))};
    }
    std::string name;
    try {
      name = json(t.name).dump();
    } catch (const json::exception&) {
      return {Code::kInvalidArgument,
              fmt::format("tensor name {} is not UTF-8", in_quotes(t.name))};
    }
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name,
                        kDTypes[dtype_rank(t.dtype)].name, fmt::join(t.shape, ","), begin, end);
    begin = end;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

Status write_all(std::FILE* file, const std::string& path, std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) {
    return system_error(Code::kDataLoss, path, "write");
  }
  return {};
}

/// `opened` is closed.
Status write_tensors(const std::string& path, std::FILE* opened, const std::string& header,
                     const std::vector<NamedShape>& tensors, const TensorFill& fill) {
  constexpr int64_t kPieceBytes = int64_t{4} << 20;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(opened, std::fclose);
  const uint64_t length = header.size();
  VLR_RETURN_IF_ERROR(write_all(file.get(), path, std::as_bytes(std::span(&length, 1))));
  VLR_RETURN_IF_ERROR(write_all(file.get(), path, std::as_bytes(std::span(header))));
  // u64 elements: the pieces that are handed out are aligned for every dtype.
  std::vector<uint64_t> buffer(kPieceBytes / sizeof(uint64_t));
  for (const NamedShape& t : tensors) {
    const int64_t bytes = t.bytes();
    for (int64_t begin = 0; begin < bytes; begin += kPieceBytes) {
      const auto n = static_cast<size_t>(std::min(kPieceBytes, bytes - begin));
      const std::span piece = std::as_writable_bytes(std::span(buffer)).first(n);
      VLR_RETURN_IF_ERROR(fill(t, begin, piece));
      VLR_RETURN_IF_ERROR(write_all(file.get(), path, piece));
    }
  }
  if (std::fclose(file.release()) != 0) return system_error(Code::kDataLoss, path, "write");
  return {};
}

/// weight_map of an index: tensor name -> file name within the folder.
Result<std::map<std::string, std::string>> read_index(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, int64_t{64} << 20));
  Result<json> parsed = parse_json(text);
  if (!parsed) return parsed.error().with_context(path);
  const json& index = *parsed;
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return damaged(path + ": expected an object with the object weight_map");
  }
  std::map<std::string, std::string> shard_of;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) {
      return damaged(fmt::format("{}: weight_map[{}] must be a file name", path, in_quotes(name)));
    }
    const std::string file = shard.get<std::string>();
    // A shard lies next to its index, so that a folder from elsewhere cannot name files outside
    // itself.
    if (file.empty() || file == "." || file == ".." ||
        file.find_first_of(std::string_view("/\\\0", 3)) != file.npos) {
      return damaged(fmt::format("{}: weight_map[{}] must be a file name without a folder, got {}",
                                 path, in_quotes(name), in_quotes(file)));
    }
    shard_of.emplace(name, file);
  }
  if (shard_of.empty()) return damaged(path + ": weight_map is empty");
  return shard_of;
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> head,
                                                   int64_t file_bytes) {
  if (file_bytes < kLengthBytes || head.size() < kLengthBytes) {
    return damaged(fmt::format("a file of {} bytes is too short for a header", file_bytes));
  }
  uint64_t length = 0;
  std::memcpy(&length, head.data(), sizeof length);
  if (length > static_cast<uint64_t>(kMaxHeaderBytes)) {
    return damaged(
        fmt::format("the header wants {} bytes; at most {} are allowed", length, kMaxHeaderBytes));
  }
  const auto header_bytes = static_cast<int64_t>(length);
  if (header_bytes > file_bytes - kLengthBytes || length > head.size() - kLengthBytes) {
    return damaged(fmt::format("the header wants {} bytes, the file has {} after its length",
                               header_bytes, file_bytes - kLengthBytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(head.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) return damaged("the header does not start with '{'");

  const int64_t data_begin = kLengthBytes + header_bytes;
  SafetensorsHeader header;
  try {
    HeaderReader reader;
    if (!json::sax_parse(text.begin(), text.end(), &reader)) return reader.error();
    VLR_RETURN_IF_ERROR(check_ranges(reader.tensors, file_bytes - data_begin));
    for (auto& [name, t] : reader.tensors) {
      const int64_t file_offset = data_begin + t.begin;
      header.tensors.emplace(name, SafetensorsHeader::Entry{std::move(t), file_offset});
    }
    header.metadata = std::move(reader.metadata);
  } catch (const std::bad_alloc&) {
    return {Code::kOutOfMemory, fmt::format("host memory for a header of {} bytes", header_bytes)};
  } catch (const std::exception& e) {
    return damaged(fmt::format("the header is not JSON: {}", in_quotes(e.what())));
  }
  return header;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const int opened, open_regular(path));
  const Descriptor fd(opened);
  SafetensorsFile file;
  file.path_ = path;
  VLR_ASSIGN_OR_RETURN(file.identity_, FileIdentity::of(fd.get(), path));
  if (file.bytes() < kLengthBytes) {
    return damaged(
        fmt::format("{}: a file of {} bytes is too short for a header", path, file.bytes()));
  }
  const auto size = static_cast<size_t>(file.bytes());
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) return system_error(Code::kOutOfMemory, path, "mmap");
  file.map_ = map;

  const std::span bytes(static_cast<const std::byte*>(map), size);
  if (is_lfs_pointer({static_cast<const char*>(map), size})) return lfs_pointer(path);
  Result<SafetensorsHeader> header = parse_safetensors_header(bytes, file.bytes());
  if (!header) return header.error().with_context(path);
  for (auto& [name, entry] : header->tensors) {
    StoredTensor t;
    static_cast<StoredShape&>(t) = std::move(entry);
    t.data = bytes.data() + entry.file_offset;
    t.file_offset = entry.file_offset;
    file.tensors_.emplace(name, std::move(t));
  }
  file.metadata_ = std::move(header->metadata);
  return file;
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& o) noexcept
    : path_(std::move(o.path_)),
      map_(std::exchange(o.map_, nullptr)),
      identity_(o.identity_),
      tensors_(std::move(o.tensors_)),
      metadata_(std::move(o.metadata_)) {}

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(map_, o.map_);
  std::swap(identity_, o.identity_);
  std::swap(tensors_, o.tensors_);
  std::swap(metadata_, o.metadata_);
  return *this;
}

SafetensorsFile::~SafetensorsFile() {
  if (map_) ::munmap(map_, static_cast<size_t>(bytes()));
}

Result<Checkpoint> Checkpoint::open(const std::string& folder) {
  const std::string index = folder + "/model.safetensors.index.json";
  const std::string single = folder + "/model.safetensors";
  Checkpoint checkpoint;
  if (!exists(index)) {
    if (!exists(single)) {
      return {Code::kNotFound,
              fmt::format("{}: expected model.safetensors.index.json or model.safetensors, "
                          "found neither",
                          folder)};
    }
    VLR_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(single));
    checkpoint.tensors_ = file.tensors();
    checkpoint.files_.push_back(std::move(file));
    return checkpoint;
  }
  VLR_ASSIGN_OR_RETURN(const auto shard_of, read_index(index));
  std::map<std::string, int> opened;  // file name -> index in files_
  for (const auto& [name, shard] : shard_of) {
    const auto [it, is_new] = opened.emplace(shard, static_cast<int>(checkpoint.files_.size()));
    if (is_new) {
      Result<SafetensorsFile> file = SafetensorsFile::open(folder + "/" + shard);
      if (!file) return file.error().with_context(index);
      checkpoint.files_.push_back(std::move(*file));
    }
    const StoredTensors& there = checkpoint.files_[static_cast<size_t>(it->second)].tensors();
    const auto found = there.find(name);
    if (found == there.end()) {
      return {Code::kNotFound, fmt::format("{}: {} should be in {}, which does not have it", index,
                                           in_quotes(name), shard)};
    }
    StoredTensor t = found->second;
    t.file_idx = it->second;
    checkpoint.tensors_.emplace(name, std::move(t));
  }
  return checkpoint;
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

int64_t Checkpoint::bytes_mapped() const {
  int64_t bytes = 0;
  for (const SafetensorsFile& file : files_) bytes += file.bytes();
  return bytes;
}

Result<FileReader> Checkpoint::reader(const ReadOptions& options) const {
  std::vector<FileReader::File> files;
  for (const SafetensorsFile& f : files_)
    files.push_back({.path = f.path(), .identity = f.identity()});
  return FileReader::open(files, options);
}

Status Checkpoint::check_unchanged() const {
  for (const SafetensorsFile& f : files_)
    VLR_RETURN_IF_ERROR(check_same_file(f.path(), f.identity()));
  return {};
}

std::string shard_file_name(size_t index, size_t count) {
  return count == 1 ? "model.safetensors"
                    : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

Status write_safetensors(const std::string& path, std::vector<NamedShape> tensors,
                         const TensorFill& fill) {
  std::ranges::sort(tensors, [](const NamedShape& a, const NamedShape& b) {
    const size_t ra = dtype_rank(a.dtype), rb = dtype_rank(b.dtype);
    return ra != rb ? ra > rb : a.name < b.name;
  });
  std::vector<std::string_view> names;
  for (const NamedShape& t : tensors) names.push_back(t.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end()) {
    return {Code::kInvalidArgument,
            fmt::format("{}: tensor {} is there twice", path, in_quotes(*twice))};
  }
  Result<std::string> header = header_text(tensors);
  if (!header) return header.error().with_context(path);

  // A device or a pipe is written, not replaced; a link, what it leads to.
  std::error_code none;
  const auto there = std::filesystem::status(path, none).type();
  if (there == std::filesystem::file_type::not_found
          ? std::filesystem::is_symlink(path, none)
          : there != std::filesystem::file_type::regular) {
    VLR_ASSIGN_OR_RETURN(std::FILE* const file, open_output(path));
    return write_tensors(path, file, *header, tensors, fill);
  }
  std::error_code unresolved;
  const std::filesystem::path real = std::filesystem::canonical(path, unresolved);
  const std::string to = unresolved ? path : real.string();
  // Under another name, which nobody else has, until it is complete: a reader never maps half a
  // file, and one that has mapped an older file of this name keeps it.
  static const uint32_t process = std::random_device{}();  // containers share numbers
  static std::atomic<int64_t> number = 0;
  const std::string partial = fmt::format("{}.{:08x}-{}.part", to, process, number++);
  std::FILE* const file = std::fopen(partial.c_str(), "wbx");
  if (!file) return system_error(Code::kInvalidArgument, path, "open for writing");
  Status status = write_tensors(partial, file, *header, tensors, fill);
  if (status.ok() && std::rename(partial.c_str(), to.c_str()) != 0) {
    status = system_error(Code::kInvalidArgument, path, "rename");
  }
  if (!status.ok()) std::remove(partial.c_str());
  return status;
}

}  // namespace vlr
