#include "engine/weights/quantized_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/core/load.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quant/nf4.h"
#include "model/json.h"
#include "model/weight_plan.h"

namespace vlr {

using namespace stored;

namespace {

constexpr float kCodebookError = 1e-6f;
constexpr int64_t kPieceRows = 64;      // of a weight, per task
constexpr int64_t kPieceBlocks = 4096;  // of nf4, per task
constexpr int64_t kFewCodes = 4096;     // too few to say something about their distribution

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Status broken(std::string_view name, std::string message) {
  return {Code::kDataLoss, fmt::format("{}: {}", name, std::move(message))};
}

/// A tensor beside a weight, with the dtype and the number of values that it has to have.
Result<std::span<const std::byte>> sidecar(const StoredTensors& tensors, const std::string& name,
                                           DType dtype, int64_t numel) {
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

Result<std::vector<float>> floats(const StoredTensors& tensors, const std::string& name,
                                  int64_t numel) {
  VLR_ASSIGN_OR_RETURN(const auto bytes, sidecar(tensors, name, DType::kF32, numel));
  std::vector<float> out(static_cast<size_t>(numel));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

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
  sum.add(t.absmax);
  sum.add(t.scales);
  sum.add(t.map);
  sum.add(std::as_bytes(std::span(&t.offset, 1)));
  return sum.value();
}

Status check_scales(std::string_view name, const std::vector<float>& scales) {
  for (size_t i = 0; i < scales.size(); ++i) {
    if (std::isfinite(scales[i]) && scales[i] >= 0 && scales[i] <= kLargestScale) continue;
    return broken(name,
                  fmt::format("scale {} is {}, expected 0 to {}", i, scales[i], kLargestScale));
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

/// A quantiser scales each row by its largest value, so every row has the largest code.
Status check_row_codes(std::string_view name, const QuantizedTensor& t, ThreadPool& threads) {
  std::atomic<int64_t> bad_row{-1};
  threads.parallel_for(ceil_div(t.rows, kPieceRows), [&](int64_t task, int) {
    const int64_t end = std::min(t.rows, (task + 1) * kPieceRows);
    for (int64_t r = task * kPieceRows; r < end; ++r) {
      const std::byte* row = t.codes.data() + r * t.cols;
      int largest = 0;
      for (int64_t k = 0; k < t.cols; ++k) {
        const auto code = static_cast<int>(row[k]);
        const int size =
            t.format == WeightFormat::kFp8 ? code & 0x7f : std::abs(static_cast<int8_t>(code));
        largest = std::max(largest, size);
      }
      const int want = t.format == WeightFormat::kFp8 ? 0x7e : 127;  // 448
      if (largest != want && !(largest == 0)) bad_row = r;
    }
  });
  if (bad_row < 0) return {};
  return broken(name, fmt::format("row {} has no code for its largest value", bad_row.load()));
}

Result<QuantizedTensor> read_parts(const StoredTensors& tensors, std::string_view name) {
  VLR_ASSIGN_OR_RETURN(const StoredWeight stored, stored_weight(tensors, name));
  const StoredTensor& codes = tensors.find(name)->second;
  QuantizedTensor t{.format = stored.format,
                    .rows = stored.shape[0],
                    .cols = stored.shape[1],
                    .codes = {codes.data, codes.data + codes.bytes()},
                    .absmax = {},
                    .scales = {},
                    .map = {},
                    .fingerprint = {}};
  if (t.format == WeightFormat::kNf4) {
    VLR_ASSIGN_OR_RETURN(const Nf4State state, nf4_state(tensors, name));
    t.offset = static_cast<float>(state.offset);
    const int64_t blocks = ceil_div(t.rows * t.cols, kNf4Block);
    VLR_ASSIGN_OR_RETURN(const auto absmax,
                         sidecar(tensors, joined(name, kAbsmax), DType::kU8, blocks));
    const auto* first = reinterpret_cast<const uint8_t*>(absmax.data());
    t.absmax.assign(first, first + absmax.size());
    VLR_ASSIGN_OR_RETURN(
        t.scales, floats(tensors, joined(name, kNestedAbsmax), ceil_div(blocks, kNf4NestedBlock)));
    VLR_ASSIGN_OR_RETURN(t.map, floats(tensors, joined(name, kNestedMap), 256));
    return t;
  }
  if (t.format == WeightFormat::kInt8) {
    const std::string layout = joined(module_of(name), kWeightFormat);
    if (tensors.contains(layout)) {
      VLR_ASSIGN_OR_RETURN(const auto bytes, sidecar(tensors, layout, DType::kU8, 1));
      if (bytes[0] != std::byte{0}) {
        return {Code::kUnimplemented, fmt::format("{}: expected 0, row-major codes, got {}", layout,
                                                  static_cast<int>(bytes[0]))};
      }
    }
    VLR_ASSIGN_OR_RETURN(t.scales, floats(tensors, joined(module_of(name), kScb), t.rows));
    return t;
  }
  VLR_ASSIGN_OR_RETURN(t.scales, floats(tensors, joined(module_of(name), kWeightScale), t.rows));
  return t;
}

}  // namespace

Result<QuantizedTensor> read_quantized(const StoredTensors& tensors, std::string_view name,
                                       ThreadPool& threads) {
  VLR_ASSIGN_OR_RETURN(QuantizedTensor t, read_parts(tensors, name));
  const std::string checksum_name = joined(module_of(name), kChecksum),
                    fingerprint_name = joined(module_of(name), kFingerprint);
  if (t.format == WeightFormat::kNf4) {
    VLR_ASSIGN_OR_RETURN(const std::vector<float> codebook,
                         floats(tensors, joined(name, kQuantMap), 16));
    for (size_t c = 0; c < 16; ++c) {
      if (std::fabs(codebook[c] - kNf4Codebook[c]) <= kCodebookError) continue;
      return broken(name, fmt::format("its codebook is not NF4's: code {} is {}, expected {}", c,
                                      codebook[c], kNf4Codebook[c]));
    }
    for (size_t i = 0; i < t.map.size(); ++i) {
      if (std::isfinite(t.map[i]) && std::fabs(t.map[i]) <= 1 &&
          (i == 0 || t.map[i] >= t.map[i - 1]))
        continue;
      return broken(name, fmt::format("its nested map is not ascending within [-1, 1]: {} at {}",
                                      t.map[i], i));
    }
  }
  if (tensors.contains(checksum_name)) {
    VLR_ASSIGN_OR_RETURN(const auto bytes, sidecar(tensors, checksum_name, DType::kU8, 8));
    uint64_t want = 0;
    std::memcpy(&want, bytes.data(), 8);
    const uint64_t got = checksum_of(t);
    if (got != want) {
      return broken(
          name, fmt::format("its bytes have the checksum {:016x}, expected {:016x}", got, want));
    }
  }
  VLR_RETURN_IF_ERROR(check_scales(name, t.scales));
  VLR_RETURN_IF_ERROR(t.format == WeightFormat::kNf4 ? check_nf4_codes(name, t, threads)
                                                     : check_row_codes(name, t, threads));
  if (tensors.contains(fingerprint_name)) {
    VLR_ASSIGN_OR_RETURN(t.fingerprint, floats(tensors, fingerprint_name, t.rows));
  }
  return t;
}

Result<QuantizedTensor> quantize_weight(const ConstTensor& dense, WeightFormat format,
                                        ThreadPool& threads) {
  QuantizedTensor t{.format = format,
                    .rows = dense.dim(0),
                    .cols = dense.dim(1),
                    .codes = {},
                    .absmax = {},
                    .scales = {},
                    .map = {},
                    .fingerprint = {}};
  if (format == WeightFormat::kNf4) {
    Nf4Tensor nf4 = encode_nf4(dense, threads);
    const auto bytes = std::as_bytes(std::span(nf4.codes));
    t.codes.assign(bytes.begin(), bytes.end());
    t.absmax = std::move(nf4.absmax);
    t.scales = std::move(nf4.nested_absmax);
    t.map.assign(dynamic_map().begin(), dynamic_map().end());
    t.offset = nf4.offset;
  } else {
    RowQuantized rows = quantize_weight_rows(
        dense, format == WeightFormat::kInt8 ? DType::kI8 : DType::kF8E4M3, threads);
    t.codes = std::move(rows.codes);
    t.scales = std::move(rows.scales);
  }
  t.fingerprint.resize(static_cast<size_t>(t.rows));
  std::vector<float> signs(static_cast<size_t>(t.cols));
  for (int64_t k = 0; k < t.cols; ++k) signs[static_cast<size_t>(k)] = probe_sign(k);
  threads.parallel_for(ceil_div(t.rows, kPieceRows), [&](int64_t task, int) {
    const int64_t end = std::min(t.rows, (task + 1) * kPieceRows);
    for (int64_t r = task * kPieceRows; r < end; ++r) {
      double sum = 0;
      float absmax = 0;
      for (int64_t k = 0; k < t.cols; ++k) {
        const float v = load_f32(dense, r * t.cols + k);
        sum += static_cast<double>(v * signs[static_cast<size_t>(k)]);
        absmax = std::max(absmax, std::fabs(v));
      }
      t.fingerprint[static_cast<size_t>(r)] = static_cast<float>(sum);
      if (format == WeightFormat::kInt8) t.scales[static_cast<size_t>(r)] = absmax;
    }
  });
  for (int64_t r = 0; r < t.rows; ++r) {
    if (std::isfinite(t.fingerprint[static_cast<size_t>(r)])) continue;
    return {Code::kInvalidArgument, fmt::format("row {} has a value that is not finite", r)};
  }
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
    fingerprints = fingerprints && !p.fingerprint.empty();
  }
  const int64_t group = nf4_group_blocks(values);
  for (size_t i = 0; i < parts.size(); ++i) {
    QuantizedTensor& p = parts[i];
    if (out.format == WeightFormat::kNf4) {
      if (i + 1 < parts.size() && values[i] % kNf4Block != 0) {
        return {Code::kUnimplemented,
                fmt::format("a part of {} values in nf4 ends within a block of {}", values[i],
                            kNf4Block)};
      }
      if (i > 0 && p.map != out.map)
        return {Code::kUnimplemented, "parts of one weight have nested maps of their own"};
      out.map = std::move(p.map);
      for (size_t b = 0; b < p.absmax.size(); b += static_cast<size_t>(group)) {
        out.nested.push_back(p.scales[b / kNf4NestedBlock]);
        out.nested.push_back(p.offset);
      }
      const auto bytes = std::as_bytes(std::span(p.absmax));
      out.scales.insert(out.scales.end(), bytes.begin(), bytes.end());
    } else {
      if (out.format == WeightFormat::kInt8) {
        for (float& absmax : p.scales) absmax /= kInt8Max;
      }
      const auto bytes = std::as_bytes(std::span(p.scales));
      out.scales.insert(out.scales.end(), bytes.begin(), bytes.end());
    }
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
  const int64_t n = t.rows, k = t.cols;
  std::vector<WrittenTensor> out;
  const auto add = [&](std::string tensor, DType dtype, std::vector<int64_t> shape,
                       std::span<const std::byte> bytes) {
    out.push_back({{{dtype, std::move(shape)}, std::move(tensor)}, {bytes.begin(), bytes.end()}});
  };
  const auto count = [](const auto& values) { return std::vector<int64_t>{std::ssize(values)}; };
  const uint64_t checksum = checksum_of(t);
  switch (t.format) {
    case WeightFormat::kNf4: {
      add(std::string(name), DType::kU8, {std::ssize(t.codes), 1}, t.codes);
      add(joined(name, kAbsmax), DType::kU8, count(t.absmax), std::as_bytes(std::span(t.absmax)));
      add(joined(name, kQuantMap), DType::kF32, {16}, std::as_bytes(std::span(kNf4Codebook)));
      add(joined(name, kNestedAbsmax), DType::kF32, count(t.scales),
          std::as_bytes(std::span(t.scales)));
      add(joined(name, kNestedMap), DType::kF32, {256}, std::as_bytes(std::span(t.map)));
      const nlohmann::ordered_json state = {{"quant_type", "nf4"},
                                            {"blocksize", kNf4Block},
                                            {"dtype", original == DType::kF16   ? "float16"
                                                      : original == DType::kF32 ? "float32"
                                                                                : "bfloat16"},
                                            {"shape", {n, k}},
                                            {"nested_blocksize", kNf4NestedBlock},
                                            {"nested_dtype", "float32"},
                                            {"nested_offset", static_cast<double>(t.offset)}};
      const std::string text = state.dump();
      add(joined(name, kQuantState), DType::kU8, {std::ssize(text)},
          std::as_bytes(std::span(text)));
      break;
    }
    case WeightFormat::kInt8: {
      add(std::string(name), DType::kI8, {n, k}, t.codes);
      add(joined(module_of(name), kScb), DType::kF32, {n}, std::as_bytes(std::span(t.scales)));
      const uint8_t row_major = 0;
      add(joined(module_of(name), kWeightFormat), DType::kU8, {},
          std::as_bytes(std::span(&row_major, 1)));
      break;
    }
    default:
      add(std::string(name), DType::kF8E4M3, {n, k}, t.codes);
      add(joined(module_of(name), kWeightScale), DType::kF32, {n, 1},
          std::as_bytes(std::span(t.scales)));
  }
  if (!t.fingerprint.empty()) {
    add(joined(module_of(name), kFingerprint), DType::kF32, {n},
        std::as_bytes(std::span(t.fingerprint)));
  }
  add(joined(module_of(name), kChecksum), DType::kU8, {8}, std::as_bytes(std::span(&checksum, 1)));
  return out;
}

float probe_sign(int64_t k) {
  uint64_t z = static_cast<uint64_t>(k) + 0x9e3779b97f4a7c15u;  // splitmix64's finaliser
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z >> 63) ? -1.0f : 1.0f;
}

}  // namespace vlr
