/// A graph of op nodes over named values with symbolic sizes. It says what is computed, and runs
/// nothing.
#ifndef VLR_MODEL_GRAPH_H_
#define VLR_MODEL_GRAPH_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/core/op.h"
#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr {

/// Sizes that are known only when a graph runs.
enum class Sym : uint8_t {
  kOne,           ///< a size known when the graph is built
  kTokens,        ///< T: tokens of the batch
  kSequences,     ///< B: sequences of the batch
  kVisualTokens,  ///< N: rows of vision features
  kPrefixTokens,  ///< tokens whose keys and values were computed before
  kPatches,       ///< P: image patches
  kFrames,        ///< frames of a vision batch, each a segment of attention
  kTiles,         ///< rows of a table of attention tiles
  kCount,
};
std::string_view sym_name(Sym s);

using Sizes = std::array<int64_t, static_cast<size_t>(Sym::kCount)>;
inline int64_t& size_of(Sizes& sizes, Sym s) { return sizes[static_cast<size_t>(s)]; }

/// sym * mul / div; a plain number where sym is kOne.
struct Dim {
  Sym sym = Sym::kOne;
  int64_t mul = 1;
  int64_t div = 1;
  Dim(int64_t n) : mul(n) {}  // NOLINT: implicit by design
  Dim(Sym s, int64_t m = 1, int64_t d = 1) : sym(s), mul(m), div(d) {}  // NOLINT
  int64_t at(const Sizes& sizes) const {
    return (sym == Sym::kOne ? 1 : sizes[static_cast<size_t>(sym)]) * mul / div;
  }
  std::string text() const;
};

/// A value of a graph, by its index there.
struct Value {
  int32_t id = -1;
  bool defined() const { return id >= 0; }
};

enum class ValueKind : uint8_t {
  kBound,       ///< the caller's tensor: an input or a result
  kWeight,      ///< from the weight store
  kActivation,  ///< lives in the arena from the node that writes it to the last that reads it
  kView,        ///< another value, or a part of it, seen with another shape
};

struct ValueInfo {
  std::string name;
  ValueKind kind = ValueKind::kActivation;
  DType dtype = DType::kF32;
  std::vector<Dim> dims;
  Value base;                                 ///< of a view
  std::function<Tensor(const Tensor&)> view;  ///< base's tensor -> this one's
};

/// A table of attention segments: the host's list, and the same where a device's kernels read it.
struct AttentionInput {
  AttentionInput(std::span<const ops::AttentionSegment> s, ops::AttentionTable t = {})
      : segments(s), table(t) {}
  AttentionInput(const std::vector<ops::AttentionSegment>& s)  // NOLINT: implicit by design
      : segments(s) {}
  std::span<const ops::AttentionSegment> segments;
  ops::AttentionTable table;
};

/// Tensors of a graph's values during one run, and its tables that are no tensors.
class Bindings {
 public:
  Bindings(std::vector<Tensor> tensors, std::span<const AttentionInput> segments)
      : tensors_(std::move(tensors)), segments_(segments) {}
  Tensor operator[](Value v) const {
    return v.defined() ? tensors_[static_cast<size_t>(v.id)] : Tensor{};
  }
  std::span<const ops::AttentionSegment> segments(int slot) const {
    return segments_[static_cast<size_t>(slot)].segments;
  }
  const ops::AttentionTable& table(int slot) const {
    return segments_[static_cast<size_t>(slot)].table;
  }
  void set(Value v, const Tensor& t) { tensors_[static_cast<size_t>(v.id)] = t; }

 private:
  std::vector<Tensor> tensors_;
  std::span<const AttentionInput> segments_;
};

/// One op with its operands. The functions are made by Graph::add from the op's contract.
struct Node {
  std::string name;     ///< "layers.3.mlp.down_proj"
  std::string_view op;  ///< "linear"
  std::vector<Value> inputs;
  Value output;
  std::vector<Value> more_outputs;  ///< activations that it writes beside `output`
  std::function<Status(const Bindings&, Context&)> run;
  std::function<Result<int64_t>(const Bindings&, const Context&)> workspace;
  std::function<Cost(const Bindings&)> cost;
  /// Whether the op has an implementation of a name: ops::expect_impl.
  Status (*expect_impl)(std::string_view impl, Device device) = nullptr;
};

/// Nodes that compute every row of their outputs from the same row of their inputs. They may run
/// for some rows at a time, all of them for the first rows, then all for the next ones: what only
/// they read and write is then as small as a chunk of rows.
struct RowRegion {
  size_t begin = 0, end = 0;  ///< nodes [begin, end)
  Sym rows = Sym::kTokens;    ///< what a row is: first axis of every operand that is no weight
};

class Graph {
 public:
  /// A tensor that the caller gives to every run under this name.
  Value bound(std::string name, DType dtype, std::vector<Dim> dims);
  /// A weight of the store; asked for again under the same name it is the same value.
  Value weight(std::string name);
  Value activation(std::string name, DType dtype, std::vector<Dim> dims);

  /// Columns [begin, begin + count) of the last axis.
  Value columns(Value x, int64_t begin, int64_t count);
  /// Rows [begin, begin + count) of the first axis.
  Value rows(Value x, int64_t begin, int64_t count);
  /// [rows, n * head_dim] as [rows, n, head_dim].
  Value heads(Value x, int64_t head_dim);
  /// Heads [begin, begin + count) of [rows, n, head_dim].
  Value head_range(Value x, int64_t begin, int64_t count);
  /// The reverse of heads(), for a contiguous value: [rows, n, d] as [rows, n * d].
  Value flat(Value x);
  /// `factor` consecutive rows of a contiguous value as one: [rows, c] as [rows / factor, c *
  /// factor].
  Value merge_rows(Value x, int64_t factor);
  /// The same storage under a new name, for an op that works in place. x must not be read
  /// afterwards.
  Value in_place(std::string name, Value x);

  /// Nodes that are added between the two are a region of rows.
  void begin_rows(Sym rows) { regions_.push_back({nodes_.size(), nodes_.size(), rows}); }
  void end_rows() { regions_.back().end = nodes_.size(); }
  const std::vector<RowRegion>& row_regions() const { return regions_; }

  /// Says that a node reads RunArgs::segments[slot].
  void use_segments(int slot) { num_segment_slots_ = std::max(num_segment_slots_, slot + 1); }
  int num_segment_slots() const { return num_segment_slots_; }

  /// Adds a node for an op: `args` makes the op's arguments from the run's tensors.
  template <class Op, class ArgsOf>
  Value add(std::string name, std::vector<Value> inputs, Value output, ArgsOf args,
            std::vector<Value> more_outputs = {}) {
    nodes_.push_back({
        .name = std::move(name),
        .op = Op::kName,
        .inputs = std::move(inputs),
        .output = output,
        .more_outputs = std::move(more_outputs),
        .run = [args](const Bindings& b, Context& ctx) { return ops::run<Op>(args(b), ctx); },
        .workspace = [args](const Bindings& b,
                            const Context& ctx) { return ops::workspace_bytes<Op>(args(b), ctx); },
        .cost = [args](const Bindings& b) { return Op::cost(args(b)); },
        .expect_impl = ops::expect_impl<Op>,
    });
    return output;
  }

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<ValueInfo>& values() const { return values_; }
  const ValueInfo& info(Value v) const { return values_[static_cast<size_t>(v.id)]; }
  /// The value that owns the storage of v.
  Value root(Value v) const;
  Value find(std::string_view name) const;  ///< undefined if there is none

  /// Every value is written before it is read and not read after it was overwritten in place;
  /// operands of a region have its rows. kInternal names the node.
  Status validate() const;

  /// One line a node; JSON and DOT for tools.
  std::string to_text() const;
  std::string to_json() const;
  std::string to_dot() const;

 private:
  Value push(ValueInfo info);
  std::vector<ValueInfo> values_;
  std::vector<Node> nodes_;
  std::vector<RowRegion> regions_;
  int num_segment_slots_ = 0;
};

}  // namespace vlr

#endif  // VLR_MODEL_GRAPH_H_
