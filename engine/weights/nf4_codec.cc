// nf4 as checkpoints store it: bitsandbytes' own layout (model/stored_weight.h).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/weights/stored_codecs.h"
#include "kernels/core/integer.h"
#include "kernels/quant/nf4.h"

namespace vlr {

using namespace stored;

namespace {

constexpr float kCodebookError = 1e-6f;
constexpr int64_t kPieceBlocks = 4096;  // per task
constexpr int64_t kFewCodes = 4096;     // too few to say something about their distribution

Status read(const StoredTensors& tensors, std::string_view name, QuantizedTensor& t) {
  VLR_ASSIGN_OR_RETURN(const Nf4State state, nf4_state(tensors, name));
  t.offset = static_cast<float>(state.offset);
  const int64_t blocks = ceil_div(t.rows * t.cols, kNf4Block);
  VLR_ASSIGN_OR_RETURN(const auto absmax,
                       read_sidecar(tensors, joined(name, kAbsmax), DType::kU8, blocks));
  const auto* first = reinterpret_cast<const uint8_t*>(absmax.data());
  t.byte_scales.assign(first, first + absmax.size());
  VLR_ASSIGN_OR_RETURN(t.scales, read_floats(tensors, joined(name, kNestedAbsmax),
                                             ceil_div(blocks, kNf4NestedBlock)));
  VLR_ASSIGN_OR_RETURN(t.map, read_floats(tensors, joined(name, kNestedMap), 256));
  VLR_ASSIGN_OR_RETURN(const std::vector<float> codebook,
                       read_floats(tensors, joined(name, kQuantMap), 16));
  for (size_t c = 0; c < 16; ++c) {
    if (std::fabs(codebook[c] - kNf4Codebook[c]) <= kCodebookError) continue;
    return broken(name, fmt::format("its codebook is not NF4's: code {} is {}, expected {}", c,
                                    codebook[c], kNf4Codebook[c]));
  }
  for (size_t i = 0; i < t.map.size(); ++i) {
    if (std::isfinite(t.map[i]) && std::fabs(t.map[i]) <= 1 && (i == 0 || t.map[i] >= t.map[i - 1]))
      continue;
    return broken(
        name, fmt::format("its nested map is not ascending within [-1, 1]: {} at {}", t.map[i], i));
  }
  return {};
}

/// Counts of codes, each task its own rows.
template <size_t kCodes, class Count>
std::array<int64_t, kCodes> histogram(int64_t tasks, ThreadPool& threads, const Count& count) {
  std::array<std::atomic<int64_t>, kCodes> sums{};
  threads.parallel_for(tasks, [&](int64_t task, int) {
    std::array<int64_t, kCodes> own{};
    count(task, own);
    for (size_t c = 0; c < kCodes; ++c) {
      if (own[c]) sums[c].fetch_add(own[c], std::memory_order_relaxed);
    }
  });
  std::array<int64_t, kCodes> out;
  for (size_t c = 0; c < kCodes; ++c) out[c] = sums[c];
  return out;
}

/// A quantiser scales each block by its largest value, so every block has a code for -1 or for 1;
/// and trained weights use all codes, none of them for half of the values.
Status check_nf4_codes(std::string_view name, const QuantizedTensor& t, ThreadPool& threads) {
  const int64_t numel = t.rows * t.cols, blocks = ceil_div(numel, kNf4Block);
  std::atomic<int64_t> without{0};
  const auto counts = histogram<16>(
      ceil_div(blocks, kPieceBlocks), threads, [&](int64_t task, std::array<int64_t, 16>& own) {
        std::array<int64_t, 256> bytes{};
        int64_t lacking = 0;
        const int64_t end = std::min(blocks, (task + 1) * kPieceBlocks);
        for (int64_t b = task * kPieceBlocks; b < end; ++b) {
          const auto first = static_cast<size_t>(b * kNf4Block / 2);
          const size_t last = std::min(first + kNf4Block / 2, t.codes.size());
          bool extreme = false, zeros = true;
          for (size_t i = first; i < last; ++i) {
            const auto c = static_cast<unsigned>(t.codes[i]);
            ++bytes[c];
            const unsigned high = c >> 4, low = c & 15;
            extreme = extreme || high == 0 || high == 15 || low == 0 || low == 15;
            zeros = zeros && c == 0x77;
          }
          lacking += !extreme && !zeros;
        }
        for (size_t c = 0; c < 256; ++c) {
          own[c >> 4] += bytes[c];
          own[c & 15] += bytes[c];
        }
        without.fetch_add(lacking, std::memory_order_relaxed);
      });
  if (without > 0) {
    return broken(name, fmt::format("{} of {} blocks have no code for their largest value",
                                    without.load(), blocks));
  }
  if (numel < kFewCodes) return {};
  for (size_t c = 0; c < 16; ++c) {
    if (counts[c] == 0 || counts[c] > numel / 2)
      return broken(name, fmt::format("code {} is used for {} of {} values", c, counts[c], numel));
  }
  return {};
}

Status verify(const StoredTensors&, std::string_view name, const QuantizedTensor& t,
              ThreadPool& threads) {
  VLR_RETURN_IF_ERROR(check_scales(name, t.scales));
  return check_nf4_codes(name, t, threads);
}

void quantize(const ConstTensor& dense, std::span<const float>, QuantizedTensor& t,
              ThreadPool& threads) {
  Nf4Tensor nf4 = encode_nf4(dense, threads);
  const auto bytes = std::as_bytes(std::span(nf4.codes));
  t.codes.assign(bytes.begin(), bytes.end());
  t.byte_scales = std::move(nf4.absmax);
  t.scales = std::move(nf4.nested_absmax);
  t.map.assign(dynamic_map().begin(), dynamic_map().end());
  t.offset = nf4.offset;
}

/// A scale and an offset for every group of blocks.
Status join(JoinedWeight& out, QuantizedTensor& p, size_t index, std::span<const int64_t> parts) {
  if (index + 1 < parts.size() && parts[index] % kNf4Block != 0) {
    return {Code::kUnimplemented,
            fmt::format("a part of {} values in nf4 ends within a block of {}", parts[index],
                        kNf4Block)};
  }
  std::vector<std::byte> map;
  append_bytes(map, p.map);
  if (index > 0 && map != out.beside[2])
    return {Code::kUnimplemented, "parts of one weight have nested maps of their own"};
  out.beside[2] = std::move(map);
  const auto group = static_cast<size_t>(nf4_group_blocks(parts));
  std::vector<float> nested;
  for (size_t b = 0; b < p.byte_scales.size(); b += group)
    nested.insert(nested.end(), {p.scales[b / kNf4NestedBlock], p.offset});
  append_bytes(out.beside[0], p.byte_scales);
  append_bytes(out.beside[1], nested);
  return {};
}

void write(std::string_view name, const QuantizedTensor& t, DType original,
           std::vector<WrittenTensor>& out) {
  const auto add = [&](std::string_view suffix, DType dtype, std::vector<int64_t> shape,
                       std::span<const std::byte> bytes) {
    append_tensor(out, joined(name, suffix), dtype, std::move(shape), bytes);
  };
  add("", DType::kU8, {std::ssize(t.codes), 1}, t.codes);
  add(kAbsmax, DType::kU8, {std::ssize(t.byte_scales)}, std::as_bytes(std::span(t.byte_scales)));
  add(kQuantMap, DType::kF32, {16}, std::as_bytes(std::span(kNf4Codebook)));
  add(kNestedAbsmax, DType::kF32, {std::ssize(t.scales)}, std::as_bytes(std::span(t.scales)));
  add(kNestedMap, DType::kF32, {256}, std::as_bytes(std::span(t.map)));
  const nlohmann::ordered_json state = {{"quant_type", "nf4"},
                                        {"blocksize", kNf4Block},
                                        {"dtype", original == DType::kF16   ? "float16"
                                                  : original == DType::kF32 ? "float32"
                                                                            : "bfloat16"},
                                        {"shape", {t.rows, t.cols}},
                                        {"nested_blocksize", kNf4NestedBlock},
                                        {"nested_dtype", "float32"},
                                        {"nested_offset", static_cast<double>(t.offset)}};
  const std::string text = state.dump();
  add(kQuantState, DType::kU8, {std::ssize(text)}, std::as_bytes(std::span(text)));
}

}  // namespace

extern const StoredCodec kNf4Codec = {.format = WeightFormat::kNf4,
                                      .read = read,
                                      .verify = verify,
                                      .quantize = quantize,
                                      .join = join,
                                      .write = write};

}  // namespace vlr
