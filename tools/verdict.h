/// vlr lab verdict: everything about one implementation on one page.
#ifndef VLR_TOOLS_VERDICT_H_
#define VLR_TOOLS_VERDICT_H_

#include <CLI/App.hpp>
#include <vector>

#include "bench/support/op_lab.h"
#include "tools/common.h"

namespace vlr::tools {

void add_verdict(CLI::App& app, const std::vector<bench::OpLab>& ops, Run& run);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_VERDICT_H_
