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
    if (part.stored != WeightFormat::kDense) {
      if (part.stored != spec.format || part.num_rows != part.shape[0]) {
        return {Code::kInternal,
                fmt::format("{}: {} is stored as {} and wanted as {}", spec.name, part.source,
                            weight_format_name(part.stored), weight_format_name(spec.format))};
      }
      numel += StoredShape{DType::kU8, part.shape}.numel();
      continue;
    }
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
  const int64_t expected = StoredShape{DType::kU8, spec.shape}.numel();
  if (numel != expected) {
    return {Code::kInternal, fmt::format("{}: {} has {} elements, its parts have {}", spec.name,
                                         describe_shape(spec.shape), expected, numel)};
  }
  return dtype.value_or(DType::kBF16);
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

std::vector<WeightTensor> tensors_of(const WeightSpec& spec, DType dtype, Device device) {
  std::vector<WeightTensor> out;
  const auto add = [&](std::string_view suffix, DType type, const std::vector<int64_t>& shape) {
    ConstTensor t = view(nullptr, type, shape);
    t.device = device;
    out.push_back({spec.name + std::string(suffix), t});
  };
  if (spec.format == WeightFormat::kDense) {
    add("", dtype, spec.shape);
    return out;
  }
  const int64_t n = spec.shape[0], k = spec.shape[1];
  if (spec.format != WeightFormat::kNf4) {
    add("", spec.format == WeightFormat::kInt8 ? DType::kI8 : DType::kF8E4M3, {n, k});
    add(quantized::kScale, DType::kF32, {n});
    return out;
  }
  std::vector<int64_t> values;
  for (const WeightPart& part : spec.parts) values.push_back(part.num_rows * k);
  const int64_t blocks = (n * k + kNf4Block - 1) / kNf4Block, group = nf4_group_blocks(values);
  add("", DType::kU8, {n, k / 2});
  add(quantized::kAbsmax, DType::kU8, {blocks});
  add(quantized::kNested, DType::kF32, {(blocks + group - 1) / group, 2});
  add(quantized::kMap, DType::kF32, {256});
  return out;
}

QuantizedWeight quantized_weight(const ConstTensor& codes, const ConstTensor& scales,
                                 const ConstTensor& nested, const ConstTensor& map) {
  QuantizedWeight w{.format = codes.dtype == DType::kI8       ? WeightFormat::kInt8
                              : codes.dtype == DType::kF8E4M3 ? WeightFormat::kFp8
                                                              : WeightFormat::kNf4,
                    .rows = codes.dim(0),
                    .cols = codes.dim(1),
                    .codes = codes,
                    .scales = scales,
                    .nested = nested,
                    .map = map};
  if (w.format != WeightFormat::kNf4) return w;
  w.cols *= 2;
  w.codes = ConstTensor(codes.data, DType::kU8, {codes.numel()}, codes.device);
  // The power of two that makes as many groups as there are; with one group, any that is not less.
  const int64_t blocks = scales.dim(0), groups = nested.dim(0);
  w.group_blocks = 1;
  while ((blocks + w.group_blocks - 1) / w.group_blocks > groups) w.group_blocks *= 2;
  return w;
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
      if (!piece.buffer.data()) piece.buffer = device_.staging("uploads");
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

namespace {

/// A group of streamed weights: its name and its bytes.
struct GroupSize {
  std::string_view name;
  int64_t bytes = 0;
};

/// Groups in the order in which their first weights come, which is the order of their slots: they
/// alternate.
std::vector<GroupSize> streamed_groups(const WeightPlan& plan, DType dtype) {
  std::vector<GroupSize> groups;
  std::map<std::string_view, size_t> index;
  for (const WeightSpec& spec : plan) {
    if (spec.place != WeightPlace::kStreamed) continue;
    const auto [it, is_new] = index.try_emplace(spec.group, groups.size());
    if (is_new) groups.push_back({.name = spec.group});
    for (const WeightTensor& t : tensors_of(spec, dtype, Device::kCuda))
      groups[it->second].bytes += aligned(t.shape.bytes());
  }
  return groups;
}

std::array<int64_t, 2> slot_bytes(std::span<const GroupSize> groups) {
  std::array<int64_t, 2> bytes{};
  for (size_t i = 0; i < groups.size(); ++i) bytes[i % 2] = std::max(bytes[i % 2], groups[i].bytes);
  return bytes;
}

}  // namespace

DeviceWeightBytes device_weight_bytes(const WeightPlan& plan, DType dtype) {
  DeviceWeightBytes bytes;
  for (const WeightSpec& spec : plan) {
    if (spec.place == WeightPlace::kStreamed) continue;
    int64_t& sum = spec.place == WeightPlace::kHost ? bytes.host : bytes.device;
    for (const WeightTensor& t : tensors_of(spec, dtype, Device::kCuda))
      sum += aligned(t.shape.bytes());
  }
  const std::vector<GroupSize> groups = streamed_groups(plan, dtype);
  for (const GroupSize& group : groups) bytes.streamed += group.bytes;
  const std::array<int64_t, 2> slots = slot_bytes(groups);
  bytes.slots = slots[0] + slots[1];
  bytes.device += bytes.slots;
  return bytes;
}

namespace {

Result<JoinedWeight> join_parts(const WeightSpec& spec, std::vector<QuantizedTensor> parts) {
  auto joined = join(std::move(parts));
  if (!joined) return joined.error().with_context(spec.name);
  if (joined->rows != spec.shape[0] || joined->cols != spec.shape[1]) {
    return {Code::kInternal, fmt::format("{}: must be {}, its parts are [{}, {}]", spec.name,
                                         describe_shape(spec.shape), joined->rows, joined->cols)};
  }
  return joined;
}

/// A quantised weight from its parts, those that are dense quantised now.
Result<JoinedWeight> load_quantized(const WeightSpec& spec, const Checkpoint& checkpoint,
                                    ThreadPool& threads) {
  VLR_ASSIGN_OR_RETURN(const DType dtype, check_weight(spec, checkpoint));
  std::vector<QuantizedTensor> parts;
  for (const WeightPart& part : spec.parts) {
    if (part.stored != WeightFormat::kDense) {
      VLR_ASSIGN_OR_RETURN(QuantizedTensor t,
                           read_quantized(checkpoint.tensors(), part.source, threads));
      parts.push_back(std::move(t));
      continue;
    }
    const StoredTensor& stored = *checkpoint.find(part.source);
    const auto bytes = part_bytes(part, stored);
    std::vector<std::byte> copy;
    if (!stored.aligned()) copy.assign(bytes.begin(), bytes.end());
    const ConstTensor dense(copy.empty() ? bytes.data() : copy.data(), dtype,
                            {part.num_rows, spec.shape[1]});
    auto quantised = quantize_weight(dense, spec.format, threads);
    if (!quantised) return quantised.error().with_context(part.source);
    parts.push_back(*std::move(quantised));
  }
  return join_parts(spec, std::move(parts));
}

void keep_fingerprint(const WeightSpec& spec, JoinedWeight& w, Fingerprints& to) {
  if (w.fingerprint.empty()) return;
  Fingerprint f{.values = std::move(w.fingerprint), .parts = {}};
  for (const WeightPart& part : spec.parts) f.parts.emplace_back(part.source, part.num_rows);
  to.emplace(spec.name, std::move(f));
}

/// The bytes of each of tensors_of().
std::vector<std::span<const std::byte>> bytes_of(const JoinedWeight& w) {
  std::vector<std::span<const std::byte>> out = {w.codes, w.scales};
  if (w.format == WeightFormat::kNf4) {
    out.push_back(std::as_bytes(std::span(w.nested)));
    out.push_back(std::as_bytes(std::span(w.map)));
  }
  return out;
}

}  // namespace

/// Gives every tensor its place, in the order of the plan.
class DeviceWeights::Placer {
 public:
  Placer(DeviceWeights& weights, DType dtype, OpenDevice& device)
      : weights_(weights), dtype_(dtype), device_(device) {}

  Status reserve(const WeightPlan& plan) {
    weights_.memory_ = device_.memory("weights");
    weights_.host_memory_ = device_.staging("weights");
    const DeviceWeightBytes bytes = device_weight_bytes(plan, dtype_);
    VLR_RETURN_IF_ERROR(weights_.memory_.reserve(bytes.device));
    VLR_RETURN_IF_ERROR(weights_.host_memory_.reserve(bytes.host + bytes.streamed));
    const std::vector<GroupSize> groups = streamed_groups(plan, dtype_);
    weights_.slot_offsets_ = {bytes.device - bytes.slots,
                              bytes.device - bytes.slots + slot_bytes(groups)[0]};
    int64_t at = bytes.host;  // groups lie one after the other
    for (const GroupSize& group : groups) {
      const auto index = static_cast<int>(weights_.groups_.size());
      weights_.groups_.push_back({.name = std::string(group.name),
                                  .host = weights_.host_memory_.data() + at,
                                  .bytes = group.bytes,
                                  .slot = index % 2});
      streams_[std::string(group.name)] = {.index = index, .host_offset = at};
      at += group.bytes;
    }
    return {};
  }

  /// Where the tensors of the next weight are to stand.
  Result<std::vector<Tensor>> next(const WeightSpec& spec) {
    std::vector<Tensor> out;
    const bool streamed = spec.place == WeightPlace::kStreamed;
    Stream* const stream = streamed ? &streams_.at(spec.group) : nullptr;
    int64_t& offset = streamed                           ? stream->used
                      : spec.place == WeightPlace::kHost ? host_offset_
                                                         : offset_;
    std::byte* const base = streamed ? weights_.host_memory_.data() + stream->host_offset
                            : spec.place == WeightPlace::kHost ? weights_.host_memory_.data()
                                                               : weights_.memory_.data();
    for (WeightTensor& t : tensors_of(spec, dtype_, device_.kind())) {
      std::byte* const data = base + offset;  // where it is put now
      t.shape.data = data;
      if (streamed) {
        t.shape.data = weights_.slot(stream->index % 2) + offset;
        weights_.group_of_[t.name] = stream->index;
      }
      offset += aligned(t.shape.bytes());
      out.emplace_back(data, t.shape.dtype, std::initializer_list<int64_t>{t.shape.numel()},
                       device_.kind());
      if (!weights_.tensors_.emplace(std::move(t.name), t.shape).second)
        return {Code::kInternal, fmt::format("{}: the weight plan has it twice", spec.name)};
    }
    return out;
  }

  Status put(const WeightSpec& spec, JoinedWeight w, Uploader& uploader) {
    VLR_ASSIGN_OR_RETURN(const std::vector<Tensor> places, next(spec));
    const auto bytes = bytes_of(w);
    for (size_t i = 0; i < places.size(); ++i) {
      if (std::ssize(bytes[i]) != places[i].bytes())
        return {Code::kInternal, fmt::format("{}: {} bytes for {}", spec.name, bytes[i].size(),
                                             describe(places[i]))};
      VLR_RETURN_IF_ERROR(
          uploader.upload(bytes[i], DType::kU8, places[i].as<std::byte>(), DType::kU8));
    }
    keep_fingerprint(spec, w, weights_.fingerprints_);
    return {};
  }

 private:
  DeviceWeights& weights_;
  DType dtype_;
  OpenDevice& device_;
  int64_t offset_ = 0, host_offset_ = 0;
  struct Stream {
    int index = 0;
    int64_t host_offset = 0, used = 0;
  };
  std::map<std::string, Stream, std::less<>> streams_;  // by group
};

Result<DeviceWeights> DeviceWeights::make(const WeightPlan& plan, DType dtype, OpenDevice& device,
                                          const Fill& fill) {
  DeviceWeights w;
  Placer placer(w, dtype, device);
  VLR_RETURN_IF_ERROR(placer.reserve(plan));
  if (device.only_plans()) {
    for (const WeightSpec& spec : plan) VLR_RETURN_IF_ERROR(placer.next(spec).error());
    return w;
  }
  Uploader uploader(device);
  Buffer dense = device.memory("weights to quantise"), host = device.staging("weights to quantise");
  for (const WeightSpec& spec : plan) {
    if (spec.format == WeightFormat::kDense) {
      VLR_ASSIGN_OR_RETURN(const std::vector<Tensor> places, placer.next(spec));
      VLR_RETURN_IF_ERROR(fill(spec, places[0]).with_context(spec.name));
      continue;
    }
    const int64_t cols = spec.shape[1], bytes = view(nullptr, dtype, spec.shape).bytes();
    VLR_RETURN_IF_ERROR(dense.reserve(bytes));
    VLR_RETURN_IF_ERROR(host.reserve(bytes));
    const Tensor all(dense.data(), dtype, {spec.shape[0] * cols}, device.kind());
    VLR_RETURN_IF_ERROR(fill(spec, all).with_context(spec.name));
    VLR_RETURN_IF_ERROR(device.copy(host.data(), dense.data(), bytes));
    VLR_RETURN_IF_ERROR(device.synchronize());
    std::vector<QuantizedTensor> parts;
    int64_t row = 0;
    for (const WeightPart& part : spec.parts) {
      const ConstTensor values(host.data() + row * cols * dtype_bytes(dtype), dtype,
                               {part.num_rows, cols});
      auto quantised = quantize_weight(values, spec.format, *device.context().threads);
      if (!quantised) return quantised.error().with_context(part.source);
      parts.push_back(*std::move(quantised));
      row += part.num_rows;
    }
    VLR_ASSIGN_OR_RETURN(JoinedWeight joined, join_parts(spec, std::move(parts)));
    VLR_RETURN_IF_ERROR(placer.put(spec, std::move(joined), uploader).with_context(spec.name));
  }
  VLR_RETURN_IF_ERROR(device.synchronize());
  return w;
}

Result<DeviceWeights> DeviceWeights::load(const Checkpoint& checkpoint, const WeightPlan& plan,
                                          DType dtype, OpenDevice& device) {
  DeviceWeights w;
  Placer placer(w, dtype, device);
  VLR_RETURN_IF_ERROR(placer.reserve(plan));
  Uploader uploader(device);
  for (const WeightSpec& spec : plan) {
    if (spec.format != WeightFormat::kDense) {
      auto joined = load_quantized(spec, checkpoint, *device.context().threads);
      if (!joined) return joined.error();
      VLR_RETURN_IF_ERROR(placer.put(spec, *std::move(joined), uploader).with_context(spec.name));
      continue;
    }
    VLR_ASSIGN_OR_RETURN(const DType stored, check_weight(spec, checkpoint));
    VLR_ASSIGN_OR_RETURN(const std::vector<Tensor> places, placer.next(spec));
    auto* to = places[0].as<std::byte>();
    for (const WeightPart& part : spec.parts) {
      const auto bytes = part_bytes(part, *checkpoint.find(part.source));
      VLR_RETURN_IF_ERROR(uploader.upload(bytes, stored, to, dtype).with_context(spec.name));
      to += std::ssize(bytes) / dtype_bytes(stored) * dtype_bytes(dtype);
    }
  }
  VLR_RETURN_IF_ERROR(device.synchronize());
  return w;
}

int DeviceWeights::group_of(std::string_view name) const {
  const auto it = group_of_.find(name);
  return it == group_of_.end() ? -1 : it->second;
}

Result<ConstTensor> DeviceWeights::get(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return {Code::kNotFound, fmt::format("the weight store has no {}", name)};
  }
  return it->second;
}

void WeightStore::FreeAligned::operator()(std::byte* p) const { ::operator delete(p, kAlignment); }

Result<WeightStore> WeightStore::load(Checkpoint checkpoint, const WeightPlan& plan,
                                      ThreadPool* threads) {
  WeightStore store;
  const auto allocate = [&](const WeightSpec& spec, int64_t bytes) -> Result<std::byte*> {
    const auto size = static_cast<size_t>(bytes);
    Buffer buffer(static_cast<std::byte*>(::operator new(size, kAlignment, std::nothrow)));
    if (!buffer)
      return {Code::kOutOfMemory, fmt::format("{}: {} bytes of host memory", spec.name, bytes)};
    store.buffers_.push_back(std::move(buffer));
    store.bytes_owned_ += bytes;
    return store.buffers_.back().get();
  };
  for (const WeightSpec& spec : plan) {
    if (store.contains(spec.name)) {
      return {Code::kInternal, fmt::format("{}: the weight plan has it twice", spec.name)};
    }
    if (spec.format != WeightFormat::kDense) {
      if (!threads) return {Code::kInternal, spec.name + ": nobody to quantise it"};
      auto joined = load_quantized(spec, checkpoint, *threads);
      if (!joined) return joined.error();
      const auto bytes = bytes_of(*joined);
      size_t i = 0;
      for (WeightTensor& t : tensors_of(spec, DType::kF32, Device::kCpu)) {
        VLR_ASSIGN_OR_RETURN(std::byte* const data, allocate(spec, t.shape.bytes()));
        std::memcpy(data, bytes[i].data(), bytes[i].size());
        t.shape.data = data;
        store.tensors_.emplace(std::move(t.name), t.shape);
        ++i;
      }
      keep_fingerprint(spec, *joined, store.fingerprints_);
      continue;
    }
    VLR_ASSIGN_OR_RETURN(const DType dtype, check_weight(spec, checkpoint));
    const int64_t bytes = StoredShape{dtype, spec.shape}.bytes();
    const StoredTensor& first = *checkpoint.find(spec.parts[0].source);
    if (spec.parts.size() == 1 && first.aligned()) {
      store.tensors_.emplace(spec.name,
                             view(part_bytes(spec.parts[0], first).data(), dtype, spec.shape));
      store.bytes_mapped_ += bytes;
      continue;
    }
    VLR_ASSIGN_OR_RETURN(std::byte* const data, allocate(spec, bytes));
    VLR_RETURN_IF_ERROR(copy_weight(spec, checkpoint, {data, static_cast<size_t>(bytes)}));
    store.tensors_.emplace(spec.name, view(data, dtype, spec.shape));
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
