#ifndef VLR_BENCH_SUPPORT_ALL_OPS_H_
#define VLR_BENCH_SUPPORT_ALL_OPS_H_

#include <vector>

#include "bench/support/op_lab.h"

namespace vlr::bench {

/// The descriptions of all ops, each from bench/<op>_bench.cc.
std::vector<OpLab> all_ops();

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_ALL_OPS_H_
