/// What a checkpoint's files store a weight [N, K] as: which tensors there are beside it. The layout
/// of every format is a row of the table in docs/formats.md; what the files call them is here.
/// Sources: bitsandbytes 0.50 (functional.py, QuantState.as_dict; nn/modules.py, Linear8bitLt),
/// compressed-tensors 0.20 (compressors/naive_quantized).
#ifndef VLR_MODEL_STORED_WEIGHT_H_
#define VLR_MODEL_STORED_WEIGHT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quant/quantized_weight.h"
#include "model/stored_tensor.h"
#include "vlr/status.h"

namespace vlr {

/// Names of stored tensors, and what they are made of.
namespace stored {
inline constexpr std::string_view kWeight = ".weight";
inline constexpr std::string_view kAbsmax = ".absmax", kQuantMap = ".quant_map",
                                  kNestedAbsmax = ".nested_absmax",
                                  kNestedMap = ".nested_quant_map",
                                  kNf4State = ".quant_state.bitsandbytes__nf4",
                                  kFp4State = ".quant_state.bitsandbytes__fp4";
/// Of nf4 or fp4.
constexpr std::string_view quant_state_of(WeightFormat format) {
  return format == WeightFormat::kFp4 ? kFp4State : kNf4State;
}
// Beside the module's weight, not under its name: bitsandbytes takes whatever is there for its own.
inline constexpr std::string_view kScb = ".SCB", kWeightFormat = ".weight_format",
                                  kWeightScale = ".weight_scale", kInputScale = ".input_scale",
                                  kInputZero = ".input_zero_point", kScaleInv = ".weight_scale_inv",
                                  kWeightZero = ".weight_zero_point",
                                  kFingerprint = ".weight_fingerprint",
                                  kChecksum = ".weight_checksum";
/// Of a weight's absmax: far beyond any trained one.
inline constexpr float kLargestScale = 1e4f;

std::string joined(std::string_view a, std::string_view b);
std::string module_of(std::string_view name);  ///< "m" of "m.weight"
}  // namespace stored

/// What a stored weight is, whatever it is stored as.
struct StoredWeight {
  WeightFormat format = WeightFormat::kDense;
  std::vector<int64_t> shape;  ///< [N, K] where it is quantised
  bool nested_scales = true;   ///< nf4, fp4: scales of blocks are quantised themselves
};

/// The tensor `name`, or the quantised weight of that name. kInvalidArgument says what a quantised
/// weight lacks, and which of its features vlr does not read.
Result<StoredWeight> stored_weight(const StoredTensors& tensors, std::string_view name);

/// Whether a tensor stands beside a quantised weight and belongs to its format: it is read with it, or
/// known to be left out of what is read (docs/formats.md). Beside a weight that is refused, any
/// format's tensors belong to it.
bool belongs_to_quantized(const StoredTensors& tensors, std::string_view name);

/// What nf4 or fp4 says of a weight in its quant_state, which has to say what vlr reads.
struct FourBitState {
  int64_t rows = 0, cols = 0;
  double offset = 0;
  bool nested = true;  ///< absmax is quantised itself
};
Result<FourBitState> four_bit_state(const StoredTensors& tensors, std::string_view weight,
                                    WeightFormat format);

}  // namespace vlr

#endif  // VLR_MODEL_STORED_WEIGHT_H_
