/// For products of f8e4m3 codes that know nothing of scales: sums in 16 bits, a piece of y at a
/// time, and a kernel that makes y of them.
#ifndef VLR_KERNELS_LINEAR_W8A8_PIECES_H_
#define VLR_KERNELS_LINEAR_W8A8_PIECES_H_

#include <functional>

#include "kernels/linear_w8a8/linear_w8a8.h"

namespace vlr::ops {

/// Sums are those of codes, each times 2^-9: exact in 16 bits, and of size 0.875 at most, so that
/// the range of f16 is enough for K up to 85,000.
constexpr float kCodeScale = 0x1p-9f, kSumScale = kCodeScale * kCodeScale;

struct PieceShape {
  int64_t rows, columns;  ///< at most; of y, and so rows of x and of w
};
/// Columns depend on N and K alone, as a row's bits do on those of its product.
PieceShape piece_shape(const LinearW8A8::Args& a);

/// sums [rows, columns] = kSumScale * sum_k x w, contiguous, of a piece of the arguments. False:
/// not done, and never will be.
using MakeSums = std::function<Result<bool>(const LinearW8A8::Args& piece, const Tensor& sums)>;

/// y, a piece after another. `sums`: memory of the largest piece, 16-byte aligned.
Result<bool> in_pieces(const LinearW8A8::Args& a, void* sums, Context& ctx, const MakeSums& make);

/// y = act(sums / kSumScale * (x_scale w_scale) + bias) + residual; `scaled` sums are multiplied
/// already. sums [M, N], dtype and, perhaps, memory of y. Nothing while products are being
/// measured.
Status finish_sums(const LinearW8A8::Args& a, const ConstTensor& sums, bool scaled, Context& ctx);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_W8A8_PIECES_H_
