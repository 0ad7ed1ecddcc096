#include "engine/passes/batch_inputs.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/runtime/arena.h"
#include "engine/runtime/purposes.h"

namespace vlr {

Tensor InputSpec::shape(const Sizes& sizes) const {
  std::vector<int64_t> at;
  for (const Dim& d : dims) at.push_back(d.at(sizes));
  const ConstTensor t = contiguous_view(nullptr, dtype, at);
  Tensor out;
  out.dtype = t.dtype;
  out.rank = t.rank;
  out.dims = t.dims;
  out.strides = t.strides;
  return out;
}

int64_t input_bytes(std::span<const InputSpec> inputs, const Sizes& sizes) {
  int64_t sum = 0;
  for (const InputSpec& spec : inputs) sum += arena_aligned(spec.shape(sizes).bytes());
  return sum;
}

int64_t result_bytes(int64_t rows) {
  return std::max<int64_t>(rows * static_cast<int64_t>(sizeof(float)), 4096);
}

InputSets::InputSets(OpenDevice& device) {
  for (InputSet& set : sets_) {
    set.staging = device.staging(purposes::kInputs);
    set.memory = device.memory(purposes::kInputs);
    set.out_staging = device.staging(purposes::kInputs);
    set.out = device.memory(purposes::kInputs);
  }
}

BatchInputs::BatchInputs(std::span<const InputSpec> inputs, const Sizes& sizes) : inputs_(inputs) {
  for (const InputSpec& spec : inputs) {
    Part& part = parts_.emplace_back();
    part.tensor = spec.shape(sizes);
    part.offset = bytes_;
    bytes_ += arena_aligned(part.tensor.bytes());
  }
}

void BatchInputs::set_pieces(std::string_view name, std::vector<InputPiece> pieces) {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (inputs_[i].name == name) parts_[i].pieces = std::move(pieces);
  }
}

Status BatchInputs::check() const {
  for (size_t i = 0; i < parts_.size(); ++i) {
    int64_t bytes = 0;
    for (const InputPiece& piece : parts_[i].pieces) bytes += piece.bytes;
    if (bytes == parts_[i].tensor.bytes()) continue;
    return {Code::kInternal, fmt::format("input {}: expected {} bytes, got {}", inputs_[i].name,
                                         parts_[i].tensor.bytes(), bytes)};
  }
  return {};
}

Status BatchInputs::place(OpenDevice& device, InputSet& set, RunArgs& args, RunArgs* host) {
  VLR_RETURN_IF_ERROR(check());
  VLR_RETURN_IF_ERROR(device.wait(set.done));
  if (device.is_gpu()) VLR_RETURN_IF_ERROR(set.memory.reserve(bytes_));
  VLR_RETURN_IF_ERROR(copy(device, set));
  if (host) bind(set.staging.data(), Device::kCpu, *host);
  bind(device.is_gpu() ? set.memory.data() : set.staging.data(), device.kind(), args);
  return {};
}

/// What is not pinned is staged; runs of it go in one copy each.
Status BatchInputs::copy(OpenDevice& device, InputSet& set) const {
  const auto is_pinned = [&](const InputPiece& piece) { return device.is_gpu() && piece.pinned; };
  int64_t staged_bytes = 0;  // up to the end of what is staged
  for (const Part& part : parts_) {
    int64_t end = part.offset;
    for (const InputPiece& piece : part.pieces) {
      end += piece.bytes;
      if (!is_pinned(piece)) staged_bytes = end;
    }
  }
  VLR_RETURN_IF_ERROR(set.staging.reserve(staged_bytes));
  int64_t staged_from = 0;
  const auto copy_staged = [&](int64_t end) {
    if (!device.is_gpu() || end <= staged_from) return Status();
    return device.copy(set.memory.data() + staged_from, set.staging.data() + staged_from,
                       end - staged_from);
  };
  for (const Part& part : parts_) {
    int64_t to = part.offset;
    for (const InputPiece& piece : part.pieces) {
      if (is_pinned(piece)) {
        VLR_RETURN_IF_ERROR(copy_staged(to));
        VLR_RETURN_IF_ERROR(device.copy(set.memory.data() + to, piece.from, piece.bytes));
        staged_from = to + piece.bytes;
      } else {
        device.copy_on_host(set.staging.data() + to, piece.from, piece.bytes);
      }
      to += piece.bytes;
    }
  }
  return copy_staged(staged_bytes);
}

void BatchInputs::bind(std::byte* base, Device device, RunArgs& args) const {
  for (size_t i = 0; i < parts_.size(); ++i) {
    Tensor t = parts_[i].tensor;
    t.data =
        base ? base + parts_[i].offset : nullptr;  // memory that is only counted has no address
    t.device = device;
    args.bound[std::string(inputs_[i].name)] = t;
  }
}

}  // namespace vlr
