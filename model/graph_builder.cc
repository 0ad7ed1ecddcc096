#include "model/graph_builder.h"

#include "kernels/add/add.h"
#include "kernels/attention/attention.h"
#include "kernels/convert/convert.h"
#include "kernels/deepstack_add/deepstack_add.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gather_rows/gather_rows.h"
#include "kernels/layernorm/layernorm.h"
#include "kernels/linear/linear.h"
#include "kernels/linear_w8a8/linear_w8a8.h"
#include "kernels/linear_weight_only/linear_weight_only.h"
#include "kernels/patch_embed/patch_embed.h"
#include "kernels/qk_norm_rope/qk_norm_rope.h"
#include "kernels/quantize_rows/quantize_rows.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rmsnorm_quantize/rmsnorm_quantize.h"
#include "kernels/rope/rope.h"
#include "kernels/rope_table/rope_table.h"
#include "kernels/score_head/score_head.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/swiglu_quantize/swiglu_quantize.h"
#include "kernels/vision_pos_embed/vision_pos_embed.h"

namespace vlr {

Value GraphBuilder::like(std::string_view name, Value x, int64_t last) {
  std::vector<Dim> dims = graph.info(x).dims;
  dims.back() = last;
  return graph.activation(scoped(name), graph.info(x).dtype, std::move(dims));
}

Value GraphBuilder::result(std::string_view name, Value to, DType dtype, std::vector<Dim> dims) {
  return to.defined() ? graph.in_place(scoped(name), to)
                      : graph.activation(scoped(name), dtype, std::move(dims));
}

Value GraphBuilder::embedding(std::string_view name, Value ids, Value visual_row, Value table,
                              Value visual, int64_t width, Value to) {
  const Value y = result(name, to, options.dtype, {graph.info(ids).dims[0], width});
  return graph.add<ops::Embedding>(scoped(name), {ids, visual_row, table, visual}, y,
                                   [=](const Bindings& b) {
                                     return ops::Embedding::Args{.ids = b[ids],
                                                                 .visual_row = b[visual_row],
                                                                 .table = b[table],
                                                                 .visual = b[visual],
                                                                 .y = b[y]};
                                   });
}

LinearWeight GraphBuilder::linear_weight(std::string_view name) {
  const std::string full = weight_scope + std::string(name);
  LinearWeight w;
  w.w = graph.weight(full);
  const auto it = options.quant.find(full);
  if (it == options.quant.end()) return w;
  w.mode = it->second;
  size_t i = 0;  // their names alone are wanted here
  for (const Sidecar& s : format_info(stored_format(w.mode)).sidecars(1, 64, {}))
    w.beside[i++] = graph.weight(full + std::string(s.suffix));
  return w;
}

LinearWeight GraphBuilder::rows(LinearWeight w, int64_t begin, int64_t count) {
  if (mode_info(w.mode).computes == Computes::kWeightOnly) {
    w.first_row += begin;  // how many rows, the output says
    return w;
  }
  w.w = graph.rows(w.w, begin, count);
  if (is_w8a8(w.mode)) w.beside[0] = graph.rows(w.beside[0], begin, count);
  return w;
}

Value GraphBuilder::linear(std::string_view name, const LinearInput& in, const LinearWeight& w,
                           Value bias, int64_t out_features, Value to) {
  Value y = to;
  if (!y.defined()) {
    std::vector<Dim> dims = graph.info(in.x.defined() ? in.x : in.q).dims;
    dims.back() = out_features;
    y = graph.activation(scoped(name), options.dtype, std::move(dims));
  }
  return product(name, in, w, {.bias = bias}, y);
}

Value GraphBuilder::linear_gelu(std::string_view name, const LinearInput& in, const LinearWeight& w,
                                Value bias, int64_t out_features) {
  if (sets_outliers_apart(w.mode)) {  // two products, and the activation is of their sum
    const Value sum = linear(name, in, w, bias, out_features);
    return gelu_in_place(std::string(name) + ".act", sum, ops::GeluKind::kTanh);
  }
  const Value y = like(name, in.x, out_features);
  return product(name, in, w, {.bias = bias, .activation = ops::Activation::kGeluTanh}, y);
}

Value GraphBuilder::linear_add_in_place(std::string_view name, std::string_view sum_name,
                                        const LinearInput& in, const LinearWeight& w, Value bias,
                                        Value residual) {
  if (!options.fuse_residual) {
    const Value y = linear(name, in, w, bias, graph.info(residual).dims.back().mul);
    return add_in_place(sum_name, residual, y);
  }
  const Value y = graph.in_place(scoped(sum_name), residual);
  return product(name, in, w, {.bias = bias, .residual = residual}, y);
}

Value GraphBuilder::product(std::string_view name, const LinearInput& in, const LinearWeight& w,
                            const Epilogue& after, Value y) {
  if (w.mode == QuantMode::kNone) {
    return graph.add<ops::Linear>(scoped(name), {in.x, w.w, after.bias, after.residual}, y,
                                  [=, x = in.x](const Bindings& b) {
                                    return ops::Linear::Args{.x = b[x],
                                                             .w = b[w.w],
                                                             .bias = b[after.bias],
                                                             .residual = b[after.residual],
                                                             .y = b[y],
                                                             .activation = after.activation};
                                  });
  }
  if (!is_w8a8(w.mode)) return weight_only_product(name, in.x, w, after, y);
  const Codes codes = in.q.defined() ? Codes{.q = in.q, .scale = in.scale, .outliers = {}}
                                     : quantize_rows(name, in.x, w);
  graph.add<ops::LinearW8A8>(scoped(name),
                             {codes.q, codes.scale, w.w, w.beside[0], after.bias, after.residual},
                             y, [=](const Bindings& b) {
                               return ops::LinearW8A8::Args{.x = b[codes.q],
                                                            .x_scale = b[codes.scale],
                                                            .w = b[w.w],
                                                            .w_scale = b[w.beside[0]],
                                                            .bias = b[after.bias],
                                                            .residual = b[after.residual],
                                                            .y = b[y],
                                                            .activation = after.activation};
                             });
  if (!codes.outliers.defined()) return y;
  const std::string outliers = std::string(name) + ".outliers";
  if (!options.fuse_residual) {
    const Value more = like(outliers, codes.outliers, graph.info(y).dims.back().mul);
    return add_in_place(std::string(name) + ".sum", y,
                        weight_only_product(outliers, codes.outliers, w, {}, more));
  }
  const Value sum = graph.in_place(graph.info(y).name + ".with_outliers", y);
  return weight_only_product(outliers, codes.outliers, w, {.residual = y}, sum);
}

Value GraphBuilder::weight_only_product(std::string_view name, Value x, const LinearWeight& w,
                                        const Epilogue& after, Value y) {
  return graph.add<ops::LinearWeightOnly>(
      scoped(name), {x, w.w, w.beside[0], w.beside[1], w.beside[2], after.bias, after.residual}, y,
      [=](const Bindings& b) {
        return ops::LinearWeightOnly::Args{
            .x = b[x],
            .w = quantized_weight(
                stored_format(w.mode), b[w.w],
                std::array<ConstTensor, 3>{b[w.beside[0]], b[w.beside[1]], b[w.beside[2]]}),
            .first_row = w.first_row,
            .bias = b[after.bias],
            .residual = b[after.residual],
            .y = b[y],
            .activation = after.activation};
      });
}

GraphBuilder::Codes GraphBuilder::new_codes(std::string_view name, Value x, const LinearWeight& w) {
  const std::vector<Dim> dims = graph.info(x).dims;
  Codes c;
  c.q = graph.activation(scoped(name) + ".codes", format_info(stored_format(w.mode)).code_dtype,
                         dims);
  c.scale = graph.activation(scoped(name) + ".code_scale", DType::kF32, {dims[0]});
  if (sets_outliers_apart(w.mode))
    c.outliers = graph.activation(scoped(name) + ".outliers", graph.info(x).dtype, dims);
  return c;
}

GraphBuilder::Codes GraphBuilder::quantize_rows(std::string_view name, Value x,
                                                const LinearWeight& w) {
  const Codes c = new_codes(name, x, w);
  const bool apart = sets_outliers_apart(w.mode);
  graph.add<ops::QuantizeRows>(
      scoped(name) + ".quantize", {x}, c.q,
      [=, by_column = w.mode == QuantMode::kLlmInt8Batch](const Bindings& b) {
        return ops::QuantizeRows::Args{.x = b[x],
                                       .q = b[c.q],
                                       .scale = b[c.scale],
                                       .outliers = b[c.outliers],
                                       .threshold = apart ? kOutlierThreshold : 0,
                                       .by_column = by_column};
      },
      {c.scale, c.outliers});
  return c;
}

LinearInput GraphBuilder::rmsnorm_for(const LinearWeight& next, std::string_view name, Value x,
                                      Value w, float eps) {
  if (!options.fuse_quantize || !is_w8a8(next.mode) || sets_outliers_apart(next.mode))
    return rmsnorm(name, x, w, eps);
  const Codes c = new_codes(name, x, next);
  graph.add<ops::RmsNormQuantize>(
      scoped(name), {x, w}, c.q,
      [=](const Bindings& b) {
        return ops::RmsNormQuantize::Args{
            .x = b[x], .weight = b[w], .q = b[c.q], .scale = b[c.scale], .eps = eps};
      },
      {c.scale});
  return {c.q, c.scale};
}

LinearInput GraphBuilder::swiglu_for(const LinearWeight& next, std::string_view name, Value gate,
                                     Value up) {
  if (!options.fuse_quantize || !is_w8a8(next.mode) || sets_outliers_apart(next.mode))
    return swiglu_in_place(name, gate, up);
  const Codes c = new_codes(name, gate, next);
  graph.add<ops::SwiGluQuantize>(
      scoped(name), {gate, up}, c.q,
      [=](const Bindings& b) {
        return ops::SwiGluQuantize::Args{
            .gate = b[gate], .up = b[up], .q = b[c.q], .scale = b[c.scale]};
      },
      {c.scale});
  return {c.q, c.scale};
}

Value GraphBuilder::rmsnorm(std::string_view name, Value x, Value w, float eps) {
  const Value y = like(name, x, graph.info(x).dims.back().mul);
  return graph.add<ops::RmsNorm>(scoped(name), {x, w}, y, [=](const Bindings& b) {
    return ops::RmsNorm::Args{.x = b[x], .weight = b[w], .y = b[y], .eps = eps};
  });
}

Value GraphBuilder::rmsnorm_in_place(std::string_view name, Value x, Value w, float eps) {
  const Value y = graph.in_place(scoped(name), x);
  return graph.add<ops::RmsNorm>(scoped(name), {x, w}, y, [=](const Bindings& b) {
    return ops::RmsNorm::Args{.x = b[x], .weight = b[w], .y = b[y], .eps = eps};
  });
}

Value GraphBuilder::layernorm(std::string_view name, Value x, Value w, Value bias, float eps) {
  const Value y = like(name, x, graph.info(x).dims.back().mul);
  return graph.add<ops::LayerNorm>(scoped(name), {x, w, bias}, y, [=](const Bindings& b) {
    return ops::LayerNorm::Args{.x = b[x], .weight = b[w], .bias = b[bias], .y = b[y], .eps = eps};
  });
}

Value GraphBuilder::swiglu_in_place(std::string_view name, Value gate, Value up) {
  const Value y = graph.in_place(scoped(name), gate);
  return graph.add<ops::SwiGlu>(scoped(name), {gate, up}, y, [=](const Bindings& b) {
    return ops::SwiGlu::Args{.gate = b[gate], .up = b[up], .y = b[y]};
  });
}

Value GraphBuilder::gelu(std::string_view name, Value x, ops::GeluKind kind) {
  const Value y = like(name, x, graph.info(x).dims.back().mul);
  return graph.add<ops::Gelu>(scoped(name), {x}, y, [=](const Bindings& b) {
    return ops::Gelu::Args{.x = b[x], .y = b[y], .kind = kind};
  });
}

Value GraphBuilder::gelu_in_place(std::string_view name, Value x, ops::GeluKind kind) {
  const Value y = graph.in_place(scoped(name), x);
  return graph.add<ops::Gelu>(scoped(name), {x}, y, [=](const Bindings& b) {
    return ops::Gelu::Args{.x = b[x], .y = b[y], .kind = kind};
  });
}

Value GraphBuilder::attention(std::string_view name, Value q, Value k, Value v,
                              const AttentionOptions& how) {
  const Value o = like(name, q, graph.info(q).dims.back().mul);
  const AttentionOptions opt = how;
  graph.use_segments(opt.segments);
  return graph.add<ops::Attention>(
      scoped(name), {q, k, v, opt.prefix_k, opt.prefix_v}, o, [=](const Bindings& b) {
        return ops::Attention::Args{.q = b[q],
                                    .k = b[k],
                                    .v = b[v],
                                    .prefix_k = b[opt.prefix_k],
                                    .prefix_v = b[opt.prefix_v],
                                    .segments = b.segments(opt.segments),
                                    .table = b.table(opt.segments),
                                    .o = b[o],
                                    .scale = opt.scale,
                                    .causal = opt.causal};
      });
}

Value GraphBuilder::rope_table(std::string_view name, Value positions, Value axis, Value inv_freq,
                               int64_t pairs) {
  const Value table =
      graph.activation(scoped(name), DType::kF32, {graph.info(positions).dims[1], 2, pairs});
  return graph.add<ops::RopeTable>(
      scoped(name), {positions, axis, inv_freq}, table, [=](const Bindings& b) {
        return ops::RopeTable::Args{
            .positions = b[positions], .axis = b[axis], .inv_freq = b[inv_freq], .table = b[table]};
      });
}

Value GraphBuilder::rope_in_place(std::string_view name, Value x, Value table) {
  const Value y = graph.in_place(scoped(name), x);
  return graph.add<ops::Rope>(scoped(name), {x, table}, y, [=](const Bindings& b) {
    return ops::Rope::Args{.x = b[x], .table = b[table], .y = b[y]};
  });
}

Value GraphBuilder::qk_norm_rope_in_place(std::string_view name, Value x, Value q_weight,
                                          Value k_weight, int64_t num_q_heads, Value table,
                                          float eps) {
  const Value y = graph.in_place(scoped(name), x);
  return graph.add<ops::QkNormRope>(scoped(name), {x, q_weight, k_weight, table}, y,
                                    [=](const Bindings& b) {
                                      return ops::QkNormRope::Args{.x = b[x],
                                                                   .q_weight = b[q_weight],
                                                                   .k_weight = b[k_weight],
                                                                   .table = b[table],
                                                                   .y = b[y],
                                                                   .num_q_heads = num_q_heads,
                                                                   .eps = eps};
                                    });
}

Value GraphBuilder::add_in_place(std::string_view name, Value a, Value b_in) {
  const Value y = graph.in_place(scoped(name), a);
  return graph.add<ops::Add>(scoped(name), {a, b_in}, y, [=](const Bindings& b) {
    return ops::Add::Args{.a = b[a], .b = b[b_in], .y = b[y]};
  });
}

Value GraphBuilder::deepstack_add_in_place(std::string_view name, Value x, Value visual_row,
                                           Value features) {
  const Value y = graph.in_place(scoped(name), x);
  return graph.add<ops::DeepstackAdd>(
      scoped(name), {x, visual_row, features}, y, [=](const Bindings& b) {
        return ops::DeepstackAdd::Args{
            .x = b[x], .visual_row = b[visual_row], .features = b[features], .y = b[y]};
      });
}

Value GraphBuilder::vision_pos_embed_in_place(std::string_view name, Value x, Value table,
                                              Value indices, Value weights) {
  const Value y = graph.in_place(scoped(name), x);
  return graph.add<ops::VisionPosEmbed>(
      scoped(name), {x, table, indices, weights}, y, [=](const Bindings& b) {
        return ops::VisionPosEmbed::Args{
            .x = b[x], .table = b[table], .indices = b[indices], .weights = b[weights], .y = b[y]};
      });
}

Value GraphBuilder::patch_embed(std::string_view name, Value patches, Value w, Value bias,
                                int64_t width) {
  const Value y =
      graph.activation(scoped(name), options.dtype, {graph.info(patches).dims[0], width});
  return graph.add<ops::PatchEmbed>(scoped(name), {patches, w, bias}, y, [=](const Bindings& b) {
    return ops::PatchEmbed::Args{.x = b[patches], .w = b[w], .bias = b[bias], .y = b[y]};
  });
}

Value GraphBuilder::gather_rows(std::string_view name, Value x, Value rows, Value to) {
  const Value y =
      result(name, to, graph.info(x).dtype, {graph.info(rows).dims[0], graph.info(x).dims[1]});
  return graph.add<ops::GatherRows>(scoped(name), {x, rows}, y, [=](const Bindings& b) {
    return ops::GatherRows::Args{.x = b[x], .rows = b[rows], .y = b[y]};
  });
}

void GraphBuilder::convert(std::string_view name, Value x, Value to) {
  graph.add<ops::Convert>(scoped(name), {x}, to, [=](const Bindings& b) {
    return ops::Convert::Args{.x = b[x], .y = b[to]};
  });
}

void GraphBuilder::score_head(std::string_view name, Value x, Value norm_weight, Value w, float eps,
                              Value to) {
  graph.add<ops::ScoreHead>(scoped(name), {x, norm_weight, w}, to, [=](const Bindings& b) {
    return ops::ScoreHead::Args{
        .x = b[x], .norm_weight = b[norm_weight], .w = b[w], .log_odds = b[to], .eps = eps};
  });
}

}  // namespace vlr
