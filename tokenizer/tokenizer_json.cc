#include "tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "kernels/core/json_tree.h"
#include "tokenizer/pretokenize.h"

namespace vlr {
namespace {

using Json = nlohmann::json;

Status damaged(std::string_view what) {
  return {Code::kDataLoss, fmt::format("tokenizer.json: {}", what)};
}

/// For messages: the value itself, or how much there is of it.
std::string shown(const Json& value) {
  constexpr size_t kMostShown = 80;
  if (value.is_structured() && value.size() > 4)
    return fmt::format("{} of {} values", value.type_name(), value.size());
  if (value.is_structured()) {
    std::string out;
    for (const auto& [key, item] : value.items()) {
      if (!out.empty()) out += ", ";
      if (value.is_object()) out += shown(Json(key)) + ": ";
      out += item.is_structured() ? item.type_name() : shown(item);
    }
    return value.is_array() ? "[" + out + "]" : "{" + out + "}";
  }
  if (const auto* text = value.get_ptr<const std::string*>(); text && text->size() > kMostShown)
    return shown(Json(text->substr(0, kMostShown - 3) + "..."));
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}
std::string shown(const Json* value) { return value == nullptr ? "nothing" : shown(*value); }

/// The member, or nullptr; also where `object` is no object.
const Json* find(const Json* object, const char* name) {
  if (object == nullptr || !object->is_object()) return nullptr;
  const auto it = object->find(name);
  return it == object->end() ? nullptr : &*it;
}

/// Only `expected` gives the ids we would give; `absent` says whether a missing or null value means
/// it.
Status expect(const Json* object, const char* where, const char* name, const Json& expected,
              bool absent) {
  const Json* value = find(object, name);
  if (value != nullptr && *value == expected) return {};
  if (absent && (value == nullptr || value->is_null())) return {};
  return {Code::kUnimplemented, fmt::format("tokenizer.json: {}.{} must be {}, got {}", where, name,
                                            expected.dump(), shown(value))};
}

/// Spelling of bytes in the vocabulary: printable Latin-1 characters stand for themselves, the
/// other 68 bytes, in increasing order, are U+0100, U+0101, ...
class ByteAlphabet {
 public:
  ByteAlphabet() {
    byte_of_.fill(-1);
    int16_t next = 0x100;
    for (int16_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      byte_of_[static_cast<size_t>(printable ? byte : next++)] = byte;
    }
  }

  /// nullopt: a character outside the alphabet.
  std::optional<std::string> decode(std::string_view spelled) const {
    std::string bytes;
    for (size_t pos = 0; pos < spelled.size();) {
      const Utf8Char c = decode_utf8(spelled, pos);
      pos += c.size;
      if (c.code_point >= byte_of_.size() || byte_of_[c.code_point] < 0) return std::nullopt;
      bytes.push_back(static_cast<char>(byte_of_[c.code_point]));
    }
    return bytes;
  }

 private:
  std::array<int16_t, 0x100 + 68> byte_of_;
};

Status check_kind(const Json& root) {
  VLR_RETURN_IF_ERROR(expect(find(&root, "normalizer"), "normalizer", "type", "NFC", false));

  const Json* pre = find(&root, "pre_tokenizer");
  VLR_RETURN_IF_ERROR(expect(pre, "pre_tokenizer", "type", "Sequence", false));
  const Json* steps = find(pre, "pretokenizers");
  if (steps == nullptr || !steps->is_array() || steps->size() != 2) {
    return {Code::kUnimplemented,
            fmt::format(
                "tokenizer.json: pre_tokenizer.pretokenizers must be [Split, ByteLevel], got {}",
                shown(steps))};
  }
  const Json *split = &(*steps)[0], *byte_level = &(*steps)[1];
  VLR_RETURN_IF_ERROR(expect(split, "pretokenizers[0]", "type", "Split", false));
  VLR_RETURN_IF_ERROR(
      expect(split, "pretokenizers[0]", "pattern", Json{{"Regex", kSplitRegex}}, false));
  VLR_RETURN_IF_ERROR(expect(split, "pretokenizers[0]", "behavior", "Isolated", false));
  VLR_RETURN_IF_ERROR(expect(split, "pretokenizers[0]", "invert", false, true));
  VLR_RETURN_IF_ERROR(expect(byte_level, "pretokenizers[1]", "type", "ByteLevel", false));
  VLR_RETURN_IF_ERROR(expect(byte_level, "pretokenizers[1]", "add_prefix_space", false, false));
  VLR_RETURN_IF_ERROR(expect(byte_level, "pretokenizers[1]", "use_regex", false, false));

  const Json* post = find(&root, "post_processor");
  if (post != nullptr && !post->is_null()) {
    VLR_RETURN_IF_ERROR(expect(post, "post_processor", "type", "ByteLevel", false));
  }

  const Json* model = find(&root, "model");
  VLR_RETURN_IF_ERROR(expect(model, "model", "type", "BPE", true));
  VLR_RETURN_IF_ERROR(expect(model, "model", "dropout", nullptr, true));
  VLR_RETURN_IF_ERROR(expect(model, "model", "byte_fallback", false, true));
  VLR_RETURN_IF_ERROR(expect(model, "model", "ignore_merges", false, true));
  VLR_RETURN_IF_ERROR(expect(model, "model", "continuing_subword_prefix", "", true));
  return expect(model, "model", "end_of_word_suffix", "", true);
}

/// The id, if the value is one.
std::optional<int32_t> as_id(const Json* value) {
  if (value == nullptr || !value->is_number_unsigned()) return std::nullopt;
  const auto id = value->get<uint64_t>();
  if (id >= uint64_t{kMaxTokenId}) return std::nullopt;
  return static_cast<int32_t>(id);
}

std::string& text_slot(TokenizerJson& out, int32_t id) {
  const auto i = static_cast<size_t>(id);
  if (i >= out.texts.size()) out.texts.resize(i + 1);
  return out.texts[i];
}

Status read_vocab(const Json* vocab, const ByteAlphabet& alphabet, TokenizerJson& out) {
  if (vocab == nullptr || !vocab->is_object()) {
    return damaged(fmt::format("model.vocab must be an object, got {}", shown(vocab)));
  }
  out.vocab.reserve(vocab->size());
  out.texts.reserve(vocab->size());
  for (const auto& [spelled, value] : vocab->items()) {
    const auto id = as_id(&value);
    const auto where = [&] { return fmt::format("model.vocab[{}]", shown(Json(spelled))); };
    if (!id) {
      return damaged(
          fmt::format("{} must be an id below {}, got {}", where(), kMaxTokenId, shown(value)));
    }
    auto bytes = alphabet.decode(spelled);
    if (!bytes || bytes->empty()) {
      return damaged(fmt::format("{} is not spelled in the byte-level alphabet", where()));
    }
    std::string& text = text_slot(out, *id);
    if (!text.empty()) return damaged(fmt::format("two tokens of model.vocab have the id {}", *id));
    text = *bytes;
    out.vocab.emplace(std::move(*bytes), *id);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!out.vocab.contains(std::string(1, static_cast<char>(byte)))) {
      return damaged(fmt::format("model.vocab has no token for the byte {:#04x}", byte));
    }
  }
  return {};
}

/// The two halves of one entry of merges, as spelled in the file.
std::optional<std::array<std::string_view, 2>> halves(const Json& entry) {
  if (entry.is_string()) {
    const std::string_view both = entry.get_ref<const std::string&>();
    const size_t space = both.find(' ');
    if (space == both.npos || both.find(' ', space + 1) != both.npos) return std::nullopt;
    return std::array{both.substr(0, space), both.substr(space + 1)};
  }
  if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_string()) {
    return std::nullopt;
  }
  return std::array<std::string_view, 2>{entry[0].get_ref<const std::string&>(),
                                         entry[1].get_ref<const std::string&>()};
}

Status read_merges(const Json* merges, const ByteAlphabet& alphabet, TokenizerJson& out) {
  if (merges == nullptr || !merges->is_array()) {
    return damaged(fmt::format("model.merges must be an array, got {}", shown(merges)));
  }
  if (merges->size() > size_t{kMaxMerges}) {
    return damaged(fmt::format("model.merges has {} entries, expected at most {}", merges->size(),
                               kMaxMerges));
  }
  out.merges.reserve(merges->size());
  for (const Json& entry : *merges) {
    const auto spelled = halves(entry);
    if (!spelled) {
      return damaged(fmt::format("model.merges[{}] must be [\"a\", \"b\"] or \"a b\", got {}",
                                 out.merges.size(), shown(entry)));
    }
    const auto left = alphabet.decode((*spelled)[0]), right = alphabet.decode((*spelled)[1]);
    const auto id = [&](const std::string& bytes) {
      const auto it = out.vocab.find(bytes);
      return it == out.vocab.end() ? -1 : it->second;
    };
    const Merge merge =
        left && right ? Merge{id(*left), id(*right), id(*left + *right)} : Merge{-1, -1, -1};
    if (merge.left < 0 || merge.right < 0 || merge.merged < 0) {
      return damaged(fmt::format("model.merges[{}]: {} or what it merges to is not in model.vocab",
                                 out.merges.size(), shown(entry)));
    }
    out.merges.push_back(merge);
  }
  return {};
}

Status read_added_tokens(const Json* list, TokenizerJson& out) {
  if (list == nullptr || list->is_null()) return {};
  if (!list->is_array())
    return damaged(fmt::format("added_tokens must be an array, got {}", shown(list)));
  out.added_tokens.reserve(list->size());
  std::unordered_set<std::string> seen;
  for (size_t i = 0; i < list->size(); ++i) {
    const Json* entry = &(*list)[i];
    const std::string where = fmt::format("added_tokens[{}]", i);
    const auto id = as_id(find(entry, "id"));
    const Json* content = find(entry, "content");
    const Json* special = find(entry, "special");
    if (!id || content == nullptr || !content->is_string() ||
        content->get_ref<const std::string&>().empty() ||
        (special != nullptr && !special->is_boolean())) {
      return damaged(
          fmt::format("{} must have an id below {}, a content and whether it is special, got {}",
                      where, kMaxTokenId, shown(entry)));
    }
    for (const char* flag : {"normalized", "lstrip", "rstrip", "single_word"}) {
      VLR_RETURN_IF_ERROR(expect(entry, where.c_str(), flag, false, true));
    }
    AddedToken token{*id, *content, special != nullptr && special->get<bool>()};
    std::string& text = text_slot(out, *id);
    const auto known = out.vocab.find(token.content);
    if ((!text.empty() && text != token.content) || !seen.insert(token.content).second ||
        (known != out.vocab.end() && known->second != *id)) {
      return damaged(fmt::format("{}: its id or its content has another meaning, too: {}", where,
                                 shown(*entry)));
    }
    text = token.content;
    out.added_tokens.push_back(std::move(token));
  }
  return {};
}

}  // namespace

Result<TokenizerJson> parse_tokenizer_json(std::string_view json) {
  const auto tree = JsonTree<Json>::parse(json, kMaxTokenizerBytes);
  if (!tree) return tree.error().with_context("tokenizer.json");
  const Json& root = tree->root();
  VLR_RETURN_IF_ERROR(check_kind(root));
  const ByteAlphabet alphabet;
  const Json* model = find(&root, "model");
  TokenizerJson out;
  VLR_RETURN_IF_ERROR(read_vocab(find(model, "vocab"), alphabet, out));
  VLR_RETURN_IF_ERROR(read_merges(find(model, "merges"), alphabet, out));
  VLR_RETURN_IF_ERROR(read_added_tokens(find(&root, "added_tokens"), out));
  return out;
}

}  // namespace vlr
