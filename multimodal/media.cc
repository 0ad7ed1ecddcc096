#include "multimodal/media.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "multimodal/resize.h"

namespace vlr {
namespace {

Result<Image> load_resized(std::span<const std::byte> bytes, int64_t factor, int64_t min_pixels, int64_t max_pixels,
                           const DecodeLimits& limits) {
  VLR_ASSIGN_OR_RETURN(Image image, decode_image(bytes, limits));
  VLR_ASSIGN_OR_RETURN(const Size size, smart_resize(image.height, image.width, factor, static_cast<double>(min_pixels),
                                                     static_cast<double>(max_pixels)));
  if (size == Size{image.height, image.width}) return image;
  return resize_pillow_bicubic(image, size);
}

// The size at which frames reach the model. More frames get fewer pixels each.
Result<Size> video_size(const Image& frame, int64_t num_frames, int64_t total_pixels) {
  constexpr int64_t kToken = kMergeSize * kPatchSize * kMergeSize * kPatchSize;  // 1024 pixels
  constexpr int64_t kFactor = kMergeSize * kPatchSize;
  constexpr double kMin = 128 * kToken, kMax = 768 * kToken, kLeast = 137625;  // trunc(1.05 * kMin)
  const double share = static_cast<double>(total_pixels) / static_cast<double>(num_frames) * kTemporalPatchSize;
  return smart_resize(frame.height, frame.width, kFactor, kMin, std::max(std::min(kMax, share), kLeast));
}

}  // namespace

Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, int64_t max_bytes) try {
  namespace fs = std::filesystem;
  const std::string name = path.string();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    const bool missing = status.type() == fs::file_type::not_found;
    return {missing ? Code::kNotFound : Code::kDataLoss,
            fmt::format("{}: {}", name, missing ? "no such file" : error.message())};
  }
  if (fs::is_directory(status)) return {Code::kInvalidArgument, fmt::format("{}: is a folder, expected a file", name)};
  const uintmax_t size = fs::is_regular_file(status) ? fs::file_size(path, error) : 0;
  if (error) return {Code::kDataLoss, fmt::format("{}: {}", name, error.message())};
  if (!fs::is_regular_file(status)) {
    return {Code::kInvalidArgument, fmt::format("{}: is neither a file nor a link to one", name)};
  }
  if (size == 0) return {Code::kInvalidArgument, fmt::format("{}: is empty", name)};
  if (max_bytes < 0 || size > static_cast<uintmax_t>(max_bytes)) {
    return {Code::kInvalidArgument, fmt::format("{}: has {} bytes, at most {} are allowed", name, size, max_bytes)};
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) return {Code::kDataLoss, fmt::format("{}: cannot be opened: {}", name, std::strerror(errno))};
  std::vector<std::byte> bytes(size);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (in.gcount() != static_cast<std::streamsize>(size)) {
    return {Code::kDataLoss, fmt::format("{}: gave {} of {} bytes", name, in.gcount(), size)};
  }
  return bytes;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "read_file: no host memory"};
}

Result<Patches> load_image(std::span<const std::byte> bytes, const MediaOptions& options) {
  constexpr int64_t kFactor = kMergeSize * kPatchSize;
  VLR_ASSIGN_OR_RETURN(const Image image,
                       load_resized(bytes, kFactor, options.min_pixels, options.max_pixels, options.limits));
  return patchify_image(image);
}

std::vector<int64_t> thin_frames(int64_t num_frames, int64_t max_frames) {
  std::vector<int64_t> picked(static_cast<size_t>(std::max<int64_t>(std::min(num_frames, max_frames), 0)));
  if (picked.empty()) return picked;
  const auto last = static_cast<int64_t>(picked.size()) - 1;
  const double step = last == 0 ? 0 : static_cast<double>(num_frames - 1) / static_cast<double>(last);
  for (int64_t i = 0; i <= last; ++i) {
    picked[static_cast<size_t>(i)] = static_cast<int64_t>(static_cast<double>(i) * step);
  }
  if (last > 0) picked.back() = num_frames - 1;  // rounding of step must not lose it
  return picked;
}

Result<Patches> load_frames(int64_t num_frames, const FrameSource& frame, const MediaOptions& options) try {
  if (num_frames < 1) return {Code::kInvalidArgument, "video: a list of no frames"};
  if (options.max_frames < 1 || options.frame_factor < 1) {
    return {Code::kInvalidArgument, fmt::format("video: max_frames {} and frame_factor {}, expected 1 or more",
                                                options.max_frames, options.frame_factor)};
  }
  const std::vector<int64_t> picked = thin_frames(num_frames, options.max_frames);
  const auto count = static_cast<int64_t>(picked.size());
  const int64_t grid_t = (count + 1) / kTemporalPatchSize;
  const int64_t token = options.frame_factor * options.frame_factor;
  constexpr int64_t kMinTokens = 4, kMaxTokens = 16384;

  // One frame at a time is in memory: the first one's size decides where all of them go.
  Patches patches;
  Size first, target;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = picked[static_cast<size_t>(i)];
    const auto where = [&] { return fmt::format("video frame {}", index); };
    Result<std::vector<std::byte>> bytes = frame(index);
    if (!bytes.ok()) return bytes.error().with_context(where());
    Result<Image> image =
        load_resized(*bytes, options.frame_factor, kMinTokens * token, kMaxTokens * token, options.limits);
    if (!image.ok()) return image.error().with_context(where());
    const Size size{image->height, image->width};
    if (i == 0) {
      first = size;
      VLR_ASSIGN_OR_RETURN(target, video_size(*image, kTemporalPatchSize * grid_t, options.total_pixels));
      VLR_ASSIGN_OR_RETURN(patches, make_patches(grid_t, target.height, target.width));
    }
    if (size != first) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {}x{} pixels after its resize, frame {} has {}x{}", where(), size.width, size.height,
                          picked.front(), first.width, first.height)};
    }
    image = resize_torchvision_bicubic(*image, target);
    if (!image.ok()) return image.error().with_context(where());
    VLR_RETURN_IF_ERROR(put_frame(*image, i, patches));
    const bool pairs_with_itself = i == count - 1 && i % kTemporalPatchSize == 0;
    if (pairs_with_itself) VLR_RETURN_IF_ERROR(put_frame(*image, i + 1, patches));
  }
  constexpr double kFramesPerSecond = 2;
  for (int64_t k = 0; k < grid_t; ++k) {
    const auto a = static_cast<double>(2 * k), b = static_cast<double>(2 * k + 1);
    patches.seconds.push_back((a / kFramesPerSecond + b / kFramesPerSecond) / 2);
  }
  return patches;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "load_frames: no host memory"};
}

}  // namespace vlr
