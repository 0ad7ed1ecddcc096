#include "engine/weights/device_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>

#include "engine/runtime/arena.h"
#include "engine/runtime/hash.h"
#include "engine/runtime/purposes.h"
#include "engine/weights/weight_transfer.h"
#include "kernels/core/integer.h"
#include "vlr/version.h"

namespace vlr {
namespace {

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
      if (!piece.buffer.data()) piece.buffer = device_.staging(purposes::kUploads);
      VLR_RETURN_IF_ERROR(piece.buffer.reserve(kPieceBytes));
      VLR_RETURN_IF_ERROR(device_.wait(piece.free));
      const int64_t parts = ceil_div(n, kPartBytes);
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

/// A group of weights that come and go: its name and its bytes.
struct GroupSize {
  std::string_view name;
  bool on_disk = false;
  int64_t bytes = 0;
};

/// Groups in the order in which their first weights come, which is the order of their slots: they
/// alternate.
std::vector<GroupSize> streamed_groups(const WeightPlan& plan, DType dtype) {
  std::vector<GroupSize> groups;
  std::map<std::string_view, size_t> index;
  for (const WeightSpec& spec : plan) {
    if (!comes_and_goes(spec.place)) continue;
    const auto [it, is_new] = index.try_emplace(spec.group, groups.size());
    if (is_new) groups.push_back({.name = spec.group, .on_disk = spec.place == WeightPlace::kDisk});
    for (const WeightTensor& t : tensors_of(spec, dtype, Device::kCuda))
      groups[it->second].bytes += arena_aligned(t.shape.bytes());
  }
  return groups;
}

std::array<int64_t, 2> slot_bytes(std::span<const GroupSize> groups) {
  std::array<int64_t, 2> bytes{};
  for (size_t i = 0; i < groups.size(); ++i) bytes[i % 2] = std::max(bytes[i % 2], groups[i].bytes);
  return bytes;
}

}  // namespace

DiskRing disk_ring(int64_t num_groups, int64_t largest_bytes) {
  // One is filled while another one waits for its slot and the third for what comes after.
  constexpr int64_t kBuffers = 3;
  return {.buffers = std::min(kBuffers, num_groups),
          .buffer_bytes = OffloadBlob::padded(largest_bytes)};
}

DeviceWeightBytes device_weight_bytes(const WeightPlan& plan, DType dtype) {
  DeviceWeightBytes bytes;
  for (const WeightSpec& spec : plan) {
    if (comes_and_goes(spec.place) || spec.place == WeightPlace::kCpuExec) continue;
    int64_t& sum = spec.place == WeightPlace::kHost ? bytes.host : bytes.device;
    for (const WeightTensor& t : tensors_of(spec, dtype, Device::kCuda))
      sum += arena_aligned(t.shape.bytes());
  }
  const std::vector<GroupSize> groups = streamed_groups(plan, dtype);
  int64_t on_disk = 0, largest = 0;
  for (const GroupSize& group : groups) {
    (group.on_disk ? bytes.disk : bytes.streamed) += group.bytes;
    if (!group.on_disk) continue;
    ++on_disk;
    largest = std::max(largest, group.bytes);
  }
  bytes.disk_ring = disk_ring(on_disk, largest).bytes();
  const std::array<int64_t, 2> slots = slot_bytes(groups);
  bytes.slots = slots[0] + slots[1];
  bytes.device += bytes.slots;
  return bytes;
}

/// Gives every tensor its place, in the order of the plan.
class DeviceWeights::Placer {
 public:
  Placer(DeviceWeights& weights, DType dtype, OpenDevice& device)
      : weights_(weights), dtype_(dtype), device_(device) {}

  Status reserve(const WeightPlan& plan) {
    weights_.memory_ = device_.memory(purposes::kWeights);
    weights_.host_memory_ = device_.staging(purposes::kWeights);
    const DeviceWeightBytes bytes = device_weight_bytes(plan, dtype_);
    VLR_RETURN_IF_ERROR(weights_.memory_.reserve(bytes.device));
    VLR_RETURN_IF_ERROR(weights_.host_memory_.reserve(bytes.host + bytes.streamed));
    const std::vector<GroupSize> groups = streamed_groups(plan, dtype_);
    weights_.slot_offsets_ = {bytes.device - bytes.slots,
                              bytes.device - bytes.slots + slot_bytes(groups)[0]};
    int64_t at = bytes.host;  // groups lie one after the other
    for (const GroupSize& group : groups) {
      const auto index = static_cast<int>(weights_.groups_.size());
      std::byte* const host = group.on_disk ? nullptr : weights_.host_memory_.data() + at;
      weights_.groups_.push_back({.name = std::string(group.name),
                                  .host = host,
                                  .blob = nullptr,
                                  .bytes = group.bytes,
                                  .slot = index % 2});
      streams_[std::string(group.name)] = {.index = index, .host = host};
      if (!group.on_disk) at += group.bytes;
    }
    // In the order of the plan, whatever the order in which they are made: a group that was written
    // to disk has to be found again as it is.
    for (const WeightSpec& spec : plan) {
      if (!comes_and_goes(spec.place)) continue;
      Stream& stream = streams_.at(spec.group);
      begins_.try_emplace(spec.name, stream.used);
      for (const WeightTensor& t : tensors_of(spec, dtype_, device_.kind()))
        stream.used += arena_aligned(t.shape.bytes());
    }
    return {};
  }

  /// Where the weights of a group on disk are put, to be written; null: they are there.
  void put_group(std::string_view name, std::byte* memory) {
    streams_.find(name)->second.host = memory;
  }

  /// Where the tensors of the next weight are to stand.
  Result<std::vector<Tensor>> next(const WeightSpec& spec) {
    std::vector<Tensor> out;
    const bool streamed = comes_and_goes(spec.place);
    Stream* const stream = streamed ? &streams_.at(spec.group) : nullptr;
    int64_t& offset = streamed                           ? begins_.at(spec.name)
                      : spec.place == WeightPlace::kHost ? host_offset_
                                                         : offset_;
    std::byte* const base = streamed                           ? stream->host
                            : spec.place == WeightPlace::kHost ? weights_.host_memory_.data()
                                                               : weights_.memory_.data();
    for (WeightTensor& t : tensors_of(spec, dtype_, device_.kind())) {
      std::byte* const data = base ? base + offset : nullptr;  // where it is put now
      t.shape.data = data;
      if (streamed) {
        t.shape.data = weights_.slot(stream->index % 2) + offset;
        weights_.group_of_[t.name] = stream->index;
      }
      offset += arena_aligned(t.shape.bytes());
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
    std::byte* host = nullptr;
    int64_t used = 0;
  };
  std::map<std::string, Stream, std::less<>> streams_;  // by group
  std::map<std::string, int64_t, std::less<>> begins_;  // in their groups, by weight
};

namespace {

Hasher& add_text(Hasher& hasher, std::string_view text) {
  return hasher.add(text.size()).add(text);
}

/// Which tensors a group has, and from which rows of the checkpoint's they are made.
Hash128 layout_of(const WeightPlan& group) {
  Hasher hasher;
  for (const WeightSpec& spec : group) {
    add_text(hasher, spec.name).add(static_cast<int>(spec.format)).add(spec.shape.size());
    for (const int64_t n : spec.shape) hasher.add(n);
    hasher.add(spec.parts.size());
    for (const WeightPart& part : spec.parts) {
      add_text(hasher, part.source).add(part.shape.size());
      for (const int64_t n : part.shape) hasher.add(n);
      hasher.add(part.first_row).add(part.num_rows).add(static_cast<int>(part.stored));
    }
  }
  return hasher.digest();
}

// Changes with how weights are laid out in a group, or with how they are quantised.
constexpr int kLayoutVersion = 1;

/// Of a checkpoint: where its files are; and what they are, as far as that can be told without
/// reading them.
OffloadFolder::Model stored_model(const Checkpoint& checkpoint, DType dtype) {
  Hasher place, content;
  place.add(static_cast<int>(dtype));
  add_text(content, VLR_VERSION).add(kLayoutVersion).add(kArenaAlignment);
  content.add(static_cast<int>(dtype));
  for (const SafetensorsFile& file : checkpoint.files()) {
    std::error_code error;
    const auto path = std::filesystem::canonical(file.path(), error);
    add_text(place, error ? file.path() : path.string());
    const FileIdentity& identity = file.identity();
    add_text(content, error ? file.path() : path.string());
    content.add(identity.bytes).add(identity.modified_ns);
  }
  for (const auto& [name, t] : checkpoint.tensors()) {
    add_text(content, name).add(static_cast<int>(t.dtype)).add(t.shape.size());
    for (const int64_t n : t.shape) content.add(n);
    content.add(t.file_idx).add(t.file_offset);
  }
  return {.place = place.digest(), .content = content.digest()};
}

/// Of weights that are made from their names.
OffloadFolder::Model made_model(DType dtype) {
  Hasher place, content;
  add_text(place, "made").add(static_cast<int>(dtype));
  add_text(content, VLR_VERSION).add(kLayoutVersion).add(kArenaAlignment);
  return {.place = place.digest(), .content = content.digest()};
}

/// A group's fingerprints, which cannot be taken again once its weights are quantised: for every
/// weight how many values, and these.
std::string to_notes(const WeightPlan& group, const Fingerprints& fingerprints) {
  std::string notes;
  const auto add = [&](const void* from, size_t bytes) {
    notes.append(static_cast<const char*>(from), bytes);
  };
  for (const WeightSpec& spec : group) {
    const auto it = fingerprints.find(spec.name);
    const size_t count = it == fingerprints.end() ? 0 : it->second.values.size();
    add(&count, sizeof count);
    if (count > 0) add(it->second.values.data(), count * sizeof(float));
  }
  return notes;
}

/// False: these are none.
bool from_notes(std::string_view notes, const WeightPlan& group, Fingerprints& to) {
  for (const WeightSpec& spec : group) {
    size_t count = 0;
    if (notes.size() < sizeof count) return false;
    std::memcpy(&count, notes.data(), sizeof count);
    notes.remove_prefix(sizeof count);
    if (count == 0) continue;
    if (notes.size() / sizeof(float) < count) return false;
    std::vector<float> values(count);
    std::memcpy(values.data(), notes.data(), count * sizeof(float));
    notes.remove_prefix(count * sizeof(float));
    to.insert_or_assign(spec.name, fingerprint_of(spec, std::move(values)));
  }
  return notes.empty();
}

}  // namespace

/// Groups on disk: finds those that are there, and writes the others.
class DeviceWeights::DiskGroups {
 public:
  /// Before anything is read or taken: what is there, and whether there is room for the rest.
  Status open(const WeightPlan& plan, DType dtype, const std::string& folder,
              const OffloadFolder::Model& model, const ReadOptions& read,
              OffloadFolder::System system) {
    for (const WeightSpec& spec : plan)
      (spec.place == WeightPlace::kDisk ? groups_[spec.group].plan : others_).push_back(spec);
    if (groups_.empty()) return {};
    if (folder.empty()) {
      return {Code::kInvalidArgument,
              fmt::format("offload_folder: {} is to be on disk, and no folder is given for it",
                          groups_.begin()->first)};
    }
    VLR_ASSIGN_OR_RETURN(folder_, OffloadFolder::open(folder, model, read, system));
    for (const GroupSize& size : streamed_groups(plan, dtype)) {
      if (!size.on_disk) continue;
      Group& g = groups_.find(size.name)->second;
      g.name = {.group = std::string(size.name), .layout = layout_of(g.plan), .bytes = size.bytes};
      VLR_ASSIGN_OR_RETURN(g.blob, folder_->find(g.name));
      if (g.blob) continue;
      missing_.push_back(g.name);
      largest_missing_ = std::max(largest_missing_, size.bytes);
    }
    return folder_->check_room(missing_);
  }

  /// The weights that are not on disk.
  const WeightPlan& others() const { return others_; }
  /// Whether the weight has to be made.
  bool wants(const WeightSpec& spec) const {
    return spec.place != WeightPlace::kDisk || !groups_.find(spec.group)->second.blob;
  }

  /// `make` makes the weights of a plan where the placer says.
  Status place(DeviceWeights& weights, Placer& placer, OpenDevice& device,
               const std::function<Status(const WeightPlan& plan)>& make) {
    Buffer memory = device.staging(purposes::kWritingDiskLayers);
    VLR_RETURN_IF_ERROR(memory.reserve(largest_missing_));
    for (DeviceWeights::Group& group : weights.groups_) {
      const auto it = groups_.find(group.name);
      if (it == groups_.end()) continue;
      Group& g = it->second;
      if (!g.blob) {
        const auto bytes = memory.bytes().first(static_cast<size_t>(group.bytes));
        std::ranges::fill(bytes, std::byte{0});  // what is between tensors is written, too
        placer.put_group(group.name, bytes.data());
        VLR_RETURN_IF_ERROR(make(g.plan));
        VLR_ASSIGN_OR_RETURN(
            g.blob, folder_->write(g.name, bytes, to_notes(g.plan, weights.fingerprints_)));
      } else {
        for (const WeightSpec& spec : g.plan) VLR_RETURN_IF_ERROR(placer.next(spec).error());
        if (!from_notes(g.blob->notes(), g.plan, weights.fingerprints_))
          return {Code::kInternal, g.blob->path() + ": has other notes than were written"};
      }
      group.blob = std::make_unique<OffloadBlob>(*std::move(g.blob));
    }
    return {};
  }

 private:
  struct Group {
    WeightPlan plan;
    BlobName name;
    std::optional<OffloadBlob> blob;  ///< nothing: it has to be written
  };
  WeightPlan others_;
  std::map<std::string, Group, std::less<>> groups_;
  std::vector<BlobName> missing_;
  int64_t largest_missing_ = 0;
  std::optional<OffloadFolder> folder_;
};

Result<DeviceWeights> DeviceWeights::make(const WeightPlan& plan, DType dtype, OpenDevice& device,
                                          const Fill& fill, const std::string& offload_folder) {
  DeviceWeights w;
  Placer placer(w, dtype, device);
  DiskGroups disk;
  VLR_RETURN_IF_ERROR(disk.open(plan, dtype, offload_folder, made_model(dtype), {}, {}));
  VLR_RETURN_IF_ERROR(placer.reserve(plan));
  if (!fill) {
    for (const WeightSpec& spec : plan) VLR_RETURN_IF_ERROR(placer.next(spec).error());
    return w;
  }
  Uploader uploader(device);
  Buffer dense = device.memory(purposes::kQuantising), host = device.staging(purposes::kQuantising);
  const auto make_one = [&](const WeightSpec& spec) -> Status {
    if (spec.format == WeightFormat::kDense) {
      VLR_ASSIGN_OR_RETURN(const std::vector<Tensor> places, placer.next(spec));
      return fill(spec, places[0]).with_context(spec.name);
    }
    const int64_t cols = spec.shape[1], bytes = contiguous_view(nullptr, dtype, spec.shape).bytes();
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
    return placer.put(spec, std::move(joined), uploader).with_context(spec.name);
  };
  const auto make_all = [&](const WeightPlan& some) -> Status {
    for (const WeightSpec& spec : some) VLR_RETURN_IF_ERROR(make_one(spec));
    return device.synchronize();
  };
  VLR_RETURN_IF_ERROR(make_all(disk.others()));
  VLR_RETURN_IF_ERROR(disk.place(w, placer, device, make_all));
  return w;
}

Result<DeviceWeights> DeviceWeights::load(const Checkpoint& checkpoint, const WeightPlan& plan,
                                          DType dtype, OpenDevice& device, WeightLoading* loading) {
  LoadWatch watch(loading);
  DeviceWeights w;
  Placer placer(w, dtype, device);
  DiskGroups disk;
  VLR_RETURN_IF_ERROR(disk.open(plan, dtype, watch.offload_folder(),
                                stored_model(checkpoint, dtype), watch.read_options(),
                                watch.offload_system()));
  VLR_RETURN_IF_ERROR(placer.reserve(plan));
  VLR_ASSIGN_OR_RETURN(const FileReader files, checkpoint.reader(watch.read_options()));
  std::map<std::string_view, DType> stored;  // by weight
  for (const WeightSpec& spec : plan) {
    VLR_ASSIGN_OR_RETURN(stored[spec.name], check_weight(spec, checkpoint));
    if (disk.wants(spec)) watch.expect(spec, checkpoint);
  }
  const auto load_all = [&](const WeightPlan& some) -> Status {
    std::vector<Transfer> transfers;
    for (const WeightSpec& spec : some) {
      if (spec.format != WeightFormat::kDense) continue;
      VLR_ASSIGN_OR_RETURN(const std::vector<Tensor> places, placer.next(spec));
      auto* to = places[0].as<std::byte>();
      const DType dense = stored.at(spec.name);
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

    int64_t done = files.stats().bytes;
    SourceReader sources(checkpoint, files, some);  // reads from now on
    Uploader uploader(device);
    for (const WeightSpec& spec : some) {
      if (spec.format == WeightFormat::kDense) continue;
      VLR_ASSIGN_OR_RETURN(const QuantizedSource* const source, sources.next());
      auto joined = make_quantized(spec, stored.at(spec.name), *source, *device.context().threads);
      if (!joined) return joined.error();
      VLR_RETURN_IF_ERROR(placer.put(spec, *std::move(joined), uploader).with_context(spec.name));
      watch.report(done += source->bytes);
    }
    VLR_RETURN_IF_ERROR(device.synchronize());
    // Before anything is made of it for good.
    return checkpoint.check_unchanged();
  };
  VLR_RETURN_IF_ERROR(load_all(disk.others()));
  VLR_RETURN_IF_ERROR(disk.place(w, placer, device, load_all));
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

}  // namespace vlr
