/// The safetensors container (header, mapping, writing) and checkpoint folders made of such files.
///
/// A file is: u64 little-endian N; N bytes of JSON, name -> {dtype, shape, data_offsets}; the data
/// of all tensors, row-major, little-endian, without gaps.
#ifndef VLR_ENGINE_RUNTIME_SAFETENSORS_H_
#define VLR_ENGINE_RUNTIME_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/file_reader.h"
#include "model/stored_tensor.h"
#include "vlr/status.h"

namespace vlr {

/// A parsed header: where everything is.
struct SafetensorsHeader {
  struct Entry : StoredShape {
    int64_t file_offset = 0;  ///< of the first byte of data, from the start of the file
  };
  std::map<std::string, Entry, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;  ///< "__metadata__"
};

/// Parses and validates a header. `head` is the start of a file of `file_bytes` bytes and has to
/// hold the header; more is ignored. Whatever the bytes are, either every tensor lies inside the
/// file, has a known dtype and overlaps no other, or the result is an error: kDataLoss for a
/// damaged file, kUnimplemented for a dtype that the format may have but vlr does not.
Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> head,
                                                   int64_t file_bytes);

/// A file mapped read-only; move-only. Opening it reads the header and no data. Any thread may
/// read. A file that shrinks while it is mapped makes reads fail with SIGBUS, as every mapped file
/// does.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);
  SafetensorsFile(SafetensorsFile&& o) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&& o) noexcept;
  ~SafetensorsFile();

  /// Valid as long as the file, moved or not, is open.
  const StoredTensors& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  int64_t bytes() const { return identity_.bytes; }
  const FileIdentity& identity() const { return identity_; }  ///< when it was opened

 private:
  SafetensorsFile() = default;

  std::string path_;
  void* map_ = nullptr;
  FileIdentity identity_;
  StoredTensors tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

/// All tensors of a checkpoint folder, under the names in the files. Move-only; any thread may
/// read.
class Checkpoint {
 public:
  /// Takes the shards that model.safetensors.index.json names, else model.safetensors. Other files
  /// in the folder are not looked at. kNotFound: neither is there, or a shard or one of its
  /// tensors is not.
  static Result<Checkpoint> open(const std::string& folder);

  const StoredTensors& tensors() const { return tensors_; }
  /// nullptr if there is none of that name.
  const StoredTensor* find(std::string_view name) const;
  const std::vector<SafetensorsFile>& files() const { return files_; }
  int64_t bytes_mapped() const;

  /// To read the same files by other means than their mappings.
  Result<FileReader> reader(const ReadOptions& options) const;
  /// kDataLoss if a file is not what it was when it was opened: somebody wrote to it or replaced
  /// it.
  Status check_unchanged() const;

 private:
  std::vector<SafetensorsFile> files_;
  StoredTensors tensors_;
};

/// Writes bytes [begin, begin + out.size()) of a tensor's data into `out`.
using TensorFill =
    std::function<Status(const NamedShape& tensor, int64_t begin, std::span<std::byte> out)>;

/// Name of shard `index` (from 0) of `count`, as transformers names them.
std::string shard_file_name(size_t index, size_t count);

/// Writes a file, byte for byte as the safetensors library does with metadata {"format": "pt"}:
/// tensors by dtype, widest first, then by name; the header padded with spaces to a multiple of 8.
/// Each tensor's data are asked for once, front to back, in pieces of a few megabytes, so that no
/// tensor has to be in memory. A file that could not be completed is removed.
Status write_safetensors(const std::string& path, std::vector<NamedShape> tensors,
                         const TensorFill& fill);

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_SAFETENSORS_H_
