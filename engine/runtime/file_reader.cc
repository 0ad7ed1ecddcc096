#include "engine/runtime/file_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <system_error>
#include <utility>

#include "kernels/core/descriptor.h"
#include "kernels/core/format_bytes.h"
#include "kernels/core/integer.h"
#include "kernels/core/thread_start.h"

namespace vlr {
namespace {

// O_DIRECT goes through memory of this size where it cannot write to the target itself.
constexpr int64_t kBounceBytes = int64_t{4} << 20;

constexpr int64_t round_down(int64_t v) { return v / kReadAlignment * kReadAlignment; }

std::string error_text(int error) { return std::generic_category().message(error); }

ssize_t system_read(int fd, void* to, size_t bytes, off_t offset, int flags) {
  const iovec buffer{to, bytes};
  return flags ? ::preadv2(fd, &buffer, 1, offset, flags) : ::pread(fd, to, bytes, offset);
}

std::string describe(const FileIdentity& f) {
  return fmt::format("{} bytes, inode {}, modified at {}.{:09}", f.bytes, f.inode,
                     f.modified_ns / 1'000'000'000, f.modified_ns % 1'000'000'000);
}

}  // namespace

Result<FileIdentity> FileIdentity::of(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    return {Code::kDataLoss, fmt::format("{}: stat: {}", path, error_text(errno))};
  if (!S_ISREG(info.st_mode)) return {Code::kDataLoss, path + ": not a regular file"};
  return FileIdentity{
      .device = static_cast<int64_t>(info.st_dev),
      .inode = static_cast<int64_t>(info.st_ino),
      .bytes = info.st_size,
      .modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

Status check_same_file(const std::string& path, const FileIdentity& expected,
                       const FileIdentity& found) {
  if (found == expected) return {};
  return {Code::kDataLoss, fmt::format("{}: changed since its header was read: expected {}, got {}",
                                       path, describe(expected), describe(found))};
}

Status check_same_file(const std::string& path, const FileIdentity& expected) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) {
    return {Code::kDataLoss,
            fmt::format("{}: cannot be opened any more: {}", path, error_text(errno))};
  }
  VLR_ASSIGN_OR_RETURN(const FileIdentity found, FileIdentity::of(fd.get(), path));
  return check_same_file(path, expected, found);
}

int ReadOptions::threads() const {
  if (num_threads > 0) return num_threads;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 16, 32);
}

Status PageBuffer::reserve(int64_t bytes) {
  if (bytes <= size_) return {};
  const int64_t size = round_up(bytes, kReadAlignment);
  data_.reset(static_cast<std::byte*>(
      std::aligned_alloc(size_t{kReadAlignment}, static_cast<size_t>(size))));
  size_ = data_ ? size : 0;
  if (data_) return {};
  return {Code::kOutOfMemory,
          fmt::format("host memory: {} to read files into", format_bytes(size))};
}

std::vector<Extent> cut_into_pieces(std::span<const Extent> extents) {
  std::vector<Extent> pieces;
  for (Extent e : extents) {
    while (e.bytes > 0) {
      const int64_t end = std::min(e.offset + e.bytes, round_down(e.offset + kReadPiece));
      const int64_t bytes = end - e.offset;
      pieces.push_back({.file = e.file, .offset = e.offset, .bytes = bytes, .to = e.to});
      e.offset = end;
      e.bytes -= bytes;
      if (e.to) e.to += bytes;
    }
  }
  return pieces;
}

struct FileReader::State {
  struct OpenFile {
    std::string path;
    FileIdentity identity;
    Descriptor cached, direct;
    // What the file system turned out not to do.
    mutable std::atomic<bool> can_probe{true}, can_direct{true};
  };

  /// Reads on from to[done] until all is there or this way leads no further.
  void copy_cached(const OpenFile& f, int64_t offset, std::span<std::byte> to, int64_t& done) const;
  Status read_direct(const OpenFile& f, int64_t offset, std::span<std::byte> to, int64_t& done,
                     PageBuffer& bounce) const;
  Status read_through_cache(const OpenFile& f, int64_t offset, std::span<std::byte> to,
                            int64_t& done) const;

  /// -1 and errno, as pread; what a signal broke off is begun again.
  int64_t read_some(int fd, std::byte* to, int64_t bytes, int64_t offset, int flags) const {
    ssize_t n = 0;
    do {
      n = options.read(fd, to, static_cast<size_t>(bytes), offset, flags);
    } while (n < 0 && errno == EINTR);
    return n;
  }

  ReadOptions options;
  std::deque<OpenFile> files;  // its elements do not move
  mutable std::atomic<int64_t> page_cache_bytes{0}, direct_bytes{0};
};

namespace {

Status cannot_read(const std::string& path, int64_t offset, int64_t bytes, int error) {
  return {Code::kDataLoss,
          fmt::format("{}: reading {} bytes at {}: {}", path, bytes, offset, error_text(error))};
}

}  // namespace

void FileReader::State::copy_cached(const OpenFile& f, int64_t offset, std::span<std::byte> to,
                                    int64_t& done) const {
  if (to.empty()) return;
  // What is not there the kernel begins to read ahead, in vain for O_DIRECT. So one byte is asked
  // for first, which makes it a few pages, and what comes after a gap is not asked for again.
  int64_t n = read_some(f.cached.get(), to.data(), 1, offset, RWF_NOWAIT);
  if (n == 1) n = read_some(f.cached.get(), to.data(), std::ssize(to), offset, RWF_NOWAIT);
  // EAGAIN: not there. Otherwise the others say what is wrong, with less to go wrong.
  if (n < 0 && errno != EAGAIN) f.can_probe = false;
  if (n <= 0) return;
  done = n;
  page_cache_bytes += n;
}

Status FileReader::State::read_direct(const OpenFile& f, int64_t offset, std::span<std::byte> to,
                                      int64_t& done, PageBuffer& bounce) const {
  while (done < std::ssize(to)) {
    std::byte* const target = to.data() + done;
    const int64_t begin = offset + done, left = std::ssize(to) - done;
    const int64_t page = round_down(begin);
    // Whole pages go straight to where they belong if that lies as they do in the file. What stands
    // before the first page's end, and after the last one's begin, is cut out of a page.
    const bool congruent = (reinterpret_cast<uintptr_t>(target) - static_cast<uintptr_t>(begin)) %
                               uintptr_t{kReadAlignment} ==
                           0;
    const bool straight = congruent && begin == page && left >= kReadAlignment;
    std::byte* memory = target;
    int64_t bytes = round_down(left);
    if (!straight) {
      VLR_RETURN_IF_ERROR(bounce.reserve(kBounceBytes));
      memory = bounce.data();
      bytes = congruent && begin != page
                  ? kReadAlignment
                  : std::min(round_up(begin + left, kReadAlignment) - page, kBounceBytes);
    }
    int64_t n = read_some(f.direct.get(), memory, bytes, page, 0);
    if (n < 0 && errno == EINVAL) {  // this file system wants more alignment than a page
      f.can_direct = false;
      return {};
    }
    if (n < 0) return cannot_read(f.path, page, bytes, errno);
    if (straight) {
      n = round_down(n);  // the next read has to begin with a page
    } else {
      n = std::min(n - (begin - page), left);
      if (n > 0) std::memcpy(target, memory + (begin - page), static_cast<size_t>(n));
    }
    if (n <= 0) return {};  // the end of the file, most likely: the page cache's way will say
    done += n;
    direct_bytes += n;
    // A page boundary again, whatever came.
  }
  return {};
}

Status FileReader::State::read_through_cache(const OpenFile& f, int64_t offset,
                                             std::span<std::byte> to, int64_t& done) const {
  while (done < std::ssize(to)) {
    const int64_t left = std::ssize(to) - done;
    const int64_t n = read_some(f.cached.get(), to.data() + done, left, offset + done, 0);
    if (n < 0) return cannot_read(f.path, offset + done, left, errno);
    if (n == 0) {
      VLR_ASSIGN_OR_RETURN(const FileIdentity found, FileIdentity::of(f.cached.get(), f.path));
      return {Code::kDataLoss, fmt::format("{}: expected {} bytes at {}, the file has {} bytes now",
                                           f.path, to.size(), offset, found.bytes)};
    }
    done += n;
    page_cache_bytes += n;
  }
  return {};
}

FileReader::FileReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
FileReader::FileReader(FileReader&&) noexcept = default;
FileReader& FileReader::operator=(FileReader&&) noexcept = default;
FileReader::~FileReader() = default;

Result<FileReader> FileReader::open(const std::vector<File>& files, const ReadOptions& options) {
  auto state = std::make_unique<State>();
  state->options = options;
  if (!options.read) state->options.read = system_read;
  for (const File& file : files) {
    State::OpenFile& f = state->files.emplace_back();
    f.path = file.path;
    f.identity = file.identity;
    f.cached = Descriptor(::open(f.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (f.cached.get() < 0)
      return {Code::kNotFound, fmt::format("{}: open: {}", f.path, error_text(errno))};
    VLR_ASSIGN_OR_RETURN(const FileIdentity found, FileIdentity::of(f.cached.get(), f.path));
    VLR_RETURN_IF_ERROR(check_same_file(f.path, f.identity, found));
    if (options.path == ReadPath::kPageCache) continue;
    // Refused where the file system cannot; and the path may name another file by now.
    f.direct = Descriptor(::open(f.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT));
    if (f.direct.get() < 0) continue;
    VLR_ASSIGN_OR_RETURN(const FileIdentity again, FileIdentity::of(f.direct.get(), f.path));
    VLR_RETURN_IF_ERROR(check_same_file(f.path, f.identity, again));
  }
  return FileReader(std::move(state));
}

const ReadOptions& FileReader::options() const { return state_->options; }

Status FileReader::read(int file, int64_t offset, std::span<std::byte> to,
                        PageBuffer& bounce) const {
  const State::OpenFile& f = state_->files[static_cast<size_t>(file)];
  const ReadPath path = state_->options.path;
  int64_t done = 0;
  // Who cannot know what is in the page cache reads through it.
  if (path == ReadPath::kAuto && f.can_probe) state_->copy_cached(f, offset, to, done);
  if (f.direct.get() >= 0 && f.can_direct && (path == ReadPath::kDirect || f.can_probe))
    VLR_RETURN_IF_ERROR(state_->read_direct(f, offset, to, done, bounce));
  return state_->read_through_cache(f, offset, to, done);
}

Status FileReader::read_all(std::span<const Extent> extents) const {
  const std::vector<Extent> pieces = cut_into_pieces(extents);
  const auto num_pieces = static_cast<int64_t>(pieces.size());
  const auto num_threads = static_cast<int>(std::min<int64_t>(options().threads(), num_pieces));
  struct Memory {
    PageBuffer bounce, dropped;
  };
  std::vector<Memory> memory(static_cast<size_t>(num_threads));
  PieceThreads threads(num_threads, num_pieces, [&](int64_t i, int thread) -> Status {
    const Extent& e = pieces[static_cast<size_t>(i)];
    Memory& own = memory[static_cast<size_t>(thread)];
    std::byte* to = e.to;
    if (!to) {
      VLR_RETURN_IF_ERROR(own.dropped.reserve(kReadPiece + kReadAlignment));
      to = own.dropped.data() + e.offset % kReadAlignment;
    }
    return read(e.file, e.offset, {to, static_cast<size_t>(e.bytes)}, own.bounce);
  });
  return threads.wait();
}

ReadStats FileReader::stats() const {
  ReadStats s;
  s.page_cache_bytes = state_->page_cache_bytes;
  s.direct_bytes = state_->direct_bytes;
  s.bytes = s.page_cache_bytes + s.direct_bytes;
  return s;
}

PieceThreads::PieceThreads(int num_threads, int64_t num_pieces, Body body)
    : num_pieces_(num_pieces), body_(std::move(body)) {
  threads_.reserve(static_cast<size_t>(std::max(num_threads, 0)));
  try {
    const BlockSignals inherited;
    for (int t = 0; t < num_threads; ++t) {
      threads_.emplace_back([this, t] {
        name_thread("vlr-reader");
        work(t);
      });
    }
  } catch (const std::system_error& e) {
    // Fewer threads do the same.
    if (threads_.empty() && num_pieces > 0) {
      status_ = {Code::kOutOfMemory, fmt::format("a thread to read files: {}", e.what())};
    }
  }
}

PieceThreads::~PieceThreads() {
  stop();
  (void)wait();
}

Status PieceThreads::wait() {
  for (std::thread& t : threads_) t.join();
  threads_.clear();
  return status_;
}

void PieceThreads::work(int thread) {
  for (;;) {
    const int64_t piece = next_++;
    if (piece >= num_pieces_) return;
    Status status;
    try {
      status = body_(piece, thread);
    } catch (const std::exception& e) {
      status = {Code::kOutOfMemory, fmt::format("reading files: {}", e.what())};
    }
    if (status.ok()) continue;
    stop();
    const std::lock_guard lock(mutex_);
    if (failed_piece_ >= 0 && failed_piece_ < piece) return;
    failed_piece_ = piece;
    status_ = std::move(status);
    return;
  }
}

}  // namespace vlr
