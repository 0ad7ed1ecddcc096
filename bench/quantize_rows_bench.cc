// quantize_rows: of the residual stream and of the gated values, with and without outliers.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/quantize_rows/quantize_rows.h"

namespace vlr::bench {
namespace {
using ops::QuantizeRows;

/// How outliers are found, if at all.
enum class Outliers { kNone, kByValue, kByColumn };

void add_case(Machine& machine, const Rows& s, DType codes, Outliers outliers) {
  constexpr const char* kNames[] = {"", "/outliers", "/outlier_columns"};
  const std::string shape =
      std::string(dtype_name(codes)) + kNames[static_cast<int>(outliers)] + "/" + s.name();
  add_benches<QuantizeRows>(machine, shape, [=](Operands& o) {
    QuantizeRows::Args a{.x = o.random({s.rows, s.dim}, s.dtype),
                         .q = o.uninitialised({s.rows, s.dim}, codes),
                         .scale = o.uninitialised({s.rows})};
    if (outliers != Outliers::kNone) {
      a.outliers = o.uninitialised({s.rows, s.dim}, s.dtype);
      a.threshold = 6;
      a.by_column = outliers == Outliers::kByColumn;
    }
    QuantizeRows::Args few = a;
    if (outliers != Outliers::kByColumn) {  // a column is all its rows
      few.x = last_rows(a.x);
      few.q = last_rows(a.q);
      few.scale = last_rows(a.scale);
      few.outliers = last_rows(a.outliers);
    }
    return Setup<QuantizeRows>{a, few, few.q};
  });
}

void register_all(Machine& machine) {
  std::vector<Rows> shapes = text_rows(machine);
  shapes.push_back(machine.is_gpu() ? Rows{8192, k8b.mlp, DType::kBF16}
                                    : Rows{512, k2b.mlp, DType::kF32});
  for (const DType codes : {DType::kI8, DType::kF8E4M3}) {
    for (const Rows& s : shapes) add_case(machine, s, codes, Outliers::kNone);
  }
  for (const Outliers outliers : {Outliers::kByValue, Outliers::kByColumn}) {
    add_case(machine, shapes[0], DType::kI8, outliers);
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
