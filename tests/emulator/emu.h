// Host emulator of a Hopper block: CUDA's words, types and the few runtime calls that kernels and
// their launch code use. See README.md. The scheduler and the asynchronous units are in emu.cc.
#ifndef EMU_H_
#define EMU_H_

#ifndef __CUDA_ARCH_FEAT_SM90_ALL
#define __CUDA_ARCH_FEAT_SM90_ALL 1
#endif
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#ifndef VLR_WITH_CUDA
#define VLR_WITH_CUDA 1
#endif
#define CUDART_VERSION 12080

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ thread_local  // launches have a thread of their own: see emu.cc

struct uint3 { unsigned x, y, z; };
struct int2 { int x, y; };
struct int3 { int x, y, z; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// --- the emulator's own interface ---------------------------------------------------------------
namespace emu {

enum class Products { kEarly, kLate, kRandom };  // when a wgmma reads its operands and writes d

struct Config {
  Products products = Products::kEarly;
  bool late_copies = false;  // TMA: at some later step, in any order, poisoned until then
  uint64_t seed = 0;         // 0: plain round robin; else random order, speeds and preemption
  int sms = 3;
  int resident = 1;          // blocks under way at once (each has its shared memory)
  bool check_proxy = true;   // wgmma reads of plain writes without fence_async_proxy
  bool split_warps = true;   // seeds other than 0 may let lanes of a warp drift apart between collectives
  bool check_named_end = false;  // report threads that are at a named barrier when a block ends
  bool abort_on_report = false;
};
Config& config();
/// Reports (violations that did not stop the run) since the last reset_reports().
long reports();
void reset_reports();
/// Sets products, late_copies, seed and resident from one number, all combinations in turn.
inline void set_mode(int i) {
  config().products = static_cast<Products>(i % 3);
  config().late_copies = i / 3 % 2;
  config().seed = static_cast<uint64_t>(i / 6);
  config().resident = i / 6 % 2 ? config().sms : 1;
}

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void report(const char* format, ...) __attribute__((format(printf, 1, 2)));

char* dynamic_shared();
uint32_t shared_address(const void* p);
char* shared_bytes(uint32_t address, uint32_t bytes);
void maybe_yield();
int lane();
/// All lanes of mask come here with the same kind; what each gave, good until the lane's next one.
const uint64_t* exchange(uint32_t mask, const char* kind, uint64_t value);
void named_barrier(int id, int threads, bool wait);

void make_barrier(uint32_t barrier, int arrivals);
void barriers_made();
void arrive(uint32_t barrier, int bytes);
void wait_for_phase(uint32_t barrier, uint32_t parity);
void fence_async_proxy();

struct Product {
  bool rs, bf16, accumulate;
  int frags;
  uint64_t a_lines, b_lines;
  float* d;           // [frags][4], of the calling lane
  const uint32_t* a;  // [4], of the calling lane
};
void product(const Product& p);
void products_fence();
void products_commit();
void products_wait(int pending);
void note_map_copy();

struct Launch {
  dim3 grid, block;
  size_t dynamic_bytes;
  const void* function;
  long map_copies;            // that passing the arguments by value takes
  std::function<void()> run;  // the kernel, for one thread
};
int launch(const Launch& l);
int set_shared_bytes(const void* function, int bytes);
extern long map_copies;

}  // namespace emu

// --- <cuda.h> -----------------------------------------------------------------------------------
/// Its copies in a kernel are counted: the TMA wants it in parameter or global memory.
struct alignas(64) CUtensorMap {
  uint64_t magic = 0;
  const char* base = nullptr;
  int rank = 0, element = 0;   // bytes
  int64_t dims[3] = {};        // columns, heads, rows; elements
  int64_t strides[2] = {};     // heads, rows; bytes
  int box[3] = {};
  int swizzle = 0;             // 1, 2, 3: 128, 64, 32 bytes, as in wgmma's descriptors
  CUtensorMap() = default;
  CUtensorMap(const CUtensorMap& o) { copy(o); emu::note_map_copy(); }
  CUtensorMap& operator=(const CUtensorMap& o) { copy(o); emu::note_map_copy(); return *this; }
 private:
  void copy(const CUtensorMap& o) { std::memcpy(static_cast<void*>(this), &o, 128); }
};
static_assert(sizeof(CUtensorMap) == 128);
namespace emu { void copy_box(uint32_t shared, const CUtensorMap& map, int x, int y, int z, uint32_t barrier); }

// --- <cuda_runtime.h> ---------------------------------------------------------------------------
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9,
                   cudaErrorLaunchOutOfResources = 701, cudaErrorLaunchFailure = 719 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75,
                      cudaDevAttrComputeCapabilityMinor = 76, cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
                      cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum cudaLaunchAttributeID { cudaLaunchAttributeIgnore = 0, cudaLaunchAttributeClusterDimension = 4,
                             cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
struct cudaLaunchAttribute { cudaLaunchAttributeID id; union { char pad[64]; int programmaticStreamSerializationAllowed;
                             struct { unsigned x, y, z; } clusterDim; } val; };
struct cudaLaunchConfig_t { dim3 gridDim, blockDim; size_t dynamicSmemBytes = 0; cudaStream_t stream = nullptr;
                            cudaLaunchAttribute* attrs = nullptr; unsigned numAttrs = 0; };
namespace emu { inline cudaError_t last_error = cudaSuccess; }
inline cudaError_t cudaGetLastError() { return std::exchange(emu::last_error, cudaSuccess); }
inline cudaError_t cudaPeekAtLastError() { return emu::last_error; }
inline const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess ? "no error" : e == cudaErrorInvalidValue ? "invalid argument"
       : e == cudaErrorLaunchFailure ? "unspecified launch failure" : "emulated CUDA error";
}
inline cudaError_t cudaGetDevice(int* d) { *d = 0; return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr a, int) {
  *value = a == cudaDevAttrMultiProcessorCount ? emu::config().sms
         : a == cudaDevAttrComputeCapabilityMajor ? 9
         : a == cudaDevAttrComputeCapabilityMinor ? 0
         : a == cudaDevAttrMaxSharedMemoryPerMultiprocessor ? 233472 : 232448;
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** p, size_t n) { *p = std::aligned_alloc(256, (n + 255) / 256 * 256); return cudaSuccess; }
template <class T> cudaError_t cudaMalloc(T** p, size_t n) { return cudaMalloc(reinterpret_cast<void**>(p), n); }
inline cudaError_t cudaFree(void* p) { std::free(p); return cudaSuccess; }
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind) { std::memcpy(to, from, n); return cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind k, cudaStream_t) { return cudaMemcpy(to, from, n, k); }
inline cudaError_t cudaMemset(void* p, int v, size_t n) { std::memset(p, v, n); return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t) { return cudaMemset(p, v, n); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
template <class F> cudaError_t cudaFuncSetAttribute(F* f, cudaFuncAttribute a, int value) {
  if (a != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return static_cast<cudaError_t>(emu::set_shared_bytes(reinterpret_cast<const void*>(f), value));
}
template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P...), A&&... a) {
  const std::tuple<std::remove_const_t<P>...> args(std::forward<A>(a)...);
  emu::map_copies = 0;
  std::apply([](const auto&... v) { [](std::remove_const_t<P>...) {}(v...); }, args);
  const long copies = emu::map_copies;
  emu::last_error = static_cast<cudaError_t>(emu::launch(
      {c->gridDim, c->blockDim, c->dynamicSmemBytes, reinterpret_cast<const void*>(kernel), copies,
       [&args, kernel] { std::apply([kernel](const auto&... v) { kernel(v...); }, args); }}));
  return emu::last_error;
}

// --- device functions ---------------------------------------------------------------------------
inline void __syncthreads() { emu::named_barrier(0, -1, true); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emu::exchange(mask, "syncwarp", 0); }
namespace emu {
template <class T> uint64_t to_bits(T v) { static_assert(sizeof(T) <= 8); uint64_t b = 0; std::memcpy(&b, &v, sizeof(T)); return b; }
template <class T> T from_bits(uint64_t b) { T v; std::memcpy(&v, &b, sizeof(T)); return v; }
template <class T> T shuffle(const char* kind, unsigned mask, T v, int from, bool own) {
  if (own) from = lane();
  if (!(mask >> from & 1)) report("%s reads lane %d, which is not in mask %08x", kind, from, mask);
  return from_bits<T>(exchange(mask, kind, to_bits(v))[from]);
}
}  // namespace emu
template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
  return emu::shuffle("shfl", mask, v, (emu::lane() & ~(width - 1)) | (from & (width - 1)), false);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int distance, int width = 32) {
  const int from = emu::lane() ^ distance;
  return emu::shuffle("shfl_xor", mask, v, from & 31, from / width > emu::lane() / width);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  const int from = emu::lane() + static_cast<int>(by);
  return emu::shuffle("shfl_down", mask, v, from & 31, from / width != emu::lane() / width);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
  const int from = emu::lane() - static_cast<int>(by);
  return emu::shuffle("shfl_up", mask, v, from & 31, from < emu::lane() / width * width);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* votes = emu::exchange(mask, "ballot", predicate != 0);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= (mask >> i & 1 && votes[i] ? 1u : 0u) << i;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline int __float2int_rn(float v) { return static_cast<int>(std::nearbyint(v)); }
inline float __int_as_float(int v) { return emu::from_bits<float>(static_cast<unsigned>(v)); }
inline float __uint_as_float(unsigned v) { return emu::from_bits<float>(v); }
inline int __float_as_int(float v) { return emu::from_bits<int>(emu::to_bits(v)); }
inline unsigned __float_as_uint(float v) { return emu::from_bits<unsigned>(emu::to_bits(v)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { emu::maybe_yield(); }
[[noreturn]] inline void __trap() { emu::fail("__trap"); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
template <class T> T atomicAdd(T* p, std::type_identity_t<T> v) {
  emu::maybe_yield();
  const T old = *p;
  *p = old + v;
  return old;
}
template <class T> T atomicExch(T* p, std::type_identity_t<T> v) { return std::exchange(*p, v); }
template <class T> T atomicMax(T* p, std::type_identity_t<T> v) { const T old = *p; *p = std::max(old, v); return old; }
template <class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr auto min(A a, B b) { using C = std::common_type_t<A, B>; return static_cast<C>(b) < static_cast<C>(a) ? static_cast<C>(b) : static_cast<C>(a); }
template <class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr auto max(A a, B b) { using C = std::common_type_t<A, B>; return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(b) : static_cast<C>(a); }

// --- <cuda_bf16.h>, <cuda_fp16.h> ---------------------------------------------------------------
struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float v) {
    const auto u = emu::from_bits<uint32_t>(emu::to_bits(v));
    bits = static_cast<uint16_t>(v != v ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  operator float() const { return emu::from_bits<float>(uint64_t{bits} << 16); }
};
struct __half {
  uint16_t bits;
  __half() = default;
  __half(float v) { const auto h = static_cast<_Float16>(v); std::memcpy(&bits, &h, 2); }
  operator float() const { return static_cast<float>(emu::from_bits<_Float16>(bits)); }
};
using half = __half;
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
struct alignas(4) __half2 { __half x, y; };
inline float __bfloat162float(__nv_bfloat16 v) { return v; }
inline __nv_bfloat16 __float2bfloat16(float v) { return v; }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return v; }
inline float __half2float(__half v) { return v; }
inline __half __float2half(float v) { return v; }
inline __half __float2half_rn(float v) { return v; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {a, b}; }
inline __half2 __floats2half2_rn(float a, float b) { return {a, b}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }

// --- what several of the project's headers have -------------------------------------------------
inline uint32_t __cvta_generic_to_shared(const void* p) { return emu::shared_address(p); }
inline void* __cvta_shared_to_generic(uint32_t address) { return emu::shared_bytes(address, 1); }
namespace vlr::cuda {
inline uint32_t shared_address(const void* p) { return emu::shared_address(p); }
inline char* shared_pointer(uint32_t address) { return emu::shared_bytes(address, 1); }
inline void named_barrier_sync(int id, int threads) { emu::named_barrier(id, threads, true); }
inline void named_barrier_arrive(int id, int threads) { emu::named_barrier(id, threads, false); }
}  // namespace vlr::cuda

#endif  // EMU_H_
