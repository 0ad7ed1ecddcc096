#include "engine/weights/quantized_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "engine/weights/stored_codecs.h"
#include "kernels/core/integer.h"
#include "kernels/core/load.h"

namespace vlr {

// One of each format, in a file of its own.
extern const StoredCodec kNf4Codec, kFp4Codec, kInt8Codec, kFp8Codec, kMxfp4Codec;

using namespace stored;

namespace {

constexpr int64_t kPieceRows = 64;  // of a weight, per task

/// 64 bits over 8 bytes at a time; the tail is padded with zeros, and the length counts.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    mix(bytes.size());
    size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + i, 8);
      mix(word);
    }
    uint64_t tail = 0;
    if (i < bytes.size()) std::memcpy(&tail, bytes.data() + i, bytes.size() - i);
    mix(tail);
  }
  template <class T>
  void add(const std::vector<T>& values) {
    add(std::as_bytes(std::span(values)));
  }
  uint64_t value() const { return state_; }

 private:
  void mix(uint64_t word) { state_ = std::rotl((state_ ^ word) * 0x9e3779b97f4a7c15u, 29); }
  uint64_t state_ = 0x2545f4914f6cdd1d;
};

uint64_t checksum_of(const QuantizedTensor& t) {
  Checksum sum;
  sum.add(t.codes);
  sum.add(t.byte_scales);
  sum.add(t.scales);
  sum.add(t.map);
  sum.add(std::as_bytes(std::span(&t.offset, 1)));
  return sum.value();
}

}  // namespace

const StoredCodec& stored_codec(WeightFormat format) {
  for (const StoredCodec* codec : {&kNf4Codec, &kFp4Codec, &kInt8Codec, &kFp8Codec, &kMxfp4Codec}) {
    if (codec->format == format) return *codec;
  }
  std::abort();
}

Status broken(std::string_view name, std::string message) {
  return {Code::kDataLoss, fmt::format("{}: {}", name, std::move(message))};
}

Result<std::span<const std::byte>> read_sidecar(const StoredTensors& tensors,
                                                const std::string& name, DType dtype,
                                                int64_t numel) {
  const auto it = tensors.find(name);
  if (it == tensors.end())
    return {Code::kInvalidArgument, fmt::format("{}: the checkpoint has none", name)};
  if (it->second.dtype != dtype || it->second.numel() != numel) {
    return {Code::kInvalidArgument,
            fmt::format("{}: expected {} values of {}, got {}", name, numel, dtype_name(dtype),
                        describe(static_cast<const StoredShape&>(it->second)))};
  }
  return std::span(it->second.data, static_cast<size_t>(it->second.bytes()));
}

Result<std::vector<float>> read_floats(const StoredTensors& tensors, const std::string& name,
                                       int64_t numel) {
  VLR_ASSIGN_OR_RETURN(const auto bytes, read_sidecar(tensors, name, DType::kF32, numel));
  std::vector<float> out(static_cast<size_t>(numel));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

Result<std::vector<float>> read_row_scales(const StoredTensors& tensors, const std::string& name,
                                           int64_t rows) {
  const auto it = tensors.find(name);
  if (it == tensors.end())
    return {Code::kInvalidArgument, fmt::format("{}: the checkpoint has none", name)};
  const StoredTensor& t = it->second;
  const bool floats = t.dtype == DType::kF32 || t.dtype == DType::kBF16 || t.dtype == DType::kF16;
  if (!floats || (t.numel() != rows && t.numel() != 1)) {
    return {Code::kInvalidArgument,
            fmt::format("{}: expected {} values, or one, of f32, bf16 or f16, got {}", name, rows,
                        describe(static_cast<const StoredShape&>(t)))};
  }
  const std::vector<std::byte> bytes(t.data, t.data + t.bytes());  // aligned
  const ConstTensor values(bytes.data(), t.dtype, {t.numel()});
  std::vector<float> out(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r)
    out[static_cast<size_t>(r)] = load_f32(values, t.numel() == 1 ? 0 : r);
  return out;
}

Status check_scales(std::string_view name, const std::vector<float>& scales) {
  for (size_t i = 0; i < scales.size(); ++i) {
    if (std::isfinite(scales[i]) && scales[i] >= 0 && scales[i] <= kLargestScale) continue;
    return broken(name,
                  fmt::format("scale {} is {}, expected 0 to {}", i, scales[i], kLargestScale));
  }
  return {};
}

void append_tensor(std::vector<WrittenTensor>& out, std::string name, DType dtype,
                   std::vector<int64_t> shape, std::span<const std::byte> bytes) {
  out.push_back({{{dtype, std::move(shape)}, std::move(name)}, {bytes.begin(), bytes.end()}});
}

Result<QuantizedTensor> read_quantized(const StoredTensors& tensors, std::string_view name,
                                       ThreadPool& threads) {
  VLR_ASSIGN_OR_RETURN(const StoredWeight stored, stored_weight(tensors, name));
  if (stored.format == WeightFormat::kDense)
    return {Code::kInvalidArgument, fmt::format("{} is not quantised", name)};
  const StoredTensor& codes = tensors.find(name)->second;
  QuantizedTensor t{.format = stored.format,
                    .rows = stored.shape[0],
                    .cols = stored.shape[1],
                    .codes = {codes.data, codes.data + codes.bytes()},
                    .byte_scales = {},
                    .scales = {},
                    .map = {},
                    .fingerprint = {}};
  const StoredCodec& codec = stored_codec(t.format);
  VLR_RETURN_IF_ERROR(codec.read(tensors, name, t));
  const std::string checksum_name = joined(module_of(name), kChecksum),
                    fingerprint_name = joined(module_of(name), kFingerprint);
  if (tensors.contains(checksum_name)) {
    VLR_ASSIGN_OR_RETURN(const auto bytes, read_sidecar(tensors, checksum_name, DType::kU8, 8));
    uint64_t want = 0;
    std::memcpy(&want, bytes.data(), 8);
    const uint64_t got = checksum_of(t);
    if (got != want) {
      return broken(
          name, fmt::format("its bytes have the checksum {:016x}, expected {:016x}", got, want));
    }
  }
  VLR_RETURN_IF_ERROR(codec.verify(tensors, name, t, threads));
  if (tensors.contains(fingerprint_name)) {
    VLR_ASSIGN_OR_RETURN(t.fingerprint, read_floats(tensors, fingerprint_name, t.rows));
  }
  return t;
}

Result<QuantizedTensor> quantize_weight(const ConstTensor& dense, WeightFormat format,
                                        ThreadPool& threads) {
  QuantizedTensor t{.format = format,
                    .rows = dense.dim(0),
                    .cols = dense.dim(1),
                    .codes = {},
                    .byte_scales = {},
                    .scales = {},
                    .map = {},
                    .fingerprint = {}};
  t.fingerprint.resize(static_cast<size_t>(t.rows));
  std::vector<float> signs(static_cast<size_t>(t.cols)), absmax(static_cast<size_t>(t.rows));
  for (int64_t k = 0; k < t.cols; ++k) signs[static_cast<size_t>(k)] = probe_sign(k);
  threads.parallel_for(ceil_div(t.rows, kPieceRows), [&](int64_t task, int) {
    const int64_t end = std::min(t.rows, (task + 1) * kPieceRows);
    for (int64_t r = task * kPieceRows; r < end; ++r) {
      double sum = 0;
      float largest = 0;
      for (int64_t k = 0; k < t.cols; ++k) {
        const float v = load_f32(dense, r * t.cols + k);
        sum += static_cast<double>(v * signs[static_cast<size_t>(k)]);
        largest = std::max(largest, std::fabs(v));
      }
      t.fingerprint[static_cast<size_t>(r)] = static_cast<float>(sum);
      absmax[static_cast<size_t>(r)] = largest;
    }
  });
  for (int64_t r = 0; r < t.rows; ++r) {
    if (std::isfinite(t.fingerprint[static_cast<size_t>(r)])) continue;
    return {Code::kInvalidArgument, fmt::format("row {} has a value that is not finite", r)};
  }
  stored_codec(format).quantize(dense, absmax, t, threads);
  return t;
}

Result<JoinedWeight> join(std::vector<QuantizedTensor> parts) {
  JoinedWeight out;
  out.format = parts[0].format;
  out.cols = parts[0].cols;
  std::vector<int64_t> values;
  bool fingerprints = true;
  for (const QuantizedTensor& p : parts) {
    if (p.format != out.format || p.cols != out.cols) {
      return {Code::kInvalidArgument,
              fmt::format("parts of one weight are {} with {} columns and {} with {}",
                          weight_format_name(out.format), out.cols, weight_format_name(p.format),
                          p.cols)};
    }
    values.push_back(p.rows * p.cols);
    out.nested_scales = out.nested_scales && p.nested_scales;
    fingerprints = fingerprints && !p.fingerprint.empty();
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    QuantizedTensor& p = parts[i];
    VLR_RETURN_IF_ERROR(stored_codec(out.format).join(out, p, i, values));
    if (out.codes.empty()) {
      out.codes = std::move(p.codes);
    } else {
      // Not insert(), in which GCC 13 sees an overflow that is none.
      const size_t at = out.codes.size();
      out.codes.resize(at + p.codes.size());
      std::copy(p.codes.begin(), p.codes.end(), out.codes.data() + at);
    }
    if (fingerprints) {
      out.fingerprint.insert(out.fingerprint.end(), p.fingerprint.begin(), p.fingerprint.end());
    }
    out.rows += p.rows;
  }
  return out;
}

std::vector<WrittenTensor> tensors_to_write(std::string_view name, const QuantizedTensor& t,
                                            DType original) {
  std::vector<WrittenTensor> out;
  const uint64_t checksum = checksum_of(t);
  stored_codec(t.format).write(name, t, original, out);
  const std::string module = module_of(name);
  if (!t.fingerprint.empty()) {
    append_tensor(out, joined(module, kFingerprint), DType::kF32, {t.rows},
                  std::as_bytes(std::span(t.fingerprint)));
  }
  append_tensor(out, joined(module, kChecksum), DType::kU8, {8},
                std::as_bytes(std::span(&checksum, 1)));
  return out;
}

uint64_t checksum_of(std::span<const std::byte> bytes) {
  Checksum sum;
  sum.add(bytes);
  return sum.value();
}

Status check_dense(const StoredTensors& tensors, const std::map<std::string, uint64_t>& checksums,
                   ThreadPool& threads) {
  struct Held {
    const std::string* name;
    const StoredTensor* tensor;
    uint64_t want, got = 0;
  };
  std::vector<Held> all;
  for (const auto& [name, want] : checksums) {
    const auto it = tensors.find(name);
    if (it == tensors.end()) return broken(name, "config.json has its checksum, no file has it");
    all.push_back({.name = &name, .tensor = &it->second, .want = want});
  }
  // The largest first, so that none is left for the end.
  std::ranges::sort(all, std::greater(), [](const Held& h) { return h.tensor->bytes(); });
  threads.parallel_for(std::ssize(all), [&](int64_t i, int) {
    Held& h = all[static_cast<size_t>(i)];
    h.got = checksum_of({h.tensor->data, static_cast<size_t>(h.tensor->bytes())});
  });
  for (const Held& h : all) {
    if (h.got != h.want) {
      return broken(*h.name, fmt::format("its bytes have the checksum {:016x}, expected {:016x}",
                                         h.got, h.want));
    }
  }
  return {};
}

float probe_sign(int64_t k) {
  uint64_t z = static_cast<uint64_t>(k) + 0x9e3779b97f4a7c15u;  // splitmix64's finaliser
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z >> 63) ? -1.0f : 1.0f;
}

}  // namespace vlr
