// Self-test of the emulator: a small warp-specialised kernel, o = pack(q k^T / 8) v per head, in all
// modes against plain loops; then the same with bugs, which have to be seen.
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "emu.h"
#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/named_barrier.cuh"
#include "kernels/cuda/tensor_copy.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace test {
namespace {
using namespace vlr;

constexpr int kGroups = 2, kRows = 64 * kGroups, kKeys = 64, kStages = 2, kThreads = 128 * kGroups + 128;
enum Bug { kNone, kNoRelease, kEarlyRelease, kNoWait, kNoProxyFence, kLostLanes, kMapCopy, kOverflow, kNoFence, kShortBytes };

template <class T>
struct Params {
  CUtensorMap q, q_rest, k, k_rest, v;
  T* o;
  int rows, keys, heads;
  int* counter;
};
template <int kDim>
struct Tile {
  static constexpr int kSlabs = kDim / 64;
  static constexpr bool kRest = kDim % 64 != 0;
  static constexpr int kQ = kSlabs * kRows * 128 + (kRest ? kRows * 32 : 0);
  static constexpr int kK = kSlabs * kKeys * 128 + (kRest ? kKeys * 32 : 0), kV = (kSlabs + kRest) * kKeys * 128;
  static constexpr int kBytes = kQ + kStages * (kK + kV);
};
struct Barriers { uint64_t q, q_empty, full[kStages], empty[kStages]; int next; };

template <int kDim, class T, int kBug>
__global__ void __launch_bounds__(kThreads, 1) kernel(const __grid_constant__ Params<T> params) {
  using L = Tile<kDim>;
  extern __shared__ __align__(1024) char memory[];
  __shared__ Barriers b;
  const uint32_t q = cuda::shared_address(memory), k0 = q + L::kQ, v0 = k0 + kStages * L::kK;
  if ((q & 1023) != 0) __trap();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = threadIdx.x / 128;
  const auto at = [&](uint64_t& w) { return cuda::shared_address(&w); };
  if (threadIdx.x == 0) {
    cuda::make_barrier(at(b.q), 1);
    cuda::make_barrier(at(b.q_empty), kGroups * 4);
    for (int i = 0; i < kStages; ++i) cuda::make_barrier(at(b.full[i]), 1), cuda::make_barrier(at(b.empty[i]), kGroups * 4);
    cuda::barriers_made();
  }
  __syncthreads();
  const int tiles = (params.rows + kRows - 1) / kRows, blocks = (params.keys + kKeys - 1) / kKeys;
  uint32_t n = 0, round = 0;
  if (group == kGroups) {
    if (warp != kGroups * 4) return;
    for (;; ++round) {
      int item = lane == 0 ? atomicAdd(params.counter, 1) : 0;
      item = __shfl_sync(0xffffffffu, item, 0);
      if (lane == 0) {
        cuda::wait_for_phase(at(b.q_empty), (round + 1) % 2);
        b.next = item;
        if (item >= tiles * params.heads) {
          cuda::expect_bytes(at(b.q), 0);
        } else {
          const int head = item / tiles, row = item % tiles * kRows;
          cuda::expect_bytes(at(b.q), L::kQ);
          if (kBug == kMapCopy) {
            const CUtensorMap copy = params.q;
            cuda::copy_box(q, copy, 0, head, row, at(b.q));
          }
          for (int s = kBug == kMapCopy; s < L::kSlabs; ++s) cuda::copy_box(q + s * kRows * 128, params.q, s * 64, head, row, at(b.q));
          if (L::kRest) cuda::copy_box(q + L::kSlabs * kRows * 128, params.q_rest, L::kSlabs * 64, head, row, at(b.q));
          for (int j = 0; j < blocks; ++j, ++n) {
            const uint32_t i = n % kStages, full = at(b.full[i]), k = k0 + i * L::kK, v = v0 + i * L::kV;
            cuda::wait_for_phase(at(b.empty[i]), (n / kStages + 1) % 2);
            cuda::expect_bytes(full, L::kK + L::kV - (kBug == kShortBytes ? 128 : 0));
            for (int s = 0; s < L::kSlabs; ++s) cuda::copy_box(k + s * kKeys * 128, params.k, s * 64, head, j * kKeys, full);
            if (L::kRest) cuda::copy_box(k + L::kSlabs * kKeys * 128, params.k_rest, L::kSlabs * 64, head, j * kKeys, full);
            for (int s = 0; s < L::kV / (kKeys * 128); ++s) cuda::copy_box(v + s * kKeys * 128, params.v, s * 64, head, j * kKeys, full);
          }
        }
      }
      __syncwarp();
      if (item >= tiles * params.heads) return;
    }
  }
  if (kBug == kOverflow && threadIdx.x == 0) memory[L::kBytes] = 1;
  if (group == 1) cuda::named_barrier_arrive(1, 256);
  for (;; ++round) {
    cuda::wait_for_phase(at(b.q), round % 2);
    const int item = b.next;
    if (item >= tiles * params.heads) break;
    const int head = item / tiles, row0 = item % tiles * kRows + group * 64;
    if (kBug == kNoProxyFence || kBug == kNone) {  // generic writes that products read: q = q, by another pattern and back
      const auto flip = [&](int bits) { for (int i = threadIdx.x % 128; i < 64 * 128 / 4; i += 128) reinterpret_cast<int*>(memory + group * 64 * 128)[i] ^= bits; };
      flip(-1);
      flip(-1);
      if (kBug == kNoProxyFence) {
        for (int i = threadIdx.x % 128; i < 64 * 128 / 2; i += 128) reinterpret_cast<T*>(memory + group * 64 * 128)[i] = T(1.0f);
      } else {
        cuda::fence_async_proxy();
      }
      cuda::named_barrier_sync(3 + group, 128);
    }
    float o[kDim / 8][4] = {};
    float sums = 0;
    for (int j = 0; j < blocks; ++j, ++n) {
      const uint32_t i = n % kStages, k = k0 + i * L::kK, v = v0 + i * L::kV;
      cuda::wait_for_phase(at(b.full[i]), n / kStages % 2);
      cuda::named_barrier_sync(1 + group, 256);  // in turns
      float s[kKeys / 8][4];
      if (kBug != kNoFence) cuda::wgmma_fence();
      for (int slab = 0; slab < L::kSlabs; ++slab)
        for (int step = 0; step < 4; ++step) {
          const uint64_t a_lines = cuda::wgmma_lines(q + slab * kRows * 128 + group * 64 * 128) + 2 * step;
          const uint64_t b_lines = cuda::wgmma_lines(k + slab * kKeys * 128) + 2 * step;
          if (slab + step == 0) cuda::wgmma_64xNx16_ss<T, kKeys / 8, false>(s, a_lines, b_lines);
          else cuda::wgmma_64xNx16_ss<T, kKeys / 8, true>(s, a_lines, b_lines);
        }
      if (L::kRest)
        cuda::wgmma_64xNx16_ss<T, kKeys / 8, true>(s, cuda::wgmma_lines_32(q + L::kSlabs * kRows * 128 + group * 64 * 32),
                                                   cuda::wgmma_lines_32(k + L::kSlabs * kKeys * 128));
      cuda::wgmma_commit();
      cuda::named_barrier_arrive(2 - group, 256);
      if (kBug == kNoWait) cuda::wgmma_wait<1>();
      else cuda::wgmma_wait<0>();
      uint32_t p[kKeys / 16][4];
      for (int f = 0; f < kKeys / 8; ++f)
        for (int h = 0; h < 2; ++h) {
          p[f / 2][f % 2 * 2 + h] = cuda::pack<T>(s[f][2 * h] * 0.125f, s[f][2 * h + 1] * 0.125f);
          sums += s[f][2 * h] + s[f][2 * h + 1];
        }
      cuda::wgmma_fence();
      for (int step = 0; step < kKeys / 16; ++step)
        cuda::wgmma_64xNx16_rs_columns<T>(o, p[step], cuda::wgmma_columns(v, kKeys * 128) + step * (2048 / 16));
      cuda::wgmma_commit();
      if (kBug == kEarlyRelease && lane == 0) cuda::arrive(at(b.empty[i]));
      cuda::wgmma_wait<0>();
      if (kBug != kEarlyRelease && kBug != kNoRelease && lane == 0) cuda::arrive(at(b.empty[i]));
    }
    if (lane == 0) cuda::arrive(at(b.q_empty));
    if (kBug == kLostLanes && lane >= 16) return;
    sums = cuda::warp_sum(sums);
    if (!__any_sync(0xffffffffu, sums == sums)) __trap();
    for (int f = 0; f < kDim / 8; ++f)
      for (int e = 0; e < 4; ++e) {
        const int row = row0 + warp % 4 * 16 + lane / 4 + e / 2 * 8, column = 8 * f + lane % 4 * 2 + e % 2;
        if (row < params.rows) params.o[(int64_t{row} * params.heads + head) * kDim + column] = T(o[f][e]);
      }
  }
}

/// The largest error relative to the largest result; negative: the launch failed.
template <int kDim, class T, int kBug>
double try_kernel(int rows, int keys) {
  const int heads = 3;
  const auto numbers = [](int64_t n, unsigned seed) {
    std::vector<T> v(static_cast<size_t>(n));
    for (auto& x : v) x = T(static_cast<float>((seed = seed * 1664525 + 1013904223) >> 20) / 2048.0f - 1);
    return v;
  };
  const auto q = numbers(int64_t{rows} * heads * kDim, 1), k = numbers(int64_t{keys} * heads * kDim, 2), v = numbers(int64_t{keys} * heads * kDim, 3);
  std::vector<T> o(q.size(), T(-77.0f));
  int counter = 0;
  const int64_t stride = heads * kDim;
  Params<T> params;
  params.q = cuda::head_boxes(q.data(), rows, heads, kDim, stride, kDim, kRows, 1, 64).value();
  params.k = cuda::head_boxes(k.data(), keys, heads, kDim, stride, kDim, kKeys, 1, 64).value();
  params.v = cuda::head_boxes(v.data(), keys, heads, kDim, stride, kDim, kKeys, 1, 64).value();
  params.q_rest = cuda::head_boxes(q.data(), rows, heads, kDim, stride, kDim, kRows, 1, 16).value();
  params.k_rest = cuda::head_boxes(k.data(), keys, heads, kDim, stride, kDim, kKeys, 1, 16).value();
  params.o = o.data(), params.rows = rows, params.keys = keys, params.heads = heads, params.counter = &counter;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(2), config.blockDim = dim3(kThreads), config.dynamicSmemBytes = Tile<kDim>::kBytes;
  const auto f = kernel<kDim, T, kBug>;
  if (cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile<kDim>::kBytes) != cudaSuccess) return -2;
  if (cudaLaunchKernelEx(&config, f, params) != cudaSuccess) return -1;
  double worst = 0, size = 0;
  for (int h = 0; h < heads; ++h)
    for (int r = 0; r < rows; ++r) {
      std::vector<double> want(kDim);
      for (int j = 0; j < keys; ++j) {
        float s = 0;
        for (int c = 0; c < kDim; ++c) s += float(q[(int64_t{r} * heads + h) * kDim + c]) * float(k[(int64_t{j} * heads + h) * kDim + c]);
        const float p = T(s * 0.125f);
        for (int c = 0; c < kDim; ++c) want[c] += p * float(v[(int64_t{j} * heads + h) * kDim + c]);
      }
      for (int c = 0; c < kDim; ++c) {
        const double e = std::fabs(want[c] - float(o[(int64_t{r} * heads + h) * kDim + c]));
        if (!(e <= worst)) worst = e;  // NaN stays
        size = std::max(size, std::fabs(want[c]));
      }
    }
  return worst / size;
}

enum Outcome { kRight, kWrong, kReported, kAborted };
template <int kBug>
void expect_seen(const char* name, std::vector<Outcome> allowed, int modes) {
  int seen = 0, count[4] = {};
  for (int mode = 0; mode < modes; ++mode) {
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
      if (!freopen(mode == 4 ? "/tmp/emu_selftest_bug.log" : "/dev/null", "w", stderr)) _exit(9);
      emu::set_mode(mode);
      const double e = try_kernel<72, __nv_bfloat16, kBug>(130, 200);
      _exit(e < 0 ? kReported : e < 0.01 ? kRight : kWrong);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    const int outcome = WIFEXITED(status) ? WEXITSTATUS(status) : kAborted;
    ++count[outcome];
    for (const Outcome o : allowed) seen += o == outcome;
  }
  std::printf("%s: %-22s right %d, wrong %d, reported %d, aborted %d of %d modes\n", seen ? "ok" : "NOT SEEN", name, count[0], count[1], count[2], count[3], modes);
}
}  // namespace
}  // namespace test

int main() {
  using namespace test;
  int bad = 0;
  for (int mode = 0; mode < 36; ++mode) {
    emu::set_mode(mode);
    const double e[] = {try_kernel<72, __nv_bfloat16, kNone>(130, 200), try_kernel<128, __half, kNone>(260, 65), try_kernel<64, __nv_bfloat16, kNone>(1, 64)};
    for (const double x : e) bad += !(x >= 0 && x < 0.006);
    if (mode < 2 || bad) std::printf("mode %d: %g %g %g\n", mode, e[0], e[1], e[2]);
  }
  std::printf("%s: 36 modes, three shapes, %ld reports\n", bad || emu::reports() ? "FAILED" : "ok", emu::reports());
  alignas(16) static char data[4096];
  const auto refused = [](vlr::Result<CUtensorMap> r) { return !r.ok(); };
  const bool rules = refused(cuda::head_boxes(data + 2, 4, 1, 64, 64, 64, 4, 1, 64)) && refused(cuda::head_boxes(data, 4, 1, 64, 68, 64, 4, 1, 64)) &&
                     refused(cuda::head_boxes(data, 4, 1, 64, 64, 64, 257, 1, 64)) && refused(cuda::head_boxes(data, 4, 1, 64, 64, 64, 4, 1, 72)) &&
                     refused(cuda::head_boxes(data, 0, 1, 64, 64, 64, 4, 1, 64)) && !refused(cuda::head_boxes(data, 4, 2, 64, 128, 64, 2, 2, 64));
  std::printf("%s: rules of tensor maps\n", rules ? "ok" : "FAILED");
  expect_seen<kNoRelease>("no release", {kAborted}, 6);
  expect_seen<kLostLanes>("lanes leave", {kAborted}, 6);
  expect_seen<kShortBytes>("too few bytes", {kAborted, kReported, kWrong}, 12);
  expect_seen<kEarlyRelease>("early release", {kWrong, kReported}, 24);
  expect_seen<kNoWait>("no wait for scores", {kWrong, kReported}, 12);
  expect_seen<kNoFence>("no wgmma_fence", {kReported}, 6);
  expect_seen<kNoProxyFence>("no proxy fence", {kReported}, 6);
  expect_seen<kMapCopy>("copy of a map", {kReported}, 6);
  expect_seen<kOverflow>("write past the end", {kReported}, 6);
  return bad != 0 || !rules;
}
