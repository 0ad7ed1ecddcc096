/// How large batches may be: from the options, the device's memory and the model's plans.
#ifndef VLR_ENGINE_API_LIMITS_H_
#define VLR_ENGINE_API_LIMITS_H_

#include <cstdint>

#include "engine/api/model_runner.h"
#include "engine/runtime/device.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// What is decoded and kept before it is scored, in tokens.
constexpr int64_t kWaveTokens = 32768, kWaveVisualTokens = 8192;

struct BatchLimits {
  int64_t tokens = 0;           ///< of a text batch
  int64_t sequences = 0;        ///< of a text batch
  int64_t patches = 0;          ///< of a vision batch
  int64_t visual_rows = 0;      ///< vision features in memory at once
  int64_t prefix_rows = 0;      ///< prefix tokens kept from the start
  int64_t max_prefix_rows = 0;  ///< as far as that may grow
  int64_t max_sequence = 0;     ///< tokens of a sequence that is a batch of its own
};

/// The dtype of activations that the options ask for, on this device, for this checkpoint.
Result<DType> activation_dtype(const Options& options, const DeviceSpec& device,
                               const ModelConfig& config);

GraphOptions graph_options(const Options& options, const OpenDevice& device, DType dtype,
                           QuantModes quant);

/// Caps a GPU's memory as Options::gpu_memory says.
Status set_cap(OpenDevice& device, int64_t gpu_memory);

/// Every op of --impl is one that the graphs run.
Status check_impls(const ImplChoices& choices, const ModelRunner& runner);

/// kOutOfMemory when even the smallest batch does not fit, with the smallest cap that does.
Result<BatchLimits> choose_limits(const Options& options, ModelRunner& runner);

/// What the CUDA context and the libraries' kernels take of a card beside what the engine counts.
int64_t context_estimate();

}  // namespace vlr

#endif  // VLR_ENGINE_API_LIMITS_H_
