/// Runs a graph's nodes in order, in one arena.
#ifndef VLR_ENGINE_RUNTIME_EXECUTOR_H_
#define VLR_ENGINE_RUNTIME_EXECUTOR_H_

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/arena.h"
#include "engine/runtime/device.h"
#include "engine/runtime/weight_supply.h"
#include "kernels/core/context.h"
#include "model/graph.h"
#include "vlr/status.h"

namespace vlr {

struct NodeTime {
  std::string_view name, op;  ///< of the graph's node
  double seconds = 0;
  Cost cost;
};

/// A copy of streamed weights beside a run.
struct CopyTime {
  std::string_view name;  ///< of the group
  int64_t bytes = 0;
  double start = 0;  ///< since the first node started; negative: before it
  double seconds = 0;
};

/// What a run is given: sizes, the caller's tensors, attention tables, and who watches.
struct RunArgs {
  Sizes sizes{};
  std::map<std::string, Tensor, std::less<>> bound;  ///< every kBound value by name
  std::vector<AttentionInput> segments;              ///< by slot
  std::vector<NodeTime>* times = nullptr;            ///< appended, one per node
  std::vector<CopyTime>* copies = nullptr;           ///< appended, with `times`
  /// After the node that wrote it; on a GPU the node may still be running.
  std::function<Status(std::string_view name, const ConstTensor&)> on_value;
  std::function<bool(const Node&)> only;  ///< runs these nodes and skips the others; null: all
  /// Regions of rows run so many at a time, a multiple of 64; 0: all at once. Values that only a
  /// region reads and writes are then chunks, also where on_value sees them.
  int64_t row_chunk = 0;
  OpenDevice* device = nullptr;  ///< needed for the times of a GPU's run
};

/// Memory of one run: activations, then workspace, in one buffer.
struct RunPlan {
  int64_t activation_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t row_chunk = 0;  ///< of RunArgs
  int64_t total() const { return activation_bytes + workspace_bytes; }
  std::vector<Tensor> tensors;      ///< of every value, data relative to address 0 for activations;
                                    ///< of a region's own ones, as they are for its first rows
  std::vector<int64_t> offsets;     ///< of every activation in the arena, -1 for other values
  std::vector<Lifetime> lifetimes;  ///< of what has an offset, in nodes
  std::vector<int64_t> node_workspace;  ///< of every node
};

/// Finds a weight by name. For planning without weights, the tensor may have no data.
using WeightLookup = std::function<Result<ConstTensor>(std::string_view name)>;

/// Keeps references to graph and weights; both must outlive it. One thread at a time.
class Executor {
 public:
  /// Checks the graph and looks up every weight: the error is that of the lookup. `stream`, if not
  /// null, brings weights to the device before the nodes that read them; it must outlive this.
  static Result<Executor> create(const Graph& graph, const WeightLookup& weights,
                                 WeightSupply* stream = nullptr);
  /// `weights`: anything with get(name).
  template <class Weights>
  requires requires(const Weights& w) { w.get(std::string_view()); }
  static Result<Executor> create(const Graph& graph, const Weights& weights) {
    return create(graph, [&weights](std::string_view name) { return weights.get(name); });
  }

  /// Lifetimes -> offsets for these sizes. `bound` tensors may be absent: they are then shaped by
  /// `sizes`.
  Result<RunPlan> plan(const RunArgs& args, const Context& ctx) const;

  /// Runs all nodes. `arena` holds at least plan().total() bytes. A failing node is named in the
  /// error.
  Status run(const RunArgs& args, const RunPlan& plan, std::span<std::byte> arena,
             Context& ctx) const;

  const Graph& graph() const { return *graph_; }

 private:
  /// A region, and what running it for some of its rows takes.
  struct Region {
    RowRegion rows;
    std::vector<Value> values;  // that its nodes name, and what those are views of; bases first
    int64_t chunk(const Sizes& sizes, int64_t row_chunk) const {
      const int64_t all = sizes[static_cast<size_t>(rows.rows)];
      return row_chunk > 0 ? std::min(row_chunk, all) : all;
    }
  };
  /// The tensors of a region for rows [begin, begin + count).
  void bind_rows(const Region& region, const std::vector<Tensor>& whole, int64_t begin,
                 int64_t count, Bindings& bindings) const;
  /// Calls body(node, bindings) for every node, for every chunk of rows in which it runs, or only
  /// for the first and the last one.
  enum class Chunks : uint8_t { kAll, kEnds };
  template <class Body>
  Status for_each_node(const RunPlan& plan, const Sizes& sizes, Chunks chunks,
                       const std::vector<Tensor>& tensors, Bindings& bindings,
                       const Body& body) const;

  const Graph* graph_ = nullptr;
  std::vector<Region> regions_;
  std::vector<int> region_of_value_;  // the only region that uses an activation, or -1
  std::vector<Tensor> weights_;       // by value id; undefined for others
  WeightSupply* stream_ = nullptr;
  std::vector<int> group_of_node_;  // what a node reads of the stream, or -1
  std::vector<Lifetime>
      lifetimes_;  // by value id, bytes unset; first = -1 for values not in the arena
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_EXECUTOR_H_
