/// Times of graph nodes, added up, as a table and as JSON.
#ifndef VLR_TOOLS_NODE_TIMES_H_
#define VLR_TOOLS_NODE_TIMES_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "bench/support/roofline.h"
#include "vlr/reranker.h"

namespace vlr::tools {

/// Several nodes' time, and what they did in it.
struct TimeRow {
  std::string run;   ///< "text", of one node "text.0"
  std::string op;    ///< "linear"
  std::string name;  ///< "layers.*.mlp.down_proj"; empty for all nodes of an op
  int64_t nodes = 0;
  double seconds = 0;
  double flops = 0, bytes = 0;  ///< what no implementation can avoid
  double roof_seconds = 0;      ///< what the peaks allow for that; 0: unknown
};

enum class GroupBy {
  kOp,     ///< all nodes of an op in a pass
  kPlace,  ///< the same node of all layers
  kNode,   ///< none
};

/// Longest first. A peak of 0 is unknown.
std::vector<TimeRow> group_times(std::span<const NodeTiming> nodes, GroupBy by,
                                 const bench::Peak& peak);

/// The first `most` rows; shares are of `total` seconds.
void print_times(std::span<const TimeRow> rows, double total, size_t most);

nlohmann::ordered_json times_json(std::span<const TimeRow> rows, double total);

double total_seconds(std::span<const NodeTiming> nodes);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_NODE_TIMES_H_
