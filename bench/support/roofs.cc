#include "bench/support/roofs.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/format_bytes.h"

namespace vlr::bench {

double Roof::uncertainty() const {
  return before > 0 && after > 0 ? std::fabs(before - after) / 2 / best() : 0;
}

Result<const Roof*> Roofs::find(std::string name, const char* unit, double limit,
                                std::function<Result<double>()> measure) {
  for (const auto& roof : roofs_) {
    if (roof->name == name) return roof.get();
  }
  auto roof = std::make_unique<Roof>(Roof{std::move(name), unit});
  roof->limit = limit;
  VLR_ASSIGN_OR_RETURN(roof->before, measure());
  roofs_.push_back(std::move(roof));
  measures_.push_back(std::move(measure));
  return roofs_.back().get();
}

Result<const Roof*> Roofs::flops(Unit unit) {
  if (gpu_)
    return find(std::string(unit_name(unit)), "FLOP/s",
                gpu_->limit_flops(unit, gpu_->nvml().max_sm_mhz()),
                [this, unit] { return gpu_->measure_flops(unit); });
  // Every product of the host's is made of f32 multiply-adds.
  return find("f32", "FLOP/s", 0,
              [this]() -> Result<double> { return measure_multiply_adds(threads_); });
}

Result<const Roof*> Roofs::bytes(int64_t bytes, bool warm) {
  constexpr int64_t kMemory = int64_t{2} << 30;
  if (gpu_) {
    if (!warm || bytes > gpu_->l2_bytes() / 2)
      return find("memory", "B/s", gpu_->limit_bytes(),
                  [this] { return gpu_->measure_bytes(kMemory); });
    return find("L2", "B/s", 0, [this] { return gpu_->measure_bytes(gpu_->l2_bytes() / 2); });
  }
  int64_t size = int64_t{1} << 18;
  while (size < bytes && size < kMemory / 2) size *= 4;
  return find(size < kMemory / 2 ? "caches of " + format_bytes(size) : "memory", "B/s", 0,
              [this, size]() -> Result<double> { return measure_read(threads_, size); });
}

Status Roofs::measure_again() {
  for (size_t i = 0; i < roofs_.size(); ++i) {
    roofs_[i]->before = roofs_[i]->best();
    VLR_ASSIGN_OR_RETURN(roofs_[i]->after, measures_[i]());
  }
  return {};
}

}  // namespace vlr::bench
