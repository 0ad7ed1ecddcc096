// Any text as the value of every option, as NAME=VALUE, as a device map and as a rule of
// quantisation: it is refused with a message, or what it gave is written as text that gives the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/api/options.h"
#include "engine/placement/device_map.h"
#include "model/quantization.h"
#include "model/weight_plan.h"

namespace {

void check_refusal(const vlr::Status& error) {
  if (error.ok() || error.message().empty()) std::abort();
}

void check_option(const vlr::OptionInfo& info, std::string_view text) {
  vlr::Options options;
  if (const vlr::Status s = vlr::parse_option(info, text, options); !s.ok())
    return check_refusal(s);
  (void)vlr::check_option(info, options);
  const std::string written = vlr::format_option(info, options);
  vlr::Options again;
  if (!vlr::parse_option(info, written, again).ok() || vlr::format_option(info, again) != written)
    std::abort();
}

/// Three decoder layers, two blocks of a tower, and what else a model has.
vlr::WeightPlan small_plan() {
  vlr::WeightPlan plan;
  for (const std::string name :
       {"model.language_model.embed_tokens.weight", "model.language_model.norm.weight",
        "model.language_model.layers.0.self_attn.qkv_proj.weight",
        "model.language_model.layers.0.mlp.down_proj.weight",
        "model.language_model.layers.1.mlp.gate_up_proj.weight",
        "model.language_model.layers.2.self_attn.o_proj.weight",
        "model.visual.blocks.0.attn.qkv.weight", "model.visual.blocks.1.mlp.linear_fc1.weight",
        "model.visual.merger.linear_fc1.weight"}) {
    vlr::WeightSpec spec;
    spec.name = name;
    plan.push_back(spec);
  }
  vlr::WeightSpec head;
  head.name = vlr::weights::kScoreHead;
  plan.push_back(head);
  return plan;
}

void check_device_map(std::string_view text) {
  const auto map = vlr::DeviceMap::parse(text);
  if (!map) return check_refusal(map.error());
  static const vlr::WeightPlan small = small_plan();
  for (const bool by_matrix : {false, true}) {
    vlr::WeightPlan plan = small;
    if (const vlr::Status s = map->apply(plan, by_matrix); !s.ok()) check_refusal(s);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const vlr::OptionInfo& info : vlr::option_table()) check_option(info, text);
  if (const size_t equals = text.find('='); equals != text.npos) {
    vlr::Options options;
    const std::string name(text.substr(0, equals));
    const vlr::Status s = vlr::set_option(options, name, text.substr(equals + 1));
    if (!s.ok()) check_refusal(s);
    if (s.ok() && !vlr::get_option(options, name)) std::abort();
  }
  check_device_map(text);
  if (const auto rule = vlr::parse_quant_rule(text); !rule) check_refusal(rule.error());
  return 0;
}
