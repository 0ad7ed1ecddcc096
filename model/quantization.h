/// Which linear layers of a model are quantised, and how they compute: from rules, and from what a
/// checkpoint says of itself.
#ifndef VLR_MODEL_QUANTIZATION_H_
#define VLR_MODEL_QUANTIZATION_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quant/quantized_weight.h"
#include "model/weight_plan.h"
#include "vlr/status.h"

namespace vlr {

/// How a quantised linear layer is stored and computed.
enum class QuantMode : uint8_t {
  kNone,
  kNf4,           ///< nf4 weights, 16-bit products
  kFp4,           ///< fp4 weights, 16-bit products
  kInt8,          ///< int8 weights and activations (W8A8), a scale a token
  kInt8Weight,    ///< int8 weights, 16-bit products
  kLlmInt8,       ///< kInt8, with a token's outlying activations in 16 bits beside it
  kLlmInt8Batch,  ///< the same with outliers found over the whole batch, as bitsandbytes does
  kFp8,           ///< e4m3 weights and activations (W8A8), a scale a token
  kFp8Weight,     ///< e4m3 weights, 16-bit products
  kMxfp4,         ///< mxfp4 weights, 16-bit products
};
/// What a layer's product computes with.
enum class Computes : uint8_t {
  kDense,       ///< the weight as it is
  kWeightOnly,  ///< 16-bit activations and weights that are decoded
  kW8A8,        ///< 8-bit codes of both
  kW8A8Apart,   ///< the same, and outlying activations in 16 bits beside them
};
/// A row of the table of modes.
struct ModeInfo {
  QuantMode mode;
  std::string_view name;  ///< as options say it
  WeightFormat format;
  Computes computes;
  /// How a checkpoint in this format computes, unless it or the options say otherwise.
  bool usual;
  /// How far the relevance probe's log-odds may be from those of the codes decoded and multiplied
  /// densely, as a share of their size: what rounding explains (docs/quantisation.md).
  double probe_distance;
};
std::span<const ModeInfo> quant_modes();
/// Every mode has a row, and every format one that is usual and one that decodes it first.
const ModeInfo& mode_info(QuantMode m);
QuantMode usual_mode(WeightFormat format);
/// The mode whose products are dense ones of the decoded weight: activations keep their 16 bits.
QuantMode decoding_mode(WeightFormat format);

inline std::string_view quant_mode_name(QuantMode m) { return mode_info(m).name; }
std::string quant_mode_names();  ///< "none, nf4, ..."
Result<QuantMode> parse_quant_mode(std::string_view name);
inline WeightFormat stored_format(QuantMode m) { return mode_info(m).format; }
/// Whether activations are quantised too.
inline bool is_w8a8(QuantMode m) {
  return mode_info(m).computes == Computes::kW8A8 || mode_info(m).computes == Computes::kW8A8Apart;
}
inline bool sets_outliers_apart(QuantMode m) {
  return mode_info(m).computes == Computes::kW8A8Apart;
}
/// The size from which LLM.int8() takes an activation for an outlier.
constexpr float kOutlierThreshold = 6.0f;

/// "PATTERN=MODE". A pattern is "text" (the decoder's linear layers), "vision" (the tower's), or a
/// part of a weight's name, as "layers.0." or "mlp.down_proj".
struct QuantRule {
  std::string pattern;
  QuantMode mode = QuantMode::kNone;
};
Result<QuantRule> parse_quant_rule(std::string_view text);

/// Whether a weight, by its canonical name, is one of a linear layer that may be quantised.
bool is_linear_weight(std::string_view canonical);
/// The mode that the last matching rule gives; none matches weights of other layers.
std::optional<QuantMode> mode_of(std::string_view canonical, std::span<const QuantRule> rules);

/// By the name that the graphs look up; weights that are not there are dense.
using QuantModes = std::map<std::string, QuantMode, std::less<>>;
/// One name for all modes: "none", "nf4", ..., or "mixed".
std::string_view quant_name(const QuantModes& modes);

/// Log-odds of the relevance probe's documents that a checkpoint keeps; empty: it does not.
struct ProbeRecord {
  std::vector<float> decoded = {};  ///< by its codes, decoded and multiplied densely
  std::vector<float> before = {};   ///< by the model before it was quantised: what vlr kept once
};

/// What a checkpoint's config.json says in `quantization_config`, whatever tool wrote it.
struct StoredQuantization {
  QuantMode int8_mode = QuantMode::kLlmInt8;  ///< how its int8 weights want to be computed
  std::vector<QuantRule> rules;               ///< by which its layers were chosen
  ProbeRecord probe;
  std::map<std::string, uint64_t> dense_checksums;  ///< of tensors that are not quantised, by name
};
/// kUnimplemented names a method that is not read.
Result<StoredQuantization> parse_stored_quantization(std::string_view config_json);
/// The same of a file, named in errors.
Result<StoredQuantization> read_stored_quantization(const std::string& path);

/// Decides every linear weight's mode and sets its spec's format. What is stored quantised stays as
/// it is stored: rules may choose how int8 computes, and nothing else. Parts of one weight (q|k|v,
/// gate|up) need one mode. kInvalidArgument also names a rule that matches no linear layer.
Result<QuantModes> apply_quantization(WeightPlan& plan, std::span<const QuantRule> rules,
                                      const StoredQuantization& stored);

}  // namespace vlr

#endif  // VLR_MODEL_QUANTIZATION_H_
