#include "kernels/cuda/weight_ring.h"

#include <array>

#include "kernels/cuda/check.h"
#include "kernels/cuda/memory.h"

namespace vlr::cuda {
namespace {

struct Place {
  std::byte* memory = nullptr;
  Event filled;  ///< its last decode
  Event free;    ///< what was launched after its last use
};

}  // namespace

struct WeightRing::State {
  Stream side;
  std::array<Place, 2> places;
  int64_t place_bytes = 0;
  size_t next = 0;
};

WeightRing::WeightRing(std::unique_ptr<State> state) : state_(std::move(state)) {}
WeightRing::~WeightRing() = default;

Result<std::unique_ptr<WeightRing>> WeightRing::create() {
  auto state = std::make_unique<State>();
  VLR_ASSIGN_OR_RETURN(state->side, make_stream());
  for (Place& p : state->places) {
    VLR_ASSIGN_OR_RETURN(p.filled, make_event(false));
    VLR_ASSIGN_OR_RETURN(p.free, make_event(false));
  }
  return std::unique_ptr<WeightRing>(new WeightRing(std::move(state)));
}

std::unique_ptr<WeightRing> WeightRing::for_planning(int64_t place_bytes) {
  auto state = std::make_unique<State>();
  state->place_bytes = place_bytes;
  return std::unique_ptr<WeightRing>(new WeightRing(std::move(state)));
}

void WeightRing::place(std::span<std::byte> memory) {
  state_->place_bytes = static_cast<int64_t>(memory.size()) / 2;
  state_->places[0].memory = memory.data();
  state_->places[1].memory = memory.data() + state_->place_bytes;
}

int64_t WeightRing::place_bytes() const { return state_->place_bytes; }

Status WeightRing::run(CUstream_st* main, bool overlap, const Decode& decode, const Use& use) {
  Place& p = state_->places[state_->next];
  state_->next = 1 - state_->next;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  VLR_CUDA_TRY(cudaStreamIsCapturing(main, &capture));
  if (capture != cudaStreamCaptureStatusNone || !overlap) {
    VLR_RETURN_IF_ERROR(decode(p.memory, main));
    VLR_RETURN_IF_ERROR(use(p.memory));
    if (capture != cudaStreamCaptureStatusNone) return {};  // launched() will say when
  } else {
    CUstream_st* side = state_->side.get();
    VLR_CUDA_TRY(cudaStreamWaitEvent(side, p.free.get(), 0));
    VLR_RETURN_IF_ERROR(decode(p.memory, side));
    VLR_CUDA_TRY(cudaEventRecord(p.filled.get(), side));
    VLR_CUDA_TRY(cudaStreamWaitEvent(main, p.filled.get(), 0));
    VLR_RETURN_IF_ERROR(use(p.memory));
  }
  return to_status(cudaEventRecord(p.free.get(), main), "cudaEventRecord");
}

Status WeightRing::wait_for(CUevent_st* event) {
  return to_status(cudaStreamWaitEvent(state_->side.get(), event, 0), "cudaStreamWaitEvent");
}

Status WeightRing::launched(CUstream_st* main) {
  for (Place& p : state_->places) VLR_CUDA_TRY(cudaEventRecord(p.free.get(), main));
  return {};
}

}  // namespace vlr::cuda
