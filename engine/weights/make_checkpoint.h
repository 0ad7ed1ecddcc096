/// Synthetic checkpoints (model/synthetic.h) as folders of files.
#ifndef VLR_ENGINE_WEIGHTS_MAKE_CHECKPOINT_H_
#define VLR_ENGINE_WEIGHTS_MAKE_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "vlr/status.h"

namespace vlr {

struct SyntheticOptions {
  int64_t max_shard_bytes = 0;  ///< of tensor data in a file; 0: 5 GB, for "a" 9 MB
  std::string tokenizer_json;   ///< a tokenizer to copy as tokenizer.json; empty: none
  /// Told the bytes written so far and those to write in all, every few megabytes.
  std::function<void(int64_t done, int64_t total)> progress;
  bool force = false;  ///< replace files of others
};

/// Writes config.json, the weights and, if there is more than one shard, their index, as
/// transformers would. Makes the folder if need be and replaces files of these names once all of it
/// is on disk. Holds a few megabytes. kInvalidArgument: another checkpoint or one of these files is
/// there, or another process is writing one.
Status make_checkpoint(std::string_view preset, const std::string& folder,
                       const SyntheticOptions& options = {});

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_MAKE_CHECKPOINT_H_
