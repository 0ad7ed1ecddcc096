#include "engine/runtime/weight_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>

#include "engine/runtime/arena.h"
#include "kernels/core/load.h"

namespace vlr {
namespace {

constexpr std::align_val_t kAlignment{64};

/// The bytes of a part's rows in the mapped file.
std::span<const std::byte> part_bytes(const WeightPart& part, const StoredTensor& stored) {
  const int64_t row_bytes = stored.bytes() / part.shape[0];
  return {stored.data + part.first_row * row_bytes, static_cast<size_t>(part.num_rows * row_bytes)};
}

ConstTensor view(const void* data, DType dtype, const std::vector<int64_t>& shape) {
  ConstTensor t;
  t.data = data;
  t.dtype = dtype;
  t.rank = static_cast<int>(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    t.dims[i] = shape[i];
    t.strides[i] = stride;
    stride *= shape[i];
  }
  return t;
}

}  // namespace

Result<DType> check_weight(const WeightSpec& spec, const Checkpoint& checkpoint) {
  if (spec.shape.empty() || spec.shape.size() > size_t{kMaxRank} || spec.parts.empty()) {
    return {Code::kInternal,
            fmt::format("{}: a weight has 1 to {} axes and a part, got {} and {} parts", spec.name,
                        kMaxRank, describe_shape(spec.shape), spec.parts.size())};
  }
  std::optional<DType> dtype;
  int64_t numel = 0;
  for (const WeightPart& part : spec.parts) {
    const StoredTensor* stored = checkpoint.find(part.source);
    if (!stored)
      return {Code::kNotFound, fmt::format("{}: the checkpoint has no {}", spec.name, part.source)};
    if (stored->shape != part.shape || part.shape.empty()) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {} must be {}, got {}", spec.name, part.source,
                          describe_shape(part.shape), describe_shape(stored->shape))};
    }
    if (stored->dtype != DType::kBF16 && stored->dtype != DType::kF16 &&
        stored->dtype != DType::kF32) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {} must be bf16, f16 or f32, got {}", spec.name, part.source,
                          dtype_name(stored->dtype))};
    }
    if (dtype.value_or(stored->dtype) != stored->dtype) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {} must be {} as the rows before it, got {}", spec.name, part.source,
                          dtype_name(*dtype), dtype_name(stored->dtype))};
    }
    if (part.first_row < 0 || part.num_rows <= 0 ||
        part.num_rows > part.shape[0] - part.first_row) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {} has {} rows, cannot take {} from row {}", spec.name, part.source,
                          part.shape[0], part.num_rows, part.first_row)};
    }
    dtype = stored->dtype;
    numel += stored->numel() / part.shape[0] * part.num_rows;
  }
  const int64_t expected = StoredShape{*dtype, spec.shape}.numel();
  if (numel != expected) {
    return {Code::kInternal, fmt::format("{}: {} has {} elements, its parts have {}", spec.name,
                                         describe_shape(spec.shape), expected, numel)};
  }
  return *dtype;
}

Status copy_weight(const WeightSpec& spec, const Checkpoint& checkpoint, std::span<std::byte> out) {
  size_t pos = 0;
  for (const WeightPart& part : spec.parts) {
    const StoredTensor* stored = checkpoint.find(part.source);
    if (!stored)
      return {Code::kNotFound, fmt::format("{}: the checkpoint has no {}", spec.name, part.source)};
    const std::span<const std::byte> bytes = part_bytes(part, *stored);
    if (bytes.size() > out.size() - pos) break;
    std::memcpy(out.data() + pos, bytes.data(), bytes.size());
    pos += bytes.size();
  }
  if (pos != out.size()) {
    return {Code::kInternal, fmt::format("{}: {} bytes to fill, the parts do not have that many",
                                         spec.name, out.size())};
  }
  return {};
}

ConstTensor shape_of(const WeightSpec& spec, DType dtype, Device device) {
  ConstTensor t = view(nullptr, dtype, spec.shape);
  t.device = device;
  return t;
}

namespace {

int64_t aligned(int64_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

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

/// Brings files into a device's memory through two pinned pieces: one is filled by all threads
/// while the other one travels.
class Uploader {
 public:
  explicit Uploader(OpenDevice& device) : device_(device) {}

  Status upload(std::span<const std::byte> from, DType from_type, std::byte* to, DType to_type) {
    const int64_t in = dtype_bytes(from_type), out = dtype_bytes(to_type);
    const int64_t count = std::ssize(from) / in;
    for (int64_t begin = 0; begin < count; begin += kPieceBytes / out) {
      const int64_t n = std::min(count - begin, kPieceBytes / out);
      Piece& piece = pieces_[next_];
      next_ = 1 - next_;
      if (!piece.buffer.data()) piece.buffer = device_.staging();
      VLR_RETURN_IF_ERROR(piece.buffer.reserve(kPieceBytes));
      VLR_RETURN_IF_ERROR(device_.wait(piece.free));
      std::atomic<bool> fits{true};
      const int64_t parts = (n + kPartElements - 1) / kPartElements;
      device_.context().threads->parallel_for(parts, [&](int64_t part, int) {
        const int64_t first = part * kPartElements, some = std::min(n - first, kPartElements);
        const std::byte* source = from.data() + (begin + first) * in;
        std::byte* target = piece.buffer.data() + first * out;
        if (from_type == to_type) {
          std::memcpy(target, source, static_cast<size_t>(some * in));
        } else if (!convert_elements(source, from_type, target, to_type, some)) {
          fits = false;
        }
      });
      if (!fits) return {Code::kInvalidArgument, "a value is beyond 65504, the largest of f16"};
      VLR_RETURN_IF_ERROR(device_.copy(to + begin * out, piece.buffer.data(), n * out));
      VLR_ASSIGN_OR_RETURN(piece.free, device_.mark());
    }
    return {};
  }

 private:
  static constexpr int64_t kPieceBytes = int64_t{64} << 20, kPartElements = int64_t{1} << 20;
  struct Piece {
    Buffer buffer;
    OpenDevice::Mark free;
  };
  OpenDevice& device_;
  Piece pieces_[2];
  int next_ = 0;
};

}  // namespace

int64_t device_weight_bytes(const WeightPlan& plan, DType dtype) {
  int64_t bytes = 0;
  for (const WeightSpec& spec : plan) bytes += aligned(view(nullptr, dtype, spec.shape).bytes());
  return bytes;
}

Result<DeviceWeights> DeviceWeights::make(const WeightPlan& plan, DType dtype, OpenDevice& device,
                                          const Fill& fill) {
  DeviceWeights w;
  w.memory_ = device.memory("weights");
  VLR_RETURN_IF_ERROR(w.memory_.reserve(device_weight_bytes(plan, dtype)));
  int64_t offset = 0;
  for (const WeightSpec& spec : plan) {
    ConstTensor t = shape_of(spec, dtype, device.kind());
    Tensor writable(w.memory_.data() + offset, dtype, {t.numel()}, device.kind());
    VLR_RETURN_IF_ERROR(fill(spec, writable).with_context(spec.name));
    t.data = writable.data;
    offset += aligned(t.bytes());
    if (!w.tensors_.emplace(spec.name, t).second)
      return {Code::kInternal, fmt::format("{}: the weight plan has it twice", spec.name)};
  }
  VLR_RETURN_IF_ERROR(device.synchronize());
  return w;
}

Result<DeviceWeights> DeviceWeights::load(const Checkpoint& checkpoint, const WeightPlan& plan,
                                          DType dtype, OpenDevice& device) {
  Uploader uploader(device);
  return make(plan, dtype, device, [&](const WeightSpec& spec, const Tensor& weight) -> Status {
    VLR_ASSIGN_OR_RETURN(const DType stored, check_weight(spec, checkpoint));
    auto* to = weight.as<std::byte>();
    for (const WeightPart& part : spec.parts) {
      const auto bytes = part_bytes(part, *checkpoint.find(part.source));
      VLR_RETURN_IF_ERROR(uploader.upload(bytes, stored, to, dtype));
      to += std::ssize(bytes) / dtype_bytes(stored) * dtype_bytes(dtype);
    }
    return {};
  });
}

Result<ConstTensor> DeviceWeights::get(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return {Code::kNotFound, fmt::format("the weight store has no {}", name)};
  }
  return it->second;
}

void WeightStore::FreeAligned::operator()(std::byte* p) const { ::operator delete(p, kAlignment); }

Result<WeightStore> WeightStore::load(Checkpoint checkpoint, const WeightPlan& plan) {
  WeightStore store;
  for (const WeightSpec& spec : plan) {
    VLR_ASSIGN_OR_RETURN(const DType dtype, check_weight(spec, checkpoint));
    if (store.contains(spec.name)) {
      return {Code::kInternal, fmt::format("{}: the weight plan has it twice", spec.name)};
    }
    const int64_t bytes = StoredShape{dtype, spec.shape}.bytes();
    const StoredTensor& first = *checkpoint.find(spec.parts[0].source);
    if (spec.parts.size() == 1 && first.aligned()) {
      store.tensors_.emplace(spec.name,
                             view(part_bytes(spec.parts[0], first).data(), dtype, spec.shape));
      store.bytes_mapped_ += bytes;
      continue;
    }
    const auto size = static_cast<size_t>(bytes);
    Buffer buffer(static_cast<std::byte*>(::operator new(size, kAlignment, std::nothrow)));
    if (!buffer)
      return {Code::kOutOfMemory, fmt::format("{}: {} bytes of host memory", spec.name, bytes)};
    VLR_RETURN_IF_ERROR(copy_weight(spec, checkpoint, {buffer.get(), size}));
    store.tensors_.emplace(spec.name, view(buffer.get(), dtype, spec.shape));
    store.buffers_.push_back(std::move(buffer));
    store.bytes_owned_ += bytes;
  }
  store.checkpoint_ = std::move(checkpoint);
  return store;
}

Result<ConstTensor> WeightStore::get(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return {Code::kNotFound, fmt::format("the weight store has no {}", name)};
  }
  return it->second;
}

}  // namespace vlr
