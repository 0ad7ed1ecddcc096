#include "engine/scheduling/packer.h"

#include <algorithm>
#include <numeric>

namespace vlr {

std::vector<std::vector<size_t>> pack_batches(std::span<const int64_t> lengths, int64_t budget,
                                              int64_t max_sequences) {
  std::vector<size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<size_t>> batches;
  int64_t room = 0;
  for (size_t i : order) {
    if (batches.empty() || lengths[i] > room || std::ssize(batches.back()) >= max_sequences) {
      batches.emplace_back();
      room = budget;
    }
    batches.back().push_back(i);
    room -= lengths[i];
  }
  return batches;
}

}  // namespace vlr
