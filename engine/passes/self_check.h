/// A quantised model against what it was made from: after it was loaded, with the kernels that will
/// run it, where it will run. What each check catches: docs/quantisation.md.
#ifndef VLR_ENGINE_PASSES_SELF_CHECK_H_
#define VLR_ENGINE_PASSES_SELF_CHECK_H_

#include <span>
#include <string>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/executor.h"
#include "engine/runtime/weight_supply.h"
#include "engine/weights/weight_store.h"
#include "model/quantization.h"
#include "model/weight_plan.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// Rows of the products that choose_fused_products() compares; no multiple of the larger tiles.
constexpr int64_t kCheckedRows = 96;

/// What the checks work in on a GPU, at most: a few rows of the operands of the largest quantised
/// product (x, a residual, both results), and `workspace_bytes` of scratch that a product takes.
int64_t check_bytes(const WeightPlan& plan, DType dtype, int64_t workspace_bytes);

// Weights that are streamed are brought to the device by `stream`.

/// How far a quantised weight's product with the probe vector is from that of the weight before, as
/// relative L2.
struct WeightDistance {
  std::string source;  ///< the stored tensor
  double distance = 0;
};

/// Multiplies every quantised weight that has a fingerprint with the probe vector. kDataLoss names
/// the stored tensor whose result is further from its fingerprint than its format explains.
Result<std::vector<WeightDistance>> check_fingerprints(const QuantModes& modes,
                                                       const WeightLookup& weights,
                                                       const Fingerprints& fingerprints,
                                                       OpenDevice& device, DType dtype,
                                                       WeightSupply* stream = nullptr);

/// On a GPU: whether a product that decodes codes on their way gives the bits of the one that decodes
/// the weight first, for this model's shapes; only then it runs in exact mode.
Status choose_fused_products(const QuantModes& modes, const WeightLookup& weights,
                             OpenDevice& device, DType dtype, bool exact,
                             WeightSupply* stream = nullptr);

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_SELF_CHECK_H_
