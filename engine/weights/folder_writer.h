/// A checkpoint folder that is written by one process at a time and appears whole.
#ifndef VLR_ENGINE_WEIGHTS_FOLDER_WRITER_H_
#define VLR_ENGINE_WEIGHTS_FOLDER_WRITER_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "vlr/status.h"

namespace vlr {

/// Files are made in a folder of its own inside the one to be written, on the same file system, and
/// moved when all of them are on disk, config.json last. Whoever reads the folder before that, or
/// after the writer was killed, finds the checkpoint that was there, or no config.json, or the new
/// one. Nothing that is there is written to or followed: names are replaced. Move-only.
class FolderWriter {
 public:
  /// What may be replaced.
  struct Replace {
    bool anything = false;
    /// Whether a config.json is that of a checkpoint like the new one.
    std::function<bool(std::string_view config)> like_it = {};
  };
  /// Makes the folder if need be. kInvalidArgument: it cannot be written, another process is writing
  /// it, or a checkpoint is there that must not be replaced.
  static Result<FolderWriter> begin(const std::string& folder, const Replace& replace);
  FolderWriter(FolderWriter&& o) noexcept
      : folder_(std::move(o.folder_)),
        path_(std::exchange(o.path_, {})),
        lock_(std::exchange(o.lock_, -1)),
        made_(o.made_) {}
  FolderWriter& operator=(FolderWriter&&) = delete;
  /// What was not committed leaves nothing behind.
  ~FolderWriter();

  /// Where files are to be made.
  const std::filesystem::path& path() const { return path_; }
  /// Puts the files in place of those of their names, and of all weights that were there.
  Status commit();

 private:
  FolderWriter() = default;

  std::filesystem::path folder_, path_;
  int lock_ = -1;      // the folder, locked as long as it is open
  bool made_ = false;  // by begin()
};

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_FOLDER_WRITER_H_
