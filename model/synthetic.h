/// Checkpoints whose every weight is a function of its tensor's name and of its place in the
/// tensor, so that two programs hold the same weights, of any size, without a file travelling
/// between them.
///
///   base   = fnv1a64(name)
///   z      = splitmix64(base + i), i the flat row-major index
///   u      = (2 * (z >> 57) - 127) / 128, uniform on 128 points, symmetric about 0
///   value  = the first rule that matches the name:
///     contains "norm", ends in "weight"              1 + (z >> 61) / 32
///     ends in "bias"                                 u / 8
///     contains "embed_tokens" or is lm_head.weight   u / 4
///     contains "pos_embed"                           u
///     else                                           u * 2^round(log2(sqrt(3 / elements per row)))
///
/// All values are exact in bf16. The last rule keeps the variance of a linear layer's output
/// near 1.
#ifndef VLR_MODEL_SYNTHETIC_H_
#define VLR_MODEL_SYNTHETIC_H_

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "kernels/core/context.h"
#include "model/config.h"
#include "model/weight_plan.h"
#include "vlr/status.h"

namespace vlr {

/// 64-bit FNV-1a of the bytes of `text`.
constexpr uint64_t fnv1a64(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

/// The output of a SplitMix64 generator with this state (Steele, Lea & Flood 2014).
constexpr uint64_t splitmix64(uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// A tensor as numbers, for whoever makes it elsewhere: element i is
/// values[splitmix64(base + i) >> shift], of which the first 2^(64 - shift) count.
struct SyntheticTensor {
  uint64_t base = 0;
  int shift = 57;
  std::array<uint16_t, 128> values{};  ///< bits of the dtype asked for

  std::span<const uint16_t> table() const { return {values.data(), size_t{1} << (64 - shift)}; }
};

/// `dtype`: bf16 or f16, which hold all values exactly.
SyntheticTensor synthetic_tensor(std::string_view name, std::span<const int64_t> shape,
                                 DType dtype = DType::kBF16);

/// Writes a dense weight, in one of 16 bits, where it stands on a GPU, in the order of its stream.
/// kUnimplemented: this build has no CUDA backend.
Status fill_synthetic_weight(const WeightSpec& spec, const Tensor& weight, CUstream_st* stream);

/// Elements [begin, begin + out.size()) of a tensor, as bf16.
void fill_synthetic(const NamedShape& tensor, int64_t begin, std::span<uint16_t> out);

/// "2b" and "8b" have the published models' sizes. "a" (untied head, vision heads of 72) and "b"
/// (tied, vision heads of 64) are small, with the larger models' traits, for tests.
/// kInvalidArgument for others.
Result<ModelConfig> synthetic_config(std::string_view preset);
/// Tensor data in a file of such a checkpoint, as upstream cut it.
Result<int64_t> synthetic_shard_bytes(std::string_view preset);

}  // namespace vlr

#endif  // VLR_MODEL_SYNTHETIC_H_
