/// cuBLASLt, and which of its algorithms runs which matrix product.
///
/// cuBLASLt offers many algorithms for a product, and asked anew for every number of rows it would
/// answer with different ones, whose sums differ in their last bits. A Blas keeps one algorithm for
/// every problem and every range of M (a bucket), chosen once:
/// - exact: only algorithms that give a row the same bits whatever M is: of the canonical one's id,
///   without split K. Measuring verifies that bit by bit; without measuring it is taken on trust. A
///   problem without such an algorithm is refused, for all M: another implementation has to take it.
/// - fast: whatever is fastest; bits depend on M.
#ifndef VLR_KERNELS_CUDA_BLAS_H_
#define VLR_KERNELS_CUDA_BLAS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/core/tensor.h"
#include "vlr/status.h"

struct CUstream_st;

namespace vlr::cuda {

/// Y[M,N] = act(X[M,K] W[N,K]^T + bias[N]) + residual[M,N], 16-bit, sums in f32. Pointers and rows
/// are multiples of 16 bytes. Or, of f8e4m3 X and W, without bias and gelu and with sums as wide as
/// the tensor cores' fast ones:
///   Y[m,n] = alpha * x_scale[m] * w_scale[n] * (X W^T)[m,n] + residual[m,n]
struct Product {
  int64_t m, n, k;
  DType dtype;                          ///< of y, bias and residual, and of x and w unless fp8
  const void *x, *w, *bias, *residual;  ///< bias and residual may be null, residual may be y
  void* y;
  int64_t x_stride, residual_stride, y_stride;  ///< elements from row to row
  bool gelu;                                    ///< the tanh form; excludes residual
  bool fp8 = false;
  float alpha = 1;                                     ///< a power of two
  const float *x_scale = nullptr, *w_scale = nullptr;  ///< both or none
};

/// Belongs to one thread at a time, and to the device that was current when it was made.
class Blas {
 public:
  static Result<std::unique_ptr<Blas>> create(bool exact);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  bool exact() const;
  int64_t workspace_bytes() const;  ///< of every run

  /// Largest M of each bucket, ascending; whatever is larger counts to the last one.
  static std::span<const int64_t> buckets();

  /// False: run() would say so, as far as is known without trying.
  Result<bool> offers(const Product& p);
  /// The same for an implementation's supports(): where asking fails, yes, so that run() says why.
  bool expects(const Product& p) {
    const Result<bool> offered = offers(p);
    return !offered.ok() || *offered;
  }

  /// Launches the product, with workspace_bytes() of scratch. False: not done, and never will be
  /// for this problem, because there is no algorithm of the kind wanted.
  Result<bool> run(const Product& p, std::span<std::byte> workspace, CUstream_st* stream);

  /// From here to end_measuring(), run() measures instead: the first product of a problem in a
  /// bucket tries what is on offer, with the operands given, and keeps the fastest; others return
  /// at once. Operands are random and finite, M is the top of its bucket, y is left alone. It
  /// synchronises. `scratch` is device memory, of measuring_bytes(max M * N); with less, as many
  /// rows are measured as fit.
  void begin_measuring(std::span<std::byte> scratch);
  void end_measuring();
  bool measuring() const;
  static int64_t measuring_bytes(int64_t max_outputs);

  /// What was chosen so far, a line a problem.
  std::string describe() const;

 private:
  struct State;
  explicit Blas(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Adds to *count, on the device, how many of n 16-bit words differ. For Blas.
Status count_differences(const void* a, const void* b, int64_t n, unsigned long long* count,
                         CUstream_st* stream);

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_BLAS_H_
