#include "bench/support/all_ops.h"

namespace vlr::bench {

OpLab add_lab();
OpLab add_rmsnorm_lab();
OpLab attention_lab();
OpLab convert_lab();
OpLab deepstack_add_lab();
OpLab dequantize_lab();
OpLab embedding_lab();
OpLab gather_rows_lab();
OpLab gelu_lab();
OpLab layernorm_lab();
OpLab linear_lab();
OpLab linear_w8a8_lab();
OpLab linear_weight_only_lab();
OpLab patch_embed_lab();
OpLab qk_norm_rope_lab();
OpLab quantize_rows_lab();
OpLab rmsnorm_lab();
OpLab rmsnorm_quantize_lab();
OpLab rope_lab();
OpLab rope_table_lab();
OpLab score_head_lab();
OpLab swiglu_lab();
OpLab swiglu_quantize_lab();
OpLab vision_pos_embed_lab();

std::vector<OpLab> all_ops() {
  return {add_lab(),
          add_rmsnorm_lab(),
          attention_lab(),
          convert_lab(),
          deepstack_add_lab(),
          dequantize_lab(),
          embedding_lab(),
          gather_rows_lab(),
          gelu_lab(),
          layernorm_lab(),
          linear_lab(),
          linear_w8a8_lab(),
          linear_weight_only_lab(),
          patch_embed_lab(),
          qk_norm_rope_lab(),
          quantize_rows_lab(),
          rmsnorm_lab(),
          rmsnorm_quantize_lab(),
          rope_lab(),
          rope_table_lab(),
          score_head_lab(),
          swiglu_lab(),
          swiglu_quantize_lab(),
          vision_pos_embed_lab()};
}

}  // namespace vlr::bench
