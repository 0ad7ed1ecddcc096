/// Plans one buffer for values that live at different times.
#ifndef VLR_ENGINE_RUNTIME_ARENA_H_
#define VLR_ENGINE_RUNTIME_ARENA_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/integer.h"

namespace vlr {

/// A block of `bytes` that is in use from step `first` to step `last`, both included.
struct Lifetime {
  int64_t bytes = 0;
  int32_t first = 0;
  int32_t last = 0;
};

struct ArenaPlan {
  std::vector<int64_t> offsets;  ///< one per lifetime, multiples of kArenaAlignment
  int64_t bytes = 0;             ///< size of the buffer
};

constexpr int64_t kArenaAlignment = 256;  // a cache line, and what CUDA's own allocator gives
constexpr int64_t arena_aligned(int64_t bytes) { return round_up(bytes, kArenaAlignment); }

/// Offsets at which blocks that are in use at the same time do not overlap. Large blocks are placed
/// first, each at the lowest offset that is free during its whole life (greedy by size, after
/// Pisarchyk & Lee 2020). Deterministic.
ArenaPlan plan_arena(std::span<const Lifetime> lifetimes);

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_ARENA_H_
