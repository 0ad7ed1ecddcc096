/// The layers of a text pass in sections that take turns: the device's, and the host's in f32, which
/// run in the calling thread and the device's pool. Between two sections the residual stream is
/// carried over, as are the vision features that DeepStack adds in a section of the host.
#ifndef VLR_ENGINE_PASSES_LAYER_SECTIONS_H_
#define VLR_ENGINE_PASSES_LAYER_SECTIONS_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "engine/passes/pass_runner.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "model/text_decoder.h"
#include "vlr/status.h"

namespace vlr {

/// Consecutive layers of a text pass that are computed in one place.
struct LayerSection {
  TextSection layers;
  bool on_host = false;
  Graph graph;
  std::optional<Executor> executor;
};

/// A text pass as its sections are given it.
struct SectionArgs {
  RunArgs device, host;
  int64_t first_visual = 0;  ///< row of the features that is the host's first one
};

class LayerSections {
 public:
  /// config, runner and stream must outlive it.
  static Result<std::unique_ptr<LayerSections>> create(const ModelConfig& config, TextGraph which,
                                                       const std::set<int64_t>& host_layers,
                                                       const WeightLookup& weights,
                                                       PassRunner& runner,
                                                       const GraphOptions& options,
                                                       WeightSupply* stream);

  Status run(SectionArgs& args, std::string_view kind);
  /// `visual`: rows of features that the host's layers read, at most.
  Result<PassPlan> plan(const RunArgs& args, int64_t visual) const;

  bool any_on_host() const { return sections_.size() > 1; }
  /// All layers are on the device.
  const Executor& only() const { return *sections_[0].executor; }
  const std::deque<LayerSection>& list() const { return sections_; }

 private:
  LayerSections(const ModelConfig& config, const std::set<int64_t>& host_layers, PassRunner& runner,
                DType dtype)
      : config_(config), runner_(runner), host_layers_(host_layers), dtype_(dtype) {}
  Context& context(const LayerSection& s) const {
    return (s.on_host ? runner_.host() : runner_.device()).context();
  }
  /// Bytes of what is carried between sections: rows of the residual stream, of final tokens, of
  /// vision features.
  struct Carried {
    int64_t device = 0, host = 0, pinned = 0;
  };
  Carried carried(const Sizes& sizes, int64_t visual) const;
  std::vector<size_t> host_levels() const;
  /// Memory of every section, and what the largest of either place takes.
  struct Plans {
    std::vector<RunPlan> each;
    int64_t device_bytes = 0, host_bytes = 0;
  };
  Result<Plans> plan_each(const RunArgs& device, const RunArgs& host) const;
  Status bind_carried(SectionArgs& args, const Plans& plans);
  Status to_host(const Tensor& from, const Tensor& to);
  Status to_device(const Tensor& from, const Tensor& to);

  const ModelConfig& config_;
  PassRunner& runner_;
  const std::set<int64_t> host_layers_;
  const DType dtype_;
  std::deque<LayerSection> sections_;  // their executors know the addresses of the graphs
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_LAYER_SECTIONS_H_
