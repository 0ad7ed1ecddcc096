#include "multimodal/avif.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "kernels/core/text.h"
#include "multimodal/decoders.h"
#include "multimodal/source.h"

namespace vlr::media {
namespace {

// Big-endian fields; reading past the end gives zeros and is noted.
class Fields {
 public:
  explicit Fields(Bytes bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  size_t left() const { return bytes_.size(); }
  uint64_t number(size_t count) {
    uint64_t v = 0;
    for (const uint8_t b : take(count)) v = v << 8 | b;
    return v;
  }
  Bytes take(uint64_t count) {
    ok_ = ok_ && count <= bytes_.size();
    const Bytes taken = bytes_.first(ok_ ? static_cast<size_t>(count) : 0);
    bytes_ = ok_ ? bytes_.subspan(taken.size()) : Bytes();
    return taken;
  }
  std::string_view text(size_t count) {
    const Bytes b = take(count);
    return {reinterpret_cast<const char*>(b.data()), b.size()};
  }

 private:
  Bytes bytes_;
  bool ok_ = true;
};

struct Box {
  std::string_view type;
  Bytes body;
};

std::vector<Box> boxes(Bytes bytes) {
  std::vector<Box> found;
  Fields in(bytes);
  while (in.left() > 0) {
    uint64_t size = in.number(4), head = 8;
    const std::string_view type = in.text(4);
    if (size == 1) size = in.number(8), head = 16;
    if (!in.ok() || (size != 0 && size < head)) break;
    // Size 0: up to the end. A box that is cut short is one all the same: pixels come last.
    const uint64_t body = size == 0 ? in.left() : std::min<uint64_t>(size - head, in.left());
    found.push_back({type, in.take(body)});
  }
  return found;
}

Bytes body_of(const std::vector<Box>& list, std::string_view type) {
  for (const Box& box : list) {
    if (box.type == type) return box.body;
  }
  return {};
}

struct Meta {
  Bytes file;
  std::vector<Box> boxes;

  // iloc: the bytes of an item, which may be in pieces, though no more of them than the file has.
  Result<std::vector<uint8_t>> data(uint64_t wanted) const {
    Fields in(body_of(boxes, "iloc"));
    const auto version = in.number(1);
    in.take(3);
    const auto sizes = in.number(2);
    const size_t offset_bytes = sizes >> 12, length_bytes = sizes >> 8 & 15,
                 base_bytes = sizes >> 4 & 15, index_bytes = version == 0 ? 0 : sizes & 15;
    const size_t id_bytes = version < 2 ? 2 : 4;
    for (auto count = in.number(id_bytes); count > 0 && in.ok(); --count) {
      const auto id = in.number(id_bytes);
      const auto method = version == 0 ? 0 : in.number(2) & 15;
      in.take(2);  // of which file
      const auto base = in.number(base_bytes);
      auto pieces = in.number(2);
      if (id != wanted) {
        in.take(pieces * (index_bytes + offset_bytes + length_bytes));
        continue;
      }
      if (method > 1) return Status{Code::kUnimplemented, "avif: an item made of other items"};
      const Bytes source = method == 0 ? file : body_of(boxes, "idat");
      std::vector<uint8_t> out;
      for (; pieces > 0 && in.ok(); --pieces) {
        in.take(index_bytes);
        const auto offset = base + in.number(offset_bytes), length = in.number(length_bytes);
        Fields where(source);
        where.take(offset);
        const Bytes piece = where.take(length);
        if (!where.ok()) {
          return Status{Code::kDataLoss,
                        fmt::format("avif: truncated: {} bytes end before byte {} of the pixels",
                                    file.size(), offset + length)};
        }
        if (piece.size() > file.size() - out.size())
          return Status{Code::kDataLoss, "avif: an item longer than the file"};
        out.insert(out.end(), piece.begin(), piece.end());
      }
      if (in.ok()) return out;
    }
    return Status{Code::kDataLoss, fmt::format("avif: item {} is nowhere in the file", wanted)};
  }

  // iinf: what kind of item it is.
  std::string_view type(uint64_t wanted) const {
    Fields in(body_of(boxes, "iinf"));
    const auto version = in.number(1);
    in.take(3);
    in.number(version == 0 ? 2 : 4);
    for (const Box& box : media::boxes(in.take(in.left()))) {
      Fields entry(box.body);
      const auto entry_version = entry.number(1);
      entry.take(3);
      if (box.type != "infe" || entry_version < 2) continue;
      if (entry.number(entry_version == 2 ? 2 : 4) != wanted) continue;
      entry.take(2);
      return entry.text(4);
    }
    return {};
  }

  // iref: which items refer to which others in this way.
  std::vector<std::pair<uint64_t, uint64_t>> references(std::string_view how) const {
    std::vector<std::pair<uint64_t, uint64_t>> pairs;
    Fields in(body_of(boxes, "iref"));
    const size_t id_bytes = in.number(1) == 0 ? 2 : 4;
    in.take(3);
    for (const Box& box : media::boxes(in.take(in.left()))) {
      if (box.type != how) continue;
      Fields entry(box.body);
      const auto from = entry.number(id_bytes);
      for (auto count = entry.number(2); count > 0 && entry.ok(); --count)
        pairs.emplace_back(from, entry.number(id_bytes));
    }
    return pairs;
  }

  // iprp: the properties of some items, in one pass. Of an item that is named again only the first
  // list counts; ISO 14496-12 allows no second one.
  std::map<uint64_t, std::vector<Box>> properties(std::span<const uint64_t> wanted) const {
    const std::vector<Box> iprp = media::boxes(body_of(boxes, "iprp"));
    const std::vector<Box> all = media::boxes(body_of(iprp, "ipco"));
    std::map<uint64_t, std::vector<Box>> found;
    Fields in(body_of(iprp, "ipma"));
    const size_t id_bytes = in.number(1) == 0 ? 2 : 4;
    const bool wide = in.number(3) & 1;
    for (auto count = in.number(4); count > 0 && in.ok(); --count) {
      const auto id = in.number(id_bytes);
      const bool takes = std::ranges::find(wanted, id) != wanted.end() && !found.contains(id);
      for (auto n = in.number(1); n > 0 && in.ok(); --n) {
        const auto index = wide ? in.number(2) & 0x7fff : in.number(1) & 0x7f;
        if (takes && index >= 1 && index <= all.size()) found[id].push_back(all[index - 1]);
      }
    }
    return found;
  }
};

bool is_alpha(const std::vector<Box>& properties) {
  Fields in(body_of(properties, "auxC"));
  in.take(4);
  constexpr std::string_view kAlpha = "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha";
  return in.text(kAlpha.size()) == kAlpha;
}

}  // namespace

Result<AvifItems> read_avif(Bytes file) {
  const std::vector<Box> top = boxes(file);
  Fields head(body_of(top, "meta"));
  head.take(4);
  if (!head.ok()) {
    if (!body_of(top, "moov").empty())
      return {Code::kUnimplemented, "avif: a sequence without a still picture"};
    return {Code::kDataLoss,
            fmt::format("avif: damaged or truncated: no box 'meta' in {} bytes", file.size())};
  }
  const Meta meta{file, boxes(head.take(head.left()))};
  Fields pitm(body_of(meta.boxes, "pitm"));
  const size_t id_bytes = pitm.number(1) == 0 ? 2 : 4;
  pitm.take(3);
  const uint64_t primary = pitm.number(id_bytes);
  if (!pitm.ok()) return {Code::kDataLoss, "avif: no primary picture"};
  if (const std::string_view type = meta.type(primary); type != "av01") {
    return {Code::kUnimplemented,
            fmt::format("avif: a picture of kind '{}', expected 'av01'", printable(type))};
  }

  AvifItems items;
  VLR_ASSIGN_OR_RETURN(items.color, meta.data(primary));
  // The primary picture, and those that say they belong to it: transparency, depth and the like.
  constexpr size_t kMaxAuxiliary = 16;
  std::vector<uint64_t> pictures = {primary};
  for (const auto& [from, to] : meta.references("auxl")) {
    if (to == primary) pictures.push_back(from);
    if (pictures.size() > 1 + kMaxAuxiliary) {
      return {
          Code::kDataLoss,
          fmt::format("avif: more than {} auxiliary pictures of the primary one", kMaxAuxiliary)};
    }
  }
  std::map<uint64_t, std::vector<Box>> properties = meta.properties(pictures);

  uint64_t angle = 0, mirror = 0;  // mirror 1: top and bottom change places, 2: left and right
  for (const Box& property : properties[primary]) {
    Fields in(property.body);
    if (property.type == "ispe") {
      in.take(4);
      items.width = static_cast<int64_t>(in.number(4));
      items.height = static_cast<int64_t>(in.number(4));
    } else if (property.type == "irot") {
      angle = in.number(1) & 3;
    } else if (property.type == "imir") {
      mirror = 1 + (in.number(1) & 1);
    } else if (property.type == "colr" && in.text(4) == "nclx") {
      in.take(4);
      const auto matrix = static_cast<int>(in.number(2));
      items.colors = {.matrix = matrix, .full_range = in.number(1) >> 7 != 0};
    }
  }
  // Quarter turns against the clock first, then the mirror.
  constexpr int kOrientation[3][4] = {{1, 8, 3, 6}, {4, 5, 2, 7}, {2, 7, 4, 5}};
  items.orientation = kOrientation[mirror][angle];

  const auto alpha = std::find_if(pictures.begin() + 1, pictures.end(),
                                  [&](uint64_t item) { return is_alpha(properties[item]); });
  if (alpha != pictures.end()) {
    VLR_ASSIGN_OR_RETURN(items.alpha, meta.data(*alpha));
    for (const auto& [picture, other] : meta.references("prem"))
      items.premultiplied = items.premultiplied || (picture == primary && other == *alpha);
  }
  return items;
}

}  // namespace vlr::media
