#include "multimodal/media.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "multimodal/exif.h"

namespace vlr {
namespace {

constexpr int64_t kBlock =
    kMergeSize * kPatchSize;  // pixels along a side of what becomes one token

// Rows of a picture of any size -> rows of the size that the reference gives it.
class SmartResizeSink : public RowSink {
 public:
  SmartResizeSink(const MediaOptions& options, RowSink& next) : options_(options), next_(&next) {}

  Status start(int64_t width, int64_t height) override {
    VLR_ASSIGN_OR_RETURN(const Size size, smart_resize(height, width, kBlock,
                                                       static_cast<double>(options_.min_pixels),
                                                       static_cast<double>(options_.max_pixels)));
    VLR_RETURN_IF_ERROR(check_patch_bytes(1, size, options_));
    if (size != Size{height, width}) {
      resizer_ = pillow_bicubic_sink(size, *next_);
      next_ = resizer_.get();
    }
    return next_->start(width, height);
  }
  std::span<uint8_t> buffer() override { return next_->buffer(); }
  void put(int64_t num_rows) override { next_->put(num_rows); }

 private:
  const MediaOptions& options_;
  RowSink* next_;
  std::unique_ptr<RowSink> resizer_;  // nothing when the size stays
};

Result<Image> decode(std::span<const std::byte> bytes, const MediaOptions& options) {
  VLR_ASSIGN_OR_RETURN(Image image, decode_image(bytes, options.limits));
  return media::oriented(std::move(image), options.exif ? media::exif_orientation(bytes) : 1);
}

}  // namespace

Status check_patch_bytes(int64_t grid_t, Size size, const MediaOptions& options) {
  const int64_t bytes_of_pair = size.height * size.width / (kPatchSize * kPatchSize) * kPatchValues;
  if (grid_t <= options.max_patch_bytes / std::max<int64_t>(bytes_of_pair, 1)) return {};
  return {Code::kInvalidArgument,
          fmt::format("patches: {} x {} bytes for pairs of frames of {}x{} pixels, at most {} are "
                      "allowed",
                      grid_t, bytes_of_pair, size.width, size.height, options.max_patch_bytes)};
}

Result<Patches> load_image(std::span<const std::byte> bytes, const MediaOptions& options) try {
  PatchSink patches(options.memory);
  SmartResizeSink sink(options, patches);
  if (options.exif && media::exif_orientation(bytes) != 1) {  // which may want the last row first
    VLR_ASSIGN_OR_RETURN(const Image image, decode(bytes, options));
    VLR_RETURN_IF_ERROR(put_image(image, sink));
  } else {
    VLR_RETURN_IF_ERROR(decode_rows(bytes, options.limits, sink));
  }
  return patches.take();
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "load_image: no host memory"};
}

Result<FrameSizes> frame_sizes(Size frame, int64_t num_frames, const MediaOptions& options) {
  if (num_frames < 1 || options.frame_factor < 1) {
    return {Code::kInvalidArgument,
            fmt::format("video: {} frames and frame_factor {}, expected 1 or more", num_frames,
                        options.frame_factor)};
  }
  // Four tokens at least and 16384 at most, of frame_factor pixels a side.
  const auto token =
      static_cast<double>(options.frame_factor) * static_cast<double>(options.frame_factor);
  VLR_ASSIGN_OR_RETURN(
      const Size picture,
      smart_resize(frame.height, frame.width, options.frame_factor, 4 * token, 16384 * token));
  constexpr double kMin = 128 * kBlock * kBlock, kMax = 768 * kBlock * kBlock;
  constexpr double kLeast =
      137625;  // trunc(1.05 * kMin): what is left to a frame, however many there are
  const int64_t even = num_frames + num_frames % kTemporalPatchSize;
  const double share =
      static_cast<double>(options.total_pixels) / static_cast<double>(even) * kTemporalPatchSize;
  VLR_ASSIGN_OR_RETURN(const Size video, smart_resize(picture.height, picture.width, kBlock, kMin,
                                                      std::max(std::min(kMax, share), kLeast)));
  return FrameSizes{picture, video};
}

std::vector<int64_t> thin_frames(int64_t num_frames, int64_t max_frames) {
  std::vector<int64_t> picked(
      static_cast<size_t>(std::max<int64_t>(std::min(num_frames, max_frames), 0)));
  if (picked.empty()) return picked;
  const auto last = static_cast<int64_t>(picked.size()) - 1;
  const double step =
      last == 0 ? 0 : static_cast<double>(num_frames - 1) / static_cast<double>(last);
  for (int64_t i = 0; i <= last; ++i) {
    picked[static_cast<size_t>(i)] = static_cast<int64_t>(static_cast<double>(i) * step);
  }
  if (last > 0) picked.back() = num_frames - 1;  // rounding of step must not lose it
  return picked;
}

Result<Patches> load_frames(int64_t num_frames, const FrameSource& frame,
                            const MediaOptions& options) try {
  if (num_frames < 1) return {Code::kInvalidArgument, "video: a list of no frames"};
  if (options.max_frames < 1 || options.frame_factor < 1) {
    return {Code::kInvalidArgument,
            fmt::format("video: max_frames {} and frame_factor {}, expected 1 or more",
                        options.max_frames, options.frame_factor)};
  }
  const std::vector<int64_t> picked = thin_frames(num_frames, options.max_frames);
  const auto count = static_cast<int64_t>(picked.size());
  const int64_t grid_t = (count + 1) / kTemporalPatchSize;

  // One frame at a time is in memory: the first one's size decides where all of them go.
  Patches patches;
  FrameSizes first;
  const auto add = [&](int64_t i, int64_t index) -> Status {
    VLR_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, frame(index));
    VLR_ASSIGN_OR_RETURN(Image image, decode(bytes, options));
    VLR_ASSIGN_OR_RETURN(const FrameSizes sizes,
                         frame_sizes({image.height, image.width}, count, options));
    if (i == 0) {
      first = sizes;
      VLR_RETURN_IF_ERROR(check_patch_bytes(grid_t, sizes.video, options));
      VLR_ASSIGN_OR_RETURN(
          patches, make_patches(grid_t, sizes.video.height, sizes.video.width, options.memory));
    }
    if (sizes.picture != first.picture) {
      return {Code::kInvalidArgument,
              fmt::format("{}x{} pixels after its resize, frame {} has {}x{}", sizes.picture.width,
                          sizes.picture.height, picked.front(), first.picture.width,
                          first.picture.height)};
    }
    VLR_ASSIGN_OR_RETURN(image, resize_pillow_bicubic(image, sizes.picture));
    VLR_ASSIGN_OR_RETURN(image, resize_torchvision_bicubic(image, sizes.video));
    VLR_RETURN_IF_ERROR(put_frame(image, i, patches));
    const bool pairs_with_itself = i == count - 1 && i % kTemporalPatchSize == 0;
    return pairs_with_itself ? put_frame(image, i + 1, patches) : Status();
  };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = picked[static_cast<size_t>(i)];
    VLR_RETURN_IF_ERROR(add(i, index).with_context(fmt::format("video frame {}", index)));
  }
  for (int64_t k = 0; k < grid_t; ++k) {
    const auto a = static_cast<double>(2 * k), b = static_cast<double>(2 * k + 1);
    patches.seconds.push_back((a / options.sample_fps + b / options.sample_fps) / 2);
  }
  return patches;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "load_frames: no host memory"};
}

}  // namespace vlr
