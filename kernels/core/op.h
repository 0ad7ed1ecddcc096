/// What an op is, and how one of its implementations is chosen and run.
///
/// An op is a struct with: kName; Args; check(args); cost(args); tolerance(args); impls(), in order
/// of preference. See kernels/rmsnorm/rmsnorm.h for the shortest one.
#ifndef VLR_KERNELS_CORE_OP_H_
#define VLR_KERNELS_CORE_OP_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr {

/// What no implementation can avoid: bytes moved (each operand once) and floating-point operations.
struct Cost {
  double bytes = 0;
  double flops = 0;
};

/// Allowed distance from "reference"; kernels/core/compare.h holds results against it.
struct Tolerance {
  // Of an element: |y - ref| <= rel * |ref| + abs.
  double rel = 0;
  double abs = 0;
  // Of a row of the last axis, all of it: rms(y - ref) <= row_rel * rms(ref) + row_abs, where rms is
  // the root mean square. Sees what is wrong with results that are smaller than `abs`.
  double row_rel = std::numeric_limits<double>::infinity();
  double row_abs = 0;

  /// An op argues `abs` for operands of size about 1. Where they make the terms of a result `size`
  /// times as large, and steps through nothing that is not linear, so is what rounding leaves.
  Tolerance scaled(double size) const {
    return {.rel = rel, .abs = abs * size, .row_rel = row_rel, .row_abs = row_abs * size};
  }
};

template <class Op>
struct Impl {
  using Args = typename Op::Args;
  std::string_view name;
  Device device;
  Status (*run)(const Args&, Context&);
  /// Whether run() takes the arguments, on this device and with what was decided when it was opened
  /// (ctx.blas, ctx.ring); null: everything check() accepts. Where operands have no data somebody is
  /// planning: an implementation of which only a run will tell then says yes, and its workspace has
  /// room for those behind it.
  bool (*supports)(const Args&, const Context&) = nullptr;
  int64_t (*workspace)(const Args&,
                       const Context&) = nullptr;  ///< bytes of ctx.workspace; null: none
};

namespace ops {

/// kInvalidArgument with the op's name in front.
Status invalid(std::string_view op, std::string message);
/// kUnimplemented: nobody, or not the implementation asked for, takes the arguments.
/// "linear: 'cublaslt' on cuda does not take these arguments"
Status unsupported(std::string_view op, std::string_view impl, Device device);
/// kUnimplemented: "linear: no implementation 'foo' on cuda; there are cublaslt, mma"
Status no_implementation(std::string_view op, std::string_view impl, Device device,
                         std::span<const std::string_view> names);

template <class Op>
bool supports(const Impl<Op>& impl, const typename Op::Args& args, const Context& ctx) {
  return !impl.supports || impl.supports(args, ctx);
}

/// Implementations from outside (kernels/core/plugin.h): behind those of the list, and taken only
/// where they are asked for by name. Added before anything runs.
template <class Op>
std::vector<Impl<Op>>& added() {
  static std::vector<Impl<Op>> all;
  return all;
}

/// Those of the list, then those that were added.
template <class Op>
std::vector<Impl<Op>> implementations() {
  std::vector<Impl<Op>> all(Op::impls().begin(), Op::impls().end());
  all.insert(all.end(), added<Op>().begin(), added<Op>().end());
  return all;
}

/// kUnimplemented, with the names that there are, unless `name` is an implementation on `device`.
template <class Op>
Status expect_impl(std::string_view name, Device device) {
  std::vector<std::string_view> names;
  for (const Impl<Op>& impl : implementations<Op>()) {
    if (impl.device != device) continue;
    if (impl.name == name) return {};
    names.push_back(impl.name);
  }
  return no_implementation(Op::kName, name, device, names);
}

/// The implementation that run() takes: the one asked for by name in ctx.choices, else the first on
/// ctx.device that supports the arguments. None hands them on to another: the order of the list is
/// the only fallback. Looks at shapes, dtypes and addresses, never at data.
template <class Op>
Result<const Impl<Op>*> choose(const typename Op::Args& args, const Context& ctx) {
  std::string_view wanted;
  if (ctx.choices) {
    if (auto it = ctx.choices->find(Op::kName); it != ctx.choices->end()) wanted = it->second;
  }
  bool known = wanted.empty();
  for (const Impl<Op>& impl : Op::impls()) {
    if (impl.device != ctx.device || (!wanted.empty() && impl.name != wanted)) continue;
    known = true;
    if (supports(impl, args, ctx)) return &impl;
  }
  for (const Impl<Op>& impl : added<Op>()) {
    if (wanted.empty() || impl.device != ctx.device || impl.name != wanted) continue;
    known = true;
    if (supports(impl, args, ctx)) return &impl;
  }
  if (known) return unsupported(Op::kName, wanted, ctx.device);
  return expect_impl<Op>(wanted, ctx.device);
}

/// Told of every op that run() runs, with the implementation and the arguments (an Op::Args): what
/// tools watch a model with. Set before anything runs; a replay of a CUDA graph runs nothing.
using RunObserver =
    std::function<void(std::string_view op, std::string_view impl, const void* args)>;
inline RunObserver run_observer;

template <class Op>
Status run(const typename Op::Args& args, Context& ctx) {
  VLR_RETURN_IF_ERROR(Op::check(args));
  VLR_ASSIGN_OR_RETURN(const Impl<Op>* impl, choose<Op>(args, ctx));
  if (run_observer) run_observer(Op::kName, impl->name, &args);
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
/// y, whose name is operand_y, and t share no memory. Judged by where they begin and end; rows of one
/// and the same step may lie between one another, as columns of one matrix do. What has no data, as
/// in planning, or no elements overlaps nothing.
Status expect_no_overlap(std::string_view op, std::string_view operand_y, const ConstTensor& y,
                         std::string_view operand, const ConstTensor& t);
/// The same, but t may also be y itself: all of it, with the same strides.
Status expect_same_or_no_overlap(std::string_view op, std::string_view operand_y,
                                 const ConstTensor& y, std::string_view operand,
                                 const ConstTensor& t);

}  // namespace ops
}  // namespace vlr

#endif  // VLR_KERNELS_CORE_OP_H_
