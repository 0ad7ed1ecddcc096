/// A checkpoint folder that is written by one process at a time and appears whole.
#ifndef VLR_ENGINE_WEIGHTS_FOLDER_WRITER_H_
#define VLR_ENGINE_WEIGHTS_FOLDER_WRITER_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/descriptor.h"
#include "vlr/status.h"

namespace vlr {

/// Files are made in `.vlr-part-X` inside the folder to be written, on the same file system, and put
/// in place when all of them are on disk:
///
///   1. what they replace moves to `.vlr-old-X`, config.json first;
///   2. `.vlr-part-X` becomes `.vlr-new-X`;
///   3. its files move into the folder, config.json last;
///   4. `.vlr-old-X` goes, then `.vlr-new-X`.
///
/// Whoever reads the folder finds the checkpoint that was there, or no config.json, or the new one.
/// A step that fails is undone, with those before it. Whoever begins to write after a process was
/// killed undoes 1, or goes on from 3: nothing but the checkpoint that was there or the new one is
/// left, and neither is lost. A link to a folder is resolved first; links in it are replaced, never
/// followed. Move-only.
class FolderWriter {
 public:
  /// What may be replaced.
  struct Replace {
    bool anything = false;
    /// Whether a config.json is that of a checkpoint like the new one: whatever is in its folder
    /// under the names to be written may be replaced.
    std::function<bool(std::string_view config)> like_it = {};
    /// What will be written beside config.json and weights.
    std::vector<std::string> names = {};
  };
  /// Makes the folder if need be, and finishes what a killed process has left there.
  /// kInvalidArgument: it cannot be written, another process is writing it, or files are there that
  /// must not be replaced.
  static Result<FolderWriter> begin(const std::string& folder, const Replace& replace);
  FolderWriter(FolderWriter&& o) noexcept
      : folder_(std::move(o.folder_)),
        path_(std::exchange(o.path_, {})),
        lock_(std::move(o.lock_)),
        replaces_(o.replaces_),
        made_(std::exchange(o.made_, false)) {}
  FolderWriter& operator=(FolderWriter&&) = delete;
  /// What was not committed leaves nothing behind.
  ~FolderWriter();

  /// Where files are to be made.
  const std::filesystem::path& path() const { return path_; }
  /// Puts the files in place of those of their names, and of all shards that were there. Where it
  /// fails, all is as it was.
  Status commit();

 private:
  FolderWriter() = default;

  std::filesystem::path folder_, path_;
  Descriptor lock_;        // the folder, locked as long as it is open
  bool replaces_ = false;  // files of the names to be written
  bool made_ = false;      // by begin()
};

/// What to say of a folder without a config.json: that its writer is at work, or was killed; "" if
/// neither is so.
std::string unfinished_write(const std::filesystem::path& folder);

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_FOLDER_WRITER_H_
