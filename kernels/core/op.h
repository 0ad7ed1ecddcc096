/// What an op is, and how one of its implementations is chosen and run.
///
/// An op is a struct with: kName; Args; check(args); cost(args); tolerance(args); impls(), in order
/// of preference. See kernels/rmsnorm/rmsnorm.h for the shortest one.
#ifndef VLR_KERNELS_CORE_OP_H_
#define VLR_KERNELS_CORE_OP_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr {

/// What no implementation can avoid: bytes moved (each operand once) and floating-point operations.
struct Cost {
  double bytes = 0;
  double flops = 0;
};

/// Allowed distance of an element from "reference": |y - ref| <= rel * |ref| + abs.
struct Tolerance {
  double rel = 0;
  double abs = 0;
};

template <class Op>
struct Impl {
  using Args = typename Op::Args;
  std::string_view name;
  Device device;
  Status (*run)(const Args&, Context&);
  bool (*supports)(const Args&) = nullptr;  ///< null: everything check() accepts
  int64_t (*workspace)(const Args&,
                       const Context&) = nullptr;  ///< bytes of ctx.workspace; null: none
};

namespace ops {

/// kInvalidArgument / kUnimplemented with the op's name in front.
Status invalid(std::string_view op, std::string message);
Status unimplemented(std::string_view op, std::string_view impl, Device device,
                     std::string_view why);

/// The implementation that run() would take: the one asked for by name in ctx.choices, else the
/// first on ctx.device that supports the arguments. Looks at shapes and dtypes only, never at data.
template <class Op>
Result<const Impl<Op>*> choose(const typename Op::Args& args, const Context& ctx) {
  std::string_view wanted;
  if (ctx.choices) {
    if (auto it = ctx.choices->find(Op::kName); it != ctx.choices->end()) wanted = it->second;
  }
  bool known = false;
  for (const Impl<Op>& impl : Op::impls()) {
    if (impl.device != ctx.device || (!wanted.empty() && impl.name != wanted)) continue;
    known = true;
    if (!impl.supports || impl.supports(args)) return &impl;
  }
  return unimplemented(Op::kName, wanted, ctx.device, known ? "these arguments" : "");
}

template <class Op>
Status run(const typename Op::Args& args, Context& ctx) {
  VLR_RETURN_IF_ERROR(Op::check(args));
  VLR_ASSIGN_OR_RETURN(const Impl<Op>* impl, choose<Op>(args, ctx));
  return impl->run(args, ctx);
}

/// Bytes of scratch that run() will want in ctx.workspace. Data pointers may be null.
template <class Op>
Result<int64_t> workspace_bytes(const typename Op::Args& args, const Context& ctx) {
  VLR_ASSIGN_OR_RETURN(const Impl<Op>* impl, choose<Op>(args, ctx));
  return impl->workspace ? impl->workspace(args, ctx) : int64_t{0};
}

// What contracts check, with messages like "rmsnorm: weight must be bf16[4096], got bf16[2048]".
// A dim of -1 accepts any size.
Status expect_shape(std::string_view op, std::string_view operand, const ConstTensor& t,
                    std::initializer_list<int64_t> dims);
Status expect_same_shape(std::string_view op, std::string_view operand, const ConstTensor& t,
                         const ConstTensor& like);
Status expect_dtype(std::string_view op, std::string_view operand, const ConstTensor& t,
                    std::initializer_list<DType> allowed);
/// The last axis has stride 1.
Status expect_rows(std::string_view op, std::string_view operand, const ConstTensor& t);

}  // namespace ops
}  // namespace vlr

#endif  // VLR_KERNELS_CORE_OP_H_
