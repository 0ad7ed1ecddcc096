/// Quantises a checkpoint ahead: reads a folder, writes another one that opens at once.
#ifndef VLR_ENGINE_API_QUANTIZE_CHECKPOINT_H_
#define VLR_ENGINE_API_QUANTIZE_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "model/quantization.h"
#include "vlr/status.h"

namespace vlr {

struct QuantizeOptions {
  int64_t max_shard_bytes = int64_t{1} << 30;  ///< of tensor data; what is held in memory
  /// Gives log-odds of the relevance probe by the model as it is, to be kept with the checkpoint.
  /// Asked for once it is known that the rules make sense; empty: none are kept.
  std::function<Result<std::vector<float>>()> probe = {};
  /// Told the bytes read so far and those to read in all, after every tensor.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

/// Writes `from`'s tensors to `to`, those that the rules choose quantised with their fingerprints;
/// config.json, last, with a quantization_config that transformers and vlr read; and copies of all
/// other files but weights. Makes the folder, which must not be `from`, once the rules make sense;
/// replaces files of these names. kInvalidArgument where rules choose nothing, one of them matches
/// nothing, or a tensor is quantised already.
Status quantize_checkpoint(const std::string& from, const std::string& to,
                           std::span<const QuantRule> rules, const QuantizeOptions& options,
                           ThreadPool& threads);

}  // namespace vlr

#endif  // VLR_ENGINE_API_QUANTIZE_CHECKPOINT_H_
