#include "multimodal/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "multimodal/image.h"
#include "multimodal/video.h"
#include "tests/multimodal/fixtures.h"

namespace vlr {
namespace {

using namespace std::string_literals;

FileKind kind_of(const std::string& bytes) {
  return file_kind(std::as_bytes(std::span(bytes.data(), bytes.size())));
}
std::string box(const std::string& brands) { return "\0\0\0\x18"s + "ftyp" + brands; }

TEST(FileKind, NamesWhatBytesAre) {
  struct Case {
    std::string bytes;
    FileUse use;
    std::string name;
  };
  const std::string zeros(64, '\0');
  const Case kCases[] = {
      {"", FileUse::kNone, "no bytes at all"},
      {"%PDF-1.7\n%\xe2\xe3", FileUse::kNone, "a PDF"},
      {"%PDF-1.4\nall of it ASCII", FileUse::kNone, "a PDF"},
      {box("heic\0\0\0\0mif1heic"s), FileUse::kPicture, "a HEIC picture"},
      {box("mif1\0\0\0\0mif1heic"s), FileUse::kPicture, "a HEIC picture"},
      {box("mif1\0\0\0\0mif1avif"s), FileUse::kPicture, "an AVIF picture"},
      {"\0\0\0\x0cJXL \r\n\x87\n"s, FileUse::kNone, "a JPEG XL picture"},
      {"\xff\x0a\xfa\x7f", FileUse::kNone, "a JPEG XL picture"},
      {"ID3\x04\0\0"s, FileUse::kNone, "an MP3 audio file"},
      {"\xff\xfb\x90\x64", FileUse::kNone, "an MP3 audio file"},
      {"OggS"s + zeros.substr(0, 24) + "\x01vorbis", FileUse::kNone, "an Ogg audio file"},
      {"OggS"s + zeros.substr(0, 24) + "\x80theora", FileUse::kVideo, "a video"},
      {"RIFF\x24\0\0\0WAVEfmt "s, FileUse::kNone, "a WAV audio file"},
      {"PK\x03\x04\x14\0"s, FileUse::kNone, "a ZIP archive, which office documents are, too"},
      {"GGUF\x03\0\0\0"s, FileUse::kNone, "a GGUF model"},
      {"\x3a\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\""s, FileUse::kNone, "a safetensors file"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", FileUse::kNone,
       "a git-lfs pointer to a file, which 'git lfs pull' fetches"},
      {"\x1f\x8b\x08\0"s, FileUse::kNone, "a gzip archive"},
      {"\x7f"
       "ELF\x02\x01",
       FileUse::kNone, "an ELF program"},
      {"<?xml version='1.0'?><!-- made by hand --><svg xmlns=", FileUse::kNone, "an SVG drawing"},
      {"\xef\xbb\xbf \n<!DOCTYPE html><title>", FileUse::kText, "an HTML page"},
      {"<HTML>", FileUse::kText, "an HTML page"},
      {"<p>", FileUse::kText, "text"},
      {"\xff\xfe" + "a\0"s, FileUse::kNone, "UTF-16 text, where UTF-8 is expected"},
      {"Stra\xdf"
       "e",
       FileUse::kNone, "text that is not UTF-8 (Latin-1, perhaps)"},
      {"\x93\x01\xc4\x07", FileUse::kNone, "bytes of no kind that vlr knows"},
      {"text\0with a NUL"s, FileUse::kNone, "bytes of no kind that vlr knows"},
      // Texts that begin like something else.
      {"ID3 tags hold a song's title.", FileUse::kText, "text"},
      {"GGUF is a format. BZh", FileUse::kText, "text"},
      {"BMW builds cars", FileUse::kText, "text"},
      {"Stra\xc3\x9f"
       "e \xf0\x9f\x8c\x9f",
       FileUse::kText, "text"},
      {"\xed\xa0\x80", FileUse::kNone, "bytes of no kind that vlr knows"},
      {"cut \xf0\x9f\x8c", FileUse::kNone, "bytes of no kind that vlr knows"},
  };
  for (const Case& c : kCases) {
    EXPECT_EQ(kind_of(c.bytes).name, c.name) << c.bytes;
    EXPECT_EQ(kind_of(c.bytes).use, c.use) << c.bytes;
  }
}

// No byte of what was given is in the message.
TEST(FileKind, IsWhatMessagesSay) {
  for (const std::string secret : {"root:*:20000:", "\x01\x02 secret", "%PDF-secret"}) {
    const auto bytes = std::as_bytes(std::span(secret.data(), secret.size()));
    EXPECT_EQ(decode_image(bytes).error().message(),
              "not an image: " + std::string(file_kind(bytes).name));
#ifdef VLR_WITH_FFMPEG
    EXPECT_EQ(load_video(bytes).error().message(),
              "not a video: " + std::string(file_kind(bytes).name));
#endif
  }
}

TEST(FileKind, EveryPictureIsOne) {
  for (const Fixture& f : fixtures()) {
    if (f.width == 0) continue;
    EXPECT_EQ(file_kind(f.bytes()).use, FileUse::kPicture) << f.name;
  }
}

}  // namespace
}  // namespace vlr
