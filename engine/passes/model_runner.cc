#include "engine/passes/model_runner.h"

namespace vlr {

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(const ModelConfig& config,
                                                         const WeightLookup& weights,
                                                         OpenDevice& device,
                                                         const GraphOptions& options,
                                                         Observers observers, WeightSupply* stream,
                                                         const std::set<int64_t>& host_layers) {
  VLR_ASSIGN_OR_RETURN(std::unique_ptr<PassRunner> runner,
                       PassRunner::create(device, std::move(observers)));
  std::unique_ptr<ModelRunner> r(new ModelRunner(options.dtype, std::move(runner)));
  r->prefixes_ =
      std::make_unique<PrefixMemory>(config.text_config, options.dtype, host_layers, device);
  const auto text = [&](TextGraph which) {
    return TextPass::create(config, which, host_layers, weights, *r->prefixes_, *r->runner_,
                            options, stream);
  };
  VLR_ASSIGN_OR_RETURN(r->score_, text(TextGraph::kScore));
  VLR_ASSIGN_OR_RETURN(r->prefix_, text(TextGraph::kPrefix));
  if (config.vision_config) {
    VLR_ASSIGN_OR_RETURN(r->vision_, VisionPass::create(*config.vision_config, weights, *r->runner_,
                                                        options, stream));
  }
  return r;
}

Result<int64_t> ModelRunner::run_vision(std::span<const VisionInput> inputs, int64_t batch_patches,
                                        VisionFeatures& features, int64_t more_rows) {
  if (vision_) return vision_->run(inputs, batch_patches, features, more_rows);
  features.rows = 0;
  if (inputs.empty() && more_rows == 0) return int64_t{0};
  return {Code::kInvalidArgument, "this checkpoint has no vision tower"};
}

Result<std::vector<float>> ModelRunner::run_scores(std::span<const TextInput> batch,
                                                   const VisionFeatures& features) {
  VLR_ASSIGN_OR_RETURN(const Ticket ticket, score_->start(batch, features));
  return score_->finish(ticket);
}

Status ModelRunner::reserve_prefixes(int64_t rows) {
  if (rows <= prefixes_->capacity()) return {};
  score_->forget_recordings();
  return prefixes_->reserve(rows);
}

MeasuredProducts ModelRunner::products(int64_t max_tokens, int64_t max_patches) const {
  MeasuredProducts out{.text = {}, .max_tokens = max_tokens, .max_patches = max_patches};
  for (const LayerSection& s : score_->sections().list()) {
    if (!s.on_host) out.text.push_back(&*s.executor);
  }
  if (vision_) out.vision = &vision_->executor();
  return out;
}

Status ModelRunner::measure(int64_t max_tokens, int64_t max_patches) {
  return measure_products(products(max_tokens, max_patches), *runner_, dtype_);
}

Result<int64_t> ModelRunner::measuring_bytes(int64_t max_tokens, int64_t max_patches) const {
  return vlr::measuring_bytes(products(max_tokens, max_patches), *runner_);
}

std::vector<const Graph*> ModelRunner::graphs() const {
  std::vector<const Graph*> out;
  for (const TextPass* pass : {score_.get(), prefix_.get()}) {
    for (const LayerSection& s : pass->sections().list()) {
      if (!s.on_host) out.push_back(&s.graph);
    }
  }
  if (vision_) out.push_back(&vision_->graph());
  return out;
}

}  // namespace vlr
