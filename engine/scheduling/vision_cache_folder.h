/// A vision cache on disk. Several processes may use one folder at a time: files appear whole, by
/// renaming, and are never changed; one that is damaged or gone is as if it had never been.
///
///   FOLDER/vlr-vision-2/MODEL/media-KEY.json           {"content": KEY, "grid": [t, h, w],
///                                                       "seconds": [...], "sum": KEY}
///   FOLDER/vlr-vision-2/MODEL/features-KEY.safetensors "features" u8[bytes], "xxh3_128" u8[16]
///
/// MODEL names the vision weights and everything else that the bits of features depend on. "sum" and
/// "xxh3_128" are over MODEL and KEY too: a file under another name is a damaged one. The folders
/// are their owner's alone. Links, pipes and the like in them are as if they were not there.
#ifndef VLR_ENGINE_SCHEDULING_VISION_CACHE_FOLDER_H_
#define VLR_ENGINE_SCHEDULING_VISION_CACHE_FOLDER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/hash.h"
#include "vlr/status.h"

namespace vlr {

/// What a prompt needs of a picture or a video, and the name of its content.
struct MediaRecord {
  Hash128 content;
  std::array<int64_t, 3> grid{};  ///< time, rows, columns, in patches
  std::vector<double> seconds;    ///< videos: [time]
};

/// Any thread. What cannot be written is reported once through `log` and otherwise left.
class VisionCacheFolder {
 public:
  using Log = std::function<void(std::string_view)>;

  /// A folder that cannot be written is read, which `log` is told. kInvalidArgument: it cannot be
  /// made, or not even be read.
  static Result<std::unique_ptr<VisionCacheFolder>> open(const std::string& path, int64_t max_bytes,
                                                         Log log);
  /// Which subfolder this is about: files of another model are not seen.
  void set_model(const Hash128& model);

  std::optional<MediaRecord> read_media(const Hash128& key);
  void write_media(const Hash128& key, const MediaRecord& record);

  /// Empty: not there, damaged, or not of that many bytes. Marks them as just used.
  std::vector<std::byte> read_features(const Hash128& content, int64_t bytes);
  bool has_features(const Hash128& content) const;
  /// Then gives up what was not used for longest until the cap is kept.
  void write_features(const Hash128& content, std::span<const std::span<std::byte>> pieces);

  /// What lies in a folder, over all models.
  struct Contents {
    struct Model {
      std::string name;
      int64_t media = 0, features = 0, bytes = 0;
    };
    std::vector<Model> models;
  };
  /// kNotFound: no vision cache there.
  static Result<Contents> list(const std::string& path);
  /// Removes every file of a cache, an older version's too, and nothing else; how many bytes they had. kNotFound as above.
  static Result<int64_t> clear(const std::string& path);

 private:
  VisionCacheFolder(std::filesystem::path root, int64_t max_bytes, Log log);
  std::filesystem::path temporary(const std::filesystem::path& to);
  void wrote(int64_t bytes);
  void write_failed(std::string_view reason);
  void publish(const std::filesystem::path& partial, const std::filesystem::path& to);
  std::string name_of(const Hash128& content) const;  ///< of a model's features
  void trim();

  std::filesystem::path root_, model_;
  Hash128 key_;  // of the model
  bool read_only_ = false;
  int64_t max_bytes_;
  Log log_;
  std::atomic<bool> complained_ = false;
  uint64_t id_ = 0;  // with num_written_ names temporary files
  std::atomic<int64_t> num_written_ = 0;
  std::mutex mutex_;   // of bytes_
  int64_t bytes_ = 0;  // of the folder, as far as this process knows
};

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_VISION_CACHE_FOLDER_H_
