/// One kernel from a .cu file, compiled when it is loaded: an implementation without a build.
///
/// The file's first lines say what it is:
///   // vlr: op rmsnorm
///   // vlr: kernel second<256>           any expression that names a __global__ function
///   // vlr: grid x.0                     up to three numbers, separated by commas
///   // vlr: block 256
///   // vlr: shared 0                     bytes of dynamic shared memory
///   // vlr: args x weight y x.1 eps      in the order of the kernel's parameters
///   // vlr: rank x 2                     it takes an x of two axes only; may be left out
///   // vlr: dtype x bf16                 and an x in bf16 only; may be left out
/// An operand's name is its address, name.0, name.1, ... are its sizes and name.s0, name.s1, ... its
/// strides in elements, of type long long; other numbers of the op's arguments are floats. grid, block
/// and shared are whole numbers with + - * / and parentheses, / rounding down.
#ifndef VLR_BENCH_SUPPORT_CU_KERNEL_H_
#define VLR_BENCH_SUPPORT_CU_KERNEL_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/tensor.h"
#include "vlr/status.h"

struct CUstream_st;

namespace vlr::bench {

/// An operand, or a number, of an op's arguments by name.
struct Field {
  std::string name;
  ConstTensor tensor{};
  double number = 0;
  bool is_number = false;

  Field(std::string n, const ConstTensor& t) : name(std::move(n)), tensor(t) {}
  Field(std::string n, double v) : name(std::move(n)), number(v), is_number(true) {}
};
using Fields = std::vector<Field>;

/// What the first lines say.
struct CuHeader {
  std::string op, kernel;
  std::array<std::string, 3> grid = {"1", "1", "1"}, block = {"1", "1", "1"};
  std::string shared = "0";
  std::vector<std::string> args;
  std::vector<std::pair<std::string, int>> ranks;
  std::vector<std::pair<std::string, std::string>> dtypes;
};
/// kInvalidArgument, with the line, for what is missing or not known.
Result<CuHeader> parse_cu_header(std::string_view source);

/// The value of "(x.0 + 7) / 8".
Result<int64_t> evaluate(std::string_view expression, const Fields& fields);

class CuKernel {
 public:
  /// Compiles the file by NVRTC for the current GPU. kInvalidArgument with the compiler's log.
  static Result<std::shared_ptr<CuKernel>> load(const std::string& path);
  virtual ~CuKernel() = default;
  virtual Status launch(const Fields& fields, CUstream_st* stream) = 0;
  /// Whether operands have the ranks and dtypes that the header wants.
  bool takes(const Fields& fields) const;
  const CuHeader& header() const { return header_; }

 protected:
  CuHeader header_;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_CU_KERNEL_H_
