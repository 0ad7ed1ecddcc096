// Blobs: what is found is what was written, whatever happens to the folder.
#include "engine/weights/offload_folder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "kernels/core/integer.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

Bytes noise(int64_t count, uint32_t seed) {
  Bytes out(static_cast<size_t>(count));
  for (std::byte& b : out) {
    seed = seed * 1664525 + 1013904223;
    b = static_cast<std::byte>(seed >> 24);
  }
  return out;
}

class OffloadFolderTest : public ::testing::Test {
 protected:
  OffloadFolder open(uint64_t content = 1, OffloadFolder::System system = {}) {
    auto folder = OffloadFolder::open(
        temp_.path(), {.place = {.high = 7}, .content = {.high = content}}, {}, system);
    EXPECT_TRUE(folder) << folder.error().message();
    return *std::move(folder);
  }
  static BlobName name(int64_t bytes, const std::string& group = "layers.3.") {
    return {.group = group, .layout = {.low = 5}, .bytes = bytes};
  }
  static OffloadBlob write(const OffloadFolder& folder, const Bytes& bytes,
                           std::string_view notes = "") {
    auto blob = folder.write(name(std::ssize(bytes)), bytes, notes);
    EXPECT_TRUE(blob) << blob.error().message();
    return *std::move(blob);
  }
  static Result<Bytes> read(const OffloadBlob& blob) {
    Bytes out(static_cast<size_t>(OffloadBlob::padded(blob.bytes())));
    PageBuffer bounce;
    for (int64_t i = blob.num_pieces(); i-- > 0;)
      VLR_RETURN_IF_ERROR(blob.read(i, out.data(), bounce));
    out.resize(static_cast<size_t>(blob.bytes()));
    return out;
  }
  static bool found(const OffloadFolder& folder, const Bytes& bytes) {
    const auto blob = folder.find(name(std::ssize(bytes)));
    EXPECT_TRUE(blob) << blob.error().message();
    if (!blob->has_value()) return false;
    const auto back = read(**blob);
    EXPECT_TRUE(back) << back.error().message();
    return back && *back == bytes;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> out;
    for (const auto& f : fs::recursive_directory_iterator(temp_.path()))
      if (f.is_regular_file()) out.push_back(f.path().string());
    return out;
  }

  testing::TempFolder temp_;
};

TEST_F(OffloadFolderTest, WhatWasWrittenIsFound) {
  for (const int64_t bytes : {int64_t{1}, int64_t{4096}, int64_t{100'000}, kReadPiece,
                              kReadPiece + 1, 2 * kReadPiece + 77'777}) {
    const Bytes payload = noise(bytes, 3);
    EXPECT_FALSE(found(open(), payload));
    const OffloadBlob blob = write(open(), payload, "what else");
    EXPECT_EQ(blob.num_pieces(), ceil_div(bytes, kReadPiece));
    EXPECT_EQ(blob.notes(), "what else");
    EXPECT_EQ(*read(blob), payload);
    EXPECT_TRUE(found(open(), payload));
    EXPECT_EQ((*open().find(name(bytes)))->notes(), "what else");
  }
  EXPECT_EQ(files().size(), 1u);  // of one name
}

TEST_F(OffloadFolderTest, OtherContentIsReplaced) {
  const Bytes first = noise(50'000, 1), second = noise(50'000, 2);
  write(open(1), first);
  EXPECT_FALSE(found(open(2), second));
  write(open(2), second);
  EXPECT_TRUE(found(open(2), second));
  EXPECT_FALSE(found(open(1), first));
  EXPECT_EQ(files().size(), 1u);
  // Of the same content, but not the same bytes.
  EXPECT_FALSE(open(2).find(name(49'999))->has_value());
  BlobName other = name(50'000);
  other.layout.low = 6;
  EXPECT_FALSE(open(2).find(other)->has_value());
}

TEST_F(OffloadFolderTest, DamagedFilesAreNotFoundAndWrittenAgain) {
  const Bytes payload = noise(3 * 4096 + 100, 1);
  write(open(), payload, "notes");
  const std::string file = files().at(0), whole = testing::read_file(file);
  const auto damaged = [&](const std::string& content) {
    testing::write_file(file, content);
    return !open().find(name(std::ssize(payload)))->has_value();
  };
  EXPECT_FALSE(damaged(whole));
  for (const size_t size : {size_t{0}, size_t{50}, size_t{4096}, whole.size() - 1})
    EXPECT_TRUE(damaged(whole.substr(0, size))) << size;
  EXPECT_TRUE(damaged(whole + '\0'));
  for (size_t at = 0; at < 101; ++at) {  // the head, a checksum, and notes
    std::string garbled = whole;
    garbled[at] ^= 0x10;
    EXPECT_TRUE(damaged(garbled)) << at;
  }
  EXPECT_TRUE(damaged(std::string(whole.size(), '\xff')));
  write(open(), payload, "notes");
  EXPECT_EQ(testing::read_file(file), whole);
  fs::remove(file);
  fs::create_directory(file);
  EXPECT_FALSE(open().find(name(std::ssize(payload)))->has_value());
  const auto refused = open().write(name(std::ssize(payload)), payload, "");
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr(file));
}

TEST_F(OffloadFolderTest, AFileThatChangesWhileItIsOpenIsNamed) {
  const Bytes payload = noise(kReadPiece + 9000, 1);
  const OffloadBlob blob = write(open(), payload);
  const std::string file = blob.path(), whole = testing::read_file(file);
  const auto time = fs::last_write_time(file);
  std::string garbled = whole;
  garbled[whole.size() - 7000] ^= 1;
  testing::write_file(file, garbled);
  fs::last_write_time(file, time);  // nobody could tell from that
  auto back = read(blob);
  EXPECT_EQ(back.error().code(), Code::kDataLoss);
  EXPECT_THAT(back.error().message(),
              AllOf(HasSubstr(file), HasSubstr("not those that were written")));
  fs::resize_file(file, kReadPiece);
  back = read(blob);
  EXPECT_EQ(back.error().code(), Code::kDataLoss);
  EXPECT_THAT(back.error().message(),
              AllOf(HasSubstr(file), HasSubstr("the file has 8388608 bytes now")));
  testing::write_file(file, whole);
  EXPECT_EQ(*read(blob), payload);
  // Another file of that name, or none, is nothing to one that is open.
  write(open(2), noise(std::ssize(payload), 2));
  EXPECT_EQ(*read(blob), payload);
  fs::remove_all(temp_.path());
  EXPECT_EQ(*read(blob), payload);
}

TEST_F(OffloadFolderTest, OnlyWhatTheDeadLeftIsRemoved) {
  write(open(), noise(100, 1));
  const std::string blob = files().at(0), dead = blob + ".0123.tmp", alive = blob + ".4567.tmp";
  testing::write_file(dead, "half of it");
  testing::write_file(alive, "half of it");
  const int fd = ::open(alive.c_str(), O_RDWR);
  ASSERT_EQ(::flock(fd, LOCK_EX), 0);
  EXPECT_TRUE(found(open(), noise(100, 1)));
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(alive));
  ::close(fd);
  open();
  EXPECT_FALSE(fs::exists(alive));
  EXPECT_TRUE(fs::exists(blob));
}

TEST_F(OffloadFolderTest, AFolderThatCannotBeWritten) {
  testing::write_file(temp_ / "file", "");
  for (const std::string& path : {temp_ / "file/below", std::string("/proc/vlr")}) {
    const auto folder = OffloadFolder::open(path, {}, {});
    EXPECT_EQ(folder.error().code(), Code::kInvalidArgument);
    EXPECT_THAT(folder.error().message(),
                AllOf(HasSubstr("offload_folder: " + path), HasSubstr("cannot be made")));
  }
  const OffloadFolder folder = open();
  const Bytes payload = noise(5000, 1);
  for (const auto& f : fs::directory_iterator(temp_ / "vlr-offload-1")) fs::remove(f);
  auto refused = folder.write(name(5000), payload, "");
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr("cannot be written: No such file"));
  if (::geteuid() == 0) return;  // who may write everywhere
  const OffloadFolder again = open();
  for (const auto& f : fs::directory_iterator(temp_ / "vlr-offload-1"))
    fs::permissions(f, fs::perms::owner_read | fs::perms::owner_exec);
  refused = again.write(name(5000), payload, "");
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr("Permission denied"));
}

/// A disk that takes so many bytes, at most 1000 at a time.
std::atomic<int64_t> room{0};
ssize_t write_to_full_disk(int fd, const void* from, size_t bytes, off_t offset) {
  bytes = std::min({bytes, size_t{1000}, static_cast<size_t>(room.load())});
  if (bytes == 0) {
    errno = ENOSPC;
    return -1;
  }
  room -= static_cast<int64_t>(bytes);
  return ::pwrite(fd, from, bytes, offset);
}

TEST_F(OffloadFolderTest, AFullDiskSaysWhatIsWantedAndLeavesNothing) {
  const Bytes payload = noise(20'000, 1);
  const OffloadFolder folder =
      open(1, {.write = write_to_full_disk,
               .free_bytes = [](const fs::path&) -> int64_t { return 25'000; }});
  for (const int64_t bytes : {0, 1, 4096, 24'000, 24'575}) {
    room = bytes;
    const auto refused = folder.write(name(20'000), payload, "");
    EXPECT_EQ(refused.error().code(), Code::kOutOfMemory);
    EXPECT_THAT(refused.error().message(),
                AllOf(HasSubstr(temp_.path()), HasSubstr("layers.3."), HasSubstr("No space left"),
                      HasSubstr("24.00 KiB are wanted, 24.41 KiB are free")));
    EXPECT_TRUE(files().empty());
  }
  room = 24'576;
  EXPECT_TRUE(folder.write(name(20'000), payload, ""));

  // What is known to be too much is not begun.
  room = 1 << 20;
  const auto refused = folder.write(name(40'000), noise(40'000, 1), "");
  EXPECT_EQ(refused.error().code(), Code::kOutOfMemory);
  EXPECT_EQ(room, 1 << 20);
  const BlobName names[] = {name(10'000, "a"), name(12'000, "b")};
  EXPECT_TRUE(folder.check_room({names, 1}).ok());
  const Status both = folder.check_room(names);
  EXPECT_EQ(both.code(), Code::kOutOfMemory);
  EXPECT_THAT(both.message(), AllOf(HasSubstr(temp_.path()), HasSubstr("2 groups"),
                                    HasSubstr("24.41 KiB are free")));
}

TEST_F(OffloadFolderTest, AFileThatMayNotGrow) {
  const OffloadFolder folder = open();
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  rlimit small = limit;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto refused = folder.write(name(3 << 20), noise(3 << 20, 1), "");
  EXPECT_TRUE(folder.write(name(1 << 19), noise(1 << 19, 1), ""));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(refused.error().code(), Code::kOutOfMemory);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("File too large"), HasSubstr("wanted")));
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(OffloadFolderTest, ManyWriteTheSame) {
  const auto write_and_read = [&](uint32_t seed) {
    int wrong = 0;
    for (uint32_t round = 0; round < 20; ++round) {
      const OffloadFolder folder = open(round / 5);
      const uint32_t which = (seed + round) % 3;
      const Bytes payload = noise(30'000, which + 100 * (round / 5));
      const BlobName blob_name = name(30'000, "group" + std::to_string(which));
      auto blob = folder.find(blob_name);
      if (!blob) return 1000;
      if (!blob->has_value()) {
        auto written = folder.write(blob_name, payload, "");
        // Somebody may be at other contents already, or still.
        if (!written && written.error().code() == Code::kDataLoss) continue;
        if (!written) return 2000;
        blob->emplace(*std::move(written));
      }
      const auto back = read(**blob);
      wrong += !back || *back != payload;
    }
    return wrong;
  };
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint32_t t = 0; t < 8; ++t) threads.emplace_back([&, t] { wrong += write_and_read(t); });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  std::vector<pid_t> children;
  for (uint32_t p = 0; p < 6; ++p) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(write_and_read(p) == 0 ? 0 : 1);
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(files().size(), 3u);
}

}  // namespace
}  // namespace vlr
