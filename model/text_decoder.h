/// The text decoder as a graph over packed tokens.
#ifndef VLR_MODEL_TEXT_DECODER_H_
#define VLR_MODEL_TEXT_DECODER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "model/config.h"
#include "model/graph.h"
#include "model/graph_builder.h"

namespace vlr {

enum class TextGraph {
  kPrefix,  ///< shared query prefixes: computes keys and values of every layer, nothing after the
            ///< last ones
  kScore,   ///< documents: attends to prefixes and own tokens, ends in log-odds
};

/// Names of the values that a pass is given and gives back.
namespace text_values {
inline constexpr std::string_view kIds = "ids", kVisualRow = "visual_row", kPositions = "positions",
                                  kRopeAxis = "rope.axis", kRopeInvFreq = "rope.inv_freq",
                                  kLastRows = "last_rows", kLastPositions = "last_positions",
                                  kLogOdds = "log_odds", kX = "x", kXFinal = "x.final";
std::string prefix_kv(int64_t layer);  ///< "prefix_kv.3"
}  // namespace text_values

/// Slots of RunArgs::segments.
struct TextSegments {
  static constexpr int kAll = 0;    ///< a sequence's own tokens as queries
  static constexpr int kFinal = 1;  ///< its last token as the only query, row b of the final rows
};

/// Consecutive layers of a pass, and what is before and behind them.
struct TextSection {
  int64_t begin = 0, end = 0;  ///< layers [begin, end)
  bool embedding = true;       ///< starts with the embeddings
  bool head = true;            ///< ends in log-odds; kScore only
};

/// Bound values: T own tokens, B sequences, N rows of vision features, Tp prefix tokens; L layers.
///   ids [T], visual_row [T] i32          token ids; row of the vision features, or -1
///   positions [3, T] i32                 M-RoPE
///   visual [N, C], deepstack.K [N, C]    vision features (only with a vision tower)
///   rope.axis, rope.inv_freq             text_rotary_pairs()
/// Vision features and prefixes have the dtype of GraphOptions.
/// kScore:   last_rows [B] i32, last_positions [3, B] i32, prefix_kv.L [Tp, 2 * Hkv * D] of every
///           layer -> log_odds [B]
/// kPrefix:  -> prefix_kv.L [T, 2 * Hkv * D] of every layer: rotated keys, then values
Graph build_text_graph(const ModelConfig& config, TextGraph which,
                       const GraphOptions& options = {});

/// A section alone. Of the values above it has those that its layers read, and two more:
///   x [T, C]        what the layers before it made, or the layers behind it read: it is changed
///                   where it stands
///   x.final [B, C]  between the last layer and a head that are in two sections
Graph build_text_graph(const ModelConfig& config, TextGraph which, const TextSection& section,
                       const GraphOptions& options);

}  // namespace vlr

#endif  // VLR_MODEL_TEXT_DECODER_H_
