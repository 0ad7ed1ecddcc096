#include "engine/runtime/arena.h"

#include <algorithm>
#include <numeric>

namespace vlr {

ArenaPlan plan_arena(std::span<const Lifetime> lifetimes) {
  ArenaPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  const auto end_of = [&](size_t i) { return plan.offsets[i] + lifetimes[i].bytes; };
  std::vector<size_t> placed;  // by offset
  for (size_t i : order) {
    const Lifetime& life = lifetimes[i];
    int64_t offset = 0;
    for (size_t other : placed) {
      const bool together =
          lifetimes[other].first <= life.last && life.first <= lifetimes[other].last;
      if (!together) continue;
      if (offset + life.bytes <= plan.offsets[other]) break;  // fits in the gap before it
      offset = std::max(offset, arena_aligned(end_of(other)));
    }
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, end_of(i));
    const auto at = std::upper_bound(placed.begin(), placed.end(), i, [&](size_t a, size_t b) {
      return plan.offsets[a] < plan.offsets[b];
    });
    placed.insert(at, i);
  }
  return plan;
}

}  // namespace vlr
