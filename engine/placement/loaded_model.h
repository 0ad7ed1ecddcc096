/// A model that is ready to run: weights where they are read, graphs, sizes of batches.
#ifndef VLR_ENGINE_PLACEMENT_LOADED_MODEL_H_
#define VLR_ENGINE_PLACEMENT_LOADED_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/passes/model_runner.h"
#include "engine/passes/self_check.h"
#include "engine/placement/memory_planner.h"
#include "engine/placement/prepared_model.h"
#include "engine/runtime/device.h"
#include "engine/weights/device_weights.h"
#include "engine/weights/weight_store.h"
#include "engine/weights/weight_stream.h"
#include "model/quantization.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

struct LoadedModel {
  /// The device and its choices must outlive the model. `observers` are the runner's.
  static Result<std::unique_ptr<LoadedModel>> load(const Options& options, PreparedModel prepared,
                                                   OpenDevice& device, Observers observers);

  ModelConfig config;
  QuantModes modes;
  StoredQuantization stored;
  bool stored_quantized = false;  ///< some weight was quantised before
  WeightStore weights;
  DeviceWeights device_weights;
  std::unique_ptr<WeightStream> stream;  ///< null: nothing is streamed
  std::unique_ptr<ModelRunner> runner;
  PlacedModel placed;                     ///< its limits are those of every pass
  std::vector<MemoryPlan::Layer> layers;  ///< bytes of weights
  std::vector<WeightDistance> distances;  ///< of weights with fingerprints, if they were checked
  ReadStats read;                         ///< of the weights; their seconds, all in all
  double measure_seconds = 0, check_seconds = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_LOADED_MODEL_H_
