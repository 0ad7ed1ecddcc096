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
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

struct QuantizeOptions {
  int64_t max_shard_bytes = int64_t{1} << 30;  ///< of tensor data; what is held in memory
  /// Gives log-odds of the relevance probe by the checkpoint in `folder`, which is what was written,
  /// to be kept with it. Empty: none are kept.
  std::function<Result<std::vector<float>>(const std::string& folder)> probe = {};
  /// Told the bytes read so far and those to read in all, after every tensor.
  std::function<void(int64_t done, int64_t total)> progress = {};
  bool force = false;  ///< replace files that `vlr quantize` did not write
};

/// Writes `from`'s tensors to `to`, those that the rules choose quantised with their fingerprints;
/// config.json, last, with a quantization_config that transformers and vlr read; and copies of all
/// other files but weights. Makes the folder, which must not be `from`, once the rules make sense;
/// replaces files of these names once all of it is on disk. kInvalidArgument where rules choose
/// nothing, one of them matches nothing, or a tensor is quantised already; and where `to` has a
/// checkpoint or files of somebody else, or another process is writing one there.
Status quantize_checkpoint(const std::string& from, const std::string& to,
                           std::span<const QuantRule> rules, const QuantizeOptions& options,
                           ThreadPool& threads);

/// The options to ask such a checkpoint with for QuantizeOptions::probe: its codes decoded, and
/// multiplied as dense weights are. Nothing is compared with what is not known yet.
Options decoding_options(Options options, std::span<const QuantRule> rules);
/// Log-odds of the relevance probe's documents; kDataLoss where one is not scored.
Result<std::vector<float>> probe_log_odds(Reranker& reranker);

}  // namespace vlr

#endif  // VLR_ENGINE_API_QUANTIZE_CHECKPOINT_H_
