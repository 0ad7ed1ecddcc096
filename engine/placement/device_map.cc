#include "engine/placement/device_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "model/json.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

constexpr int64_t kMaxLayers = 4096;
// A short text may have many ranges, each of thousands of layers.
constexpr size_t kMaxRules = 1 << 16, kMaxNameBytes = 256;

Status wrong(std::string message) {
  return {Code::kInvalidArgument, "device_map: " + std::move(message)};
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

Result<WeightPlace> place_of(std::string_view name, std::string_view place) {
  if (place == "cpu") return WeightPlace::kStreamed;
  if (place == "disk") return WeightPlace::kDisk;
  if (place == "cpu-exec") return WeightPlace::kCpuExec;
  if (place == "cuda" || is_number(place) ||
      (place.starts_with("cuda:") && is_number(place.substr(5))))
    return WeightPlace::kDevice;
  return wrong(fmt::format("{}: a place is cuda, cuda:N, N, cpu, disk or cpu-exec, got {}",
                           in_quotes(name), in_quotes(place)));
}

/// The canonical prefix of what a module's name stands for, with a dot behind it.
std::string prefix_of(std::string_view name) {
  if (name.empty()) return "";
  if (name == "text") name = "language_model";
  if (name == "vision") name = "visual";
  if (name == "lm_head") name = "score_head";  // which is what becomes of it
  return canonical_name(std::string(name) + ".");
}

/// The number of the decoder layer that a weight is of, or -1.
int64_t decoder_layer(std::string_view weight) {
  if (!weight.starts_with(weights::kTextLayers)) return -1;
  int64_t layer = -1;
  std::from_chars(weight.data() + weights::kTextLayers.size(), weight.data() + weight.size(),
                  layer);
  return layer;
}

/// The product of a decoder layer beside which a weight is read.
std::string_view product_of(std::string_view weight) {
  for (const auto& [part, product] : {std::pair<std::string_view, std::string_view>{"o_proj", "o."},
                                      {"post_attention_layernorm", "gate_up."},
                                      {"gate_up_proj", "gate_up."},
                                      {"down_proj", "down."}}) {
    if (weight.find(part) != weight.npos) return product;
  }
  return "qkv.";
}

/// What moves together: a decoder layer or a product of it, a block of the vision tower or one of
/// its mergers; empty for what is too small or too scattered to move.
std::string group_of(std::string_view weight, bool by_matrix) {
  for (const auto& [parts, numbered] :
       {std::pair<std::string_view, bool>{weights::kTextLayers, true},
        {"model.visual.blocks.", true},
        {"model.visual.deepstack_merger_list.", true},
        {"model.visual.merger.", false}}) {
    if (!weight.starts_with(parts)) continue;
    if (!numbered) return std::string(parts);
    std::string group(weight.substr(0, weight.find('.', parts.size()) + 1));
    if (by_matrix && parts == weights::kTextLayers) group += product_of(weight);
    return group;
  }
  return {};
}

}  // namespace

Status DeviceMap::add(std::string_view name, WeightPlace where) {
  const auto push = [&](std::string one) -> Status {
    if (rules_.size() == kMaxRules)
      return wrong(fmt::format("names more than {} parts", kMaxRules));
    std::string prefix = prefix_of(one);
    rules_.push_back({std::move(one), std::move(prefix), where});
    return {};
  };
  if (name.size() > kMaxNameBytes) {
    return wrong(fmt::format("{}: expected a name of at most {} bytes, got {}", in_quotes(name),
                             kMaxNameBytes, name.size()));
  }
  // layers.18-35 is many layers.
  const size_t dash = name.rfind('-'), dot = name.rfind('.');
  if (dash == name.npos || dot == name.npos || dot > dash) return push(std::string(name));
  int64_t first = 0, last = 0;
  const std::string_view from = name.substr(dot + 1, dash - dot - 1), to = name.substr(dash + 1);
  const auto parse = [](std::string_view text, int64_t& value) {
    return is_number(text) &&
           std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc();
  };
  if (!parse(from, first) || !parse(to, last) || first > last || last >= kMaxLayers)
    return wrong(fmt::format("{}: a range is FIRST-LAST, as in layers.18-35", in_quotes(name)));
  for (int64_t n = first; n <= last; ++n)
    VLR_RETURN_IF_ERROR(push(fmt::format("{}.{}", name.substr(0, dot), n)));
  return {};
}

Result<DeviceMap> DeviceMap::parse(std::string_view text) {
  DeviceMap map;
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  if (text.empty()) return map;
  std::string file;
  if (text.front() != '{' && text.find('=') == text.npos) {
    constexpr int64_t kMaxBytes = 1 << 20;
    std::error_code error;
    if (!std::filesystem::exists(std::filesystem::path(text), error)) {
      return wrong(fmt::format("expected NAME=PLACE,..., a JSON object or a file with one, got {}",
                               in_quotes(text)));
    }
    VLR_ASSIGN_OR_RETURN(file, read_text_file(std::string(text), kMaxBytes));
    text = file;
  }
  const size_t brace = text.find_first_not_of(" \t\r\n");
  if (brace != text.npos && text[brace] == '{') {
    auto root = parse_json(text);
    if (!root && file.empty()) return wrong(root.error().message());  // an option, not a file
    if (!root) return root.error().with_context("device_map");
    // Transformers' own files have the map inside.
    if (const auto inner = root->find("device_map"); inner != root->end() && inner->is_object()) {
      const nlohmann::json map_alone = *inner;
      *root = map_alone;
    }
    for (const auto& [name, place] : root->items()) {
      if (!place.is_string() && !place.is_number_unsigned())
        return wrong(fmt::format("{}: a place is a string or a number, got {}", in_quotes(name),
                                 place.type_name()));
      VLR_ASSIGN_OR_RETURN(
          const WeightPlace where,
          place_of(name, place.is_string() ? place.get<std::string>() : place.dump()));
      VLR_RETURN_IF_ERROR(map.add(name, where));
    }
    return map;
  }
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, end);
    const size_t equals = item.find('=');
    if (equals == item.npos)
      return wrong(fmt::format("expected NAME=PLACE, got {}", in_quotes(item)));
    const std::string_view name = item.substr(0, equals);
    VLR_ASSIGN_OR_RETURN(const WeightPlace where, place_of(name, item.substr(equals + 1)));
    VLR_RETURN_IF_ERROR(map.add(name, where));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return map;
}

Status DeviceMap::apply(WeightPlan& plan, bool by_matrix) const {
  std::vector<bool> used(rules_.size(), false);
  std::set<std::string, std::less<>> on_disk;  // groups
  for (WeightSpec& spec : plan) {
    const Rule* rule = nullptr;
    for (size_t i = 0; i < rules_.size(); ++i) {
      const Rule& r = rules_[i];
      if (!spec.name.starts_with(r.prefix)) continue;
      used[i] = true;
      if (!rule || r.prefix.size() >= rule->prefix.size()) rule = &r;
    }
    if (!rule || rule->place == WeightPlace::kDevice) continue;
    if (rule->place == WeightPlace::kCpuExec) {
      if (spec.name.starts_with(weights::kTextLayers)) {
        spec.place = WeightPlace::kCpuExec;
      } else if (spec.name != weights::kTextNorm && spec.name != weights::kScoreHead) {
        return wrong(
            fmt::format("{}: cpu-exec is for decoder layers, as in layers.0-3=cpu-exec; {} "
                        "is none",
                        in_quotes(rule->name), spec.name));
      }
      continue;
    }
    if (spec.name == weights::kEmbedTokens) spec.place = WeightPlace::kHost;
    spec.group = group_of(spec.name, by_matrix);
    if (!spec.group.empty()) spec.place = rule->place;
    if (spec.place == WeightPlace::kDisk) on_disk.insert(spec.group);
  }
  for (WeightSpec& spec : plan) {
    if (comes_and_goes(spec.place) && on_disk.contains(spec.group)) spec.place = WeightPlace::kDisk;
  }
  for (size_t i = 0; i < rules_.size(); ++i) {
    if (!used[i]) {
      return wrong(fmt::format("{} stands for no weight of this model", in_quotes(rules_[i].name)));
    }
  }
  const std::set<int64_t> on_cpu = cpu_exec_layers(plan);
  for (const WeightSpec& spec : plan) {
    if (spec.place != WeightPlace::kCpuExec && on_cpu.contains(decoder_layer(spec.name))) {
      return wrong(
          fmt::format("cpu-exec computes whole layers: {} is not in its layer's place", spec.name));
    }
  }
  return {};
}

std::set<int64_t> cpu_exec_layers(const WeightPlan& plan) {
  std::set<int64_t> out;
  for (const WeightSpec& spec : plan) {
    if (spec.place == WeightPlace::kCpuExec) out.insert(decoder_layer(spec.name));
  }
  return out;
}

}  // namespace vlr
