/// Weights on disk in the form in which a device computes with them: what is copied to it together
/// is one file, a blob. Several processes may use one folder at a time: blobs appear whole, by
/// renaming, and are never changed; one that is damaged or of other weights is written again.
///
///   FOLDER/vlr-offload-1/MODEL/GROUP-LAYOUT.blob
///     head     "vlr-blob", the key of the content, sizes, a checksum of the head, one of every
///              piece, notes; padded to whole pages
///     payload  the group's bytes, padded to whole pages with zeros
///
/// MODEL and LAYOUT say what a file is for, its key what it was made from: a blob of an older
/// checkpoint, or of another version of vlr, is replaced rather than left behind.
#ifndef VLR_ENGINE_WEIGHTS_OFFLOAD_FOLDER_H_
#define VLR_ENGINE_WEIGHTS_OFFLOAD_FOLDER_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/file_reader.h"
#include "engine/runtime/hash.h"
#include "kernels/core/integer.h"
#include "vlr/status.h"

namespace vlr {

/// A blob that is open. Reads that file for as long as it lives, whatever becomes of its name. Any
/// thread may read, several at once.
class OffloadBlob {
 public:
  const std::string& path() const { return path_; }
  int64_t bytes() const { return bytes_; }  ///< of the payload, without its padding
  const std::string& notes() const { return notes_; }
  int64_t num_pieces() const { return static_cast<int64_t>(sums_.size()); }
  int64_t piece_bytes(int64_t piece) const;

  /// Brings a piece to where it belongs in `payload`, which has room for padded(bytes()).
  /// kDataLoss names the file: it was truncated, cannot be read, or has other bytes than were
  /// written. Every read is checked: XXH3 takes a small part of the time that a disk does, in the
  /// thread that has the piece in its caches, and a file may change at any time.
  Status read(int64_t piece, std::byte* payload, PageBuffer& bounce) const;

  static constexpr int64_t padded(int64_t bytes) { return round_up(bytes, kReadAlignment); }

 private:
  friend class OffloadFolder;
  explicit OffloadBlob(FileReader reader) : reader_(std::move(reader)) {}

  std::string path_, notes_;
  FileReader reader_;
  int64_t payload_offset_ = 0, bytes_ = 0;
  std::vector<Hash128> sums_;  // of pieces, padding included
};

/// What a blob is for.
struct BlobName {
  std::string group;
  Hash128 layout;  ///< which tensors, of which shapes, made from which
  int64_t bytes = 0;
};

/// The blobs of one model. Any thread.
class OffloadFolder {
 public:
  /// `place` names a model, `content` everything that the bytes of its blobs depend on.
  struct Model {
    Hash128 place, content;
  };
  /// Tests put faults here; null: the system's.
  struct System {
    ssize_t (*write)(int fd, const void* from, size_t bytes, off_t offset) = nullptr;
    int64_t (*free_bytes)(const std::filesystem::path& folder) = nullptr;  ///< -1: unknown
  };

  /// Makes the folder, and removes what processes left that died while they wrote.
  /// kInvalidArgument: it cannot be made. One that cannot be written will do as long as everything
  /// is there.
  static Result<OffloadFolder> open(const std::string& path, const Model& model,
                                    const ReadOptions& read, System system);
  static Result<OffloadFolder> open(const std::string& path, const Model& model,
                                    const ReadOptions& read) {
    return open(path, model, read, {});
  }

  /// Nothing: it is not there, damaged, or made from something else. Looks at the head and the
  /// size; the payload is checked when it is read.
  Result<std::optional<OffloadBlob>> find(const BlobName& name) const;

  /// Whether there is room to write() these. kOutOfMemory says what is wanted and what is free.
  Status check_room(std::span<const BlobName> names) const;

  /// A payload of name.bytes, and what is to be known about it when it is found again. The errors
  /// name the file: kInvalidArgument: it cannot be made; kOutOfMemory: no room, with the bytes
  /// that are wanted and free; kDataLoss: anything else. Nothing is left of what failed.
  Result<OffloadBlob> write(const BlobName& name, std::span<const std::byte> payload,
                            std::string_view notes) const;

 private:
  OffloadFolder(std::filesystem::path folder, const Model& model, const ReadOptions& read,
                System system)
      : folder_(std::move(folder)), model_(model), read_(read), system_(system) {}
  std::filesystem::path path_of(const BlobName& name) const;
  Hash128 key_of(const BlobName& name) const;
  Status not_written(const std::filesystem::path& path, int64_t bytes, int error) const;
  Status write_file(int fd, const std::filesystem::path& path, const std::string& head,
                    std::span<const std::byte> payload) const;

  std::filesystem::path folder_;
  Model model_;
  ReadOptions read_;
  System system_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_OFFLOAD_FOLDER_H_
