#include "engine/weights/weight_transfer.h"
#include "engine/runtime/purposes.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "kernels/core/load.h"

namespace vlr {
namespace {

using std::chrono::milliseconds;

// Of the ring, beyond one for every thread: two on the bus, two that wait for it.
constexpr int64_t kSparePieces = 4;
// What is converted is read in steps that stay in a core's caches.
constexpr int64_t kConvertBytes = int64_t{1} << 20;
constexpr milliseconds kReportEvery{100};

/// Elements of one dtype as another; false if an f16 cannot hold one of them.
bool convert_elements(const std::byte* from, DType from_type, std::byte* to, DType to_type,
                      int64_t count) {
  const ConstTensor in(from, from_type, {count});
  const Tensor out(to, to_type, {count});
  bool fits = true;
  for (int64_t i = 0; i < count; ++i) {
    const float v = load_f32(in, i);
    fits = fits && (to_type != DType::kF16 || std::fabs(v) < 65520.0f || !std::isfinite(v));
    store_f32(out, i, v);
  }
  return fits;
}

/// Bytes that `bytes` of a transfer take where they are to stand.
int64_t placed_bytes(const Transfer& t, int64_t bytes) {
  return t.stored == t.dtype ? bytes : bytes / dtype_bytes(t.stored) * dtype_bytes(t.dtype);
}

/// How much to read from `offset` on, at most `most`: whole elements, and up to the end of a page,
/// so that O_DIRECT reads no page twice, unless elements lie across it.
int64_t step_bytes(int64_t offset, int64_t most, int64_t element) {
  if (offset % element != 0) return most / element * element;
  return (offset + most) / kReadAlignment * kReadAlignment - offset;
}

/// What one thread reads at a time: neighbours in a file that go the same way.
struct Piece {
  std::vector<Transfer> parts;  // several only if they go to the device as they are
  int64_t bytes = 0;            // in the file

  const Transfer& first() const { return parts.front(); }
  bool converts() const { return first().stored != first().dtype; }
};

std::vector<Piece> cut(std::vector<Transfer> transfers) {
  std::ranges::sort(transfers, {}, [](const Transfer& t) { return std::tuple(t.file, t.offset); });
  std::vector<Piece> pieces;
  // Small neighbours are read together.
  const auto continues = [](const Piece& p, const Transfer& t) {
    const Transfer& first = p.first();
    return first.file == t.file && first.offset + p.bytes == t.offset && p.bytes < kReadPiece / 2 &&
           !first.to_host && !t.to_host && !p.converts() && t.stored == t.dtype;
  };
  for (Transfer& t : transfers) {
    const bool converts = t.stored != t.dtype;
    const int64_t element = converts ? dtype_bytes(t.stored) : 1;
    const int64_t most =
        converts ? kReadPiece / std::max(element, dtype_bytes(t.dtype)) * element : kReadPiece;
    while (t.bytes > 0) {
      if (pieces.empty() || !continues(pieces.back(), t)) pieces.emplace_back();
      Piece& p = pieces.back();
      const int64_t begin = t.offset - p.bytes;
      Transfer part = t;
      part.bytes = std::min(step_bytes(begin, most, element) - p.bytes, t.bytes);
      p.parts.push_back(part);
      p.bytes += part.bytes;
      t.offset += part.bytes;
      t.bytes -= part.bytes;
      t.to += placed_bytes(t, part.bytes);
    }
  }
  return pieces;
}

/// Pinned pieces: free, being filled by a thread, filled, on their way to the device, free again.
class Ring {
 public:
  struct Filled {
    int64_t piece = 0;
    std::byte* place = nullptr;  // given back with give()
    std::byte* data = nullptr;   // in it
  };

  /// `num_pieces` will be done.
  explicit Ring(int64_t num_pieces) : undone_(num_pieces) {}

  Status reserve(OpenDevice& device, int64_t count) {
    if (count == 0) return {};
    // A page more than a piece: data lie in it as they do in their file.
    constexpr int64_t kPlace = kReadPiece + kReadAlignment;
    memory_ = device.staging(purposes::kLoading);
    VLR_RETURN_IF_ERROR(memory_.reserve(count * kPlace + kReadAlignment));
    const auto misfit = static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory_.data()) %
                                             uintptr_t{kReadAlignment});
    for (int64_t i = 0; i < count; ++i)
      free_.push_back(memory_.data() + (kReadAlignment - misfit) + i * kPlace);
    return {};
  }

  /// Null: stopped.
  std::byte* take() {
    std::unique_lock lock(mutex_);
    given_.wait(lock, [&] { return !free_.empty() || stopped_; });
    if (stopped_) return nullptr;
    std::byte* const place = free_.back();
    free_.pop_back();
    return place;
  }
  void give(std::byte* place) {
    const std::lock_guard lock(mutex_);
    free_.push_back(place);
    given_.notify_one();
  }
  /// A piece is where it belongs, or waits in the ring for its copy.
  void done(std::optional<Filled> filled) {
    const std::lock_guard lock(mutex_);
    if (filled) filled_.push_back(*filled);
    --undone_;
    changed_.notify_one();
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    given_.notify_all();
    changed_.notify_one();
  }
  /// The next piece to copy, unless there is none within `timeout`.
  std::optional<Filled> next(milliseconds timeout) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, timeout, [&] { return !filled_.empty() || undone_ == 0 || stopped_; });
    if (filled_.empty()) return std::nullopt;
    const Filled filled = filled_.front();
    filled_.pop_front();
    return filled;
  }
  bool over() {
    const std::lock_guard lock(mutex_);
    return stopped_ || (undone_ == 0 && filled_.empty());
  }

 private:
  Buffer memory_;
  std::mutex mutex_;
  std::condition_variable given_, changed_;
  std::vector<std::byte*> free_;
  std::deque<Filled> filled_;
  int64_t undone_;
  bool stopped_ = false;
};

struct ThreadMemory {
  PageBuffer bounce, stored;
};

/// Reads a piece's elements and converts them to `to`.
Status read_converted(const FileReader& files, const Transfer& t, std::byte* to,
                      ThreadMemory& own) {
  const int64_t in = dtype_bytes(t.stored);
  VLR_RETURN_IF_ERROR(own.stored.reserve(kConvertBytes + kReadAlignment));
  for (int64_t at = 0, bytes = 0; at < t.bytes; at += bytes) {
    const int64_t offset = t.offset + at;
    bytes = std::min(t.bytes - at, step_bytes(offset, kConvertBytes, in));
    // As in the file, which is the fastest, unless its writer did not align elements.
    const int64_t shift = offset % in == 0 ? offset % kReadAlignment : 0;
    std::byte* const stored = own.stored.data() + shift;
    VLR_RETURN_IF_ERROR(
        files.read(t.file, offset, {stored, static_cast<size_t>(bytes)}, own.bounce));
    if (!convert_elements(stored, t.stored, to + placed_bytes(t, at), t.dtype, bytes / in))
      return Status(Code::kInvalidArgument, "a value is beyond 65504, the largest of f16")
          .with_context(t.name);
  }
  return {};
}

/// In a thread of its own: reads piece `i` to where it belongs, or into a place of the ring.
Status read_piece(const FileReader& files, const std::vector<Piece>& pieces, int64_t i, Ring& ring,
                  ThreadMemory& own) {
  const Piece& p = pieces[static_cast<size_t>(i)];
  const Transfer& t = p.first();
  const auto size = static_cast<size_t>(p.bytes);
  std::optional<Ring::Filled> filled;
  std::byte* to = t.to;
  if (!t.to_host) {
    std::byte* const place = ring.take();
    if (!place) return {};
    to = p.converts() ? place : place + t.offset % kReadAlignment;
    filled = {.piece = i, .place = place, .data = to};
  }
  VLR_RETURN_IF_ERROR(p.converts() ? read_converted(files, t, to, own)
                                   : files.read(t.file, t.offset, {to, size}, own.bounce));
  ring.done(filled);
  return {};
}

/// Queues the copies of a piece's parts.
Status copy_piece(const Piece& piece, const std::byte* from, OpenDevice& device) {
  for (const Transfer& t : piece.parts) {
    const int64_t bytes = placed_bytes(t, t.bytes);
    VLR_RETURN_IF_ERROR(device.copy(t.to, from, bytes));
    from += bytes;
  }
  return {};
}

/// Copies pieces on as they are filled, and gives their places back, until the ring is over.
Status copy_filled(const std::vector<Piece>& pieces, Ring& ring, OpenDevice& device,
                   const std::function<void()>& on_progress) {
  struct Travelling {
    std::byte* place = nullptr;
    OpenDevice::Mark arrived;
  };
  std::optional<Travelling> last;  // one copy runs while the next one is queued
  const auto arrive = [&]() -> Status {
    VLR_RETURN_IF_ERROR(device.wait(last->arrived));
    ring.give(last->place);
    last.reset();
    return {};
  };
  auto reported = std::chrono::steady_clock::now();
  while (last || !ring.over()) {
    const auto filled = ring.next(last ? milliseconds(0) : kReportEvery);
    if (filled) {
      VLR_RETURN_IF_ERROR(
          copy_piece(pieces[static_cast<size_t>(filled->piece)], filled->data, device));
      VLR_ASSIGN_OR_RETURN(OpenDevice::Mark arrived, device.mark());
      if (last) VLR_RETURN_IF_ERROR(arrive());
      last.emplace(filled->place, std::move(arrived));
    } else if (last) {
      VLR_RETURN_IF_ERROR(arrive());
    }
    const auto time = std::chrono::steady_clock::now();
    if (on_progress && time - reported >= kReportEvery) {
      on_progress();
      reported = time;
    }
  }
  return {};
}

/// Nobody must wait for a piece that failed, also not for one whose thread threw.
struct StopUnlessOk {
  Ring& ring;
  Status status{Code::kInternal, "reading did not end"};
  ~StopUnlessOk() {
    if (!status.ok()) ring.stop();
  }
};

/// However a transfer is left, on_progress may throw: first nobody writes to the ring or reads from
/// it.
struct Settle {
  Ring& ring;
  PieceThreads& threads;
  OpenDevice& device;
  ~Settle() {
    ring.stop();
    threads.stop();
    (void)threads.wait();
    (void)device.synchronize();
  }
};

}  // namespace

Status transfer(const FileReader& files, std::vector<Transfer> transfers, OpenDevice& device,
                const std::function<void()>& on_progress) {
  const std::vector<Piece> pieces = cut(std::move(transfers));
  const auto num_pieces = static_cast<int64_t>(pieces.size());
  const auto num_travelling = static_cast<int64_t>(
      std::ranges::count_if(pieces, [](const Piece& p) { return !p.first().to_host; }));
  const auto num_threads =
      static_cast<int>(std::min<int64_t>(files.options().threads(), num_pieces));
  Ring ring(num_pieces);
  VLR_RETURN_IF_ERROR(ring.reserve(device, std::min(num_travelling, num_threads + kSparePieces)));

  std::vector<ThreadMemory> memory(static_cast<size_t>(num_threads));
  PieceThreads threads(num_threads, num_pieces, [&](int64_t i, int thread) {
    StopUnlessOk result{.ring = ring};
    result.status = read_piece(files, pieces, i, ring, memory[static_cast<size_t>(thread)]);
    return result.status;
  });
  if (!threads.started()) ring.stop();
  const Settle settle{ring, threads, device};
  const Status copied = copy_filled(pieces, ring, device, on_progress);
  if (!copied.ok()) {
    ring.stop();
    threads.stop();
  }
  VLR_RETURN_IF_ERROR(threads.wait());
  VLR_RETURN_IF_ERROR(copied);
  return device.synchronize();
}

}  // namespace vlr
