/// One method per op: what a model's layers are written with. Names of nodes and activations get
/// the builder's scope in front ("layers.3."), weights their full name.
#ifndef VLR_MODEL_GRAPH_BUILDER_H_
#define VLR_MODEL_GRAPH_BUILDER_H_

#include <array>
#include <string>
#include <string_view>

#include "kernels/gelu/gelu.h"
#include "kernels/linear/linear.h"
#include "model/graph.h"
#include "model/quantization.h"

namespace vlr {

/// How a model is written down for a device. What is fused computes the same with fewer passes over
/// memory and, in 16 bits, fewer roundings.
struct GraphOptions {
  DType dtype = DType::kF32;   ///< of activations: f32 on the CPU, bf16 or f16 on a GPU
  bool fuse_residual = false;  ///< residual sums in the product before them
  bool fuse_qk = false;        ///< QK-norm and rotation of queries and keys as one op
  bool fuse_gelu = false;      ///< the vision blocks' GELU in the product before it
  bool fuse_quantize = false;  ///< activations quantised by the norm or the gate before a product
  QuantModes quant = {};       ///< of weights; those that are not there are dense
};

/// The weight of a linear layer, or some of its rows: dense, or codes and what stands beside them.
struct LinearWeight {
  QuantMode mode = QuantMode::kNone;
  Value w;  ///< dense, or the codes
  /// What its format has beside them, in that order: tensors_of().
  std::array<Value, kMaxSidecars> beside;
  int64_t first_row = 0;  ///< in w, where only weights are quantised; elsewhere w is a view
};

/// What a linear layer reads: activations, or their codes where the op before it made those.
struct LinearInput {
  LinearInput(Value values) : x(values) {}  // NOLINT: implicit by design
  LinearInput(Value codes, Value code_scale) : q(codes), scale(code_scale) {}
  Value x;
  Value q, scale;
};

/// Attention's operands beside q, k and v.
struct AttentionOptions {
  Value prefix_k, prefix_v;
  int segments = 0;  ///< slot of RunArgs::segments
  float scale = 1;
  bool causal = false;
};

class GraphBuilder {
 public:
  explicit GraphBuilder(const GraphOptions& o = {}) : options(o) {}

  Graph graph;
  GraphOptions options;
  std::string scope;         ///< of nodes and activations
  std::string weight_scope;  ///< of weights

  Value weight(std::string_view name) { return graph.weight(weight_scope + std::string(name)); }
  LinearWeight linear_weight(std::string_view name);
  LinearWeight rows(LinearWeight w, int64_t begin, int64_t count);

  // Out of place: a new activation named scope + name. `to` is a bound value to write instead.
  Value embedding(std::string_view name, Value ids, Value visual_row, Value table, Value visual,
                  int64_t width, Value to = {});
  Value linear(std::string_view name, const LinearInput& in, const LinearWeight& w, Value bias,
               int64_t out_features, Value to = {});
  Value linear_gelu(std::string_view name, const LinearInput& in, const LinearWeight& w, Value bias,
                    int64_t out_features);
  /// RMSNorm for a linear layer alone: in the form that the layer's weight wants.
  LinearInput rmsnorm_for(const LinearWeight& next, std::string_view name, Value x, Value w,
                          float eps);
  Value rmsnorm(std::string_view name, Value x, Value w, float eps);
  Value layernorm(std::string_view name, Value x, Value w, Value bias, float eps);
  Value gelu(std::string_view name, Value x, ops::GeluKind kind);
  Value attention(std::string_view name, Value q, Value k, Value v, const AttentionOptions& how);
  Value rope_table(std::string_view name, Value positions, Value axis, Value inv_freq,
                   int64_t pairs);
  Value patch_embed(std::string_view name, Value patches, Value w, Value bias, int64_t width);
  Value gather_rows(std::string_view name, Value x, Value rows, Value to = {});
  void convert(std::string_view name, Value x, Value to);
  void score_head(std::string_view name, Value x, Value norm_weight, Value w, float eps, Value to);

  // In place: the result has the storage of x (of a, of gate), which must not be read afterwards.
  Value rmsnorm_in_place(std::string_view name, Value x, Value w, float eps);
  Value rope_in_place(std::string_view name, Value x, Value table);
  /// RMSNorm of every head, the first num_q_heads with q_weight, the others with k_weight; then
  /// rotation.
  Value qk_norm_rope_in_place(std::string_view name, Value x, Value q_weight, Value k_weight,
                              int64_t num_q_heads, Value table, float eps);
  /// residual + linear(x), in the residual's storage.
  Value linear_add_in_place(std::string_view name, std::string_view sum_name, const LinearInput& in,
                            const LinearWeight& w, Value bias, Value residual);
  /// The MLP's gate for a linear layer alone, in the form that the layer's weight wants; in gate's
  /// storage, or as codes of its own.
  LinearInput swiglu_for(const LinearWeight& next, std::string_view name, Value gate, Value up);
  Value swiglu_in_place(std::string_view name, Value gate, Value up);
  Value add_in_place(std::string_view name, Value a, Value b);
  Value gelu_in_place(std::string_view name, Value x, ops::GeluKind kind);
  Value deepstack_add_in_place(std::string_view name, Value x, Value visual_row, Value features);
  Value vision_pos_embed_in_place(std::string_view name, Value x, Value table, Value indices,
                                  Value weights);

 private:
  std::string scoped(std::string_view name) const { return scope + std::string(name); }
  /// A new activation, or under its name the bound value `to`.
  Value result(std::string_view name, Value to, DType dtype, std::vector<Dim> dims);
  /// An activation shaped like x, but for its last axis.
  Value like(std::string_view name, Value x, int64_t last);

  /// What follows a linear layer's product at once.
  struct Epilogue {
    Value bias = {}, residual = {};
    ops::Activation activation = ops::Activation::kNone;
  };
  /// One linear layer, by its weight's mode, into y.
  Value product(std::string_view name, const LinearInput& in, const LinearWeight& w,
                const Epilogue& after, Value y);
  Value weight_only_product(std::string_view name, Value x, const LinearWeight& w,
                            const Epilogue& after, Value y);
  struct Codes {
    Value q, scale, outliers;
  };
  Codes new_codes(std::string_view name, Value x, const LinearWeight& w);
  Codes quantize_rows(std::string_view name, Value x, const LinearWeight& w);
};

}  // namespace vlr

#endif  // VLR_MODEL_GRAPH_BUILDER_H_
