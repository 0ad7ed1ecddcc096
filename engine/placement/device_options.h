/// What options mean for a device and a checkpoint.
#ifndef VLR_ENGINE_PLACEMENT_DEVICE_OPTIONS_H_
#define VLR_ENGINE_PLACEMENT_DEVICE_OPTIONS_H_

#include "engine/passes/model_runner.h"
#include "engine/runtime/device.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// The dtype of activations that the options ask for, on this device, for this checkpoint.
Result<DType> activation_dtype(const Options& options, const DeviceSpec& device,
                               const ModelConfig& config);

GraphOptions graph_options(const Options& options, const OpenDevice& device, DType dtype,
                           QuantModes quant);

/// Every op of --impl is one that the graphs run.
Status check_impls(const ImplChoices& choices, ModelRunner& runner);

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_DEVICE_OPTIONS_H_
