#include "model/mrope_positions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace vlr {

Result<SequencePositions> mrope_positions(std::span<const int32_t> ids, const ModelConfig& config,
                                          std::span<const VisualRun> images,
                                          std::span<const VisualRun> videos) {
  const size_t count = ids.size();
  SequencePositions out;
  out.positions.resize(3 * count);
  out.visual_index.assign(count, -1);
  int64_t image_tokens = 0;
  for (const VisualRun& run : images) image_tokens += run.tokens();

  struct Kind {
    int32_t id;
    std::span<const VisualRun> runs;
    size_t next = 0;
    int64_t index = 0;  // running number of its next token
  };
  std::array<Kind, 2> kinds = {Kind{config.image_token_id, images},
                               Kind{config.video_token_id, videos}};
  kinds[1].index = image_tokens;

  const auto put = [&](size_t s, int64_t t, int64_t h, int64_t w) {
    out.positions[s] = static_cast<int32_t>(t);
    out.positions[count + s] = static_cast<int32_t>(h);
    out.positions[2 * count + s] = static_cast<int32_t>(w);
  };
  int64_t p = 0;
  for (size_t s = 0; s < count;) {
    Kind* kind = nullptr;
    for (Kind& k : kinds) {
      if (ids[s] == k.id && k.next < k.runs.size()) kind = &k;
    }
    if (!kind) {
      put(s++, p, p, p);
      ++p;
      continue;
    }
    const VisualRun& run = kind->runs[kind->next++];
    for (int64_t i = 0; i < run.tokens(); ++i, ++s) {
      if (s == count || ids[s] != kind->id) {
        return {Code::kInvalidArgument,
                fmt::format("prompt: a picture of {} x {} tokens has {} placeholders in a row",
                            run.rows, run.columns, i)};
      }
      put(s, p, p + i / run.columns, p + i % run.columns);
      out.visual_index[s] = static_cast<int32_t>(kind->index++);
    }
    p += std::max(run.rows, run.columns);
  }
  for (const Kind& k : kinds) {
    if (k.next != k.runs.size()) {
      return {Code::kInvalidArgument,
              fmt::format("prompt: {} pictures, placeholders for {}", k.runs.size(), k.next)};
    }
  }
  return out;
}

RotaryPairs text_rotary_pairs(const TextConfig& config) {
  const int64_t pairs = config.head_dim / 2;
  RotaryPairs out;
  for (int64_t j = 0; j < pairs; ++j) {
    const int64_t axis = j % 3;
    out.axis.push_back(axis != 0 && j < 3 * config.mrope_section[static_cast<size_t>(axis)]
                           ? static_cast<int32_t>(axis)
                           : 0);
    const auto exponent = static_cast<float>(2 * j) / static_cast<float>(config.head_dim);
    out.inv_freq.push_back(1.0f / std::pow(static_cast<float>(config.rope_theta), exponent));
  }
  return out;
}

RotaryPairs vision_rotary_pairs(const VisionConfig& config) {
  constexpr float kTheta = 10000.0f;
  const int64_t dim = config.head_dim() / 2,
                half = dim / 2;  // dim angles a head: half by row, half by column
  RotaryPairs out;
  for (int64_t j = 0; j < dim; ++j) {
    out.axis.push_back(j < half ? 0 : 1);
    const auto exponent = static_cast<float>(2 * (j % half)) / static_cast<float>(dim);
    out.inv_freq.push_back(1.0f / std::pow(kTheta, exponent));
  }
  return out;
}

}  // namespace vlr
