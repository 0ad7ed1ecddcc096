#include "engine/runtime/weight_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <new>

#include "engine/runtime/arena.h"
#include "engine/runtime/weight_transfer.h"

namespace vlr {
namespace {

constexpr std::align_val_t kAlignment{64};

/// The bytes of a part's rows in the mapped file.
std::span<const std::byte> part_bytes(const WeightPart& part, const StoredTensor& stored) {
  const int64_t row_bytes = stored.bytes() / part.shape[0];
  return {stored.data + part.first_row * row_bytes, static_cast<size_t>(part.num_rows * row_bytes)};
}

/// A range of a file that a weight is made from.
struct SourceRange {
  size_t part = 0;
  std::string_view name;  ///< of the tensor
  const StoredTensor* tensor = nullptr;
  int64_t file_offset = 0, bytes = 0;
};

/// The parts' rows, in order; of a part that is stored quantised all that stands beside it, too.
/// The spec has passed check_weight().
std::vector<SourceRange> ranges_of(const WeightSpec& spec, const Checkpoint& checkpoint) {
  std::vector<SourceRange> out;
  const StoredTensors& all = checkpoint.tensors();
  for (size_t i = 0; i < spec.parts.size(); ++i) {
    const WeightPart& part = spec.parts[i];
    const auto source = all.find(part.source);
    if (part.stored == WeightFormat::kDense) {
      const StoredTensor& t = source->second;
      const auto bytes = part_bytes(part, t);
      out.push_back(
          {i, source->first, &t, t.file_offset + (bytes.data() - t.data), std::ssize(bytes)});
      continue;
    }
    std::string_view module = part.source;
    if (module.ends_with(".weight")) module.remove_suffix(6);
    for (auto it = all.lower_bound(module); it != all.end() && it->first.starts_with(module);
         ++it) {
      if (it == source || belongs_to_quantized(all, it->first))
        out.push_back({i, it->first, &it->second, it->second.file_offset, it->second.bytes()});
    }
  }
  return out;
}

/// Counts and times a load for its caller, who may be nobody.
class LoadWatch {
 public:
  explicit LoadWatch(WeightLoading* loading) : loading_(loading) {}

  ReadOptions read_options() const { return loading_ ? loading_->read : ReadOptions(); }
  void expect(const WeightSpec& spec, const Checkpoint& checkpoint) {
    for (const SourceRange& r : ranges_of(spec, checkpoint)) total_ += r.bytes;
  }
  void report(int64_t done) {
    const auto time = Clock::now();
    if (!loading_ || !loading_->on_progress || time - reported_ < std::chrono::milliseconds(100))
      return;
    reported_ = time;
    loading_->on_progress(done, total_);
  }
  void end(ReadStats stats) {
    if (!loading_) return;
    stats.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    loading_->stats = stats;
    if (loading_->on_progress) loading_->on_progress(total_, total_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  WeightLoading* loading_;
  int64_t total_ = 0;
  Clock::time_point start_ = Clock::now(), reported_ = start_;
};

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

/// Brings memory of the host into a device's through two pinned pieces: one is filled by all
/// threads while the other one travels.
class Uploader {
 public:
  explicit Uploader(OpenDevice& device) : device_(device) {}

  Status upload(std::span<const std::byte> from, std::byte* to) {
    const int64_t count = std::ssize(from);
    for (int64_t begin = 0; begin < count; begin += kPieceBytes) {
      const int64_t n = std::min(count - begin, kPieceBytes);
      Piece& piece = pieces_[next_];
      next_ = 1 - next_;
      if (!piece.buffer.data()) piece.buffer = device_.staging("uploads");
      VLR_RETURN_IF_ERROR(piece.buffer.reserve(kPieceBytes));
      VLR_RETURN_IF_ERROR(device_.wait(piece.free));
      const int64_t parts = (n + kPartBytes - 1) / kPartBytes;
      device_.context().threads->parallel_for(parts, [&](int64_t part, int) {
        const int64_t first = part * kPartBytes, some = std::min(n - first, kPartBytes);
        std::memcpy(piece.buffer.data() + first, from.data() + begin + first,
                    static_cast<size_t>(some));
      });
      VLR_RETURN_IF_ERROR(device_.copy(to + begin, piece.buffer.data(), n));
      VLR_ASSIGN_OR_RETURN(piece.free, device_.mark());
    }
    return {};
  }

 private:
  static constexpr int64_t kPieceBytes = int64_t{64} << 20, kPartBytes = int64_t{1} << 20;
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
    if (spec.place == WeightPlace::kStreamed || spec.place == WeightPlace::kCpuExec) continue;
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

/// What a quantised weight is made from, in memory of the host. Move-only.
struct QuantizedSource {
  Buffer memory;
  StoredTensors tensors;                          ///< of parts that are stored quantised
  std::vector<std::span<const std::byte>> dense;  ///< a part's rows; empty: stored quantised
  int64_t bytes = 0;                              ///< of files
};

/// Where everything stands that `spec` is made from, and `extents` to read it to there.
Result<QuantizedSource> place_source(const WeightSpec& spec, const Checkpoint& checkpoint,
                                     Buffer memory, std::vector<Extent>& extents) {
  QuantizedSource source{.memory = std::move(memory), .tensors = {}, .dense = {}};
  source.dense.resize(spec.parts.size());
  const std::vector<SourceRange> ranges = ranges_of(spec, checkpoint);
  int64_t end = 0;
  for (const SourceRange& r : ranges) end += aligned(r.bytes);
  VLR_RETURN_IF_ERROR(source.memory.reserve(end));
  std::byte* at = source.memory.data();
  for (const SourceRange& r : ranges) {
    extents.push_back(
        {.file = r.tensor->file_idx, .offset = r.file_offset, .bytes = r.bytes, .to = at});
    if (spec.parts[r.part].stored == WeightFormat::kDense) {
      source.dense[r.part] = {at, static_cast<size_t>(r.bytes)};
    } else {
      source.tensors.insert_or_assign(std::string(r.name), *r.tensor).first->second.data = at;
    }
    at += aligned(r.bytes);
    source.bytes += r.bytes;
  }
  return source;
}

/// Reads what quantised weights are made from, one weight ahead of the one that is made.
class SourceReader {
 public:
  SourceReader(const Checkpoint& checkpoint, const FileReader& files, const WeightPlan& plan)
      : checkpoint_(checkpoint), files_(files) {
    for (const WeightSpec& spec : plan) {
      if (spec.format != WeightFormat::kDense) order_.push_back(&spec);
    }
    read_ahead();
  }

  /// The next one in the plan. Its memory is taken back with the call after the next one.
  Result<QuantizedSource*> next() {
    VLR_RETURN_IF_ERROR(coming_.get());
    std::swap(here_, ahead_);
    read_ahead();
    return &here_;
  }

 private:
  void read_ahead() {
    if (begun_ == order_.size()) return;
    const WeightSpec& spec = *order_[begun_++];
    // Deferred, if there can be no other thread.
    coming_ = std::async(std::launch::async | std::launch::deferred, [this, &spec]() -> Status {
      std::vector<Extent> extents;
      auto source = place_source(spec, checkpoint_, std::move(ahead_.memory), extents);
      if (!source) return source.error().with_context(spec.name);
      ahead_ = *std::move(source);
      return files_.read_all(extents).with_context(spec.name);
    });
  }

  const Checkpoint& checkpoint_;
  const FileReader& files_;
  std::vector<const WeightSpec*> order_;
  size_t begun_ = 0;
  QuantizedSource here_, ahead_;
  std::future<Status> coming_;  // of ahead_; its destructor waits
};

/// A quantised weight from its parts, those that are dense quantised now. The spec has passed
/// check_weight(), which said `dtype`.
Result<JoinedWeight> make_quantized(const WeightSpec& spec, DType dtype,
                                    const QuantizedSource& source, ThreadPool& threads) {
  std::vector<QuantizedTensor> parts;
  for (size_t i = 0; i < spec.parts.size(); ++i) {
    const WeightPart& part = spec.parts[i];
    if (part.stored != WeightFormat::kDense) {
      VLR_ASSIGN_OR_RETURN(QuantizedTensor t, read_quantized(source.tensors, part.source, threads));
      parts.push_back(std::move(t));
      continue;
    }
    const ConstTensor dense(source.dense[i].data(), dtype, {part.num_rows, spec.shape[1]});
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
      VLR_RETURN_IF_ERROR(uploader.upload(bytes[i], places[i].as<std::byte>()));
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
                                          DType dtype, OpenDevice& device, WeightLoading* loading) {
  LoadWatch watch(loading);
  DeviceWeights w;
  Placer placer(w, dtype, device);
  VLR_RETURN_IF_ERROR(placer.reserve(plan));
  VLR_ASSIGN_OR_RETURN(const FileReader files, checkpoint.reader(watch.read_options()));
  std::vector<Transfer> transfers;
  std::vector<DType> stored;  // of the plan's weights
  for (const WeightSpec& spec : plan) {
    VLR_ASSIGN_OR_RETURN(const DType dense, check_weight(spec, checkpoint));
    stored.push_back(dense);
    watch.expect(spec, checkpoint);
    if (spec.format != WeightFormat::kDense) continue;
    VLR_ASSIGN_OR_RETURN(const std::vector<Tensor> places, placer.next(spec));
    auto* to = places[0].as<std::byte>();
    for (const SourceRange& r : ranges_of(spec, checkpoint)) {
      transfers.push_back({.name = spec.name,
                           .file = r.tensor->file_idx,
                           .offset = r.file_offset,
                           .bytes = r.bytes,
                           .stored = dense,
                           .dtype = dtype,
                           .to = to,
                           .to_host = spec.place != WeightPlace::kDevice});
      to += r.bytes / dtype_bytes(dense) * dtype_bytes(dtype);
    }
  }
  VLR_RETURN_IF_ERROR(
      transfer(files, std::move(transfers), device, [&] { watch.report(files.stats().bytes); }));

  SourceReader sources(checkpoint, files, plan);
  Uploader uploader(device);
  int64_t done = files.stats().bytes;
  for (size_t i = 0; i < plan.size(); ++i) {
    const WeightSpec& spec = plan[i];
    if (spec.format == WeightFormat::kDense) continue;
    VLR_ASSIGN_OR_RETURN(const QuantizedSource* const source, sources.next());
    auto joined = make_quantized(spec, stored[i], *source, *device.context().threads);
    if (!joined) return joined.error();
    VLR_RETURN_IF_ERROR(placer.put(spec, *std::move(joined), uploader).with_context(spec.name));
    watch.report(done += source->bytes);
  }
  VLR_RETURN_IF_ERROR(device.synchronize());
  VLR_RETURN_IF_ERROR(checkpoint.check_unchanged());
  watch.end(files.stats());
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
                                      ThreadPool* threads, WeightLoading* loading) {
  LoadWatch watch(loading);
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
  VLR_ASSIGN_OR_RETURN(const FileReader files, checkpoint.reader(watch.read_options()));
  std::vector<Extent> copies;
  std::vector<DType> stored;  // of the plan's weights
  for (const WeightSpec& spec : plan) {
    VLR_ASSIGN_OR_RETURN(const DType dtype, check_weight(spec, checkpoint));
    stored.push_back(dtype);
    watch.expect(spec, checkpoint);
    if (spec.format != WeightFormat::kDense) continue;
    const int64_t bytes = StoredShape{dtype, spec.shape}.bytes();
    const StoredTensor& first = *checkpoint.find(spec.parts[0].source);
    const std::byte* data = part_bytes(spec.parts[0], first).data();
    if (spec.parts.size() == 1 && first.aligned()) {
      store.bytes_mapped_ += bytes;
    } else {
      VLR_ASSIGN_OR_RETURN(std::byte * to, allocate(spec, bytes));
      data = to;
      for (const SourceRange& r : ranges_of(spec, checkpoint)) {
        copies.push_back(
            {.file = r.tensor->file_idx, .offset = r.file_offset, .bytes = r.bytes, .to = to});
        to += r.bytes;
      }
    }
    if (!store.tensors_.emplace(spec.name, view(data, dtype, spec.shape)).second)
      return {Code::kInternal, fmt::format("{}: the weight plan has it twice", spec.name)};
  }
  VLR_RETURN_IF_ERROR(files.read_all(copies));

  SourceReader sources(checkpoint, files, plan);
  int64_t done = store.bytes_mapped_ + files.stats().bytes;
  for (size_t s = 0; s < plan.size(); ++s) {
    const WeightSpec& spec = plan[s];
    if (spec.format == WeightFormat::kDense) continue;
    if (!threads) return {Code::kInternal, spec.name + ": nobody to quantise it"};
    VLR_ASSIGN_OR_RETURN(const QuantizedSource* const source, sources.next());
    auto joined = make_quantized(spec, stored[s], *source, *threads);
    if (!joined) return joined.error();
    const auto bytes = bytes_of(*joined);
    size_t i = 0;
    for (WeightTensor& t : tensors_of(spec, DType::kF32, Device::kCpu)) {
      VLR_ASSIGN_OR_RETURN(std::byte* const data, allocate(spec, t.shape.bytes()));
      std::memcpy(data, bytes[i].data(), bytes[i].size());
      t.shape.data = data;
      if (!store.tensors_.emplace(std::move(t.name), t.shape).second)
        return {Code::kInternal, fmt::format("{}: the weight plan has it twice", spec.name)};
      ++i;
    }
    keep_fingerprint(spec, *joined, store.fingerprints_);
    watch.report(done += source->bytes);
  }
  VLR_RETURN_IF_ERROR(checkpoint.check_unchanged());
  watch.end(files.stats());
  store.checkpoint_ = std::move(checkpoint);
  return store;
}

WeightStore WeightStore::for_planning(const WeightPlan& plan, DType dtype) {
  WeightStore store;
  for (const WeightSpec& spec : plan) {
    for (WeightTensor& t : tensors_of(spec, dtype, Device::kCpu)) {
      store.bytes_owned_ += t.shape.bytes();
      store.tensors_.emplace(std::move(t.name), t.shape);
    }
  }
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
