#include "engine/weights/weight_maker.h"

#include <fmt/format.h>

#include <optional>

#include "engine/runtime/arena.h"
#include "kernels/core/thread_start.h"

namespace vlr {
namespace {

/// Where everything stands that `spec` is made from, and `extents` to read it to there.
Result<QuantizedSource> place_source(const WeightSpec& spec, const Checkpoint& checkpoint,
                                     Buffer memory, std::vector<Extent>& extents) {
  QuantizedSource source{.memory = std::move(memory), .tensors = {}, .dense = {}};
  source.dense.resize(spec.parts.size());
  const std::vector<SourceRange> ranges = ranges_of(spec, checkpoint);
  int64_t end = 0;
  for (const SourceRange& r : ranges) end += arena_aligned(r.bytes);
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
    at += arena_aligned(r.bytes);
    source.bytes += r.bytes;
  }
  return source;
}

}  // namespace

void LoadWatch::expect(const WeightSpec& spec, const Checkpoint& checkpoint) {
  for (const SourceRange& r : ranges_of(spec, checkpoint)) total_ += r.bytes;
}

void SourceReader::read_ahead() {
  if (begun_ == order_.size()) return;
  const WeightSpec& spec = *order_[begun_++];
  // Deferred, if there can be no other thread.
  const BlockSignals inherited;
  coming_ = std::async(std::launch::async | std::launch::deferred, [this, &spec]() -> Status {
    std::vector<Extent> extents;
    auto source = place_source(spec, checkpoint_, std::move(ahead_.memory), extents);
    if (!source) return source.error().with_context(spec.name);
    ahead_ = *std::move(source);
    return files_.read_all(extents).with_context(spec.name);
  });
}

Fingerprint fingerprint_of(const WeightSpec& spec, std::vector<float> values) {
  Fingerprint f{.values = std::move(values), .parts = {}};
  for (const WeightPart& part : spec.parts) f.parts.emplace_back(part.source, part.num_rows);
  return f;
}

std::span<const std::byte> part_bytes(const WeightPart& part, const StoredTensor& stored) {
  const int64_t row_bytes = stored.bytes() / part.shape[0];
  return {stored.data + part.first_row * row_bytes, static_cast<size_t>(part.num_rows * row_bytes)};
}

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

Result<JoinedWeight> join_parts(const WeightSpec& spec, std::vector<QuantizedTensor> parts) {
  auto joined = join(std::move(parts));
  if (!joined) return joined.error().with_context(spec.name);
  if (joined->rows != spec.shape[0] || joined->cols != spec.shape[1]) {
    return {Code::kInternal, fmt::format("{}: must be {}, its parts are [{}, {}]", spec.name,
                                         describe_shape(spec.shape), joined->rows, joined->cols)};
  }
  return joined;
}

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
  if (!w.fingerprint.empty()) to.emplace(spec.name, fingerprint_of(spec, std::move(w.fingerprint)));
}

std::vector<std::span<const std::byte>> bytes_of(const JoinedWeight& w) {
  std::vector<std::span<const std::byte>> out = {w.codes};
  for (const std::vector<std::byte>& bytes : w.beside) {
    if (!bytes.empty()) out.push_back(bytes);
  }
  return out;
}

}  // namespace vlr
