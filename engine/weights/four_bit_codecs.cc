// nf4 and fp4 as checkpoints store them: bitsandbytes' own layout (model/stored_weight.h).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/weights/stored_codecs.h"
#include "kernels/core/integer.h"
#include "kernels/quant/four_bit.h"

namespace vlr {

using namespace stored;

namespace {

constexpr float kCodebookError = 1e-6f;
/// The code of the nested map for 1.
constexpr uint8_t kWhole = 255;

Status check_codebook(const StoredTensors& tensors, std::string_view name, WeightFormat format) {
  VLR_ASSIGN_OR_RETURN(const std::vector<float> found,
                       read_floats(tensors, joined(name, kQuantMap), 16));
  for (size_t c = 0; c < 16; ++c) {
    const float expected = codebook(format)[c];
    if (std::fabs(found[c] - expected) <= kCodebookError) continue;
    return broken(name, fmt::format("its codebook is not {}'s: code {} is {}, expected {}",
                                    weight_format_name(format), c, found[c], expected));
  }
  return {};
}

Status read(const StoredTensors& tensors, std::string_view name, QuantizedTensor& t) {
  VLR_ASSIGN_OR_RETURN(const FourBitState state, four_bit_state(tensors, name, t.format));
  t.offset = static_cast<float>(state.offset);
  const int64_t blocks = ceil_div(t.rows * t.cols, kFourBitBlock);
  VLR_RETURN_IF_ERROR(check_codebook(tensors, name, t.format));
  t.nested_scales = state.nested;
  if (!state.nested) {  // a group of its own for every block: once its scale
    VLR_ASSIGN_OR_RETURN(t.scales, read_floats(tensors, joined(name, kAbsmax), blocks));
    t.byte_scales.assign(static_cast<size_t>(blocks), kWhole);
    t.map.assign(dynamic_map().begin(), dynamic_map().end());
    return {};
  }
  VLR_ASSIGN_OR_RETURN(const auto absmax,
                       read_sidecar(tensors, joined(name, kAbsmax), DType::kU8, blocks));
  const auto* first = reinterpret_cast<const uint8_t*>(absmax.data());
  t.byte_scales.assign(first, first + absmax.size());
  VLR_ASSIGN_OR_RETURN(t.scales, read_floats(tensors, joined(name, kNestedAbsmax),
                                             ceil_div(blocks, kFourBitNestedBlock)));
  VLR_ASSIGN_OR_RETURN(t.map, read_floats(tensors, joined(name, kNestedMap), 256));
  for (size_t i = 0; i < t.map.size(); ++i) {
    if (std::isfinite(t.map[i]) && std::fabs(t.map[i]) <= 1 && (i == 0 || t.map[i] >= t.map[i - 1]))
      continue;
    return broken(
        name, fmt::format("its nested map is not ascending within [-1, 1]: {} at {}", t.map[i], i));
  }
  return {};
}

/// Any code is a number.
Status verify(const StoredTensors&, std::string_view name, const QuantizedTensor& t, ThreadPool&) {
  return check_scales(name, t.scales);
}

void quantize(const ConstTensor& dense, std::span<const float>, QuantizedTensor& t,
              ThreadPool& threads) {
  FourBitTensor coded = encode_four_bit(t.format, dense, threads);
  const auto bytes = std::as_bytes(std::span(coded.codes));
  t.codes.assign(bytes.begin(), bytes.end());
  t.byte_scales = std::move(coded.absmax);
  t.scales = std::move(coded.nested_absmax);
  t.map.assign(dynamic_map().begin(), dynamic_map().end());
  t.offset = coded.offset;
}

/// A scale and an offset for every group of blocks.
Status join(JoinedWeight& out, QuantizedTensor& p, size_t index, std::span<const int64_t> parts) {
  if (index + 1 < parts.size() && parts[index] % kFourBitBlock != 0) {
    return {Code::kUnimplemented,
            fmt::format("a part of {} values in {} ends within a block of {}", parts[index],
                        weight_format_name(out.format), kFourBitBlock)};
  }
  std::vector<std::byte> map;
  append_bytes(map, p.map);
  if (index > 0 && map != out.beside[2])
    return {Code::kUnimplemented, "parts of one weight have nested maps of their own"};
  out.beside[2] = std::move(map);
  const auto group = static_cast<size_t>(
      four_bit_group_blocks(parts, out.nested_scales ? kFourBitNestedBlock : 1));
  const size_t share = p.nested_scales ? kFourBitNestedBlock : 1;  // blocks of one of p's scales
  std::vector<float> nested;
  for (size_t b = 0; b < p.byte_scales.size(); b += group)
    nested.insert(nested.end(), {p.scales[b / share], p.offset});
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
  add(kQuantMap, DType::kF32, {16}, std::as_bytes(std::span(codebook(t.format))));
  add(kNestedAbsmax, DType::kF32, {std::ssize(t.scales)}, std::as_bytes(std::span(t.scales)));
  add(kNestedMap, DType::kF32, {256}, std::as_bytes(std::span(t.map)));
  const nlohmann::ordered_json state = {{"quant_type", weight_format_name(t.format)},
                                        {"blocksize", kFourBitBlock},
                                        {"dtype", original == DType::kF16   ? "float16"
                                                  : original == DType::kF32 ? "float32"
                                                                            : "bfloat16"},
                                        {"shape", {t.rows, t.cols}},
                                        {"nested_blocksize", kFourBitNestedBlock},
                                        {"nested_dtype", "float32"},
                                        {"nested_offset", static_cast<double>(t.offset)}};
  const std::string text = state.dump();
  add(quant_state_of(t.format), DType::kU8, {std::ssize(text)}, std::as_bytes(std::span(text)));
}

}  // namespace

extern const StoredCodec kNf4Codec = {.format = WeightFormat::kNf4,
                                      .read = read,
                                      .verify = verify,
                                      .quantize = quantize,
                                      .join = join,
                                      .write = write};

extern const StoredCodec kFp4Codec = {.format = WeightFormat::kFp4,
                                      .read = read,
                                      .verify = verify,
                                      .quantize = quantize,
                                      .join = join,
                                      .write = write};

}  // namespace vlr
