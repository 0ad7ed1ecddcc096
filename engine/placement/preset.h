/// Presets: options for cards of a size.
#ifndef VLR_ENGINE_PLACEMENT_PRESET_H_
#define VLR_ENGINE_PLACEMENT_PRESET_H_

#include <cstdint>
#include <string>

#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

struct ResolvedPreset {
  std::string name;  ///< high, mid or low; empty: none was asked for
  /// One paragraph: which and why, what it set, and what the caller had set.
  std::string explanation;
};

/// Whether there is a preset of the name in Options::preset, or none is asked for; kInvalidArgument.
Status check_preset(const Options& options);

/// Sets what Options::preset says of quant, max_length and batch_tokens, where the caller left them
/// at their defaults. A checkpoint that is `stored_quantized` stays as it is stored. `card_bytes`
/// is all memory of the card, 0: unknown. kInvalidArgument: no such preset.
Result<ResolvedPreset> resolve_preset(Options& options, bool stored_quantized, int64_t card_bytes);

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_PRESET_H_
