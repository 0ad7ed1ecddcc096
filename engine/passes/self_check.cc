#include "engine/passes/self_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <tuple>

#include "engine/runtime/purposes.h"
#include "kernels/core/integer.h"
#include "kernels/core/load.h"
#include "kernels/linear_w8a8/linear_w8a8.h"
#include "kernels/linear_weight_only/linear_weight_only.h"
#include "kernels/quantize_rows/quantize_rows.h"

#if VLR_WITH_CUDA
#include "kernels/cuda/weight_ring.h"
#endif

namespace vlr {
namespace {

/// Every piece of a check's memory begins at a multiple of this.
constexpr int64_t kAlign = 256;
int64_t aligned(int64_t bytes) { return round_up(bytes, kAlign); }

/// Of a single row, in root mean squares of all rows.
constexpr double kRowFactor = 12;

/// A weight's tensors by name.
Result<QuantizedWeight> find_weight(const WeightLookup& weights, const std::string& name,
                                    QuantMode mode) {
  const WeightFormat format = stored_format(mode);
  VLR_ASSIGN_OR_RETURN(const ConstTensor codes, weights(name));
  std::vector<ConstTensor> beside;
  for (const Sidecar& s : format_info(format).sidecars(1, 64, {})) {  // their names alone
    VLR_ASSIGN_OR_RETURN(beside.emplace_back(), weights(name + std::string(s.suffix)));
  }
  return quantized_weight(format, codes, beside);
}

/// Runs `body`, which reads a weight, while the weight is on the device.
template <class Body>
Status with_weight(WeightSupply* stream, const std::string& name, const Body& body) {
  const int group = stream ? stream->group_of(name) : -1;
  if (group < 0) return body();
  VLR_RETURN_IF_ERROR(stream->need(group));
  VLR_RETURN_IF_ERROR(body());
  return stream->done(group, {});
}

/// Memory of a check, and ops in it. Dropped, it gives everything back.
struct CheckMemory {
  explicit CheckMemory(OpenDevice& open)
      : device(open),
        host(open.staging(purposes::kMeasuring)),
        memory(open.memory(purposes::kMeasuring)),
        workspace(open.memory(purposes::kMeasuring)) {}

  /// On ctx.device's stream, by the named implementation or the first one that takes the arguments.
  template <class Op>
  Status run(const typename Op::Args& args, std::string_view name = {}) {
    Context& ctx = device.context();
    VLR_RETURN_IF_ERROR(Op::check(args));
    const Impl<Op>* impl = nullptr;
    for (const Impl<Op>& candidate : Op::impls()) {
      if (candidate.device == ctx.device && candidate.name == name) impl = &candidate;
    }
    if (!impl) {
      VLR_ASSIGN_OR_RETURN(impl, ops::choose<Op>(args, ctx));
    }
    const int64_t scratch = impl->workspace ? impl->workspace(args, ctx) : 0;
    if (scratch > workspace.size()) {
      VLR_RETURN_IF_ERROR(device.synchronize());
      VLR_RETURN_IF_ERROR(workspace.reserve(scratch));
    }
    ctx.workspace = workspace.bytes();
    return impl->run(args, ctx);
  }

  OpenDevice& device;
  Buffer host, memory, workspace;
};

Status compare(const Fingerprint& f, const ConstTensor& got, QuantMode mode,
               std::vector<WeightDistance>& distances) {
  const double limit = format_info(stored_format(mode)).largest_distance;
  int64_t row = 0;
  for (const auto& [source, rows] : f.parts) {
    double squares = 0, error = 0, worst = 0;
    int64_t worst_row = 0;
    for (int64_t r = 0; r < rows; ++r, ++row) {
      const double want = static_cast<double>(f.values[static_cast<size_t>(row)]),
                   d = static_cast<double>(load_f32(got, row)) - want;
      squares += want * want;
      error += d * d;
      if (!(std::fabs(d) <= worst)) {
        worst = std::fabs(d);
        worst_row = r;
      }
    }
    const double rms = std::sqrt(squares / static_cast<double>(rows));
    const double distance =
        error == 0 ? 0 : std::sqrt(error / squares);  // NaN where one of them is
    distances.push_back({source, distance});
    if (!(distance <= limit)) {
      return {Code::kDataLoss,
              fmt::format("{}: its product with the probe vector is {:.3g} from what it was before "
                          "it was quantised (relative L2), {} explains {}",
                          source, distance, quant_mode_name(mode), limit)};
    }
    if (!(worst <= kRowFactor * limit * rms)) {
      return {Code::kDataLoss,
              fmt::format("{}: row {} of its product with the probe vector is {:.3g} off, where "
                          "rows are of size {:.3g}",
                          source, worst_row, worst, rms)};
    }
  }
  return {};
}

}  // namespace

int64_t check_bytes(const WeightPlan& plan, DType dtype, int64_t workspace_bytes) {
  int64_t most = 0;
  for (const WeightSpec& spec : plan) {
    if (spec.format == WeightFormat::kDense) continue;
    most = std::max(most, kCheckedRows * (spec.shape[1] + 3 * spec.shape[0]) * dtype_bytes(dtype) +
                              workspace_bytes);
  }
  return most;
}

Result<std::vector<WeightDistance>> check_fingerprints(const QuantModes& modes,
                                                       const WeightLookup& weights,
                                                       const Fingerprints& fingerprints,
                                                       OpenDevice& device, DType dtype,
                                                       WeightSupply* stream) {
  struct Checked {
    std::string name;
    const Fingerprint* fingerprint;
    QuantMode mode;
    QuantizedWeight w;
    int64_t at = 0;  // of its result
  };
  std::vector<Checked> all;
  const int64_t size = dtype_bytes(dtype);
  int64_t cols = 1, results = 0;
  for (const auto& [name, mode] : modes) {
    const auto it = fingerprints.find(name);
    if (it == fingerprints.end()) continue;
    VLR_ASSIGN_OR_RETURN(const QuantizedWeight w, find_weight(weights, name, mode));
    all.push_back({.name = name, .fingerprint = &it->second, .mode = mode, .w = w, .at = results});
    cols = std::max(cols, w.cols);
    results += aligned(w.rows * size);
  }
  std::vector<WeightDistance> distances;
  if (all.empty()) return distances;
  CheckMemory check(device);
  // The probe vector, its codes, their scale, all results.
  const int64_t codes_at = aligned(cols * size), scale_at = codes_at + aligned(cols),
                results_at = scale_at + kAlign;
  VLR_RETURN_IF_ERROR(check.memory.reserve(results_at + results));
  VLR_RETURN_IF_ERROR(check.host.reserve(std::max(cols * size, results)));
  const Tensor signs(check.host.data(), dtype, {cols});
  for (int64_t k = 0; k < cols; ++k) store_f32(signs, k, probe_sign(k));
  std::byte* const base = check.memory.data();
  VLR_RETURN_IF_ERROR(device.copy(base, check.host.data(), cols * size));
  const auto product = [&](const Checked& c) -> Status {
    const Tensor x(base, dtype, {1, c.w.cols}, device.kind());
    const Tensor y(base + results_at + c.at, dtype, {1, c.w.rows}, device.kind());
    if (!is_w8a8(c.mode)) return check.run<ops::LinearWeightOnly>({.x = x, .w = c.w, .y = y});
    const Tensor q(base + codes_at, c.w.codes.dtype, {1, c.w.cols}, device.kind());
    const Tensor scale(base + scale_at, DType::kF32, {1}, device.kind());
    VLR_RETURN_IF_ERROR(check.run<ops::QuantizeRows>({.x = x, .q = q, .scale = scale}));
    return check.run<ops::LinearW8A8>(
        {.x = q, .x_scale = scale, .w = c.w.codes, .w_scale = c.w.scales, .y = y});
  };
  for (const Checked& c : all)
    VLR_RETURN_IF_ERROR(with_weight(stream, c.name, [&] { return product(c); }));
  VLR_RETURN_IF_ERROR(device.synchronize());
  VLR_RETURN_IF_ERROR(device.copy(check.host.data(), base + results_at, results));
  VLR_RETURN_IF_ERROR(device.synchronize());
  for (const Checked& c : all) {
    const ConstTensor got(check.host.data() + c.at, dtype, {c.w.rows});
    VLR_RETURN_IF_ERROR(compare(*c.fingerprint, got, c.mode, distances));
  }
  return distances;
}

#if VLR_WITH_CUDA

/// The implementation whose bits the others have to give.
constexpr std::string_view kDecodesFirst = "dequantize";

Status choose_fused_products(const QuantModes& modes, const WeightLookup& weights,
                             OpenDevice& device, DType dtype, bool exact, WeightSupply* stream) {
  cuda::WeightRing* const ring = device.context().ring;
  if (!ring) return {};
  ring->fused_agrees = !exact;
  if (!exact) return {};
  constexpr int64_t kRows = kCheckedRows;
  std::set<std::tuple<WeightFormat, int64_t, int64_t>> seen;
  CheckMemory check(device);
  bool agrees = true;
  for (const auto& [name, mode] : modes) {
    if (mode_info(mode).computes != Computes::kWeightOnly) continue;
    VLR_ASSIGN_OR_RETURN(const QuantizedWeight w, find_weight(weights, name, mode));
    if (!seen.emplace(w.format, w.rows, w.cols).second) continue;
    const int64_t size = dtype_bytes(dtype), x_bytes = kRows * w.cols * size,
                  y_bytes = kRows * w.rows * size;
    // x, the residual, both results
    const int64_t residual_at = aligned(x_bytes), first_at = residual_at + aligned(y_bytes),
                  second_at = first_at + aligned(y_bytes), end = second_at + aligned(y_bytes);
    std::byte* const nowhere = nullptr;  // shapes say who would run, and in how much scratch
    const ops::LinearWeightOnly::Args shapes{
        .x = Tensor(nowhere, dtype, {kRows, w.cols}, device.kind()),
        .w = w,
        .y = Tensor(nowhere, dtype, {kRows, w.rows}, device.kind())};
    VLR_ASSIGN_OR_RETURN(const Impl<ops::LinearWeightOnly>* const first,
                         ops::choose<ops::LinearWeightOnly>(shapes, device.context()));
    if (first->name == kDecodesFirst) continue;  // there is no other one for this format
    const int64_t scratch = first->workspace ? first->workspace(shapes, device.context()) : 0;
    const MemoryBudget& budget = device.budget();
    const int64_t more = std::max<int64_t>(0, end - check.memory.size()) +
                         std::max<int64_t>(0, scratch - check.workspace.size());
    if (more > budget.cap() - budget.used()) {
      agrees = false;  // no room to look: then it does not run
      break;
    }
    VLR_RETURN_IF_ERROR(check.memory.reserve(end));
    VLR_RETURN_IF_ERROR(check.host.reserve(std::max(first_at, 2 * aligned(y_bytes))));
    const Tensor values(check.host.data(), dtype, {first_at / size});
    for (int64_t i = 0; i < values.numel(); ++i) {
      // Any numbers of about one size whose sums round.
      store_f32(values, i, static_cast<float>((i * 2654435761) % 65521 - 32760) / 16384.0f);
    }
    std::byte* const base = check.memory.data();
    VLR_RETURN_IF_ERROR(device.copy(base, check.host.data(), first_at));
    for (const bool residual : {false, true}) {
      const auto run_into = [&](int64_t y_at, std::string_view implementation) -> Status {
        ops::LinearWeightOnly::Args args{
            .x = Tensor(base, dtype, {kRows, w.cols}, device.kind()), .w = w, .y = {}};
        args.y = Tensor(base + y_at, dtype, {kRows, w.rows}, device.kind());
        if (residual) {  // in place, as the graphs have it: the library rounds otherwise elsewhere
          args.residual = args.y;
          VLR_RETURN_IF_ERROR(device.copy(base + y_at, base + residual_at, y_bytes));
        }
        return check.run<ops::LinearWeightOnly>(args, implementation);
      };
      ring->fused_agrees = true;
      const auto run_both = [&]() -> Status {
        VLR_RETURN_IF_ERROR(run_into(first_at, {}));
        return run_into(second_at, kDecodesFirst);
      };
      VLR_RETURN_IF_ERROR(with_weight(stream, name, run_both));
      VLR_RETURN_IF_ERROR(device.synchronize());
      VLR_RETURN_IF_ERROR(device.copy(check.host.data(), base + first_at, end - first_at));
      VLR_RETURN_IF_ERROR(device.synchronize());
      agrees = agrees && std::memcmp(check.host.data(), check.host.data() + second_at - first_at,
                                     static_cast<size_t>(y_bytes)) == 0;
    }
  }
  ring->fused_agrees = agrees;
  return {};
}

#else

Status choose_fused_products(const QuantModes&, const WeightLookup&, OpenDevice&, DType, bool,
                             WeightSupply*) {
  return {};
}

#endif

}  // namespace vlr
