/// Measures a GPU's libraries on a model's products.
#ifndef VLR_ENGINE_PASSES_PRODUCT_MEASURING_H_
#define VLR_ENGINE_PASSES_PRODUCT_MEASURING_H_

#include <cstdint>
#include <vector>

#include "engine/passes/pass_runner.h"
#include "vlr/status.h"

namespace vlr {

/// The executors whose products are measured, and how large batches get.
struct MeasuredProducts {
  std::vector<const Executor*> text;  ///< the device's sections of the score pass
  const Executor* vision = nullptr;   ///< null: there is no tower
  int64_t max_tokens = 0, max_patches = 0;
};

/// Nothing on the CPU. Where there is no room to compare results in, cuBLASLt's first offer of the
/// kind that agrees is taken. Works in the runner's arena; `dtype` is that of activations.
Status measure_products(const MeasuredProducts& products, PassRunner& runner, DType dtype);
/// The most device memory that this takes, where there is so much.
Result<int64_t> measuring_bytes(const MeasuredProducts& products, PassRunner& runner);

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_PRODUCT_MEASURING_H_
