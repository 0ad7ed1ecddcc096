#include "engine/runtime/safetensors.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <thread>
#include <vector>

#include "model/json.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;
using testing::read_file;
using testing::TempFolder;
using testing::write_file;

std::vector<std::string> files_in(const TempFolder& folder) {
  std::vector<std::string> out;
  for (const auto& f : std::filesystem::directory_iterator(folder.path()))
    out.push_back(f.path().filename().string());
  return out;
}

/// A file with this header text and `data_bytes` bytes 0, 1, 2, ... of data.
std::string file_of(std::string_view header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), 8);
  file += header;
  for (size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

Result<SafetensorsHeader> parse(std::string_view file) {
  return parse_safetensors_header(std::as_bytes(std::span(file)),
                                  static_cast<int64_t>(file.size()));
}

void expect_refused(const std::string& header, size_t data_bytes, std::string_view why,
                    Code code = Code::kDataLoss) {
  const auto parsed = parse(file_of(header, data_bytes));
  ASSERT_FALSE(parsed) << header;
  EXPECT_EQ(parsed.error().code(), code) << header;
  EXPECT_THAT(parsed.error().message(), HasSubstr(why)) << header;
}

/// An entry of the header.
std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{}]}})", name, dtype,
                     shape, offsets);
}

/// A header of these entries.
std::string header_of(std::initializer_list<std::string_view> entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

TEST(SafetensorsHeader, ReadsTensors) {
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\",\"n\\u00e9\":\"\"}," +
      entry("b", "F32", "2,1", "4,12") + ", " + entry("a", "BF16", "2", "0,4") + "," +
      entry("scalar", "U8", "", "12,13") + "," + entry("empty", "I64", "7,0,9", "13,13") + "," +
      entry("rank6", "BOOL", "1,1,1,1,1,2", "13,15") + "}  ";
  const std::string file = file_of(header, 15);
  const auto parsed = parse(file);
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto data = static_cast<int64_t>(8 + header.size());
  ASSERT_EQ(parsed->tensors.size(), 5u);
  EXPECT_EQ(describe(parsed->tensors.at("a")), "bf16[2]");
  EXPECT_EQ(parsed->tensors.at("a").file_offset, data);
  EXPECT_EQ(describe(parsed->tensors.at("b")), "f32[2, 1]");
  EXPECT_EQ(parsed->tensors.at("b").file_offset, data + 4);
  EXPECT_EQ(parsed->tensors.at("scalar").numel(), 1);
  EXPECT_EQ(parsed->tensors.at("empty").bytes(), 0);
  EXPECT_EQ(parsed->tensors.at("rank6").shape.size(), 6u);
  EXPECT_EQ(parsed->metadata.at("format"), "pt");
  EXPECT_EQ(parsed->metadata.at("n\u00e9"), "");
  EXPECT_TRUE(parse(file_of("{}", 0)));
}

TEST(SafetensorsHeader, KnowsEveryDtype) {
  const std::pair<const char*, DType> dtypes[] = {
      {"BOOL", DType::kBool},      {"U8", DType::kU8},          {"I8", DType::kI8},
      {"F8_E4M3", DType::kF8E4M3}, {"F8_E5M2", DType::kF8E5M2}, {"I16", DType::kI16},
      {"U16", DType::kU16},        {"F16", DType::kF16},        {"BF16", DType::kBF16},
      {"I32", DType::kI32},        {"U32", DType::kU32},        {"F32", DType::kF32},
      {"I64", DType::kI64},        {"U64", DType::kU64},        {"F64", DType::kF64}};
  for (const auto& [name, dtype] : dtypes) {
    const auto bytes = static_cast<size_t>(3 * dtype_bytes(dtype));
    const auto parsed =
        parse(file_of(header_of({entry("x", name, "3", "0," + std::to_string(bytes))}), bytes));
    ASSERT_TRUE(parsed) << name << parsed.error().message();
    EXPECT_EQ(parsed->tensors.at("x").dtype, dtype) << name;
  }
}

TEST(SafetensorsHeader, RefusesBadLengths) {
  EXPECT_THAT(parse("1234567").error().message(), HasSubstr("7 bytes is too short"));
  EXPECT_THAT(parse("").error().message(), HasSubstr("0 bytes is too short"));
  std::string file = file_of("{}", 0);
  file[0] = 3;
  EXPECT_THAT(parse(file).error().message(), HasSubstr("wants 3 bytes, the file has 2"));
  file[7] = '\xff';
  EXPECT_THAT(parse(file).error().message(), HasSubstr("at most 100000000 are allowed"));
  // The bytes at hand end before the header does, whatever the file's size is said to be.
  EXPECT_FALSE(
      parse_safetensors_header(std::as_bytes(std::span("\x40\0\0\0\0\0\0\0{}", 10)), 1000));
  EXPECT_FALSE(parse(file_of("", 0)));
}

TEST(SafetensorsHeader, RefusesWhatIsNoHeader) {
  expect_refused(" {}", 0, "does not start with '{'");
  expect_refused("\xef\xbb\xbf{}", 0, "does not start with '{'");
  expect_refused("[]", 0, "does not start with '{'");
  expect_refused("{", 0, "not JSON");
  expect_refused("{}x", 0, "not JSON");
  expect_refused("{\"\xff\":1}", 0, "not JSON");
  expect_refused("{\"a\":1}", 0, "has a number as a tensor's entry, near 'a'");
  expect_refused("{\"a\":null}", 0, "has null");
  expect_refused("{\"a\":[]}", 0, "has an array");
  expect_refused("{\"a\":{\"b\":{}}}", 0, "unknown key 'b'");
  expect_refused("{\"a\":{\"shape\":{}}}", 0, "has an object in a tensor's entry");
  expect_refused("{\"a\":{\"shape\":[[1]]}}", 0, "has an array in an array");
  expect_refused("{\"a\":{\"shape\":[" + std::string(100000, '['), 0, "has an array in an array");
  expect_refused("{\"a\":{}}", 0, "'a' has no dtype");
  expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "'a' has no data_offsets");
  expect_refused("{\"__metadata__\":{\"a\":1}}", 0, "has a number in the metadata");
  expect_refused("{\"__metadata__\":{\"a\":{}}}", 0, "has an object in the metadata");
  expect_refused("{\"__metadata__\":3}", 0, "has a number");
}

TEST(SafetensorsHeader, RefusesDuplicates) {
  expect_refused(header_of({entry("a", "U8", "1", "0,1"), entry("a", "U8", "1", "1,2")}), 2,
                 "'a' is there twice");
  expect_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' is there twice");
  expect_refused("{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}", 0, "metadata has 'k' twice");
  expect_refused("{\"a\":{\"shape\":[1],\"shape\":[2]}}", 0, "'a' has shape twice");
}

TEST(SafetensorsHeader, RefusesBadShapesAndDtypes) {
  const auto one = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return header_of({entry("a", dtype, shape, offsets)});
  };
  expect_refused(one("F4", "2", "0,1"), 1, "'a' has dtype 'F4'", Code::kUnimplemented);
  expect_refused(one("U8", "-1", "0,1"), 1, "a negative number in an array");
  expect_refused(one("U8", "1.5", "0,1"), 1, "no 64-bit integer");
  expect_refused(one("U8", "18446744073709551616", "0,1"), 1, "no 64-bit integer");
  expect_refused(one("U8", "9223372036854775808", "0,1"), 1, "shape holds 9223372036854775808");
  expect_refused(one("U8", "4294967296,4294967296", "0,0"), 0, "exceed 64 bits");
  expect_refused(one("F64", "1152921504606846976", "0,0"), 0, "exceed 64 bits");
  expect_refused(one("U8", "4294967296,4294967296,0", "0,0"), 0, "exceed 64 bits");
  expect_refused(one("U8", "\"1\"", "0,1"), 1, "has a string in an array");
}

TEST(SafetensorsHeader, RefusesBadRanges) {
  const auto one = [](std::string_view offsets) {
    return header_of({entry("a", "U8", "4", offsets)});
  };
  expect_refused(one("0,3"), 4, "takes 4 bytes, data_offsets are [0, 3)");
  expect_refused(one("4,0"), 4, "data_offsets are [4, 0)");
  expect_refused(one("0"), 4, "must be 2 numbers, got 1");
  expect_refused(one("0,4,4"), 4, "must be 2 numbers, got 3");
  expect_refused(one("1,5"), 5, "with a gap after one that ends at 0");
  expect_refused(one("0,4"), 3, "take 4 bytes, the file has 3");
  expect_refused(one("0,4"), 5, "take 4 bytes, the file has 5");
  expect_refused(one("9223372036854775803,9223372036854775807"), 4, "with a gap");
  const auto two = [](std::string_view second) {
    return header_of({entry("a", "U8", "4", "0,4"), entry("b", "U8", "4", second)});
  };
  EXPECT_TRUE(parse(file_of(two("4,8"), 8)));
  expect_refused(two("3,7"), 7, "'b' starts at byte 3 of the data, inside one that ends at 4");
  expect_refused(two("0,4"), 4, "inside");
  expect_refused(two("5,9"), 9,
                 "'b' starts at byte 5 of the data, with a gap after one that ends at 4");
  expect_refused(header_of({entry("a", "U8", "4", "0,4"), entry("b", "U8", "0", "2,2")}), 4,
                 "inside");
}

TEST(SafetensorsHeader, MessagesStayShort) {
  const auto parsed = parse(file_of("{\"" + std::string(100000, 'n') + "\\n\":1}", 0));
  ASSERT_FALSE(parsed);
  EXPECT_LT(parsed.error().message().size(), 400u);
}

TEST(SafetensorsFile, MapsData) {
  TempFolder folder;
  write_file(folder / "x",
             file_of(header_of({entry("a", "U8", "2", "0,2"), entry("b", "U8", "3", "2,5")}), 5));
  auto file = SafetensorsFile::open(folder / "x");
  ASSERT_TRUE(file) << file.error().message();
  const StoredTensor& b = file->tensors().at("b");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(b.data), 3), "\x02\x03\x04");
  EXPECT_EQ(b.file_offset, file->bytes() - 3);

  // Views outlive a move of their file, and a removal of its name.
  std::filesystem::remove(folder / "x");
  const SafetensorsFile moved = std::move(*file);
  EXPECT_EQ(moved.tensors().at("b").data, b.data);
  EXPECT_EQ(static_cast<int>(b.data[2]), 4);
}

TEST(SafetensorsFile, SaysWhichDataAreUnaligned) {
  TempFolder folder;
  // 1 byte of a, then 2 of b: whatever the header's length, one of two f16 in a row of u8 is odd.
  write_file(folder / "x",
             file_of(header_of({entry("a", "U8", "1", "0,1"), entry("b", "F16", "1", "1,3"),
                                entry("c", "U8", "1", "3,4"), entry("d", "F16", "1", "4,6")}),
                     6));
  const auto file = SafetensorsFile::open(folder / "x");
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_NE(file->tensors().at("b").aligned(), file->tensors().at("d").aligned());
  EXPECT_TRUE(file->tensors().at("a").aligned());
}

TEST(SafetensorsFile, NamesThePath) {
  TempFolder folder;
  const auto none = SafetensorsFile::open(folder / "none");
  EXPECT_EQ(none.error().code(), Code::kNotFound);
  EXPECT_THAT(none.error().message(), HasSubstr(folder / "none"));
  write_file(folder / "short", "abc");
  const auto small = SafetensorsFile::open(folder / "short");
  EXPECT_EQ(small.error().code(), Code::kDataLoss);
  EXPECT_THAT(small.error().message(), HasSubstr("short: a file of 3 bytes is too short"));
  EXPECT_EQ(SafetensorsFile::open(folder.path()).error().code(), Code::kInvalidArgument);
  write_file(folder / "bad", file_of("{", 0));
  EXPECT_THAT(SafetensorsFile::open(folder / "bad").error().message(), HasSubstr(folder / "bad"));
}

NamedShape named(std::string name, DType dtype, std::vector<int64_t> shape) {
  return {{dtype, std::move(shape)}, std::move(name)};
}

/// Byte i of a tensor is the first letter of its name plus i.
Status fill_letters(const NamedShape& t, int64_t begin, std::span<std::byte> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<std::byte>(t.name[0] + begin + static_cast<int64_t>(i));
  }
  return {};
}

TEST(WriteSafetensors, BytesAreTheLibrarys) {
  TempFolder folder;
  ASSERT_EQ(write_safetensors(folder / "x",
                              {named("z\"\n\u00e9", DType::kU8, {3}), named("b", DType::kF32, {1}),
                               named("a", DType::kBF16, {2, 1}), named("s", DType::kF32, {})},
                              fill_letters)
                .message(),
            "");
  // Widest dtype first, then by name; as the safetensors crate sorts, pads and escapes.
  std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
      "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]},"
      "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[8,12]},"
      "\"z\\\"\\n\u00e9\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[12,15]}}";
  header.append((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(read_file(folder / "x"), file_of(header, 0) + "bcdestuvabcdz{|");
  EXPECT_EQ(files_in(folder), std::vector<std::string>{"x"});
}

TEST(WriteSafetensors, ReplacesNothingButFiles) {
  TempFolder folder;
  namespace fs = std::filesystem;
  fs::create_directory(folder / "far");
  write_file(folder / "far/file", "old");
  fs::create_symlink("far/file", folder / "link");
  fs::create_symlink("far/new", folder / "dangling");
  const auto write = [&](const std::string& name) {
    return write_safetensors(folder / name, {named("a", DType::kU8, {1})}, fill_letters);
  };
  EXPECT_EQ(write("link").message(), "");
  EXPECT_EQ(write("dangling").message(), "");
  for (const char* link : {"link", "dangling"}) {
    EXPECT_TRUE(fs::is_symlink(folder / link));
    EXPECT_TRUE(SafetensorsFile::open(folder / link)) << link;
  }
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::string read;
  std::thread reader([&] { read = read_file(folder / "pipe"); });
  EXPECT_EQ(write("pipe").message(), "");
  reader.join();
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  EXPECT_THAT(write("pipe").message(), HasSubstr("nothing reads the other end of this FIFO"));
  fs::create_symlink("/dev/full", folder / "to_full");
  EXPECT_THAT(write_text_file(folder / "to_full", "text").message(), HasSubstr("cannot write"));
  EXPECT_TRUE(fs::is_symlink(folder / "to_full"));
  EXPECT_THAT(write_text_file(folder / "pipe", "text").message(), HasSubstr("nothing reads"));
  EXPECT_EQ(read, read_file(folder / "far/file"));
  const Status full =
      write_safetensors("/dev/full", {named("a", DType::kU8, {1 << 20})}, fill_letters);
  EXPECT_THAT(full.message(), HasSubstr("/dev/full"));
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST(WriteSafetensors, AsksForPiecesInOrder) {
  TempFolder folder;
  const int64_t size = (int64_t{9} << 20) + 6;
  std::vector<std::pair<int64_t, size_t>> pieces;
  const auto record = [&](const NamedShape& t, int64_t begin, std::span<std::byte> out) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(out.data()) % 8, 0u);
    pieces.emplace_back(begin, out.size());
    return fill_letters(t, begin, out);
  };
  ASSERT_EQ(
      write_safetensors(folder / "x", {named("a", DType::kBF16, {size / 2})}, record).message(),
      "");
  int64_t pos = 0;
  for (const auto& [begin, n] : pieces) {
    EXPECT_EQ(begin, pos);
    EXPECT_LE(n, size_t{8} << 20);
    pos += static_cast<int64_t>(n);
  }
  EXPECT_EQ(pos, size);
  EXPECT_GT(pieces.size(), 1u);
  const auto file = SafetensorsFile::open(folder / "x");
  ASSERT_TRUE(file);
  EXPECT_EQ(static_cast<char>(file->tensors().at("a").data[size - 1]),
            static_cast<char>('a' + size - 1));
}

TEST(WriteSafetensors, LeavesNothingBehindOnFailure) {
  TempFolder folder;
  write_file(folder / "x", "old");
  const auto fail = [](const NamedShape&, int64_t, std::span<std::byte>) {
    return Status(Code::kCancelled, "stop");
  };
  EXPECT_EQ(write_safetensors(folder / "x", {named("a", DType::kU8, {1})}, fail).code(),
            Code::kCancelled);
  EXPECT_EQ(read_file(folder / "x"), "old");
  EXPECT_EQ(files_in(folder), std::vector<std::string>{"x"});
  EXPECT_THAT(write_safetensors(folder / "none/x", {}, fail).message(),
              HasSubstr(folder / "none/x"));
  EXPECT_THAT(
      write_safetensors(folder / "x", {named("a", DType::kU8, {1}), named("a", DType::kF32, {1})},
                        fill_letters)
          .message(),
      HasSubstr("'a' is there twice"));
}

TEST(WriteSafetensors, RefusesWhatItCannotStore) {
  TempFolder folder;
  const auto message = [&](NamedShape t) {
    return write_safetensors(folder / "x", {std::move(t)}, fill_letters).message();
  };
  EXPECT_THAT(message(named("a", DType::kU8, {-1})), HasSubstr("cannot store shape [-1]"));
  EXPECT_THAT(message(named("a", DType::kU8, {int64_t{1} << 62, 4})),
              HasSubstr("cannot store shape"));
  EXPECT_THAT(message(named("\xff", DType::kU8, {1})), HasSubstr("not UTF-8"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

class CheckpointFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(write_safetensors(folder_ / "one.safetensors",
                                  {named("a", DType::kU8, {2}), named("x", DType::kU8, {1})},
                                  fill_letters)
                    .ok());
    ASSERT_TRUE(
        write_safetensors(folder_ / "two.safetensors", {named("b", DType::kU8, {3})}, fill_letters)
            .ok());
  }
  void index(const std::string& text) {
    write_file(folder_ / "model.safetensors.index.json", text);
  }
  std::string error() {
    const auto checkpoint = Checkpoint::open(folder_.path());
    EXPECT_FALSE(checkpoint);
    code_ = checkpoint.error().code();
    return checkpoint.error().message();
  }
  TempFolder folder_;
  Code code_{};
};

TEST_F(CheckpointFolder, PrefersTheIndex) {
  write_file(folder_ / "model.safetensors", "not looked at");
  index(
      R"({"metadata": {"total_size": 5}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  const auto checkpoint = Checkpoint::open(folder_.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->tensors().size(), 2u);  // x is in a shard, but the index does not name it
  EXPECT_EQ(checkpoint->files().size(), 2u);
  const StoredTensor* b = checkpoint->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(checkpoint->files()[static_cast<size_t>(b->file_idx)].path(),
            folder_ / "two.safetensors");
  EXPECT_EQ(static_cast<char>(b->data[2]), 'd');
  EXPECT_EQ(checkpoint->find("x"), nullptr);
  EXPECT_EQ(checkpoint->bytes_mapped(),
            checkpoint->files()[0].bytes() + checkpoint->files()[1].bytes());
}

TEST_F(CheckpointFolder, TakesASingleFile) {
  std::filesystem::copy(folder_ / "one.safetensors", folder_ / "model.safetensors");
  const auto checkpoint = Checkpoint::open(folder_.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->tensors().size(), 2u);
}

TEST_F(CheckpointFolder, SaysWhatIsMissing) {
  EXPECT_THAT(error(), HasSubstr("expected model.safetensors.index.json or model.safetensors"));
  EXPECT_EQ(code_, Code::kNotFound);
  index(R"({"weight_map": {"a": "three.safetensors"}})");
  EXPECT_THAT(error(), HasSubstr("three.safetensors: No such file"));
  EXPECT_EQ(code_, Code::kNotFound);
  index(R"({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}})");
  EXPECT_THAT(error(), HasSubstr("'b' should be in one.safetensors, which does not have it"));
  EXPECT_EQ(code_, Code::kNotFound);
}

TEST_F(CheckpointFolder, RefusesPathsInTheIndex) {
  for (const char* shard : {"../one.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\\\b",
                            "one.safetensors\\u0000"}) {
    index(std::string(R"({"weight_map": {"a": ")") + shard + "\"}}");
    EXPECT_THAT(error(), HasSubstr("must be a file name without a folder")) << shard;
    EXPECT_EQ(code_, Code::kDataLoss);
  }
}

TEST_F(CheckpointFolder, RefusesADamagedIndex) {
  for (const char* text : {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})",
                           R"({"weight_map": {"a": 1}})"}) {
    index(text);
    EXPECT_THAT(error(), HasSubstr("model.safetensors.index.json")) << text;
    EXPECT_EQ(code_, Code::kDataLoss) << text;
  }
  index(std::string(100000, '['));
  EXPECT_THAT(error(), HasSubstr("nested deeper than 64 levels"));
}

}  // namespace
}  // namespace vlr
