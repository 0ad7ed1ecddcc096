#include "tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

namespace vlr {
namespace {

constexpr int kCacheBits = 15;

uint64_t load(const char* p, size_t size) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t value = 0;
  std::memcpy(&value, p, size);
  return value;
}

/// Up to 8 bytes as a zero-padded number, without reading past them and without a loop.
uint64_t load_padded(const char* p, size_t size) {
  if (size == 8) return load(p, 8);
  if (size >= 4) return load(p, 4) | (load(p + size - 4, 4) << (8 * (size - 4)));
  if (size == 0) return 0;
  const auto at = [&](size_t i) { return uint64_t{static_cast<uint8_t>(p[i])} << (8 * i); };
  return at(0) | at(size / 2) | at(size - 1);
}

}  // namespace

Result<Tokenizer> Tokenizer::from_json(std::string_view text) {
  VLR_ASSIGN_OR_RETURN(TokenizerJson json, parse_tokenizer_json(text));
  std::sort(json.added_tokens.begin(), json.added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  std::array<int32_t, 256> byte_ids;
  for (size_t byte = 0; byte < 256; ++byte) {
    byte_ids[byte] = json.vocab.at(std::string(1, static_cast<char>(byte)));
  }
  Bpe bpe(byte_ids, json.merges);
  json.merges = {};
  return Tokenizer(std::move(json), std::move(bpe));
}

Result<Tokenizer> Tokenizer::open(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    return {Code::kInvalidArgument, fmt::format("{}: not a regular file", path)};
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const bool there = std::filesystem::exists(path, error);
    return {Code::kNotFound,
            fmt::format("{}: {}", path, there ? "cannot be read" : "no such file")};
  }
  // A byte more than a tokenizer has, which parse_tokenizer_json() then refuses.
  std::string json(
      std::min<size_t>(std::filesystem::file_size(path, error), kMaxTokenizerBytes + 1), '\0');
  file.read(json.data(), std::ssize(json));
  if (error || file.gcount() != std::ssize(json))
    return {Code::kNotFound, fmt::format("{}: cannot be read", path)};
  auto tokenizer = from_json(json);
  if (tokenizer) return tokenizer;
  // Its messages begin with the usual name of the file.
  std::string message = tokenizer.error().message();
  constexpr std::string_view kName = "tokenizer.json";
  if (message.starts_with(kName)) message.replace(0, kName.size(), path);
  return {tokenizer.error().code(), std::move(message)};
}

Tokenizer::Tokenizer(TokenizerJson json, Bpe bpe)
    : json_(std::move(json)), bpe_(std::move(bpe)), special_(json_.texts.size()) {
  for (const AddedToken& token : json_.added_tokens) {
    special_[static_cast<size_t>(token.id)] = token.special;
    begins_added_[static_cast<uint8_t>(token.content[0])] = true;
  }
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view text) const {
  const auto& added = json_.added_tokens;
  const auto a =
      std::lower_bound(added.begin(), added.end(), text,
                       [](const AddedToken& token, auto t) { return token.content < t; });
  if (a != added.end() && a->content == text) return a->id;
  const auto it = json_.vocab.find(std::string(text));
  if (it == json_.vocab.end()) return std::nullopt;
  return it->second;
}

std::string_view Tokenizer::text(int32_t id) const {
  if (id < 0 || id >= num_ids()) return {};
  return json_.texts[static_cast<size_t>(id)];
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < num_ids() && special_[static_cast<size_t>(id)];
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string out;
  for (const int32_t id : ids) out += text(id);
  return out;
}

const AddedToken* Tokenizer::match_added(std::string_view text, size_t max_special) const {
  // The candidates are the tokens that share the first `depth` bytes with the text: a range, as
  // they are sorted, in which the shorter come first.
  const AddedToken* longest = nullptr;
  auto first = json_.added_tokens.begin(), last = json_.added_tokens.end();
  for (size_t depth = 0; first != last; ++depth) {
    if (first->content.size() == depth) {
      if (!first->special || depth <= max_special) longest = &*first;
      ++first;
    }
    if (depth == text.size()) break;
    const auto byte = [&](const AddedToken& token) {
      return static_cast<uint8_t>(token.content[depth]);
    };
    const auto wanted = static_cast<uint8_t>(text[depth]);
    first =
        std::partition_point(first, last, [&](const AddedToken& t) { return byte(t) < wanted; });
    last =
        std::partition_point(first, last, [&](const AddedToken& t) { return byte(t) == wanted; });
  }
  return longest;
}

Encoder::Encoder(const Tokenizer& tokenizer)
    : tokenizer_(&tokenizer), cache_(size_t{1} << kCacheBits) {
  static_assert((sizeof(CachedPiece) << kCacheBits) + kKeptScratch == kMostBytes);
}

void Encoder::encode(std::string_view text, std::span<const UserText> user,
                     std::vector<int32_t>& ids) {
  size_t begin = 0;  // of what is not encoded yet
  size_t pos = 0;
  while (pos < text.size()) {
    if (!tokenizer_->begins_added(text[pos])) {
      ++pos;
      continue;
    }
    while (!user.empty() && user.front().end <= pos) user = user.subspan(1);
    const size_t special_end = user.empty() ? text.size() : std::max(user.front().begin, pos);
    const AddedToken* token = tokenizer_->match_added(text.substr(pos), special_end - pos);
    if (token == nullptr) {
      ++pos;
      continue;
    }
    encode_between(text.substr(begin, pos - begin), ids);
    ids.push_back(token->id);
    pos += token->content.size();
    begin = pos;
  }
  encode_between(text.substr(begin), ids);
  if (scratch_bytes() > kKeptScratch) {
    scratch_ = {};
    normalizer_.clear();
  }
}

size_t Encoder::scratch_bytes() const {
  return scratch_.symbols.capacity() * sizeof(BpeScratch::Symbol) +
         scratch_.queue.capacity() * sizeof(uint64_t) + normalizer_.num_bytes();
}

void Encoder::encode_between(std::string_view text, std::vector<int32_t>& ids) {
  text = normalizer_.normalize(text);
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = piece_end(text, pos);
    encode_piece(text.substr(pos, end - pos), ids);
    pos = end;
  }
}

void Encoder::encode_piece(std::string_view piece, std::vector<int32_t>& ids) {
  const size_t size = piece.size();
  if (size > 15) return tokenizer_->bpe().encode(piece, scratch_, ids);

  const uint64_t low = load_padded(piece.data(), std::min<size_t>(size, 8));
  const uint64_t high =
      (size > 8 ? load_padded(piece.data() + 8, size - 8) : 0) | (uint64_t{size} << 56);
  uint64_t hash = (low ^ std::rotl(high * 0x9E3779B97F4A7C15u, 29)) * 0xD6E8FEB86659FD93u;
  CachedPiece& cached = cache_[hash >> (64 - kCacheBits)];
  if (cached.low == low && cached.high == high) {
    for (const int32_t id : cached.ids) {
      if (id < 0) break;
      ids.push_back(id);
    }
    return;
  }
  const size_t before = ids.size();
  tokenizer_->bpe().encode(piece, scratch_, ids);
  const size_t n = ids.size() - before;
  if (n > cached.ids.size()) return;
  cached = {low, high, {-1, -1, -1, -1}};
  std::copy_n(ids.end() - static_cast<std::ptrdiff_t>(n), n, cached.ids.begin());
}

}  // namespace vlr
