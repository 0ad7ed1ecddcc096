// The bench's harness: kernels that look fast and do not do the work are named, not shown.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "bench/support/op_bench.h"

namespace vlr::bench {
namespace {

/// y = 2 x, by implementations that are wrong in one way each.
struct Twice {
  static constexpr std::string_view kName = "twice";
  struct Args {
    ConstTensor x;
    Tensor y;
  };
  static Status check(const Args&) { return {}; }
  static Tolerance tolerance(const Args&) { return {.rel = 1e-6}; }
  static Cost cost(const Args& a) {
    const auto n = static_cast<double>(a.x.numel());
    return {.bytes = 8 * n, .flops = n};
  }
  static std::span<const Impl<Twice>> impls();
};

Status right(const Twice::Args& a, Context&) {
  for (int64_t i = 0; i < a.x.numel(); ++i) a.y.as<float>()[i] = 2 * a.x.as<float>()[i];
  return {};
}
Status remembers(const Twice::Args& a, Context&) {
  static std::map<const void*, std::vector<float>> answers;
  std::vector<float>& known = answers[a.x.data];
  if (known.empty()) {
    for (int64_t i = 0; i < a.x.numel(); ++i) known.push_back(2 * a.x.as<float>()[i]);
  }
  std::copy(known.begin(), known.end(), a.y.as<float>());
  return {};
}
Status works_once(const Twice::Args& a, Context& ctx) {
  static std::set<const void*> seen;
  return seen.insert(a.x.data).second ? right(a, ctx) : Status();
}
/// Does the work where it is looked at, and not where it is timed.
Status works_at_first_and_last(const Twice::Args& a, Context& ctx) {
  static std::map<const void*, std::pair<int64_t, float>> calls;
  auto& [count, first] = calls[a.x.data];
  const bool changed = std::exchange(first, a.x.as<float>()[0]) != a.x.as<float>()[0];
  return count++ == 0 || changed ? right(a, ctx) : Status();
}
Status wrong(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  a.y.as<float>()[a.y.numel() - 1] *= 1.01f;
  return s;
}
Status fails_later(const Twice::Args& a, Context& ctx) {
  static std::map<const void*, int64_t> calls;
  return ++calls[a.x.data] > 5 ? Status(Code::kInternal, "no more") : right(a, ctx);
}

std::span<const Impl<Twice>> Twice::impls() {
  static constexpr Impl<Twice> kImpls[] = {
      {"right", Device::kCpu, right},
      {"remembers", Device::kCpu, remembers},
      {"works_once", Device::kCpu, works_once},
      {"works_at_first_and_last", Device::kCpu, works_at_first_and_last},
      {"wrong", Device::kCpu, wrong},
      {"fails_later", Device::kCpu, fails_later},
      {"reference", Device::kCpu, right},
  };
  return kImpls;
}

Setup<Twice> make_twice(Operands& operands) {
  const Tensor x = operands.random({1000000}), y = operands.uninitialised({1000000});
  const Twice::Args args{.x = x, .y = y};
  return {.args = args, .reference_args = args, .output = y};
}

TEST(OpBench, NamesKernelsThatDoNotDoTheWork) {
  static Machine machine{
      nullptr, ThreadPool(1), {.flops = 1e10, .bytes = 1e10, .target = "assumed"}};
  add_benches<Twice>(machine, "f32/1000000", make_twice);
  EXPECT_EQ(benchmark::RunSpecifiedBenchmarks(), 7u);
  const auto named = [](std::string_view what) {
    return std::ranges::count_if(
        failures, [&](const std::string& why) { return why.find(what) != why.npos; });
  };
  EXPECT_EQ(failures.size(), 5u);
  EXPECT_EQ(named("after it was timed: remembers differs from the reference at element 0"), 1);
  EXPECT_EQ(named("after it was timed: works_once differs from the reference"), 1);
  EXPECT_EQ(named("it does not do the work"), 1);
  EXPECT_EQ(named("wrong differs from the reference at element 999999"), 1);
  EXPECT_EQ(named("after it was verified: no more"), 1);
}

TEST(OpBench, AnInfiniteReferenceWantsInfinity) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(check_values("a", {infinity}, {infinity}, {.rel = 0.1}).ok());
  EXPECT_FALSE(check_values("a", {42}, {infinity}, {.rel = 0.1}).ok());
  EXPECT_FALSE(check_values("a", {std::nanf("")}, {1}, {.rel = 0.1}).ok());
}

TEST(Operands, RefilledAreThoseOfTheSeed) {
  HostOperands operands, other(7);
  const auto make = [](Operands& o) {
    return std::array{o.random({100}), o.uninitialised({100}), o.random({50}, DType::kBF16)};
  };
  const auto refilled = make(operands), made = make(other);
  refilled[1].as<float>()[3] = 1;
  operands.refill(7);
  for (size_t i = 0; i < made.size(); ++i)
    EXPECT_EQ(std::memcmp(refilled[i].data, made[i].data, static_cast<size_t>(made[i].bytes())), 0)
        << i;
}

}  // namespace
}  // namespace vlr::bench
