#include "kernels/add_rmsnorm/add_rmsnorm.h"

#include <utility>

#include "kernels/add_rmsnorm/impls.h"

namespace vlr::ops {

Add::Args add_part(const AddRmsNorm::Args& args) {
  return {.a = args.a, .b = args.b, .y = args.sum};
}

RmsNorm::Args rmsnorm_part(const AddRmsNorm::Args& args) {
  return {.x = args.sum, .weight = args.weight, .y = args.y, .eps = args.eps};
}

Status AddRmsNorm::check(const Args& args) {
  VLR_RETURN_IF_ERROR(Add::check(add_part(args)).with_context(kName));
  VLR_RETURN_IF_ERROR(RmsNorm::check(rmsnorm_part(args)).with_context(kName));
  for (const auto& [name, t] : {std::pair<std::string_view, ConstTensor>{"a", args.a},
                                {"b", args.b},
                                {"sum", args.sum},
                                {"weight", args.weight}}) {
    VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", args.y, name, t));
  }
  return {};
}

Cost AddRmsNorm::cost(const Args& args) {
  return {.bytes = static_cast<double>(4 * args.y.bytes() + args.weight.bytes()),
          .flops = Add::cost(add_part(args)).flops + RmsNorm::cost(rmsnorm_part(args)).flops};
}

Tolerance AddRmsNorm::tolerance(const Args& args) {
  return RmsNorm::tolerance(rmsnorm_part(args));  // the sum is exact
}

std::span<const Impl<AddRmsNorm>> AddRmsNorm::impls() {
  static constexpr Impl<AddRmsNorm> kImpls[] = {
#if VLR_WITH_CUDA
    {"in_registers", Device::kCuda, add_rmsnorm_in_registers, add_rmsnorm_fits_registers},
    {"parts", Device::kCuda, add_rmsnorm_parts},
#endif
    {"reference", Device::kCpu, add_rmsnorm_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
