#include "engine/passes/pass_runner.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "engine/runtime/purposes.h"
#include "kernels/core/load.h"

namespace vlr {

PassRunner::PassRunner(OpenDevice& device, Observers observers)
    : arena(device.memory(purposes::kArena)),
      host_arena(device.host_memory(purposes::kArena)),
      carrier(device.staging(purposes::kInputs)),
      device_(device),
      observers_(std::move(observers)) {}

Result<std::unique_ptr<PassRunner>> PassRunner::create(OpenDevice& device, Observers observers) {
  std::unique_ptr<PassRunner> r(new PassRunner(device, std::move(observers)));
  const Context& ctx = device.context();
  static const ImplChoices kNone;  // what is chosen on a GPU is a GPU's
  VLR_ASSIGN_OR_RETURN(
      r->host_, OpenDevice::open({}, true, *ctx.threads, device.is_gpu() ? kNone : *ctx.choices));
  return r;
}

/// A value as f32 on the host, contiguous, for the observer.
Status PassRunner::observe(std::string_view name, const ConstTensor& t) const {
  if (observers_.wants_value && !observers_.wants_value(name)) return {};
  if (t.dtype != DType::kF32 && t.dtype != DType::kBF16 && t.dtype != DType::kF16) return {};
  int64_t extent = t.numel() > 0 ? 1 : 0;
  for (int axis = 0; axis < t.rank && extent > 0; ++axis)
    extent += (t.dim(axis) - 1) * t.stride(axis);
  std::vector<std::byte> bytes(static_cast<size_t>(extent * dtype_bytes(t.dtype)));
  VLR_RETURN_IF_ERROR(device_.copy(bytes.data(), t.data, std::ssize(bytes)));
  VLR_RETURN_IF_ERROR(device_.synchronize());
  ConstTensor host = t;
  host.data = bytes.data();
  std::vector<float> values(static_cast<size_t>(t.numel()));
  for (int64_t i = 0; i < t.numel(); ++i) {
    int64_t rest = i, at = 0;
    for (int axis = t.rank - 1; axis >= 0; --axis) {
      at += rest % t.dim(axis) * t.stride(axis);
      rest /= t.dim(axis);
    }
    values[static_cast<size_t>(i)] = load_f32(host, at);
  }
  observers_.on_value(name, std::span(t.dims.data(), static_cast<size_t>(t.rank)), values.data());
  return {};
}

std::string PassRunner::next_name(std::string_view kind) {
  const auto counter = runs_.try_emplace(std::string(kind), 0).first;
  return fmt::format("{}.{}", kind, counter->second++);
}

Status PassRunner::run(const Executor& executor, RunArgs& args, std::string_view kind) {
  const std::string name = next_name(kind);
  args.device = &device_;
  args.row_chunk = row_chunk;
  Context& ctx = device_.context();
  VLR_ASSIGN_OR_RETURN(const RunPlan plan, executor.plan(args, ctx));
  VLR_RETURN_IF_ERROR(arena.reserve(plan.total()).with_context(name));
  return run_planned(executor, args, plan, arena.bytes(), ctx, name);
}

Status PassRunner::run_planned(const Executor& executor, RunArgs& args, const RunPlan& plan,
                               std::span<std::byte> memory, Context& ctx, const std::string& name) {
  std::vector<NodeTime> times;
  std::vector<CopyTime> copies;
  if (observers_.on_node) args.times = &times;
  if (observers_.on_copy) args.copies = &copies;
  if (observers_.on_value) {
    args.on_value = [&](std::string_view value, const ConstTensor& t) {
      return observe(fmt::format("{}/{}", name, value), t);
    };
  }
  VLR_RETURN_IF_ERROR(
      device_.compute([&] { return executor.run(args, plan, memory, ctx); }).with_context(name));
  for (const NodeTime& t : times) {
    observers_.on_node({.run = name,
                        .name = std::string(t.name),
                        .op = std::string(t.op),
                        .seconds = t.seconds,
                        .flops = t.cost.flops,
                        .bytes = t.cost.bytes});
  }
  for (const CopyTime& c : copies) {
    observers_.on_copy({.run = name,
                        .name = std::string(c.name),
                        .start = c.start,
                        .seconds = c.seconds,
                        .bytes = static_cast<double>(c.bytes)});
  }
  return {};
}

}  // namespace vlr
