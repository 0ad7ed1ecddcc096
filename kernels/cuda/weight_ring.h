/// Two places in device memory for decoded weights, filled on a stream of their own while the main
/// stream still computes with the weight before.
///
/// A place is filled when the product that last read it is done, and a product starts when its
/// place is filled; the host, which is ahead of the device, does not wait for either. While the
/// main stream is being recorded as a graph, filling stays on it.
#ifndef VLR_KERNELS_CUDA_WEIGHT_RING_H_
#define VLR_KERNELS_CUDA_WEIGHT_RING_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "vlr/status.h"

struct CUevent_st;
struct CUstream_st;

namespace vlr::cuda {

/// Largest place: 12,288 rows of 4,096 16-bit values. Larger weights are decoded a part at a time.
constexpr int64_t kWeightRingPlace = int64_t{96} << 20;

/// Belongs to one thread at a time, and to the device that was current when it was made.
class WeightRing {
 public:
  static Result<std::unique_ptr<WeightRing>> create();
  /// One that can only be asked how large its places are: planning needs no device.
  static std::unique_ptr<WeightRing> for_planning(int64_t place_bytes);
  ~WeightRing();

  /// Device memory for both places, until the next call.
  void place(std::span<std::byte> memory);
  int64_t place_bytes() const;

  /// decode(memory, stream) fills a place; use(memory) reads it, on `main`. `overlap`: not while
  /// products are being measured.
  using Decode = std::function<Status(std::byte* memory, CUstream_st* stream)>;
  using Use = std::function<Status(const std::byte* memory)>;
  Status run(CUstream_st* main, bool overlap, const Decode& decode, const Use& use);

  /// Nothing is decoded from now on before `event`, which is another stream's.
  Status wait_for(CUevent_st* event);

  /// What `main` has been given so far may read both places: a recorded graph was launched.
  Status launched(CUstream_st* main);

  /// Whether the fused product gives the bits of the other one on this device; until it was
  /// checked, no.
  bool fused_agrees = false;

 private:
  struct State;
  explicit WeightRing(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_WEIGHT_RING_H_
