#include "engine/runtime/file_reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TempFolder;
using testing::write_file;

FileIdentity identity_of(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  const auto identity = FileIdentity::of(fd, path);
  ::close(fd);
  EXPECT_TRUE(identity) << identity.error().message();
  return *identity;
}

std::string random_bytes(size_t count) {
  std::mt19937_64 random(7);
  std::string bytes(count, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

void drop_from_page_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::fsync(fd);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

/// A file of which each test reads parts, some way.
class FileReaderTest : public ::testing::TestWithParam<ReadPath> {
 protected:
  void SetUp() override {
    write_file(path_, content_);
    identity_ = identity_of(path_);
    drop_from_page_cache(path_);
  }
  Result<FileReader> open(ReadOptions options = {}) {
    options.path = GetParam();
    return FileReader::open({{.path = path_, .identity = identity_}}, options);
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "data";
  const std::string content_ = random_bytes(size_t{kReadPiece} * 2 + 12345);
  FileIdentity identity_;
};

INSTANTIATE_TEST_SUITE_P(Cpu, FileReaderTest,
                         ::testing::Values(ReadPath::kAuto, ReadPath::kPageCache,
                                           ReadPath::kDirect));

TEST_P(FileReaderTest, ReadsExactlyTheBytesWhateverTheirPlace) {
  const auto files = open();
  ASSERT_TRUE(files) << files.error().message();
  const auto size = static_cast<int64_t>(content_.size());
  PageBuffer bounce;
  std::vector<std::byte> memory(content_.size() + 3 * size_t{kReadAlignment});
  const auto page = reinterpret_cast<uintptr_t>(memory.data()) % uintptr_t{kReadAlignment};
  for (const int64_t offset : {int64_t{0}, int64_t{1}, int64_t{4095}, int64_t{4096}, int64_t{70001},
                               size - 4097, size - 1, size}) {
    for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{4096}, int64_t{8191},
                                int64_t{99999}, kReadPiece + 17, size}) {
      if (offset + bytes > size) continue;
      // In a page as in the file, and not.
      for (const int64_t shift : {offset % kReadAlignment, int64_t{3}}) {
        std::ranges::fill(memory, std::byte{0xA5});
        std::byte* const to = memory.data() + (size_t{kReadAlignment} - page) + shift;
        const Status s = files->read(0, offset, {to, static_cast<size_t>(bytes)}, bounce);
        ASSERT_TRUE(s.ok()) << s.message();
        ASSERT_EQ(std::memcmp(to, content_.data() + offset, static_cast<size_t>(bytes)), 0)
            << offset << " " << bytes << " " << shift;
        ASSERT_EQ(to[-1], std::byte{0xA5});
        ASSERT_EQ(to[bytes], std::byte{0xA5});
      }
    }
  }
}

TEST_P(FileReaderTest, ReadsManyExtentsOnThreads) {
  std::mt19937 random(11);
  std::vector<Extent> extents;
  std::string memory(content_.size() * 3, '\0');
  auto* to = reinterpret_cast<std::byte*>(memory.data());
  std::string expected;
  while (extents.size() < 300) {
    const auto offset = static_cast<int64_t>(random() % content_.size());
    const auto most = static_cast<int64_t>(content_.size()) - offset;
    const int64_t bytes = std::min<int64_t>(most, random() % (extents.size() % 7 ? 5000 : 300'000));
    extents.push_back({.file = 0, .offset = offset, .bytes = bytes, .to = to});
    to += bytes;
    expected.append(content_, static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }
  extents.push_back({.file = 0, .offset = 5, .bytes = 2 * kReadPiece + 1, .to = to});
  expected.append(content_, 5, 2 * size_t{kReadPiece} + 1);
  ASSERT_LE(expected.size(), memory.size());
  const auto files = open();
  ASSERT_TRUE(files) << files.error().message();
  const Status s = files->read_all(extents);
  ASSERT_TRUE(s.ok()) << s.message();
  memory.resize(expected.size());
  EXPECT_TRUE(memory == expected);
  const ReadStats stats = files->stats();
  EXPECT_EQ(stats.bytes, static_cast<int64_t>(expected.size()));
  EXPECT_EQ(stats.page_cache_bytes + stats.direct_bytes, stats.bytes);
  if (GetParam() == ReadPath::kPageCache) {
    EXPECT_EQ(stats.direct_bytes, 0);
  }
  const int direct = ::open(path_.c_str(), O_RDONLY | O_DIRECT);
  if (GetParam() == ReadPath::kDirect && direct >= 0) {
    EXPECT_EQ(stats.page_cache_bytes, 0);
  }
  if (direct >= 0) ::close(direct);
  EXPECT_TRUE(files->read_all({}).ok());
}

TEST_P(FileReaderTest, DropsWhatNobodyWants) {
  const auto files = open();
  ASSERT_TRUE(files);
  const Extent all{.file = 0, .offset = 0, .bytes = static_cast<int64_t>(content_.size())};
  EXPECT_TRUE(files->read_all({&all, 1}).ok());
  EXPECT_EQ(files->stats().bytes, static_cast<int64_t>(content_.size()));
}

TEST_P(FileReaderTest, TakesWhatIsCachedFromTheCache) {
  const Extent all{.file = 0, .offset = 0, .bytes = static_cast<int64_t>(content_.size())};
  const auto warm =
      FileReader::open({{.path = path_, .identity = identity_}}, {.path = ReadPath::kPageCache});
  ASSERT_TRUE(warm->read_all({&all, 1}).ok());
  const auto files = open();
  ASSERT_TRUE(files->read_all({&all, 1}).ok());
  if (GetParam() != ReadPath::kDirect) {
    EXPECT_EQ(files->stats().page_cache_bytes, files->stats().bytes);
  }
}

TEST_P(FileReaderTest, ATruncatedFileIsNamed) {
  const auto files = open();
  ASSERT_TRUE(files);
  std::filesystem::resize_file(path_, 10'000);
  std::vector<std::byte> to(5000);
  PageBuffer bounce;
  const Status s = files->read(0, 7000, to, bounce);
  EXPECT_EQ(s.code(), Code::kDataLoss);
  EXPECT_EQ(s.message(), path_ + ": expected 5000 bytes at 7000, the file has 10000 bytes now");
  const Extent all{.file = 0, .offset = 0, .bytes = static_cast<int64_t>(content_.size())};
  EXPECT_EQ(files->read_all({&all, 1}).code(), Code::kDataLoss);
  // And not opened again.
  const auto again = open();
  EXPECT_EQ(again.error().code(), Code::kDataLoss);
  EXPECT_THAT(again.error().message(),
              AllOf(HasSubstr(path_ + ": changed since its header was read: expected " +
                              std::to_string(content_.size()) + " bytes"),
                    HasSubstr("got 10000 bytes")));
}

TEST_P(FileReaderTest, AnotherFileIsNotRead) {
  std::filesystem::last_write_time(
      path_, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(open().error().code(), Code::kDataLoss);
  EXPECT_EQ(check_same_file(path_, identity_).code(), Code::kDataLoss);
  identity_ = identity_of(path_);
  EXPECT_TRUE(open());
  EXPECT_TRUE(check_same_file(path_, identity_).ok());
  // Same size, same time, another inode.
  const auto time = std::filesystem::last_write_time(path_);
  write_file(folder_ / "other", content_);
  std::filesystem::last_write_time(folder_ / "other", time);
  std::filesystem::rename(folder_ / "other", path_);
  EXPECT_THAT(open().error().message(), HasSubstr("changed since"));
  std::filesystem::remove(path_);
  EXPECT_EQ(open().error().code(), Code::kNotFound);
  EXPECT_THAT(check_same_file(path_, identity_).message(), HasSubstr("cannot be opened any more"));
  std::filesystem::create_directory(path_);
  EXPECT_EQ(open().error().message(), path_ + ": not a regular file");
}

// The system's answers, one fault after the other.
ssize_t as_it_is(int fd, void* to, size_t bytes, off_t offset, int flags) {
  const iovec buffer{to, bytes};
  return ::preadv2(fd, &buffer, 1, offset, flags);
}
std::atomic<int> calls;
ssize_t interrupted(int fd, void* to, size_t bytes, off_t offset, int flags) {
  if (calls++ % 3 != 0) {
    errno = EINTR;
    return -1;
  }
  return as_it_is(fd, to, bytes, offset, flags);
}
ssize_t in_crumbs(int fd, void* to, size_t bytes, off_t offset, int flags) {
  const bool aligned = reinterpret_cast<uintptr_t>(to) % uintptr_t{kReadAlignment} == 0 &&
                       offset % kReadAlignment == 0 && bytes % size_t{kReadAlignment} == 0;
  return as_it_is(fd, to, std::min<size_t>(bytes, aligned ? 12288 : 5000), offset, flags);
}
ssize_t in_uneven_crumbs(int fd, void* to, size_t bytes, off_t offset, int flags) {
  const ssize_t n = as_it_is(fd, to, bytes, offset, flags);
  return n > 7000 ? 7000 - offset % 13 : n;  // also of O_DIRECT: it came, and is read once more
}
ssize_t failing_late(int fd, void* to, size_t bytes, off_t offset, int flags) {
  if (offset + static_cast<off_t>(bytes) > 1'000'000) {
    errno = EIO;
    return -1;
  }
  return as_it_is(fd, to, bytes, offset, flags);
}
ssize_t without_probe_or_direct(int fd, void* to, size_t bytes, off_t offset, int flags) {
  if (flags != 0) {
    errno = EOPNOTSUPP;
    return -1;
  }
  if (::fcntl(fd, F_GETFL) & O_DIRECT) {
    errno = EINVAL;
    return -1;
  }
  return as_it_is(fd, to, bytes, offset, flags);
}

TEST_P(FileReaderTest, PartialAndInterruptedReadsGoOn) {
  const int64_t bytes = 300'001;
  for (const auto read : {interrupted, in_crumbs, in_uneven_crumbs, without_probe_or_direct}) {
    const auto files = open({.read = read});
    ASSERT_TRUE(files);
    for (const int64_t offset : {int64_t{0}, int64_t{33}}) {
      std::vector<std::byte> to(static_cast<size_t>(bytes));
      const Extent e{.file = 0, .offset = offset, .bytes = bytes, .to = to.data()};
      const Status s = files->read_all({&e, 1});
      ASSERT_TRUE(s.ok()) << s.message();
      EXPECT_EQ(std::memcmp(to.data(), content_.data() + offset, to.size()), 0);
    }
    EXPECT_EQ(files->stats().bytes, 2 * bytes);
    if (read == without_probe_or_direct) {
      EXPECT_EQ(files->stats().direct_bytes, 0);
    }
  }
}

TEST_P(FileReaderTest, AnErrorOfTheDiskIsNamed) {
  const auto files = open({.num_threads = 4, .read = failing_late});
  ASSERT_TRUE(files);
  const Extent all{.file = 0, .offset = 0, .bytes = static_cast<int64_t>(content_.size())};
  const Status s = files->read_all({&all, 1});
  EXPECT_EQ(s.code(), Code::kDataLoss);
  EXPECT_THAT(s.message(), AllOf(HasSubstr(path_ + ": reading "), HasSubstr("Input/output error")));
}

TEST(CutIntoPieces, CoversEveryByteOnce) {
  EXPECT_TRUE(cut_into_pieces({}).empty());
  std::byte* const to = reinterpret_cast<std::byte*>(uintptr_t{64});
  const Extent extents[] = {{.file = 1, .offset = 100, .bytes = 3 * kReadPiece, .to = to},
                            {.file = 2, .offset = 7, .bytes = 0, .to = to},
                            {.file = 3, .offset = 9, .bytes = 1}};
  const auto pieces = cut_into_pieces(extents);
  ASSERT_EQ(pieces.size(), 5u);
  int64_t offset = 100;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(pieces[i].file, 1);
    EXPECT_EQ(pieces[i].offset, offset);
    EXPECT_EQ(pieces[i].to, to + (offset - 100));
    EXPECT_LE(pieces[i].bytes, kReadPiece);
    EXPECT_TRUE(i == 0 || offset % kReadAlignment == 0);
    offset += pieces[i].bytes;
  }
  EXPECT_EQ(offset, 100 + 3 * kReadPiece);
  EXPECT_EQ(pieces[4].bytes, 1);
  EXPECT_EQ(pieces[4].to, nullptr);
}

TEST(PieceThreads, TheFirstErrorInOrderEndsIt) {
  std::atomic<int64_t> begun = 0;
  PieceThreads threads(4, 1000, [&](int64_t piece, int) -> Status {
    ++begun;
    if (piece == 5) ::usleep(2000);
    if (piece >= 5) return {Code::kDataLoss, std::to_string(piece)};
    return {};
  });
  EXPECT_EQ(threads.wait().message(), "5");
  EXPECT_LT(begun, 20);
  PieceThreads throws(2, 3, [](int64_t, int) -> Status { throw std::bad_alloc(); });
  EXPECT_EQ(throws.wait().code(), Code::kOutOfMemory);
}

}  // namespace
}  // namespace vlr
