// mxfp4 as checkpoints store it: docs/formats.md.
#include <fmt/format.h>

#include <algorithm>

#include "engine/weights/stored_codecs.h"
#include "kernels/quant/mxfp4.h"

namespace vlr {

using namespace stored;

namespace {

Status read(const StoredTensors& tensors, std::string_view name, QuantizedTensor& t) {
  VLR_ASSIGN_OR_RETURN(const auto bytes,
                       read_sidecar(tensors, joined(module_of(name), kWeightScale), DType::kU8,
                                    t.rows * mxfp4_row_blocks(t.cols)));
  const auto* first = reinterpret_cast<const uint8_t*>(bytes.data());
  t.byte_scales.assign(first, first + bytes.size());
  return {};
}

/// Any code is a number.
Status verify(const StoredTensors&, std::string_view name, const QuantizedTensor& t, ThreadPool&) {
  const auto wrong = std::ranges::find_if(
      t.byte_scales, [](uint8_t bits) { return !(e8m0_to_f32(bits) <= kLargestScale); });
  if (wrong == t.byte_scales.end()) return {};
  return broken(name, fmt::format("scale {} is {}, expected 0 to {}", wrong - t.byte_scales.begin(),
                                  e8m0_to_f32(*wrong), kLargestScale));
}

void quantize(const ConstTensor& dense, std::span<const float>, QuantizedTensor& t,
              ThreadPool& threads) {
  Mxfp4Tensor coded = encode_mxfp4(dense, threads);
  t.codes = std::move(coded.codes);
  t.byte_scales = std::move(coded.scales);
}

Status join(JoinedWeight& out, QuantizedTensor& p, size_t, std::span<const int64_t>) {
  append_bytes(out.beside[0], p.byte_scales);
  return {};
}

void write(std::string_view name, const QuantizedTensor& t, DType,
           std::vector<WrittenTensor>& out) {
  append_tensor(out, std::string(name), DType::kU8, {t.rows, t.cols / 2}, t.codes);
  append_tensor(out, joined(module_of(name), kWeightScale), DType::kU8,
                {t.rows, mxfp4_row_blocks(t.cols)}, std::as_bytes(std::span(t.byte_scales)));
}

}  // namespace

extern const StoredCodec kMxfp4Codec = {.format = WeightFormat::kMxfp4,
                                        .read = read,
                                        .verify = verify,
                                        .quantize = quantize,
                                        .join = join,
                                        .write = write};

}  // namespace vlr
