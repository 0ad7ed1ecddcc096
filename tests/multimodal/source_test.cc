#include "multimodal/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "multimodal/uri.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using vlr::testing::TempFolder;
using vlr::testing::write_file;

const fs::path kGolden = fs::path(VLR_SOURCE_DIR) / "tests/golden";

/// The bytes as text, or "ERROR: message".
std::string text_of(const Result<std::vector<std::byte>>& bytes) {
  if (!bytes) return "ERROR: " + bytes.error().message();
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}
std::string read(std::string_view uri, const fs::path& root = {}, int64_t max_bytes = 1 << 20) {
  return text_of(read_source(uri, root, {.max_bytes = max_bytes}));
}
Code code_of(std::string_view uri, const fs::path& root = {}) {
  return read_source(uri, root, {}).error().code();
}

TEST(ReadFile, SaysWhatIsWrong) {
  const fs::path folder = fs::path(::testing::TempDir());
  const fs::path empty = folder / "vlr_source_test_empty";
  std::ofstream(empty).close();
  EXPECT_EQ(read_file("no/such.png", 10).error().code(), Code::kNotFound);
  EXPECT_EQ(read_file("no/such.png", 10).error().message(), "no/such.png: no such file");
  EXPECT_THAT(read_file(folder, 10).error().message(), HasSubstr("is a folder"));
  EXPECT_THAT(read_file(empty, 10).error().message(), HasSubstr("is empty"));
  EXPECT_THAT(read_file("/dev/null", 10).error().message(), HasSubstr("neither a file nor"));
  EXPECT_THAT(read_file(kGolden / "media/one.png", 68).error().message(),
              HasSubstr("has 69 bytes, at most 68"));
  EXPECT_EQ(read_file(kGolden / "media/one.png", 69)->size(), 69u);
  fs::remove(empty);
}

// Anything below the root can be read, by any path; nothing else, and nobody learns whether it exists.
TEST(ReadSource, BelowTheRootOnly) {
  const TempFolder outer;
  const fs::path root = fs::path(outer.path()) / "root";
  fs::create_directories(root / "sub");
  write_file(root / "a.png", "inside");
  write_file(root / "sub/b.png", "deeper");
  write_file(fs::path(outer.path()) / "secret", "outside");
  fs::create_symlink("sub/b.png", root / "link");
  fs::create_symlink(fs::path("..") / "a.png", root / "sub/up");
  fs::create_symlink(root / "a.png", root / "absolute");
  fs::create_symlink("../secret", root / "out");
  fs::create_symlink(outer.path(), root / "out_folder");
  fs::create_symlink("/etc/passwd", root / "passwd");
  fs::create_symlink("loop", root / "loop");
  fs::create_symlink(root, fs::path(outer.path()) / "other_name");
  const SourceOptions below{.local_files = LocalFiles::kBelowRoot};
  const auto get = [&](std::string_view uri, const fs::path& from) {
    return text_of(read_source(uri, from, below));
  };
  for (const fs::path& from : {root, fs::path(outer.path()) / "other_name", root / "sub/.."}) {
    const std::string whole = (from / "a.png").string();
    for (const std::string& uri :
         {std::string("a.png"), std::string("./sub/../a.png"), std::string("sub//up"), whole,
          (root / "a.png").string(), "file://" + whole, std::string("file://a.png"),
          std::string("file://a%2epng")}) {
      EXPECT_EQ(get(uri, from), "inside") << uri << " from " << from;
    }
    EXPECT_EQ(get("absolute", root), "inside");
    EXPECT_EQ(get("link", from), "deeper");
    for (const std::string& uri :
         {std::string("../secret"), std::string("../nothing"), std::string("sub/../../secret"),
          std::string("out"), std::string("out_folder/secret"), std::string("passwd"),
          std::string("/etc/passwd"), std::string("/etc/nothing"), std::string("/proc/self/fd/0"),
          std::string("file:///etc/passwd"), std::string("file://../secret"),
          std::string("file:///%65tc/passwd"), whole + "/../../secret", std::string("..")}) {
      const auto bytes = read_source(uri, from, below);
      EXPECT_EQ(bytes.error().code(), Code::kInvalidArgument) << uri;
      EXPECT_EQ(bytes.error().message().find("outside"), std::string::npos);
      if (uri.find("a.png") != uri.npos) continue;
      EXPECT_THAT(bytes.error().message(), HasSubstr("is not below the media root")) << uri;
    }
    EXPECT_THAT(get("nothing.png", from), HasSubstr("nothing.png: no such file"));
    EXPECT_THAT(get("sub", from), HasSubstr("is a folder"));
    EXPECT_THAT(get(".", from), HasSubstr("is a folder"));
    EXPECT_THAT(get("loop", from), HasSubstr("too many symbolic links"));
    EXPECT_THAT(get("a.png/b", from), HasSubstr("no such file"));
  }
  EXPECT_EQ(get("data:,ok", root), "ok");
}

TEST(ReadSource, NoFilesAtAll) {
  const SourceOptions never{.local_files = LocalFiles::kNever};
  for (const char* uri : {"a.png", "/etc/passwd", "/no/such", "file:///etc/passwd", "../a"}) {
    const auto bytes = read_source(uri, kGolden, never);
    EXPECT_EQ(bytes.error().code(), Code::kInvalidArgument);
    EXPECT_THAT(bytes.error().message(), HasSubstr("files of this machine are not allowed"));
  }
  EXPECT_EQ(text_of(read_source("data:,ok", {}, never)), "ok");
}

TEST(ReadFile, WaitsForNobody) {
  const TempFolder folder;
  const std::string pipe = (fs::path(folder.path()) / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(read(pipe), HasSubstr("is neither a file nor a link to one"));
  EXPECT_THAT(text_of(read_source("pipe", folder.path(), {.local_files = LocalFiles::kBelowRoot})),
              HasSubstr("is neither a file nor a link to one"));
}

TEST(SchemeOf, TellsUrisFromPaths) {
  using media::scheme_of;
  EXPECT_EQ(scheme_of("https://a/b"), "https");
  EXPECT_EQ(scheme_of("HTTP://a/b"), "http");
  EXPECT_EQ(scheme_of("svn+ssh://a"), "svn+ssh");
  EXPECT_EQ(scheme_of("DATA:,x"), "data");
  EXPECT_EQ(scheme_of("file:///a"), "file");
  EXPECT_EQ(scheme_of("File:/a"), "file");
  for (const char* path :
       {"", ":", "a", "a.png", "/a://b", "a/b://c", "C:\\a.png", "C:/a.png", "c://a.png", "a:b.png",
        "http:", "http:/a", "file:a", "1a://b", "://a", "data", "Ä://a"}) {
    EXPECT_EQ(scheme_of(path), "") << path;
  }
}

TEST(ReadSource, Paths) {
  const TempFolder folder;
  fs::create_directories(folder / "sub/http:/x");
  write_file(folder / "a.png", "A");
  write_file(folder / "sub/b:c.png", "B");
  write_file(folder / "C:\\x", "C");
  write_file(folder / "sub/http:/x/d", "D");
  write_file(folder / "%41", "escaped");
  EXPECT_EQ(read("a.png", folder.path()), "A");
  EXPECT_EQ(read("./sub/b:c.png", folder.path()), "B");
  EXPECT_EQ(read("b:c.png", folder / "sub"), "B");
  EXPECT_EQ(read("C:\\x", folder.path()), "C");
  EXPECT_EQ(read("http:/x/d", folder / "sub"), "D");
  EXPECT_EQ(read("%41", folder.path()), "escaped");  // a path is no URI
  EXPECT_EQ(read(folder / "a.png", "/no/such/root"), "A");
  EXPECT_EQ(read(folder / "a.png"), "A");
  EXPECT_EQ(read("b.png", folder.path()), "ERROR: " + folder.path() + "/b.png: no such file");
  EXPECT_EQ(code_of("b.png", folder.path()), Code::kNotFound);
  EXPECT_EQ(read("a.png", folder.path(), 0),
            "ERROR: " + folder.path() + "/a.png: has 1 bytes, at most 0 are allowed");
}

TEST(ReadSource, WhatIsNoPath) {
  EXPECT_EQ(read(std::string_view("a\0.png", 6)), "ERROR: a?.png: a path with a NUL in it");
  const std::string base64(10000, 'A');  // without data: in front
  EXPECT_EQ(read(base64), "ERROR: " + base64.substr(0, 200) +
                              "… (10000 characters): too long for a path; the bytes of a medium "
                              "themselves need 'data:;base64,' in front of them");
  EXPECT_EQ(code_of(base64), Code::kInvalidArgument);
}

TEST(ReadSource, OtherSchemes) {
  for (const char* uri : {"ftp://host/a.png", "s3://bucket/a.png", "OSS://bucket/a.png"}) {
    EXPECT_EQ(code_of(uri), Code::kInvalidArgument) << uri;
    EXPECT_THAT(read(uri), HasSubstr(": no such file, and the scheme '")) << uri;
    EXPECT_THAT(read(uri), HasSubstr("is none of file:, data:, http: and https:")) << uri;
  }
  const TempFolder folder;  // a path all the same, if there is such a file
  fs::create_directories(folder / "s3:/bucket");
  write_file(folder / "s3:/bucket/a.png", "A");
  EXPECT_EQ(read("s3://bucket/a.png", folder.path()), "A");
}

TEST(ReadSource, FileUris) {
  const TempFolder folder;
  fs::create_directories(folder / "host");
  write_file(folder / "a b.png", "A");
  write_file(folder / "c%20d.png", "C");
  write_file(folder / "100%.png", "100");
  write_file(folder / "e%41.png", "literal");
  write_file(folder / "eA.png", "decoded");
  write_file(folder / "host/f.png", "F");
  const std::string& root = folder.path();
  EXPECT_EQ(read("file://" + root + "/a%20b.png"), "A");
  EXPECT_EQ(read("FILE://localhost" + root + "/a%20b.png"), "A");
  EXPECT_EQ(read("file:" + root + "/a%20b.png"), "A");
  // As the reference's wrapper makes them of any path.
  EXPECT_EQ(read("file://" + root + "/a b.png"), "A");
  EXPECT_EQ(read("file://" + root + "/c%20d.png"), "C");
  EXPECT_EQ(read("file://" + root + "/100%.png"), "100");
  EXPECT_EQ(read("file://a b.png", root), "A");
  EXPECT_EQ(read("file://a%20b.png", root), "A");
  EXPECT_EQ(read("file://host/f.png", root), "F");
  EXPECT_EQ(read("file://e%41.png", root), "decoded");  // a URI first

  EXPECT_EQ(read("file:///no/such%20file.png"), "ERROR: /no/such%20file.png: no such file");
  EXPECT_EQ(read("file://other/f.png", "/no"),
            "ERROR: /no/other/f.png: no such file (what follows file:// is a path, not another "
            "host)");
  EXPECT_EQ(code_of("file://other/f.png"), Code::kNotFound);
  EXPECT_THAT(read("file:///a%00b"), HasSubstr("with a NUL"));
  EXPECT_EQ(read("file://" + root + "/a%20b.png", {}, 0),
            "ERROR: " + root + "/a b.png: has 1 bytes, at most 0 are allowed");
  EXPECT_THAT(read("file://"), StartsWith("ERROR: "));
}

TEST(DataUri, Base64) {
  EXPECT_EQ(read("data:image/png;base64,SGVsbG8="), "Hello");
  EXPECT_EQ(read("data:;base64,SGVsbG8="), "Hello");
  EXPECT_EQ(read("DATA:text/plain;charset=utf-8;BASE64,SGVsbG8="), "Hello");
  // RFC 4648, section 10.
  EXPECT_EQ(read("data:;base64,Zg=="), "f");
  EXPECT_EQ(read("data:;base64,Zm8="), "fo");
  EXPECT_EQ(read("data:;base64,Zm9v"), "foo");
  EXPECT_EQ(read("data:;base64,Zm9vYg=="), "foob");
  // Padding left out, in part too.
  EXPECT_EQ(read("data:;base64,Zg"), "f");
  EXPECT_EQ(read("data:;base64,Zg="), "f");
  EXPECT_EQ(read("data:;base64,Zm8"), "fo");
  EXPECT_EQ(read("data:;base64, Zm\r\n9v\tYg = =\n"), "foob");
  EXPECT_EQ(read("data:;base64,%5am9v%0AYg%3d%3D"), "foob");
  EXPECT_EQ(read("data:;base64,+/+/"), read("data:;base64,%2B%2f%2b%2F"));
  EXPECT_EQ(read("data:;base64,+/+/"), "\xfb\xff\xbf");
}

TEST(DataUri, EveryByteBothWays) {
  std::string all, percent = "data:application/octet-stream,";
  for (int b = 0; b < 256; ++b) {
    constexpr char kHex[] = "0123456789abcdef";
    all += static_cast<char>(b);
    percent += {'%', kHex[b / 16], kHex[b % 16]};
  }
  EXPECT_EQ(read(percent), all);
  // python3 -c "import base64; print(base64.b64encode(bytes(range(256))).decode())"
  EXPECT_EQ(read("data:;base64,"
                 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7"
                 "PD0+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3"
                 "eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq+wsbKz"
                 "tLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v"
                 "8PHy8/T19vf4+fr7/P3+/w=="),
            all);
}

TEST(DataUri, PercentEncoded) {
  EXPECT_EQ(read("data:,a%20b"), "a b");
  EXPECT_EQ(read("data:,SGVsbG8="), "SGVsbG8=");
  EXPECT_EQ(read("data:text/plain;charset=utf-8,a,b c"), "a,b c");
  EXPECT_EQ(read("data:base64,SGVsbG8="), "SGVsbG8=");  // a media type, of sorts
  EXPECT_EQ(read("data:;base64;charset=x,SGVsbG8="), "SGVsbG8=");
  EXPECT_EQ(read("data:,%23"), "#");
}

TEST(DataUri, SaysWhatIsWrongAndWhere) {
  struct Case {
    std::string_view uri, message;
  };
  constexpr Case kCases[] = {
      {"data:image/png;base64", "no ',' between the media type and the data"},
      {"data:;base64,AB*D", "character 16 is '*', which is not base64"},
      {"data:;base64,AB_D", "character 16 is '_', which is not base64"},
      {"data:;base64,AB%2aD", "character 16 is '*', which is not base64"},
      {"data:;base64,AB%00D", "character 16 is 0x00, which is not base64"},
      {"data:;base64,AB\xff", "character 16 is 0xff, which is not base64"},
      {"data:;base64,AB==CD==", "character 18 is 'C', behind the '=' that ends base64"},
      {"data:;base64,ABCDE", "base64 is cut: 5 symbols, one more than a multiple of 4"},
      {"data:;base64,ABCD=", "1 '=' behind 4 symbols of base64, expected 0"},
      {"data:;base64,ABC==", "2 '=' behind 3 symbols of base64, expected 1"},
      {"data:;base64,AB%3", "character 16 is '%' without two hexadecimal digits behind it"},
      {"data:;base64,AB%xyCD", "character 16 is '%' without two hexadecimal digits behind it"},
      {"data:,a%", "character 8 is '%' without two hexadecimal digits behind it"},
      {"data:,a%4", "character 8 is '%' without two hexadecimal digits behind it"},
      {"data:,a%4g", "character 8 is '%' without two hexadecimal digits behind it"},
      {"data:,a#b", "character 8 is '#', which data has to write as %23"},
      {"data:;base64,ABCD#b", "character 18 is '#', which data has to write as %23"},
      {"data:;base64,", "is empty"},
      {"data:;base64, ", "is empty"},
      {"data:,", "is empty"},
  };
  for (const Case& c : kCases) {
    const auto bytes = read_source(c.uri, {}, {});
    EXPECT_EQ(bytes.error().code(), Code::kInvalidArgument) << c.uri;
    EXPECT_EQ(bytes.error().message(), describe_source(c.uri) + ": " + std::string(c.message));
  }
}

TEST(DataUri, Limit) {
  EXPECT_EQ(read("data:;base64,Zm9vYg==", {}, 4), "foob");
  EXPECT_EQ(read("data:;base64,Zm9vYg==", {}, 3),
            "ERROR: data:;base64,Zm9vYg==: has 4 bytes, at most 3 are allowed");
  EXPECT_EQ(read("data:,%41%42", {}, 2), "AB");
  EXPECT_EQ(read("data:,%41%42", {}, 1), "ERROR: data:,%41%42: has 2 bytes, at most 1 are allowed");
  EXPECT_THAT(read("data:,%41%42", {}, -1), HasSubstr("at most -1"));
}

TEST(DescribeSource, CutsAndHides) {
  EXPECT_EQ(describe_source("a/b.png"), "a/b.png");
  EXPECT_EQ(describe_source("file:///a?b"), "file:///a?b");
  EXPECT_EQ(describe_source("data:,abc"), "data:,abc");
  EXPECT_EQ(describe_source("data:image/png;base64," + std::string(100000, 'A')),
            "data:image/png;base64," + std::string(42, 'A') + "… (100022 characters)");
  EXPECT_EQ(describe_source("https://example.com/a.png"), "https://example.com/a.png");
  EXPECT_EQ(describe_source("HTTPS://me:secret@example.com:8/@a.png?token=secret#secret"),
            "https://…@example.com:8/@a.png?…");
  EXPECT_EQ(describe_source("http://me@secret@example.com"), "http://…@example.com");
  EXPECT_EQ(describe_source("http://example.com?a@b"), "http://example.com?…");
  // Characters of a password that ought to be encoded.
  EXPECT_EQ(describe_source("http://me:sec/ret@example.com/a.png"), "http://…@example.com/a.png");
  EXPECT_EQ(describe_source("http://me:sec?ret@example.com/a.png"), "http://?…");
  EXPECT_EQ(describe_source("http://me:sec#ret@example.com/a.png"), "http://?…");
  EXPECT_EQ(describe_source("http://me/x:secret@example.com/a"), "http://…@example.com/a");
  EXPECT_EQ(describe_source("http://example.com/@a.png"), "http://example.com/@a.png");
  EXPECT_EQ(describe_source("http://example.com#secret"), "http://example.com?…");
  EXPECT_EQ(describe_source("s3://key:secret@bucket/a?b"), "s3://…@bucket/a?…");
  EXPECT_THAT(describe_source("http://" + std::string(5000, 'a') + ":secret@host/"),
              Not(HasSubstr("aaa")));
  EXPECT_EQ(describe_source("http://a/" + std::string(1000, 'b')),
            "http://a/" + std::string(191, 'b') + "… (1009 characters)");
  EXPECT_EQ(describe_source("a\n\x1b[1m\x7f.png"), "a??[1m?.png");
  EXPECT_EQ(describe_source("a\xc2\x9b"
                            "1mä.png"),
            "a?1mä.png");
  // No character of UTF-8 is cut.
  EXPECT_EQ(describe_source(std::string(199, 'a') + "äöü"),
            std::string(199, 'a') + "… (205 characters)");
}

TEST(ReadSource, RemoteHasToBeAllowed) {
  for (const char* url : {"http://127.0.0.1:1/a.png?secret", "HTTPS://example.com/a.png"}) {
    const auto bytes = read_source(url, {}, {});
    EXPECT_EQ(bytes.error().code(), Code::kInvalidArgument);
    EXPECT_EQ(
        bytes.error().message(),
        describe_source(url) + ": media of other hosts are not allowed; allow_remote allows them");
  }
}

#ifndef VLR_WITH_CURL
TEST(ReadSource, RemoteNeedsCurl) {
  const auto bytes = read_source("http://example.com/", {}, {.allow_remote = true});
  EXPECT_EQ(bytes.error().code(), Code::kUnimplemented);
  EXPECT_THAT(bytes.error().message(), HasSubstr("VLR_WITH_CURL"));
}
#endif

}  // namespace
}  // namespace vlr
