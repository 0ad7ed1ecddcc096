/// Setups of ops whose rows do not depend on each other.
#ifndef VLR_BENCH_SUPPORT_ROWWISE_H_
#define VLR_BENCH_SUPPORT_ROWWISE_H_

#include <utility>
#include <vector>

#include "bench/support/op_lab.h"

namespace vlr::bench {

/// The members of Args whose first axis is the rows; others, and operands that are not there, are
/// the same for every row. The first of `outputs` is held against Op::tolerance.
template <class Op>
Setup<Op> rowwise(const typename Op::Args& a, std::vector<ConstTensor Op::Args::*> inputs,
                  std::vector<Tensor Op::Args::*> outputs) {
  Setup<Op> s{.args = a, .outputs = {}, .num_rows = (a.*outputs[0]).dim(0)};
  for (Tensor Op::Args::*member : outputs) {
    if ((a.*member).defined()) s.outputs.push_back(a.*member);
  }
  s.rows = [a, inputs = std::move(inputs), outputs = std::move(outputs)](int64_t begin,
                                                                         int64_t count) {
    Part<Op> part{a, {}};
    const auto narrow = [&](auto& t) {
      if (t.defined()) t = t.slice(0, begin, count);
    };
    for (ConstTensor Op::Args::*member : inputs) narrow(part.args.*member);
    for (Tensor Op::Args::*member : outputs) {
      narrow(part.args.*member);
      if ((part.args.*member).defined()) part.outputs.push_back(part.args.*member);
    }
    return part;
  };
  return s;
}

/// The last `count` of the rows, or all of them, as what the reference computes.
template <class Op>
void reference_computes_last(Setup<Op>& s, int64_t count) {
  s.corner = [rows = s.rows, n = s.num_rows, count = std::min(count, s.num_rows)] {
    return rows(n - count, count);
  };
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_ROWWISE_H_
