#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/json.h"

namespace vlr {
namespace {

using nlohmann::json;

// Far above any model of this family, and low enough for products of three sizes to fit in 64 bits.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxSize = int64_t{1} << 18;
constexpr int64_t kMaxCount = 1024;  // layers, heads
constexpr int64_t kMaxPositions = int64_t{1} << 30;
constexpr int64_t kConfigBytes = int64_t{4} << 20;

Status invalid(std::string message) { return {Code::kInvalidArgument, std::move(message)}; }
Status unimplemented(std::string message) { return {Code::kUnimplemented, std::move(message)}; }

/// Shortened text of a value, for messages.
std::string show(const json& value) {
  if (value.is_object() || value.is_array()) return value.is_object() ? "an object" : "an array";
  return in_quotes(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

/// The keys of an object. What does not fit is remembered, the first time, in status(), so that a
/// caller reads all the keys it wants and asks once. A null counts as a missing key, as in Python's
/// writers.
class Fields {
 public:
  /// `where` names the object in messages: "text_config".
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const Status& status() const { return status_; }

  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  int64_t integer(const char* key, int64_t min, int64_t max, std::optional<int64_t> fallback = {}) {
    const json* value = find(key);
    if (!value && fallback) return *fallback;
    if (!value) return missing<int64_t>(key);
    const bool fits = value->is_number_unsigned()
                          ? value->get<uint64_t>() <= static_cast<uint64_t>(max)
                          : value->is_number_integer() && value->get<int64_t>() <= max;
    if (!fits || value->get<int64_t>() < min) {
      fail(fmt::format("{} must be an integer from {} to {}, got {}", name(key), min, max,
                       show(*value)));
      return min;
    }
    return value->get<int64_t>();
  }

  double number(const char* key, double min, double max) {
    const json* value = find(key);
    if (!value) return missing<double>(key);
    if (!value->is_number() || !(value->get<double>() >= min && value->get<double>() <= max)) {
      fail(fmt::format("{} must be a number from {} to {}, got {}", name(key), min, max,
                       show(*value)));
      return min;
    }
    return value->get<double>();
  }

  bool boolean(const char* key, bool fallback) {
    const json* value = find(key);
    if (!value) return fallback;
    if (!value->is_boolean()) {
      fail(fmt::format("{} must be true or false, got {}", name(key), show(*value)));
      return fallback;
    }
    return value->get<bool>();
  }

  std::string string(const char* key, std::string fallback) {
    const json* value = find(key);
    if (!value) return fallback;
    if (!value->is_string()) {
      fail(fmt::format("{} must be a string, got {}", name(key), show(*value)));
      return fallback;
    }
    return value->get<std::string>();
  }

  std::vector<int64_t> integers(const char* key, int64_t min, int64_t max, size_t max_count) {
    const json* value = find(key);
    if (!value) return missing<std::vector<int64_t>>(key);
    std::vector<int64_t> out;
    bool fits = value->is_array() && value->size() <= max_count;
    for (size_t i = 0; fits && i < value->size(); ++i) {
      const json& v = (*value)[i];
      fits = v.is_number_unsigned() && v.get<uint64_t>() <= static_cast<uint64_t>(max) &&
             v.get<int64_t>() >= min;
      if (fits) out.push_back(v.get<int64_t>());
    }
    if (!fits) {
      fail(fmt::format("{} must be an array of at most {} integers from {} to {}", name(key),
                       max_count, min, max));
    }
    return out;
  }

  /// The object under `key`; nullptr if there is none, also if it is something else, which is an
  /// error.
  const json* object(const char* key) {
    const json* value = find(key);
    if (value && !value->is_object()) {
      fail(fmt::format("{} must be an object, got {}", name(key), show(*value)));
      return nullptr;
    }
    return value;
  }

  /// The only value that vlr implements; `fallback` for a missing key.
  void only(const char* key, std::string_view implemented, std::string fallback) {
    const std::string value = string(key, std::move(fallback));
    if (value != implemented) {
      fail(unimplemented(fmt::format("{}: only {} is supported, got {}", name(key),
                                     in_quotes(implemented), in_quotes(value))));
    }
  }
  void only(const char* key, int64_t implemented) {
    const int64_t value = integer(key, 1, kMaxSize);
    if (status_.ok() && value != implemented) {
      fail(unimplemented(
          fmt::format("{}: only {} is supported, got {}", name(key), implemented, value)));
    }
  }
  void only(const char* key, bool implemented) {
    if (boolean(key, implemented) != implemented) {
      fail(unimplemented(fmt::format("{}: only {} is supported", name(key), implemented)));
    }
  }

  void fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  void fail(std::string message) { fail(invalid(std::move(message))); }

 private:
  std::string name(const char* key) const {
    return where_.empty() ? key : fmt::format("{}.{}", where_, key);
  }

  template <class T>
  T missing(const char* key) {
    fail(fmt::format("{} is missing", name(key)));
    return T{};
  }

  const json& object_;
  std::string where_;
  Status status_;
};

Status check_multiple(std::string_view what, int64_t value, std::string_view of, int64_t divisor) {
  if (value % divisor == 0) return {};
  return invalid(fmt::format("{} must be a multiple of {}: {} and {}", what, of, value, divisor));
}

/// rope_parameters (transformers 5), else rope_scaling, with rope_theta beside it (4.57).
Status parse_rope(Fields& text, const std::string& where, TextConfig& c) {
  const json* object = text.object("rope_parameters");
  const std::string key = object ? "rope_parameters" : "rope_scaling";
  if (!object) object = text.object("rope_scaling");
  VLR_RETURN_IF_ERROR(text.status());
  const json none = json::object();
  Fields rope(object ? *object : none, where.empty() ? key : where + "." + key);

  // No default: those of the writers differ, and a wrong base is not noticed before the scores are.
  Fields& holder = rope.find("rope_theta") ? rope : text;
  c.rope_theta = holder.number("rope_theta", 1, 1e12);
  VLR_RETURN_IF_ERROR(holder.status());

  rope.only(rope.find("rope_type") ? "rope_type" : "type", "default", "default");
  rope.only("mrope_interleaved", true);
  c.mrope_section = {24, 20, 20};
  if (rope.find("mrope_section")) {
    const std::vector<int64_t> section = rope.integers("mrope_section", 0, kMaxCount, 3);
    if (section.size() != 3)
      rope.fail("mrope_section must have 3 numbers, for time, rows and columns");
    VLR_RETURN_IF_ERROR(rope.status());
    std::copy(section.begin(), section.end(), c.mrope_section.begin());
  }
  VLR_RETURN_IF_ERROR(rope.status());
  const int64_t sum = c.mrope_section[0] + c.mrope_section[1] + c.mrope_section[2];
  if (2 * sum != c.head_dim) {
    return invalid(
        fmt::format("mrope_section must add up to head_dim / 2 = {}, got {}", c.head_dim / 2, sum));
  }
  return {};
}

Result<TextConfig> parse_text(const json& object, const std::string& where) {
  Fields text(object, where);
  TextConfig c;
  c.vocab_size = text.integer("vocab_size", 1, kMaxVocab);
  c.hidden_size = text.integer("hidden_size", 1, kMaxSize);
  c.intermediate_size = text.integer("intermediate_size", 1, kMaxSize);
  c.num_hidden_layers = text.integer("num_hidden_layers", 1, kMaxCount);
  c.num_attention_heads = text.integer("num_attention_heads", 1, kMaxCount);
  c.num_key_value_heads = text.integer("num_key_value_heads", 1, kMaxCount);
  c.head_dim = text.integer("head_dim", 2, kMaxCount);
  c.max_position_embeddings = text.integer("max_position_embeddings", 1, kMaxPositions, 262144);
  c.rms_norm_eps = text.number("rms_norm_eps", 1e-12, 0.1);
  text.only("hidden_act", "silu", "silu");
  text.only("attention_bias", false);
  VLR_RETURN_IF_ERROR(text.status());
  VLR_RETURN_IF_ERROR(check_multiple("num_attention_heads", c.num_attention_heads,
                                     "num_key_value_heads", c.num_key_value_heads));
  VLR_RETURN_IF_ERROR(parse_rope(text, where, c));
  return c;
}

Result<VisionConfig> parse_vision(const json& object, const TextConfig& text) {
  Fields vision(object, "vision_config");
  VisionConfig c;
  c.depth = vision.integer("depth", 1, kMaxCount);
  c.hidden_size = vision.integer("hidden_size", 1, kMaxSize);
  c.intermediate_size = vision.integer("intermediate_size", 1, kMaxSize);
  c.num_heads = vision.integer("num_heads", 1, kMaxCount);
  c.out_hidden_size = vision.integer("out_hidden_size", 1, kMaxSize);
  c.num_position_embeddings = vision.integer("num_position_embeddings", 1, kMaxVocab);
  c.deepstack_visual_indexes = vision.integers("deepstack_visual_indexes", 0, kMaxCount, kMaxCount);
  vision.only("in_channels", c.in_channels = 3);
  vision.only("patch_size", c.patch_size = 16);
  vision.only("temporal_patch_size", c.temporal_patch_size = 2);
  vision.only("spatial_merge_size", c.spatial_merge_size = 2);
  vision.only("hidden_act", "gelu_pytorch_tanh", "gelu_pytorch_tanh");
  VLR_RETURN_IF_ERROR(vision.status());

  VLR_RETURN_IF_ERROR(
      check_multiple("vision_config.hidden_size", c.hidden_size, "num_heads", c.num_heads));
  // The rotary embedding gives a quarter of a head to the rows' sines, and as much to the columns'.
  VLR_RETURN_IF_ERROR(
      check_multiple("vision_config.hidden_size / num_heads", c.head_dim(), "four", 4));
  if (c.out_hidden_size != text.hidden_size) {
    return invalid(
        fmt::format("vision_config.out_hidden_size must be text_config.hidden_size = {}, got {}",
                    text.hidden_size, c.out_hidden_size));
  }
  const auto side =
      static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(c.num_position_embeddings))));
  if (side * side != c.num_position_embeddings) {
    return invalid(
        fmt::format("vision_config.num_position_embeddings must be a square number, got {}",
                    c.num_position_embeddings));
  }
  int64_t previous = -1;
  for (const int64_t idx : c.deepstack_visual_indexes) {
    if (idx <= previous || idx >= c.depth) {
      return invalid(fmt::format(
          "vision_config.deepstack_visual_indexes must ascend and be less than depth = {}, "
          "got {} after {}",
          c.depth, idx, previous));
    }
    previous = idx;
  }
  if (static_cast<int64_t>(c.deepstack_visual_indexes.size()) > text.num_hidden_layers) {
    return invalid(
        fmt::format("vision_config.deepstack_visual_indexes has {} entries for {} decoder layers",
                    c.deepstack_visual_indexes.size(), text.num_hidden_layers));
  }
  return c;
}

Status check_model_type(const std::string& model_type) {
  if (model_type == "qwen3_vl" || model_type == "qwen3_vl_text") return {};
  if (model_type == "qwen3") {
    return unimplemented(
        "model_type 'qwen3' (a text-only Qwen3-Reranker) is not supported yet; expected "
        "'qwen3_vl'");
  }
  return unimplemented(fmt::format("model_type must be 'qwen3_vl' or 'qwen3_vl_text', got {}",
                                   in_quotes(model_type)));
}

Result<std::optional<DType>> parse_dtype(Fields& top, const json& text) {
  Fields nested(text, "text_config");
  std::string name;
  for (Fields* fields : {&top, &nested}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (name.empty()) name = fields->string(key, "");
    }
    VLR_RETURN_IF_ERROR(fields->status());
  }
  if (name.empty() || name == "auto") return std::optional<DType>();
  if (name == "bfloat16") return std::optional(DType::kBF16);
  if (name == "float16") return std::optional(DType::kF16);
  if (name == "float32") return std::optional(DType::kF32);
  return unimplemented(
      fmt::format("dtype must be bfloat16, float16 or float32, got {}", in_quotes(name)));
}

Result<ModelConfig> parse(const json& object) {
  if (!object.is_object()) return {Code::kDataLoss, "expected a JSON object, got " + show(object)};
  Fields top(object, "");
  const std::string model_type = top.string("model_type", "");
  VLR_RETURN_IF_ERROR(top.status());
  VLR_RETURN_IF_ERROR(check_model_type(model_type));

  // Text-only conversions have text_config's keys at the top.
  const json* nested = top.object("text_config");
  const json* vision = top.object("vision_config");
  VLR_RETURN_IF_ERROR(top.status());
  const json& text = nested ? *nested : object;

  ModelConfig c;
  VLR_ASSIGN_OR_RETURN(c.text_config, parse_text(text, nested ? "text_config" : ""));
  if (vision) {
    VLR_ASSIGN_OR_RETURN(c.vision_config, parse_vision(*vision, c.text_config));
  }
  Fields text_fields(text, "text_config");
  c.tie_word_embeddings =
      top.boolean("tie_word_embeddings", text_fields.boolean("tie_word_embeddings", false));
  VLR_RETURN_IF_ERROR(text_fields.status());
  VLR_ASSIGN_OR_RETURN(c.dtype, parse_dtype(top, text));

  const int64_t max_id = vision ? c.text_config.vocab_size - 1 : kMaxVocab;
  const auto token_id = [&](const char* key, int32_t fallback) {
    const int64_t id =
        fallback <= max_id ? top.integer(key, 0, max_id, fallback) : top.integer(key, 0, max_id);
    return static_cast<int32_t>(id);
  };
  c.image_token_id = token_id("image_token_id", c.image_token_id);
  c.video_token_id = token_id("video_token_id", c.video_token_id);
  c.vision_start_token_id = token_id("vision_start_token_id", c.vision_start_token_id);
  c.vision_end_token_id = token_id("vision_end_token_id", c.vision_end_token_id);
  VLR_RETURN_IF_ERROR(top.status());
  return c;
}

}  // namespace

Result<ModelConfig> parse_config(std::string_view text) {
  Result<json> object = parse_json(text);
  if (!object) return object.error().with_context("config.json");
  Result<ModelConfig> config = parse(*object);
  if (!config) return config.error().with_context("config.json");
  return config;
}

Result<ModelConfig> read_config(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kConfigBytes));
  Result<json> object = parse_json(text);
  if (!object) return object.error().with_context(path);
  Result<ModelConfig> config = parse(*object);
  if (!config) return config.error().with_context(path);
  return config;
}

std::string format_config(const ModelConfig& config) {
  using nlohmann::ordered_json;
  const TextConfig& t = config.text_config;
  const auto dtype = [&]() -> ordered_json {
    if (config.dtype == DType::kBF16) return "bfloat16";
    if (config.dtype == DType::kF16) return "float16";
    if (config.dtype == DType::kF32) return "float32";
    return nullptr;
  };
  ordered_json text = {
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"head_dim", t.head_dim},
      {"hidden_act", "silu"},
      {"hidden_size", t.hidden_size},
      {"initializer_range", 0.02},
      {"intermediate_size", t.intermediate_size},
      {"max_position_embeddings", t.max_position_embeddings},
      {"model_type", "qwen3_vl_text"},
      {"num_attention_heads", t.num_attention_heads},
      {"num_hidden_layers", t.num_hidden_layers},
      {"num_key_value_heads", t.num_key_value_heads},
      {"rms_norm_eps", t.rms_norm_eps},
      {"rope_scaling",
       {{"mrope_interleaved", true}, {"mrope_section", t.mrope_section}, {"rope_type", "default"}}},
      {"rope_theta", t.rope_theta},
      {"tie_word_embeddings", config.tie_word_embeddings},
      {"use_cache", true},
      {"vocab_size", t.vocab_size}};
  ordered_json top = {{"architectures", {"Qwen3VLForConditionalGeneration"}},
                      {"image_token_id", config.image_token_id},
                      {"model_type", "qwen3_vl"},
                      {"text_config", std::move(text)},
                      {"tie_word_embeddings", config.tie_word_embeddings},
                      {"torch_dtype", dtype()},
                      {"video_token_id", config.video_token_id}};
  if (config.vision_config) {
    const VisionConfig& v = *config.vision_config;
    top["vision_config"] = {{"deepstack_visual_indexes", v.deepstack_visual_indexes},
                            {"depth", v.depth},
                            {"hidden_act", "gelu_pytorch_tanh"},
                            {"hidden_size", v.hidden_size},
                            {"in_channels", v.in_channels},
                            {"initializer_range", 0.02},
                            {"intermediate_size", v.intermediate_size},
                            {"model_type", "qwen3_vl"},
                            {"num_heads", v.num_heads},
                            {"num_position_embeddings", v.num_position_embeddings},
                            {"out_hidden_size", v.out_hidden_size},
                            {"patch_size", v.patch_size},
                            {"spatial_merge_size", v.spatial_merge_size},
                            {"temporal_patch_size", v.temporal_patch_size}};
  }
  top["vision_end_token_id"] = config.vision_end_token_id;
  top["vision_start_token_id"] = config.vision_start_token_id;
  return top.dump(2) + "\n";
}

}  // namespace vlr
