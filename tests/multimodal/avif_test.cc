// Containers of AVIF made in the test, whose tables ask for more than a file may.
#include "multimodal/avif.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace vlr {
namespace {

using media::AvifItems;
using media::read_avif;
using namespace std::string_literals;

std::string big(uint64_t value, int bytes) {
  std::string s;
  while (bytes-- > 0) s += static_cast<char>(value >> 8 * bytes);
  return s;
}
std::string box(const std::string& type, const std::string& body) {
  return big(8 + body.size(), 4) + type + body;
}
const std::string kVersion0(4, '\0');

std::string repeated(const std::string& what, int count) {
  std::string s;
  for (int i = 0; i < count; ++i) s += what;
  return s;
}

// A file whose item 1 is the picture; items 2 to num_items may belong to it.
struct Recipe {
  std::string iloc;  // from the sizes of its fields on
  std::string references = "";
  std::string properties = "", associations = "";  // of ipco; of ipma, from the count on
  int num_items = 1;
};
std::string file_of(const Recipe& r) {
  std::string infos;
  for (int i = 1; i <= r.num_items; ++i)
    infos += box("infe", "\2\0\0\0"s + big(static_cast<uint64_t>(i), 2) + "\0\0av01\0"s);
  return box("ftyp", "avif\0\0\0\0avif"s) +
         box("meta",
             kVersion0 + box("pitm", kVersion0 + big(1, 2)) + box("iloc", kVersion0 + r.iloc) +
                 box("iinf", kVersion0 + big(static_cast<uint64_t>(r.num_items), 2) + infos) +
                 box("iref", kVersion0 + r.references) +
                 box("iprp", box("ipco", r.properties) + box("ipma", kVersion0 + r.associations))) +
         box("mdat", "pixels, and transparency");
}

Result<AvifItems> read(const Recipe& recipe) {
  const std::string file = file_of(recipe);
  return read_avif({reinterpret_cast<const uint8_t*>(file.data()), file.size()});
}

// Offsets and lengths of four bytes, no base: an item of `count` pieces, each of the file's first
// `length` bytes.
std::string item(uint64_t id, int count, uint64_t length) {
  return big(id, 2) + big(0, 2) + big(static_cast<uint64_t>(count), 2) +
         repeated(big(0, 4) + big(length, 4), count);
}
const std::string kWide = "\x44\0"s;  // the sizes of those fields

std::string reference(const std::string& how, uint64_t from, uint64_t to) {
  return box(how, big(from, 2) + big(1, 2) + big(to, 2));
}
const std::string kAlpha = "\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"s;

TEST(Avif, ItemsInPieces) {
  const Result<AvifItems> items = read({.iloc = kWide + big(2, 2) + item(7, 3, 5) + item(1, 2, 8)});
  ASSERT_TRUE(items.ok()) << items.error().message();
  EXPECT_EQ(std::string(items->color.begin(), items->color.end()), repeated("\0\0\0\x14"s
                                                                            "ftyp",
                                                                            2));
  EXPECT_TRUE(items->alpha.empty());
}

// 60000 pieces of 400 kB each, which overlap.
TEST(Avif, ItemLongerThanTheFile) {
  const Result<AvifItems> items = read({.iloc = kWide + big(1, 2) + item(1, 60'000, 400'000)});
  ASSERT_FALSE(items.ok());
  EXPECT_EQ(items.error().code(), Code::kDataLoss);
  EXPECT_EQ(items.error().message(), "avif: an item longer than the file");
}

// Tables whose entries take no bytes: 65535 pieces an item, and of 65535 items a reference.
TEST(Avif, EntriesOfNoBytesTakeNoTime) {
  std::string empty;
  for (int i = 0; i < 60'000; ++i) empty += big(9, 2) + big(0, 2) + big(0xffff, 2);
  const Result<AvifItems> items =
      read({.iloc = "\0\0"s + big(60'001, 2) + empty + big(1, 2) + big(0, 4),
            .references = repeated(box("dimg", big(3, 2) + big(0xffff, 2)), 60'000)});
  ASSERT_TRUE(items.ok()) << items.error().message();
  EXPECT_TRUE(items->color.empty());
}

TEST(Avif, Transparency) {
  for (const bool premultiplied : {false, true}) {
    const Result<AvifItems> items = read(
        {.iloc = kWide + big(3, 2) + item(1, 1, 4) + item(2, 1, 5) + item(3, 1, 6),
         .references = reference("auxl", 2, 1) + reference("auxl", 3, 1) +
                       reference("prem", 1, premultiplied ? 3 : 2),
         .properties = box("auxC", "\0\0\0\0urn:mpeg:hevc:2015:auxid:2\0"s) + box("auxC", kAlpha) +
                       box("irot", "\1"),
         .associations = big(3, 4) + big(1, 2) + "\1\3" + big(2, 2) + "\1\1" + big(3, 2) + "\1\2",
         .num_items = 3});
    ASSERT_TRUE(items.ok()) << items.error().message();
    EXPECT_EQ(items->orientation, 8);
    EXPECT_EQ(items->color.size(), 4u);
    EXPECT_EQ(items->alpha.size(), 6u);
    EXPECT_EQ(items->premultiplied, premultiplied);
  }
}

TEST(Avif, AuxiliaryPictures) {
  const auto with = [](uint64_t count) {
    Recipe r{.iloc = kWide + big(2, 2) + item(1, 1, 4) + item(1 + count, 1, 5),
             .properties = box("auxC", kAlpha),
             .associations = big(1, 4) + big(1 + count, 2) + "\1\1",
             .num_items = static_cast<int>(1 + count)};
    for (uint64_t i = 2; i <= 1 + count; ++i)
      r.references += reference("auxl", i, 1) + reference("auxl", i, 9999);
    return read(r);
  };
  const Result<AvifItems> most = with(16);
  ASSERT_TRUE(most.ok()) << most.error().message();
  EXPECT_EQ(most->alpha.size(), 5u);  // the last one is it
  EXPECT_EQ(with(17).error().code(), Code::kDataLoss);
  EXPECT_EQ(with(17).error().message(), "avif: more than 16 auxiliary pictures of the primary one");
}

}  // namespace
}  // namespace vlr
