/// Sequences -> batches.
#ifndef VLR_ENGINE_SCHEDULING_PACKER_H_
#define VLR_ENGINE_SCHEDULING_PACKER_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace vlr {

/// Batches of indices into `lengths`, each of at most `budget` tokens and `max_sequences` sequences
/// in all, longest sequences first and in their given order where equally long. A sequence above
/// the budget is a batch of its own.
std::vector<std::vector<size_t>> pack_batches(
    std::span<const int64_t> lengths, int64_t budget,
    int64_t max_sequences = std::numeric_limits<int64_t>::max());

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_PACKER_H_
