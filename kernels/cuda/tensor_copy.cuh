/// Copies of boxes of a matrix from global to shared memory by the tensor memory accelerator
/// (sm_90 and later), which one thread starts and a barrier in shared memory sees end.
/// Source: PTX ISA, "cp.async.bulk.tensor" and "Parallel Synchronization: mbarrier"; CUDA Driver
/// API, "Tensor Map Object Management".
#ifndef VLR_KERNELS_CUDA_TENSOR_COPY_CUH_
#define VLR_KERNELS_CUDA_TENSOR_COPY_CUH_

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/check.h"
#include "vlr/status.h"

namespace vlr::cuda {

/// cuTensorMapEncodeTiled, of the driver that runs.
inline Result<decltype(&cuTensorMapEncodeTiled)> tensor_map_encoder() {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                     &found);
#else
    cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  if (!encode) return Status(Code::kDevice, "the driver has no cuTensorMapEncodeTiled");
  return encode;
}

inline CUtensorMapSwizzle swizzle_of_lines(int bytes) {
  return bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
         : bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                       : CU_TENSOR_MAP_SWIZZLE_32B;
}

/// Boxes [box_rows, box_bytes] of a matrix of bytes [rows, row_bytes] whose rows are `stride` bytes
/// apart; base and stride are multiples of 16. box_bytes: 32, 64 or 128. In shared memory, at a
/// multiple of 1024, a box's rows follow each other, zero outside the matrix, with chunk c of 16
/// bytes of row r at place c ^ r * box_bytes / 128 % (box_bytes / 16).
inline Result<CUtensorMap> swizzled_boxes(const void* base, int64_t rows, int64_t row_bytes,
                                          int64_t stride, int box_rows, int box_bytes) {
  VLR_ASSIGN_OR_RETURN(const auto encode, tensor_map_encoder());
  CUtensorMap map;
  const cuuint64_t dims[] = {static_cast<cuuint64_t>(row_bytes), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(stride)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_bytes), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(base), dims, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_of_lines(box_bytes),
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    return Status(Code::kDevice, "cuTensorMapEncodeTiled refuses the operand");
  return map;
}

/// Boxes [box_rows, box_heads, box_columns] of [rows, heads, columns] of 16-bit elements; base and
/// strides, which count elements, are multiples of 16 bytes. box_columns: 16, 32 or 64. A box's lines
/// of box_columns follow each other as above, all heads of a row and then the next row.
inline Result<CUtensorMap> head_boxes(const void* base, int64_t rows, int64_t heads,
                                      int64_t columns, int64_t row_stride, int64_t head_stride,
                                      int box_rows, int box_heads, int box_columns) {
  VLR_ASSIGN_OR_RETURN(const auto encode, tensor_map_encoder());
  CUtensorMap map;
  const cuuint64_t dims[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(heads),
                             static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(head_stride * 2),
                                static_cast<cuuint64_t>(row_stride * 2)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_columns),
                            static_cast<cuuint32_t>(box_heads), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, const_cast<void*>(base), dims, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_of_lines(box_columns * 2),
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    return Status(Code::kDevice, "cuTensorMapEncodeTiled refuses the operand");
  return map;
}

/// Barriers are 8 bytes. A phase ends with so many arrivals and all bytes that they expect; phases
/// count from 0. After barriers_made and a barrier of the block all threads may use them.
__device__ inline void make_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(barrier), "r"(arrivals)
               : "memory");
}
__device__ inline void barriers_made() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(barrier) : "memory");
}
/// Arrives.
__device__ inline void expect_bytes(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(barrier), "r"(bytes)
               : "memory");
}
/// Waits for the end of a phase of this parity.
__device__ inline void wait_for_phase(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "wait:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra wait;\n"
      "}\n"
      :
      : "r"(barrier), "r"(parity)
      : "memory");
}

/// Brings a map, in parameter or global memory, closer to copies that will name it.
__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
}

/// The box whose first byte is byte `byte` of row `row`; `map` lies in parameter or global memory.
__device__ inline void copy_box(uint32_t shared, const CUtensorMap& map, int byte, int row,
                                uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];"
      :
      : "r"(shared), "l"(&map), "r"(byte), "r"(row), "r"(barrier)
      : "memory");
}

/// The box of head_boxes whose first element is this one.
__device__ inline void copy_box(uint32_t shared, const CUtensorMap& map, int column, int head,
                                int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];"
      :
      : "r"(shared), "l"(&map), "r"(column), "r"(head), "r"(row), "r"(barrier)
      : "memory");
}

/// Between this thread's own reads and writes of shared memory and copies of boxes, or products,
/// that follow.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_TENSOR_COPY_CUH_
