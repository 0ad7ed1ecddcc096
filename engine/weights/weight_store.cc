#include "engine/weights/weight_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "kernels/core/format_bytes.h"

namespace vlr {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

bool is_mapped(const WeightSpec& spec) {
  return spec.format == WeightFormat::kDense && spec.parts.size() == 1 && spec.parts[0].aligned;
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
      return {Code::kOutOfMemory,
              fmt::format("{}: {} of host memory", spec.name, format_bytes(bytes))};
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
    if (is_mapped(spec)) {
      if (!first.aligned()) {
        return {Code::kInternal, fmt::format("{}: {} is not aligned in its file, the weight plan "
                                             "says that it is",
                                             spec.name, spec.parts[0].source)};
      }
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
    if (!store.tensors_.emplace(spec.name, contiguous_view(data, dtype, spec.shape)).second)
      return {Code::kInternal, fmt::format("{}: the weight plan has it twice", spec.name)};
  }
  VLR_RETURN_IF_ERROR(files.read_all(copies));

  int64_t done = store.bytes_mapped_ + files.stats().bytes;
  SourceReader sources(checkpoint, files, plan);  // reads from now on
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
