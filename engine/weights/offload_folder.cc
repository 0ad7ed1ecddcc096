#include "engine/weights/offload_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <system_error>
#include <utility>

#include "kernels/core/descriptor.h"
#include "kernels/core/format_bytes.h"
#include "kernels/core/integer.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRoot = "vlr-offload-1";  // its number changes with the files' format
constexpr std::string_view kBlob = ".blob", kTemporary = ".tmp";
constexpr std::array<char, 8> kMagic = {'v', 'l', 'r', '-', 'b', 'l', 'o', 'b'};
constexpr int64_t kMaxHeadBytes = int64_t{256} << 20;

/// The begin of a blob, in the machine's byte order; the pieces' checksums and the notes follow.
struct Head {
  std::array<char, 8> magic = kMagic;
  int64_t payload_bytes = 0;
  Hash128 key;
  int64_t piece_bytes = kReadPiece, num_pieces = 0;
  int64_t notes_bytes = 0, reserved = 0;
  Hash128 sum;  // of the whole head, this being zero

  int64_t used_bytes() const {
    return static_cast<int64_t>(sizeof(Head)) + num_pieces * static_cast<int64_t>(sizeof(Hash128)) +
           notes_bytes;
  }
};
static_assert(std::has_unique_object_representations_v<Head>);

int64_t pieces_of(int64_t bytes) { return ceil_div(OffloadBlob::padded(bytes), kReadPiece); }

Hash128 sum_of(std::string head) {
  Head h;
  std::memcpy(&h, head.data(), sizeof h);
  h.sum = {};
  std::memcpy(head.data(), &h, sizeof h);
  return Hasher().add(std::string_view(head)).digest();
}

std::string error_text(int error) { return std::generic_category().message(error); }

bool read_all(int fd, std::span<char> to, int64_t offset) {
  for (size_t done = 0; done < to.size();) {
    const ssize_t n = ::pread(fd, to.data() + done, to.size() - done,
                              static_cast<off_t>(offset + static_cast<int64_t>(done)));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

ssize_t system_write(int fd, const void* from, size_t bytes, off_t offset) {
  return ::pwrite(fd, from, bytes, offset);
}

int64_t system_free_bytes(const fs::path& folder) {
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return -1;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

/// Removes files whose writers are dead. A writer holds a lock on its file, which the kernel takes
/// back from the dead; where there are no locks nothing is removed.
void remove_leftovers(const fs::path& root) {
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end;
       it.increment(error)) {
    if (!it->path().filename().string().ends_with(kTemporary)) continue;
    const Descriptor file(::open(it->path().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (file.get() >= 0 && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0)
      ::unlink(it->path().c_str());
  }
}

/// A new file, locked for as long as it is open. Its name is one of its own across machines, too.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& beside) {
    std::random_device random;
    // Somebody may take a file for a dead writer's between open() and flock(), and remove it.
    for (int tries = 0; tries < 16 && fd_ < 0; ++tries) {
      path_ = fmt::format("{}.{:08x}{:08x}{}", beside.string(), random(), random(), kTemporary);
      fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && errno == EEXIST) continue;
      if (fd_ < 0) break;
      const bool locked = ::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
      struct stat info {};
      if (locked && ::fstat(fd_, &info) == 0 && info.st_nlink > 0) return;
      ::close(std::exchange(fd_, -1));
      errno = EBUSY;
    }
    error_ = errno;
  }
  ~TemporaryFile() {
    if (fd_ < 0) return;
    if (!renamed_) ::unlink(path_.c_str());
    ::close(fd_);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  int fd() const { return fd_; }        ///< -1: there is none
  int error() const { return error_; }  ///< why
  bool rename(const fs::path& to) {
    renamed_ = ::rename(path_.c_str(), to.c_str()) == 0;
    return renamed_;
  }

 private:
  std::string path_;
  int fd_ = -1, error_ = 0;
  bool renamed_ = false;
};

}  // namespace

int64_t OffloadBlob::piece_bytes(int64_t piece) const {
  return std::min(kReadPiece, padded(bytes_) - piece * kReadPiece);
}

Status OffloadBlob::read(int64_t piece, std::byte* payload, PageBuffer& bounce) const {
  const int64_t begin = piece * kReadPiece;
  const std::span<std::byte> to(payload + begin, static_cast<size_t>(piece_bytes(piece)));
  VLR_RETURN_IF_ERROR(reader_.read(0, payload_offset_ + begin, to, bounce));
  if (Hasher().add(to).digest() == sums_[static_cast<size_t>(piece)]) return {};
  return {Code::kDataLoss,
          fmt::format("{}: {} bytes at {} are not those that were written; remove the file", path_,
                      to.size(), payload_offset_ + begin)};
}

Result<OffloadFolder> OffloadFolder::open(const std::string& path, const Model& model,
                                          const ReadOptions& read, System system) {
  if (!system.write) system.write = system_write;
  if (!system.free_bytes) system.free_bytes = system_free_bytes;
  const fs::path root = fs::path(path) / kRoot, folder = root / model.place.hex();
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || !fs::is_directory(folder, error)) {
    return {Code::kInvalidArgument, fmt::format("offload_folder: {}: cannot be made: {}",
                                                folder.string(), error.message())};
  }
  remove_leftovers(root);
  return OffloadFolder(folder, model, read, system);
}

fs::path OffloadFolder::path_of(const BlobName& name) const {
  return folder_ / fmt::format("{}-{}{}", name.group, name.layout.hex(), kBlob);
}

Hash128 OffloadFolder::key_of(const BlobName& name) const {
  const Hash128 &content = model_.content, &layout = name.layout;
  return Hasher()
      .add(content.high)
      .add(content.low)
      .add(layout.high)
      .add(layout.low)
      .add(std::string_view(name.group))
      .add(name.bytes)
      .digest();
}

Result<std::optional<OffloadBlob>> OffloadFolder::find(const BlobName& name) const {
  // Another process may put its own in the place of the file between two looks at it.
  constexpr int kTries = 16;
  const std::string path = path_of(name).string();
  Status status;
  for (int tries = 0; tries < kTries; ++tries) {
    const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) return std::optional<OffloadBlob>();
    const auto identity = FileIdentity::of(fd.get(), path);
    if (!identity || identity->bytes < static_cast<int64_t>(sizeof(Head)))
      return std::optional<OffloadBlob>();
    Head h;
    std::string head(sizeof h, '\0');
    if (!read_all(fd.get(), head, 0)) return std::optional<OffloadBlob>();
    std::memcpy(&h, head.data(), sizeof h);
    if (h.magic != kMagic || h.key != key_of(name) || h.payload_bytes != name.bytes ||
        h.piece_bytes != kReadPiece || h.num_pieces != pieces_of(name.bytes) || h.notes_bytes < 0 ||
        h.notes_bytes > kMaxHeadBytes)
      return std::optional<OffloadBlob>();
    const int64_t offset = OffloadBlob::padded(h.used_bytes());
    if (identity->bytes != offset + OffloadBlob::padded(h.payload_bytes))
      return std::optional<OffloadBlob>();
    head.resize(static_cast<size_t>(h.used_bytes()));
    if (!read_all(fd.get(), head, 0) || sum_of(head) != h.sum) return std::optional<OffloadBlob>();

    auto reader = FileReader::open({{.path = path, .identity = *identity}}, read_);
    if (!reader) {
      status = reader.error();
      continue;
    }
    OffloadBlob blob(*std::move(reader));
    blob.path_ = path;
    blob.payload_offset_ = offset;
    blob.bytes_ = h.payload_bytes;
    blob.sums_.resize(static_cast<size_t>(h.num_pieces));
    const size_t sums_bytes = blob.sums_.size() * sizeof(Hash128);
    std::memcpy(blob.sums_.data(), head.data() + sizeof h, sums_bytes);
    blob.notes_ = head.substr(sizeof h + sums_bytes);
    return std::optional<OffloadBlob>(std::move(blob));
  }
  return status;
}

Status OffloadFolder::not_written(const fs::path& path, int64_t bytes, int error) const {
  Code code = Code::kDataLoss;
  switch (error) {
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
      code = Code::kOutOfMemory;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
      code = Code::kInvalidArgument;
      break;
    default:
      break;
  }
  const int64_t free = system_.free_bytes(folder_);
  return {code,
          fmt::format("{}: cannot be written: {}; {} are wanted{}", path.string(),
                      error_text(error), format_bytes(bytes),
                      free < 0 ? std::string() : fmt::format(", {} are free", format_bytes(free)))};
}

Status OffloadFolder::check_room(std::span<const BlobName> names) const {
  // What is replaced makes room, once its successor is there.
  int64_t wanted = 0, replaced = 0;
  for (const BlobName& name : names) {
    wanted += OffloadBlob::padded(name.bytes) + kReadAlignment;
    std::error_code error;
    const auto old = fs::file_size(path_of(name), error);
    if (!error) replaced += static_cast<int64_t>(old);
  }
  const int64_t free = system_.free_bytes(folder_);
  if (free < 0 || wanted <= free + replaced) return {};
  return {Code::kOutOfMemory,
          fmt::format("offload_folder: {}: {} are wanted for {} groups of weights, {} are "
                      "free",
                      folder_.string(), format_bytes(wanted - replaced), names.size(),
                      format_bytes(free))};
}

Status OffloadFolder::write_file(int fd, const fs::path& path, const std::string& head,
                                 std::span<const std::byte> payload) const {
  const int64_t payload_offset = std::ssize(head);
  const std::string padding(
      static_cast<size_t>(OffloadBlob::padded(std::ssize(payload)) - std::ssize(payload)), '\0');
  const int64_t all = payload_offset + std::ssize(payload) + std::ssize(padding);
  const auto write = [&](std::span<const std::byte> from, int64_t offset) -> Status {
    while (!from.empty()) {
      const ssize_t n =
          system_.write(fd, from.data(), std::min(from.size(), static_cast<size_t>(kReadPiece)),
                        static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return not_written(path, all, n < 0 ? errno : ENOSPC);
      from = from.subspan(static_cast<size_t>(n));
      offset += n;
    }
    return {};
  };
  VLR_RETURN_IF_ERROR(write(std::as_bytes(std::span(head)), 0));
  VLR_RETURN_IF_ERROR(write(payload, payload_offset));
  VLR_RETURN_IF_ERROR(
      write(std::as_bytes(std::span(padding)), payload_offset + std::ssize(payload)));
  // Or a crash could leave the name without the bytes.
  if (::fsync(fd) != 0) return not_written(path, all, errno);
  return {};
}

Result<OffloadBlob> OffloadFolder::write(const BlobName& name, std::span<const std::byte> payload,
                                         std::string_view notes) const {
  const fs::path path = path_of(name);
  if (std::ssize(payload) != name.bytes)
    return {Code::kInternal, fmt::format("{}: {} bytes for a blob of {}", path.string(),
                                         payload.size(), name.bytes)};
  Head h;
  h.key = key_of(name);
  h.payload_bytes = name.bytes;
  h.num_pieces = pieces_of(name.bytes);
  h.notes_bytes = std::ssize(notes);
  std::string head(reinterpret_cast<const char*>(&h), sizeof h);
  for (int64_t piece = 0; piece < h.num_pieces; ++piece) {
    const auto begin = static_cast<size_t>(piece * kReadPiece);
    const auto bytes = payload.subspan(begin).first(
        std::min(payload.size() - begin, static_cast<size_t>(kReadPiece)));
    const std::string padding(
        static_cast<size_t>(OffloadBlob::padded(std::ssize(bytes)) - std::ssize(bytes)), '\0');
    const Hash128 sum = Hasher().add(bytes).add(std::string_view(padding)).digest();
    head.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  }
  head += notes;
  h.sum = sum_of(head);
  std::memcpy(head.data(), &h, sizeof h);
  head.resize(static_cast<size_t>(OffloadBlob::padded(std::ssize(head))));

  const int64_t all = std::ssize(head) + OffloadBlob::padded(name.bytes);
  if (const int64_t free = system_.free_bytes(folder_); free >= 0 && free < all)
    return not_written(path, all, ENOSPC);
  {
    TemporaryFile file(path);
    if (file.fd() < 0) return not_written(path, all, file.error());
    VLR_RETURN_IF_ERROR(write_file(file.fd(), path, head, payload));
    if (!file.rename(path)) return not_written(path, all, errno);
  }
  VLR_ASSIGN_OR_RETURN(std::optional<OffloadBlob> blob, find(name));
  if (blob) return *std::move(blob);
  return {Code::kDataLoss,
          fmt::format("{}: is not what was written just now; does another process keep other "
                      "weights there?",
                      path.string())};
}

}  // namespace vlr
