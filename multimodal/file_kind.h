/// What a file is, by its bytes alone.
#ifndef VLR_MULTIMODAL_FILE_KIND_H_
#define VLR_MULTIMODAL_FILE_KIND_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace vlr {

/// What vlr takes a file for.
enum class FileUse : uint8_t { kPicture, kVideo, kText, kNone };

struct FileKind {
  FileUse use = FileUse::kNone;
  std::string_view name = {};  ///< with its article, as in "a PDF": for messages
};

/// Picture: decode_image() knows the format, in some build. Video: load_video() does. Text: valid
/// UTF-8 without NUL from the first byte to the last, HTML too. Anything else has a name and no use.
/// Of pictures, videos and what is known by its beginning the first 4096 bytes are enough.
FileKind file_kind(std::span<const std::byte> bytes);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_FILE_KIND_H_
