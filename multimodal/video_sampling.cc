#include "multimodal/video_sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "multimodal/patchify.h"

namespace vlr {

Result<std::vector<int64_t>> official_frames(int64_t num_frames, double frame_rate, double fps,
                                             int64_t max_frames) {
  if (!(fps > 0) || !std::isfinite(fps) || max_frames < 2) {
    return {Code::kInvalidArgument,
            fmt::format("fps {} and max_frames {}, expected more than 0 and at least 2", fps,
                        max_frames)};
  }
  if (!(frame_rate > 0) || !std::isfinite(frame_rate)) {
    return {Code::kInvalidArgument, fmt::format("a frame rate of {}", frame_rate)};
  }
  const double wanted =
      std::max(static_cast<double>(num_frames) / frame_rate * fps, 4.0);  // before the caps
  const int64_t most = std::min(max_frames / 2 * 2, num_frames);
  // Comparing as double first: `wanted` may be beyond any integer.
  const int64_t n =
      (wanted < static_cast<double>(most) ? static_cast<int64_t>(wanted) : most) / 2 * 2;
  if (n < 2) {
    return {Code::kInvalidArgument,
            fmt::format("{} frame(s) at {} a second, the official sampling needs at least 2",
                        num_frames, frame_rate)};
  }
  // torch.linspace(0, num_frames - 1, n).round(): float32, the second half counts down.
  const auto last = static_cast<float>(num_frames - 1);
  const float step = last / static_cast<float>(n - 1);
  std::vector<int64_t> frames(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const float at =
        i < n / 2 ? step * static_cast<float>(i) : last - step * static_cast<float>(n - 1 - i);
    // Beyond 2^24 frames float32 may round past the end.
    frames[static_cast<size_t>(i)] =
        std::clamp<int64_t>(std::llrint(at), 0, num_frames - 1);  // ties to even
  }
  return frames;
}

Result<std::vector<int64_t>> uniform_frames(int64_t num_frames, int64_t count) {
  if (num_frames < 1 || count < 1) {
    return {Code::kInvalidArgument,
            fmt::format("{} of {} frames, expected at least 1", count, num_frames)};
  }
  const int64_t n = std::min(num_frames, count), parts = std::max<int64_t>(n - 1, 1);
  std::vector<int64_t> frames(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    // i * (num_frames - 1) / parts without the product: a whole part and a rest for each step.
    const int64_t rest = i * ((num_frames - 1) % parts);
    int64_t at = i * ((num_frames - 1) / parts) + rest / parts;
    const int64_t twice = 2 * (rest % parts);
    if (twice > parts || (twice == parts && at % 2 == 1)) ++at;
    frames[static_cast<size_t>(i)] = at;
  }
  return frames;
}

Result<Size> video_size(Size frame, int64_t num_frames) {
  if (num_frames < 1) {
    return {Code::kInvalidArgument, fmt::format("{} frames, expected at least 1", num_frames)};
  }
  // In pixels a frame. qwen-vl-utils' own total, since its caller hands none down:
  // 128000 tokens of 32 x 32, times 0.9.
  constexpr double kMin = 128 * 1024, kMax = 768 * 1024, kTotal = 117'964'800;
  constexpr double kLeast = 137'625;  // trunc(1.05 * kMin)
  const double share = kTotal / static_cast<double>(num_frames) * kTemporalPatchSize;
  return smart_resize(frame.height, frame.width, kMergeSize * kPatchSize, kMin,
                      std::max(std::min(kMax, share), kLeast));
}

std::vector<double> pair_seconds(std::span<const double> seconds) {
  std::vector<double> pairs;
  for (size_t i = 0; i < seconds.size(); i += 2) {
    pairs.push_back((seconds[i] + seconds[std::min(i + 1, seconds.size() - 1)]) / 2);
  }
  return pairs;
}

}  // namespace vlr
