/// Reads parts of files into host memory, large pieces on many threads, past the page cache where
/// that is faster; a file that is not what it was is an error, not garbage.
#ifndef VLR_ENGINE_RUNTIME_FILE_READER_H_
#define VLR_ENGINE_RUNTIME_FILE_READER_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "vlr/status.h"

namespace vlr {

/// What tells a file from another one, and from itself after somebody wrote to it.
struct FileIdentity {
  int64_t device = 0, inode = 0;
  int64_t bytes = 0;
  int64_t modified_ns = 0;  ///< since 1970
  bool operator==(const FileIdentity&) const = default;

  /// Of an open file. kDataLoss: not a regular file. `path` is for messages.
  static Result<FileIdentity> of(int fd, const std::string& path);
};

/// kDataLoss with what was expected and what is there now, unless they are equal.
Status check_same_file(const std::string& path, const FileIdentity& expected,
                       const FileIdentity& found);
/// The same for the file that `path` names now.
Status check_same_file(const std::string& path, const FileIdentity& expected);

/// Which way bytes come. kAuto: what is in the page cache is copied from there; the rest is read
/// with O_DIRECT, which spares the copy and leaves the cache to others, where the file system can.
enum class ReadPath : uint8_t { kAuto, kPageCache, kDirect };

struct ReadOptions {
  ReadPath path = ReadPath::kAuto;
  int num_threads = 0;  ///< 0: 16 to 32, by the number of cores; a disk wants more than few have
  /// preadv2() of one buffer: -1 and errno, or how many bytes came. Tests put faults here.
  using Read = ssize_t (*)(int fd, void* to, size_t bytes, off_t offset, int flags);
  Read read = nullptr;

  int threads() const;
};

inline double gb_per_second(int64_t bytes, double seconds) {
  return seconds > 0 ? static_cast<double>(bytes) * 1e-9 / seconds : 0;
}

/// What reading came to.
struct ReadStats {
  int64_t bytes = 0;  ///< that were wanted: page_cache_bytes + direct_bytes
  int64_t page_cache_bytes = 0;
  int64_t direct_bytes = 0;
  double seconds = 0;  ///< of what the reading was for; kept by the caller
};

/// What O_DIRECT wants offsets, lengths and addresses to be multiples of.
inline constexpr int64_t kReadAlignment = 4096;
/// Most that one thread reads at a time.
inline constexpr int64_t kReadPiece = int64_t{8} << 20;

/// Page-aligned host memory that is taken on first use.
class PageBuffer {
 public:
  /// At least `bytes`; contents are lost when it grows.
  Status reserve(int64_t bytes);
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t size_ = 0;
};

/// Part of a file, and where it is to stand. Null: it is read and dropped, to see how long it
/// takes.
struct Extent {
  int file = 0;
  int64_t offset = 0, bytes = 0;
  std::byte* to = nullptr;
};
/// The same bytes in pieces of at most kReadPiece, which begin at multiples of kReadAlignment but
/// for the first.
std::vector<Extent> cut_into_pieces(std::span<const Extent> extents);

/// Files that are open for reading. Any thread may read, several at once.
class FileReader {
 public:
  struct File {
    std::string path;
    FileIdentity identity;  ///< from when its header was read
  };
  /// kNotFound: there is no such file; kDataLoss: it is another one now.
  static Result<FileReader> open(const std::vector<File>& files, const ReadOptions& options);
  FileReader(FileReader&&) noexcept;
  FileReader& operator=(FileReader&&) noexcept;
  ~FileReader();

  const ReadOptions& options() const;

  /// Exactly these bytes. kDataLoss names the file: it ends early, or cannot be read. `bounce` is
  /// the calling thread's own: what O_DIRECT cannot bring to `to` by itself goes through it.
  Status read(int file, int64_t offset, std::span<std::byte> to, PageBuffer& bounce) const;
  /// All of it, on options().threads() threads; done when it returns.
  Status read_all(std::span<const Extent> extents) const;

  ReadStats stats() const;  ///< since open(), without seconds

 private:
  struct State;
  explicit FileReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Threads that work off pieces in ascending order, until one fails.
class PieceThreads {
 public:
  using Body = std::function<Status(int64_t piece, int thread)>;
  PieceThreads(int num_threads, int64_t num_pieces, Body body);
  ~PieceThreads();  ///< after the pieces that were begun
  PieceThreads(const PieceThreads&) = delete;
  PieceThreads& operator=(const PieceThreads&) = delete;

  bool started() const { return num_pieces_ == 0 || !threads_.empty(); }
  void stop() { next_ = num_pieces_; }  ///< no other piece is begun
  /// For all threads; the error of the first piece that failed, in their order.
  Status wait();

 private:
  void work(int thread);

  int64_t num_pieces_;
  Body body_;
  std::atomic<int64_t> next_ = 0;
  std::mutex mutex_;
  int64_t failed_piece_ = -1;
  Status status_;
  std::vector<std::thread> threads_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_FILE_READER_H_
