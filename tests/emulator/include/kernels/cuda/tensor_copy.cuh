#ifndef EMU_TENSOR_COPY_CUH_
#define EMU_TENSOR_COPY_CUH_
#include "kernels/cuda/check.h"
namespace vlr::cuda {

/// What cuTensorMapEncodeTiled accepts.
inline Result<CUtensorMap> emu_boxes(int rank, int element, const void* base,
                                     const int64_t (&dims)[3], const int64_t (&strides)[2],
                                     const int (&box)[3]) {
  const int line = box[0] * element;
  bool ok = base && reinterpret_cast<uintptr_t>(base) % 16 == 0 && line % 16 == 0;
  for (const int64_t d : dims) ok &= d >= 1 && d <= int64_t{1} << 32;
  for (const int64_t s : strides) ok &= s % 16 == 0 && s >= 0 && s < int64_t{1} << 40;
  for (const int b : box) ok &= b >= 1 && b <= 256;
  const int span = line == 128 ? 128 : line == 64 ? 64 : 32;
  if (line < 32) emu::fail("boxes with lines of %d bytes are not emulated", line);
  if (!ok || line > span) return Status(Code::kDevice, "cuTensorMapEncodeTiled refuses the operand");
  CUtensorMap map;
  map.magic = 0x7e50a11eULL;
  map.base = static_cast<const char*>(base);
  map.rank = rank;
  map.element = element;
  std::memcpy(map.dims, dims, sizeof(dims));
  std::memcpy(map.strides, strides, sizeof(strides));
  std::memcpy(map.box, box, sizeof(box));
  map.swizzle = span == 128 ? 1 : span == 64 ? 2 : 3;
  return map;
}
inline Result<CUtensorMap> swizzled_boxes(const void* base, int64_t rows, int64_t row_bytes,
                                          int64_t stride, int box_rows, int box_bytes) {
  return emu_boxes(2, 1, base, {row_bytes, 1, rows}, {0, stride}, {box_bytes, 1, box_rows});
}
inline Result<CUtensorMap> head_boxes(const void* base, int64_t rows, int64_t heads,
                                      int64_t columns, int64_t row_stride, int64_t head_stride,
                                      int box_rows, int box_heads, int box_columns) {
  return emu_boxes(3, 2, base, {columns, heads, rows}, {head_stride * 2, row_stride * 2},
                   {box_columns, box_heads, box_rows});
}
inline void make_barrier(uint32_t barrier, int arrivals) { emu::make_barrier(barrier, arrivals); }
inline void barriers_made() { emu::barriers_made(); }
inline void arrive(uint32_t barrier) { emu::arrive(barrier, 0); }
inline void expect_bytes(uint32_t barrier, int bytes) { emu::arrive(barrier, bytes); }
inline void wait_for_phase(uint32_t barrier, uint32_t parity) { emu::wait_for_phase(barrier, parity); }
inline void fence_async_proxy() { emu::fence_async_proxy(); }
inline void copy_box(uint32_t shared, const CUtensorMap& map, int byte, int row, uint32_t barrier) {
  if (map.rank != 2) emu::fail("copy_box of rank 2 with a map of rank %d", map.rank);
  emu::copy_box(shared, map, byte, 0, row, barrier);
}
inline void copy_box(uint32_t shared, const CUtensorMap& map, int column, int head, int row,
                     uint32_t barrier) {
  if (map.rank != 3) emu::fail("copy_box of rank 3 with a map of rank %d", map.rank);
  emu::copy_box(shared, map, column, head, row, barrier);
}
}  // namespace vlr::cuda
#endif
