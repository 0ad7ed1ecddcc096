// The lab's protections: kernels that are wrong, or look fast and do not do the work, each by the
// protection that names it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "bench/support/lab.h"
#include "bench/support/rowwise.h"
#include "tests/support/temp_folder.h"

namespace vlr::bench {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

/// What is picked by chance is the same in every run.
const bool kSeeded = setenv("VLR_LAB_SEED", "1", 1) == 0;

/// y = 2 x and the largest of each row of y, by implementations that are wrong in one way each.
struct Twice {
  static constexpr std::string_view kName = "twice";
  struct Args {
    ConstTensor x;
    Tensor y, largest;
  };
  static Status check(const Args& a) {
    return a.x.dim(1) > 0 ? Status() : ops::invalid(kName, "x must have columns");
  }
  static Tolerance tolerance(const Args&) { return {.rel = 1e-6}; }
  static Cost cost(const Args& a) {
    const auto n = static_cast<double>(a.x.numel());
    return {.bytes = 8 * n, .flops = n};
  }
  static std::span<const Impl<Twice>> impls();
};

/// The first `count` rows, times a factor.
Status twice(const Twice::Args& a, int64_t count, float factor = 2) {
  const int64_t dim = a.x.dim(1);
  for (int64_t r = 0; r < count; ++r) {
    const auto* x = a.x.row<float>(r);
    auto* y = a.y.row<float>(r);
    for (int64_t i = 0; i < dim; ++i) y[i] = factor * x[i];
    a.largest.as<float>()[r] = *std::max_element(y, y + dim);
  }
  return {};
}
Status right(const Twice::Args& a, Context&) { return twice(a, a.x.dim(0)); }
float* last_of(const Tensor& t) { return t.row<float>(t.dim(0) - 1) + t.dim(1) - 1; }

// What is wrong whenever it runs.
Status one_element(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  a.y.row<float>(0)[1] *= 1.01f;
  return s;
}
Status does_nothing(const Twice::Args&, Context&) { return {}; }
Status writes_half(const Twice::Args& a, Context&) { return twice(a, a.x.dim(0) / 2); }
Status infinite(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  *last_of(a.y) = INFINITY;
  return s;
}
Status not_a_number(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  *last_of(a.y) = NAN;
  return s;
}
Status second_output(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  a.largest.as<float>()[0] *= 2;
  return s;
}
/// Comes back before it is done.
std::vector<std::thread> late;
Status returns_early(const Twice::Args& a, Context&) {
  late.emplace_back([a] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    (void)twice(a, a.x.dim(0));
  });
  return {};
}

// What is wrong for some shapes.
Status above_400_rows(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  if (a.x.dim(0) > 400) a.y.row<float>(400)[0] *= 1.01f;
  return s;
}
Status two_mod_four_rows(const Twice::Args& a, Context&) {
  return twice(a, a.x.dim(0) - (a.x.dim(0) % 4 == 2 ? 1 : 0));
}
/// Near enough, but sums of many rows are in another order.
Status bits_by_count(const Twice::Args& a, Context&) {
  return twice(a, a.x.dim(0), a.x.dim(0) > 8 ? 2 : 2.0000002f);
}
bool takes_few(const Twice::Args& a, const Context&) { return a.x.dim(0) < 10; }

// What is wrong after the first launch.
Status by_address(const Twice::Args& a, Context& ctx) {
  static std::map<const void*, std::vector<float>> answers;
  Status s = right(a, ctx);
  const auto n = static_cast<size_t>(a.y.numel());
  std::vector<float>& known = answers[a.x.data];
  if (known.size() < n) known.assign(a.y.as<float>(), a.y.as<float>() + n);
  std::copy_n(known.begin(), n, a.y.as<float>());
  return s;
}
Status by_first_element(const Twice::Args& a, Context& ctx) {
  static std::map<float, std::vector<float>> answers;
  Status s = right(a, ctx);
  const auto n = static_cast<size_t>(a.y.numel());
  std::vector<float>& known = answers[*a.x.as<float>()];
  if (known.size() < n) known.assign(a.y.as<float>(), a.y.as<float>() + n);
  std::copy_n(known.begin(), n, a.y.as<float>());
  return s;
}
Status works_once(const Twice::Args& a, Context& ctx) {
  static std::set<const void*> seen;
  return seen.insert(a.x.data).second ? right(a, ctx) : Status();
}
/// Right in the last rows, which a reference computes; the first ones only for contents that are new.
Status lazy(const Twice::Args& a, Context& ctx) {
  static std::map<const void*, std::pair<float, int64_t>> seen;
  auto& [value, launches] = seen[a.x.data];
  const float now = a.x.as<float>()[1];
  launches = now == value ? launches + 1 : 0;
  value = now;
  if (launches < 4) return right(a, ctx);
  Twice::Args half = a;
  const int64_t rows = a.x.dim(0);
  half.x = a.x.slice(0, rows / 2, rows - rows / 2);
  half.y = a.y.slice(0, rows / 2, rows - rows / 2);
  return right(half, ctx);
}
Status every_second_launch(const Twice::Args& a, Context& ctx) {
  static int64_t launches = 0;
  Status s = right(a, ctx);
  if (++launches % 2 == 0) *last_of(a.y) = 0;
  return s;
}
/// Does the work for the first launch and for other contents: where it is verified.
Status where_it_is_verified(const Twice::Args& a, Context& ctx) {
  static std::map<const void*, float> seen;
  const float now = a.x.as<float>()[1];
  const auto [it, first] = seen.try_emplace(a.x.data, now);
  return first || std::exchange(it->second, now) != now ? right(a, ctx) : Status();
}
/// Of many sets of operands it knows the one that is looked at first.
Status at_the_first_address(const Twice::Args& a, Context& ctx) {
  static const void* const first = a.x.data;
  return a.x.data == first ? right(a, ctx) : Status();
}
Status changes_its_input(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  const_cast<float*>(a.x.row<float>(a.x.dim(0) - 1))[a.x.dim(1) - 1] = 7;
  return s;
}
Status adds_to_what_is_there(const Twice::Args& a, Context& ctx) {
  const float before = *last_of(a.y);
  Status s = right(a, ctx);
  *last_of(a.y) += 0 * before;
  return s;
}
Status believes_a_number(const Twice::Args& a, Context& ctx) {
  return std::isnan(a.y.as<float>()[0]) ? right(a, ctx) : Status();
}
/// The answer is there already, as far as one looks.
Status knows_it_is_done(const Twice::Args& a, Context& ctx) {
  const bool done = *last_of(a.y) == 2 * a.x.row<float>(a.x.dim(0) - 1)[a.x.dim(1) - 1];
  return done ? Status() : right(a, ctx);
}
Status once_in_ten_thousand(const Twice::Args& a, Context&) {
  static int64_t launches = 0;
  return twice(a, a.x.dim(0), ++launches % 10000 == 0 ? 2.0000002f : 2);
}
Status fails_later(const Twice::Args& a, Context& ctx) {
  static std::map<const void*, int64_t> launches;
  return ++launches[a.x.data] > 5 ? Status(Code::kInternal, "twice: no more") : right(a, ctx);
}

// What disturbs whoever measures.
/// Its first launches are as slow as on a machine where somebody else runs.
Status starts_slowly(const Twice::Args& a, Context& ctx) {
  static int64_t launches = 0;
  if (++launches <= 6) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return right(a, ctx);
}
/// No window of many launches takes what so many of its launches take.
Status stalls(const Twice::Args& a, Context& ctx) {
  static int64_t launches = 0;
  if (++launches % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return right(a, ctx);
}
Status takes_long(const Twice::Args& a, Context& ctx) {
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  return right(a, ctx);
}

// What writes where it may not, or only some of it.
/// Right in the first row and the last.
Status leaves_a_third(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  const int64_t rows = a.y.dim(0);
  for (int64_t r = rows / 3; r < 2 * rows / 3; ++r) a.y.row<float>(r)[0] = NAN;
  return s;
}
/// One row, which a reference of some rows does not meet.
Status one_row_of_many(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  if (a.y.dim(0) > 6000) a.y.row<float>(4321)[3] += 1;
  return s;
}
Status writes_behind(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  a.y.as<float>()[a.y.numel()] = 0;
  return s;
}
Status writes_before(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  a.largest.as<float>()[-1] = 0;
  return s;
}
Status writes_behind_later(const Twice::Args& a, Context& ctx) {
  static std::map<const void*, int64_t> launches;
  return ++launches[a.x.data] > 5 ? writes_behind(a, ctx) : right(a, ctx);
}
Status writes_behind_its_workspace(const Twice::Args& a, Context& ctx) {
  *(ctx.workspace.data() + ctx.workspace.size()) = std::byte{1};
  return right(a, ctx);
}
int64_t eight_bytes(const Twice::Args&, const Context&) { return 8; }
Status flushes_to_zero(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  for (int64_t i = 0; i < a.y.numel(); ++i) {
    float& y = a.y.as<float>()[i];
    if (std::fabs(y) < 0x1p-126f) y = 0;
  }
  return s;
}
Status divides(const Twice::Args& a, Context& ctx) {
  Status s = right(a, ctx);
  for (int64_t i = 0; i < a.y.numel(); ++i) {
    const float x = a.x.as<float>()[i];
    a.y.as<float>()[i] *= x / x;
  }
  return s;
}
Status bits_by_threads(const Twice::Args& a, Context& ctx) {
  return twice(a, a.x.dim(0), ctx.threads->num_threads() > 1 ? 2 : 2.0000002f);
}
/// Fresh poison everywhere makes it work; where most of the answer is there it takes all for done.
Status looks_in_places(const Twice::Args& a, Context& ctx) {
  const auto is_done = [&](int64_t row) {
    return a.y.row<float>(row)[1] == 2 * a.x.row<float>(row)[1];
  };
  const int64_t rows = a.x.dim(0);
  return is_done(0) && is_done(rows / 2) && is_done(rows - 1) ? Status() : right(a, ctx);
}

// What does not come back.
Status throws_an_error(const Twice::Args&, Context&) { throw std::runtime_error("no \xff luck"); }
Status throws_a_number(const Twice::Args&, Context&) { throw 3; }
bool throws_when_asked(const Twice::Args&, const Context&) { throw std::runtime_error("asked"); }
int64_t throws_for_scratch(const Twice::Args&, const Context&) { throw 4; }
Status says_no_text(const Twice::Args&, Context&) { return {Code::kInternal, "\xff\xfe"}; }
bool takes_whole(const Twice::Args& a, const Context&) { return a.x.dim(0) == 33; }

std::span<const Impl<Twice>> Twice::impls() {
  constexpr Device kCpu = Device::kCpu;
  static constexpr Impl<Twice> kImpls[] = {
      {"right", kCpu, right},
      {"also_right", kCpu, right},
      {"leaves_a_third", kCpu, leaves_a_third},
      {"one_row_of_many", kCpu, one_row_of_many},
      {"writes_behind", kCpu, writes_behind},
      {"writes_before", kCpu, writes_before},
      {"writes_behind_later", kCpu, writes_behind_later},
      {"writes_behind_its_workspace", kCpu, writes_behind_its_workspace, nullptr, eight_bytes},
      {"flushes_to_zero", kCpu, flushes_to_zero},
      {"divides", kCpu, divides},
      {"bits_by_threads", kCpu, bits_by_threads},
      {"looks_in_places", kCpu, looks_in_places},
      {"throws_an_error", kCpu, throws_an_error},
      {"throws_a_number", kCpu, throws_a_number},
      {"throws_when_asked", kCpu, right, throws_when_asked},
      {"throws_for_scratch", kCpu, right, nullptr, throws_for_scratch},
      {"says_no_text", kCpu, says_no_text},
      {"takes_whole", kCpu, right, takes_whole},
      {"one_element", kCpu, one_element},
      {"does_nothing", kCpu, does_nothing},
      {"writes_half", kCpu, writes_half},
      {"infinite", kCpu, infinite},
      {"not_a_number", kCpu, not_a_number},
      {"second_output", kCpu, second_output},
      {"returns_early", kCpu, returns_early},
      {"above_400_rows", kCpu, above_400_rows},
      {"two_mod_four_rows", kCpu, two_mod_four_rows},
      {"bits_by_count", kCpu, bits_by_count},
      {"takes_few", kCpu, right, takes_few},
      {"by_address", kCpu, by_address},
      {"by_first_element", kCpu, by_first_element},
      {"works_once", kCpu, works_once},
      {"lazy", kCpu, lazy},
      {"every_second_launch", kCpu, every_second_launch},
      {"where_it_is_verified", kCpu, where_it_is_verified},
      {"at_the_first_address", kCpu, at_the_first_address},
      {"changes_its_input", kCpu, changes_its_input},
      {"adds_to_what_is_there", kCpu, adds_to_what_is_there},
      {"believes_a_number", kCpu, believes_a_number},
      {"knows_it_is_done", kCpu, knows_it_is_done},
      {"once_in_ten_thousand", kCpu, once_in_ten_thousand},
      {"fails_later", kCpu, fails_later},
      {"starts_slowly", kCpu, starts_slowly},
      {"stalls", kCpu, stalls},
      {"takes_long", kCpu, takes_long},
      {"reference", kCpu, right}};
  return kImpls;
}

Setup<Twice> make_twice(Operands& o, const Shape& s) {
  using A = Twice::Args;
  const A a{.x = o.random("x", {s["rows"], s["dim"]}),
            .y = o.output("y", {s["rows"], s["dim"]}),
            .largest = o.output("largest", {s["rows"]})};
  return rowwise<Twice>(a, {&A::x}, {&A::y, &A::largest});
}

const OpLab& twice_lab() {
  static const OpLab lab = op_lab<Twice>(
      {.axes = {{"rows", 33}, {"dim", 9}},
       .shapes = [](Device, std::span<const Axis>) { return std::vector<Shape>(); },
       .make = make_twice,
       .shape_of =
           [](const Twice::Args& a, std::span<const Axis> axes) {
             return Shape(axes, a.x.dtype, "", {{"rows", a.x.dim(0)}, {"dim", a.x.dim(1)}});
           }});
  return lab;
}

/// x = x / 2 + b, where x is.
struct Halve {
  static constexpr std::string_view kName = "halve";
  struct Args {
    ConstTensor b;
    Tensor x;
  };
  static Status check(const Args&) { return {}; }
  static Tolerance tolerance(const Args&) { return {.rel = 1e-6}; }
  static Cost cost(const Args& a) {
    const auto n = static_cast<double>(a.x.numel());
    return {.bytes = 12 * n, .flops = 2 * n};
  }
  static std::span<const Impl<Halve>> impls();
};
std::set<const void*> seen_b, seen_x;
Status halve(const Halve::Args& a, Context&) {
  seen_b.insert(a.b.data);
  seen_x.insert(a.x.data);
  for (int64_t r = 0; r < a.x.dim(0); ++r) {
    auto* x = a.x.row<float>(r);
    for (int64_t i = 0; i < a.x.dim(1); ++i) x[i] = x[i] / 2 + a.b.row<float>(r)[i];
  }
  return {};
}
/// Takes what it left itself for work that is done: where it is verified operands are others.
Status knows_what_it_left(const Halve::Args& a, Context& ctx) {
  static std::map<const void*, float> left;
  float& known = left[a.x.data];
  if (a.x.as<float>()[1] == known) return {};
  Status s = halve(a, ctx);
  known = a.x.as<float>()[1];
  return s;
}
Status in_the_first_set(const Halve::Args& a, Context& ctx) {
  static const void* const first = a.x.data;
  return a.x.data == first ? halve(a, ctx) : Status();
}
Status between_rows(const Halve::Args& a, Context& ctx) {
  Status s = halve(a, ctx);
  a.x.as<float>()[a.x.dim(1)] = 5;
  return s;
}
std::span<const Impl<Halve>> Halve::impls() {
  static constexpr Impl<Halve> kImpls[] = {{"right", Device::kCpu, halve},
                                           {"also_right", Device::kCpu, halve},
                                           {"between_rows", Device::kCpu, between_rows},
                                           {"knows_what_it_left", Device::kCpu, knows_what_it_left},
                                           {"in_the_first_set", Device::kCpu, in_the_first_set},
                                           {"reference", Device::kCpu, halve}};
  return kImpls;
}

const OpLab& halve_lab() {
  static const OpLab lab = op_lab<Halve>(
      {.axes = {{"rows", 33}, {"dim", 9}},
       .shapes = [](Device, std::span<const Axis>) { return std::vector<Shape>(); },
       .make =
           [](Operands& o, const Shape& s) {
             using A = Halve::Args;
             const Tensor x = o.random("x", {s["rows"], s["dim"] + 3}).slice(1, 0, s["dim"]);
             const Tensor b = o.random("b", {s["rows"], s["dim"]});
             return rowwise<Halve>({.b = b, .x = x}, {&A::b}, {&A::x});
           },
       .shape_of = [](const Halve::Args&,
                      std::span<const Axis> axes) { return Shape(axes, DType::kF32); }});
  return lab;
}

/// y = 2 x, first by one that has a row wrong.
struct Blamed : Twice {
  static constexpr std::string_view kName = "blamed";
  static std::span<const Impl<Blamed>> impls() {
    static constexpr Impl<Blamed> kImpls[] = {{"first", Device::kCpu, one_row_of_many},
                                              {"second", Device::kCpu, right},
                                              {"reference", Device::kCpu, right}};
    return kImpls;
  }
};
/// Of which nobody does all the work that there is said to be.
struct Overstated : Twice {
  static constexpr std::string_view kName = "overstated";
  static Cost cost(const Args& a) {
    const auto n = static_cast<double>(a.x.numel());
    return {.bytes = 8000 * n, .flops = n};
  }
  static std::span<const Impl<Overstated>> impls() {
    static constexpr Impl<Overstated> kImpls[] = {{"right", Device::kCpu, right},
                                                  {"reference", Device::kCpu, right}};
    return kImpls;
  }
};
template <class Op>
const OpLab& like_twice() {
  static const OpLab lab =
      op_lab<Op>({.axes = {{"rows", 33}, {"dim", 9}},
                  .shapes = [](Device, std::span<const Axis>) { return std::vector<Shape>(); },
                  .make =
                      [](Operands& o, const Shape& s) {
                        using A = Twice::Args;
                        const A a{.x = o.random("x", {s["rows"], s["dim"]}),
                                  .y = o.output("y", {s["rows"], s["dim"]}),
                                  .largest = o.output("largest", {s["rows"]})};
                        return rowwise<Op>(a, {&A::x}, {&A::y, &A::largest});
                      },
                  .shape_of = [](const Twice::Args&,
                                 std::span<const Axis> axes) { return Shape(axes, DType::kF32); }});
  return lab;
}

Machine& machine() {
  static const std::unique_ptr<Machine> one = std::move(Machine::open("cpu", 2)).value();
  return *one;
}

std::unique_ptr<Subject> warm_of(const OpLab& lab, int64_t rows, int64_t dim) {
  const Shape shape(lab.axes, DType::kF32, "", {{"rows", rows}, {"dim", dim}});
  Placement warm;
  warm.warm = true;
  return std::move(lab.make(machine(), shape, warm)).value();
}

std::unique_ptr<Subject> subject(int64_t rows, bool warm = true, int64_t dim = 9) {
  const Shape shape(twice_lab().axes, DType::kF32, "", {{"rows", rows}, {"dim", dim}});
  Placement place;
  place.warm = warm;
  return std::move(twice_lab().make(machine(), shape, place)).value();
}

Result<std::unique_ptr<Subject>> cold(const OpLab& lab, std::set<std::string> warm = {}) {
  const Shape shape(lab.axes, DType::kF32, "", {{"rows", 33}, {"dim", 9}});
  Placement place;
  place.warm_operands = std::move(warm);
  return lab.make(machine(), shape, place);
}

Checked checked(const std::string& impl, int64_t rows = 33, int64_t soak = 0) {
  return check(*subject(rows), impl, soak);
}

Measurement measured(Subject& s, const std::vector<std::string>& impls) {
  return measure(
      machine(), s, Unit::kF32, impls,
      {.settle = 0.01, .seconds = 0.05, .precision = 0.02, .burst = false, .alone = false});
}
std::string error_of(Subject& s, const std::string& impl) {
  return measured(s, {impl}).rows.at(0).error;
}

/// Of "right" beside the rival's, by its script's names.
Measurement beside_rival(const std::string& names, std::optional<std::string> command = {}) {
  auto rival = Rival::start(command.value_or("python3 " VLR_RIVAL " " + names));
  EXPECT_TRUE(rival.ok()) << rival.error().message();
  const auto s = subject(500);
  const std::vector<std::string> own = {"right"};
  Rivals rivals{rival->get(), (*rival)->open("twice", s->shape(), true).value()};
  return measure(machine(), *s, Unit::kF32, own,
                 {.settle = 0.05, .seconds = 0.1, .precision = 0.02, .burst = true, .alone = true},
                 rivals);
}
std::string rival_error(const std::string& name) {
  const Measurement m = beside_rival(name + " sleeps");
  EXPECT_EQ(m.rows.at(0).error, "");
  if (name != "dies") {
    EXPECT_EQ(m.rows.at(2).error, "");
  }
  return m.rows.at(1).error;
}

class RivalProcess : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("python3 -c '' 2> /dev/null") != 0) GTEST_SKIP() << "no python3";
  }
};

TEST_F(RivalProcess, RunsInTurns) {
  const Measurement m = beside_rival("sleeps other");
  ASSERT_EQ(m.rows.size(), 3u);
  for (const size_t i : {1, 2}) {
    EXPECT_EQ(m.rows[i].error, "");
    EXPECT_EQ(m.rows[i].implementation, i == 1 ? "sleeps" : "other");
    EXPECT_GT(m.rows[i].seconds.value, 2e-3);
    EXPECT_GT(m.rows[i].burst, 2e-3);
    // Where others take the processors, windows may differ and decide nothing.
    EXPECT_THAT(m.rows[i].verdict, AnyOf(Verdict::kSlower, Verdict::kUndecided));
    EXPECT_GT(m.rows[i].ratio->value, 2e-3 / m.rows[0].seconds.value / 2);
  }
}

TEST_F(RivalProcess, AWrongOneCostsNoOther) {
  EXPECT_THAT(rival_error("wrong"), HasSubstr("row 0 differs"));
  EXPECT_THAT(rival_error("babbles"), HasSubstr("a positive \"seconds\" is wanted"));
  EXPECT_THAT(rival_error("impossible"), HasSubstr("it does not do the work"));
}

TEST_F(RivalProcess, OneThatEndsIsTold) { EXPECT_THAT(rival_error("dies"), HasSubstr("ended")); }

TEST_F(RivalProcess, OpensWhatItHas) {
  auto rival = std::move(Rival::start("python3 " VLR_RIVAL " sleeps")).value();
  EXPECT_EQ(rival->description()["library"], "sleep");
  const auto shape = [](int64_t rows, int64_t dim) {
    return Shape(twice_lab().axes, DType::kF32, "", {{"rows", rows}, {"dim", dim}});
  };
  EXPECT_THAT(rival->open("twice", shape(1, 9), true).value(), ElementsAre("sleeps"));
  EXPECT_THAT(rival->open("twice", shape(1, 8), true).value(), IsEmpty());
  EXPECT_THAT(rival->open("halve", shape(1, 9), true).value(), IsEmpty());
  EXPECT_THAT(rival->open("twice", shape(7, 9), true).error().message(),
              HasSubstr("seven rows are too many"));
  EXPECT_THAT(rival->open("twice", shape(2, 9), true).value(),
              ElementsAre("sleeps"));  // and goes on
}

TEST_F(RivalProcess, WhatIsNoneIsRefused) {
  EXPECT_THAT(Rival::start("/no/such/rival").error().message(), HasSubstr("/no/such/rival"));
  EXPECT_THAT(Rival::start("echo hello").error().message(), HasSubstr("hello"));
  EXPECT_EQ(Rival::start("true").error().code(), Code::kInvalidArgument);
}

/// Two implementations of one name are two rows that nobody tells apart.
TEST_F(RivalProcess, ANameIsItsOwnAndCanBeShown) {
  const auto opens = [](const std::string& names) {
    auto rival = std::move(Rival::start("python3 " VLR_RIVAL " " + names)).value();
    const auto s = subject(500);
    return rival->open("twice", s->shape(), true).error().message();
  };
  EXPECT_THAT(opens("sleeps ''"), HasSubstr("name '' cannot be shown"));
  EXPECT_THAT(opens("'two\nlines'"), HasSubstr("name 'two?lines' cannot be shown"));
  EXPECT_THAT(opens("sleeps other sleeps"), HasSubstr("has 'sleeps' twice"));
  auto rival = std::move(Rival::start("python3 " VLR_RIVAL " reference")).value();
  LabOptions o;
  o.ops = {&twice_lab()};
  o.implementations = {"right"};
  o.shapes = {"rows=500"};
  o.dtype = "f32";
  o.measure = {.settle = 0, .seconds = 0.01, .burst = false, .alone = false};
  Json rows = Json::array();
  const Status s = measure_all(machine(), o, rival.get(), rows,
                               [](const OpLab&, const Subject&, const Measurement&) {});
  EXPECT_TRUE(s.ok()) << s.message();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_FALSE(rows[0].contains("error"));
  EXPECT_GT(rows[0]["launches"], 0);
  EXPECT_GT(rows[0]["samples"], 0);
  EXPECT_EQ(rows[1]["error"], "the rival calls one 'reference', as we do");
}

TEST_F(RivalProcess, WhatItPrintsIsQuotedAsText) {
  const std::string error = rival_error("prints_bytes");
  EXPECT_THAT(error, HasSubstr("answered 'not ??text'"));
  EXPECT_NO_THROW(Json(error).dump());
  EXPECT_THAT(rival_error("no_words"), HasSubstr("error \"\""));
}

TEST_F(RivalProcess, OneThatIsLateIsEndedAndAskedNothingMore) {
  const auto s = subject(500);
  auto rival = std::move(Rival::start("python3 " VLR_RIVAL " late", 2)).value();
  ASSERT_TRUE(rival->open("twice", s->shape(), true).ok());
  EXPECT_THAT(rival->verify("late").message(),
              HasSubstr("did not answer within 2 s, and was ended"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(rival->verify("sleeps").message(), HasSubstr("did not answer within 2 s"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST_F(RivalProcess, LeavesNoProcess) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  // What it starts holds the other end of the pipe.
  std::move(Rival::start("sleep 60 & exec python3 " VLR_RIVAL " sleeps")).value().reset();
  close(ends[1]);
  pollfd ended{ends[0], POLLIN, 0};
  EXPECT_EQ(poll(&ended, 1, 5000), 1) << "a process still holds the pipe";
  close(ends[0]);
}

/// A run that is disturbed while a window is made does not make it a short one.
TEST(Timer, ADisturbedRunDoesNotMakeAWindowShort) {
  for (const int64_t disturbed : {1, 2, 3}) {
    const auto timer = host_timer();
    int64_t launches = 0;
    const auto window = timer->make_window(
        [&](int64_t) {
          const bool slow = ++launches == disturbed;
          std::this_thread::sleep_for(std::chrono::microseconds(slow ? 20000 : 50));
          return Status();
        },
        1, 5e-3);
    EXPECT_GE((*window)->launches, 10) << disturbed;
  }
}

TEST(Lab, WindowsThatWereMadeBadlyAreMadeAgain) {
  const auto s = subject(500);
  const Measurement m = measured(*s, {"right", "starts_slowly"});
  ASSERT_TRUE(m.rows[1].ratio) << m.rows[1].error;
  EXPECT_GT(m.rows[1].launches, m.rows[0].launches / 4);
  EXPECT_GT(m.rows[1].samples(), 0);
}

TEST(Lab, WindowsThatAreNotAlikeDecideNothing) {
  const auto s = subject(500);
  const Measurement m = measured(*s, {"right", "stalls", "takes_long"});
  ASSERT_TRUE(m.rows[1].ratio && m.rows[2].ratio) << m.rows[1].error << m.rows[2].error;
  EXPECT_EQ(m.rows[1].verdict, Verdict::kUndecided);
  EXPECT_GT(m.rows[1].launches, 1);
  EXPECT_EQ(m.rows[2].launches, 1) << "and what takes longer than a window is slower";
  EXPECT_GT(m.rows[2].ratio->low, 2);
}

TEST(Lab, AnHonestKernelPasses) {
  for (const int64_t rows : {1, 2, 33, 500}) {
    const Checked c = checked("right", rows, 100);
    EXPECT_FALSE(c.wrong()) << c.error << c.errors.worst_at << c.bits.message();
    EXPECT_STREQ(c.bits_word(), rows > 1 ? "same" : "not compared");
    EXPECT_EQ(c.errors.elements, rows * 9);
    EXPECT_EQ(c.errors.ulps[0], rows * 9);
  }
  EXPECT_FALSE(checked("right", 3, 20000).wrong());
  EXPECT_EQ(error_of(*subject(500), "right"), "");
  EXPECT_EQ(error_of(*subject(500, false), "right"), "");
}

TEST(Lab, NoRowsAreNoError) {
  EXPECT_FALSE(checked("right", 0, 10).wrong());
  EXPECT_TRUE(subject(0)->is_empty());
  EXPECT_FALSE(subject(1)->is_empty());
}

/// A command of the lab with this op.
int lab(std::vector<std::string> words, std::string* out = nullptr) {
  static const std::vector<OpLab> ops = {twice_lab()};
  words.insert(words.begin(), "twice_bench");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const int code = lab_main(static_cast<int>(argv.size()), argv.data(), ops);
  std::fflush(stdout);
  std::string text = ::testing::internal::GetCapturedStdout();
  text += ::testing::internal::GetCapturedStderr();
  if (out) *out = text;
  return code;
}

/// Judged by nobody: neither right nor FASTER.
TEST(Lab, ShapesWithoutWorkAreSkipped) {
  const testing::TempFolder folder;
  const std::string json = folder / "r.json";
  std::string out;
  for (const std::string command : {"check", "time", "ab"}) {
    std::vector<std::string> words = {command,  "--device", "cpu",    "--shape", "rows=0",
                                      "--impl", "right",    "--json", json};
    EXPECT_EQ(lab(words, &out), command == "ab" ? kUndecided : kFine) << out;
    EXPECT_THAT(out, HasSubstr("SKIPPED: its outputs have no elements"));
    const Json all = Json::parse(testing::read_file(json));
    ASSERT_EQ(all["rows"].size(), 1u);
    EXPECT_EQ(all["rows"][0]["skipped"], "its outputs have no elements");
    EXPECT_EQ(all["rows"][0]["shape"], "rows=0,dim=9");
    EXPECT_TRUE(all["context"].contains("places_seed"));
  }
}

TEST(Lab, ResultsAreWrittenAsAWhole) {
  const testing::TempFolder folder;
  const std::string json = folder / "r.json";
  testing::write_file(json, "before");
  // Nothing is lost where the run ends early.
  EXPECT_TRUE(can_write(json).ok());
  EXPECT_EQ(testing::read_file(json), "before");
  EXPECT_EQ(lab({"check", "--device", "cpu", "--shape", "dim=0", "--json", json}), kUsage);
  // Text that is none is written as what can be read.
  EXPECT_EQ(lab({"check", "--device", "cpu", "--shape", "rows=5", "--json", json, "--impl",
                 "right,says_no_text,throws_an_error"}),
            kWrong);
  const Json all = Json::parse(testing::read_file(json));
  ASSERT_EQ(all["rows"].size(), 3u);
  EXPECT_EQ(all["rows"][1]["error"], "\uFFFD\uFFFD");
  EXPECT_EQ(all["rows"][2]["error"], "it threw: no \uFFFD luck");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_EQ(can_write(folder / "no/r.json").code(), Code::kInvalidArgument);
  EXPECT_TRUE(can_write("/dev/null").ok());
  EXPECT_TRUE(write_whole("/dev/null", "text").ok());
}

TEST(Lab, NumbersBelowZeroAreErrors) {
  std::string out;
  for (const char* option : {"--threads", "--soak"}) {
    EXPECT_EQ(lab({"check", "--shape", "rows=1", option, "-1"}, &out), kUsage);
    EXPECT_THAT(out, HasSubstr(option));
  }
}

/// The first launch, on NaN, against the reference.
TEST(Lab, CheckNamesTheWrongElements) {
  struct Case {
    const char* impl;
    int64_t wrong;
    const char* at;
  };
  for (const auto& [impl, wrong, at] :
       {Case{"one_element", 1, "[0, 1] = "}, Case{"does_nothing", 34 * 10, "nan, reference "},
        Case{"writes_half", 17 * 10, "nan, reference "}, Case{"infinite", 1, "[33, 8] = inf, "},
        Case{"not_a_number", 1, "nan, reference "}, Case{"second_output", 1, "output 1[0] = "},
        Case{"two_mod_four_rows", 10, "nan, reference "},
        Case{"adds_to_what_is_there", 1, "nan, reference "}}) {
    const Checked c = checked(impl, 34);
    EXPECT_TRUE(c.wrong()) << impl;
    EXPECT_EQ(c.errors.wrong, wrong) << impl;
    EXPECT_THAT(c.errors.worst_at, HasSubstr(at)) << impl;
  }
  EXPECT_TRUE(checked("above_400_rows", 401).wrong());
  EXPECT_EQ(checked("above_400_rows", 500).errors.wrong, 1);
  EXPECT_FALSE(checked("above_400_rows", 400).wrong());
}

TEST(Lab, CheckSeesWhatIsNotDoneWhenItReturns) {
  const auto s = subject(33);  // lives until the threads have ended
  EXPECT_EQ(check(*s, "returns_early", 0).errors.wrong, 33 * 10);
  for (std::thread& thread : late) thread.join();
  late.clear();
}

/// A second launch on the same inputs, with numbers in the outputs.
TEST(Lab, CheckLaunchesTwice) {
  for (const char* impl :
       {"works_once", "every_second_launch", "believes_a_number", "where_it_is_verified"}) {
    const Checked c = checked(impl);
    EXPECT_GT(c.errors.wrong, 0) << impl;
    EXPECT_THAT(c.errors.worst_at, HasSubstr("; in a second launch on the same inputs")) << impl;
  }
}

/// Larger than what the reference computes: some of the rows, and the yardstick all of them.
TEST(Lab, LargeOutputsAreHeldAgainstTheYardstick) {
  constexpr int64_t kRows = 8000, kDim = 600;
  const auto large = subject(kRows, true, kDim);
  const Checked third = check(*large, "leaves_a_third", 0);
  EXPECT_TRUE(third.wrong());
  EXPECT_THAT(third.errors.worst_at, HasSubstr("nan, "));
  const Checked row = check(*large, "one_row_of_many", 0);
  EXPECT_EQ(row.errors.wrong, 1);
  EXPECT_EQ(row.errors.other, "yardstick right");
  EXPECT_THAT(row.errors.worst_at, HasSubstr("[4321, 3] = "));
  const Checked right = check(*large, "right", 0);
  EXPECT_FALSE(right.wrong()) << right.error << right.errors.worst_at;
  EXPECT_EQ(right.errors.elements, 16 * kDim) << "rows that the reference computes";
}

/// Whoever comes first, the wrong one is blamed.
TEST(Lab, MeasureHoldsWhatIsAloneAgainstTheYardstick) {
  const std::string differs = " differs from the yardstick right in 1 of ";
  const auto s = subject(7000, true, 20);
  EXPECT_THAT(error_of(*s, "one_row_of_many"), StartsWith("one_row_of_many" + differs));
  for (const std::vector<std::string>& both :
       {std::vector<std::string>{"right", "one_row_of_many"}, {"one_row_of_many", "right"}}) {
    for (const Measured& row : measured(*s, both).rows) {
      if (row.implementation == "right")
        EXPECT_EQ(row.error, "");
      else
        EXPECT_THAT(row.error, StartsWith("one_row_of_many" + differs));
    }
  }
}

/// The reference says who is wrong of two that differ.
TEST(Lab, AYardstickThatIsWrongIsNoneAnyMore) {
  const auto s = warm_of(like_twice<Blamed>(), 7000, 20);
  EXPECT_EQ(error_of(*s, "second"), "");
  EXPECT_THAT(error_of(*s, "first"),
              StartsWith("first differs from the yardstick second in 1 of "));
}

TEST(Lab, NothingButOutputsMayBeWritten) {
  for (const auto& [impl, what] :
       {std::pair{"changes_its_input", " changed the operand x, which it only reads"},
        {"writes_behind", " wrote behind the operand y"},
        {"writes_before", " wrote before the operand largest"},
        {"writes_behind_its_workspace", " wrote behind the operand workspace"}}) {
    EXPECT_EQ(checked(impl).error, std::string(impl) + what);
    EXPECT_EQ(error_of(*subject(33), impl), std::string(impl) + what);
  }
  EXPECT_EQ(error_of(*subject(39), "writes_behind_later"),
            "writes_behind_later wrote behind the operand y");
  const auto s = std::move(cold(halve_lab())).value();
  EXPECT_EQ(check(*s, "between_rows", 0).error,
            "between_rows wrote between the rows of its output, into the operand x");
  EXPECT_FALSE(check(*s, "right", 5).wrong());
}

TEST(Lab, CheckHasZerosAndSubnormals) {
  for (const char* impl : {"flushes_to_zero", "divides"}) {
    const Checked c = checked(impl);
    EXPECT_GT(c.errors.wrong, 90) << impl;
    EXPECT_THAT(c.errors.worst_at, HasSubstr("; of operands with zeros and subnormals")) << impl;
  }
}

TEST(Lab, CheckComparesBitsOfThreads) {
  const Checked c = checked("bits_by_threads");
  EXPECT_STREQ(c.bits_word(), "different");
  EXPECT_THAT(c.bits.message(), HasSubstr(" has other bits with one thread than with 2"));
}

TEST(Lab, BitsAreNotComparedWhereNoPartIsTaken) {
  const Checked c = checked("takes_whole");
  EXPECT_FALSE(c.wrong());
  EXPECT_STREQ(c.bits_word(), "not compared");
  EXPECT_EQ(c.bits.message(), "it takes no part of the rows");
}

/// One set and places in it, picked by chance.
TEST(Lab, MeasurePoisonsPlaces) {
  for (const bool warm : {true, false}) {
    for (const char* impl : {"looks_in_places", "knows_it_is_done"})
      EXPECT_THAT(error_of(*subject(50, warm, 90), impl),
                  HasSubstr("left other values than the reference in the timed launches: "));
  }
}

TEST(Lab, WhatIsThrownIsTheRowsError) {
  for (const auto& [impl, error] : {std::pair{"throws_an_error", "it threw: no \xff luck"},
                                    {"throws_a_number", "it threw what is no std::exception"},
                                    {"throws_when_asked", "it threw: asked"},
                                    {"throws_for_scratch", "it threw what is no std::exception"}}) {
    EXPECT_EQ(checked(impl).error, error);
    const auto s = subject(33);
    const Measurement m = measured(*s, {"right", impl});
    EXPECT_EQ(m.rows[0].error, "");
    EXPECT_EQ(m.rows[1].error, error);
  }
}

/// Other contents at the same addresses, with the same first element.
TEST(Lab, CheckHasOtherContentsThatLookAlike) {
  EXPECT_GT(checked("by_address").errors.wrong, 250);
  EXPECT_GT(checked("by_first_element").errors.wrong, 250);
}

/// Rows alone, in batches and in all of it.
TEST(Lab, CheckComparesBitsOfBatches) {
  const Checked c = checked("bits_by_count");
  EXPECT_EQ(c.errors.wrong, 0);
  EXPECT_TRUE(c.wrong());
  EXPECT_STREQ(c.bits_word(), "different");
  EXPECT_THAT(c.bits.message(),
              HasSubstr("rows 0 to 0 have other bits by themselves than among all 33"));
}

TEST(Lab, SoakCatchesOneLaunchInTenThousand) {
  EXPECT_FALSE(checked("once_in_ten_thousand", 3).wrong());
  const Checked c = checked("once_in_ten_thousand", 3, 20000);
  EXPECT_TRUE(c.wrong());
  EXPECT_THAT(c.error, HasSubstr("of 20000 has other bits than the first"));
}

TEST(Lab, CheckSaysWhyNothingRan) {
  EXPECT_EQ(checked("takes_few").error, "twice: 'takes_few' on cpu does not take these arguments");
  EXPECT_FALSE(checked("takes_few", 9).wrong());
  EXPECT_THAT(checked("nobody").error, StartsWith("twice: no implementation 'nobody' on cpu; "));
  const Checked c = checked("fails_later");
  EXPECT_TRUE(c.wrong());
  EXPECT_EQ(c.error, "twice: no more");
}

TEST(Lab, MeasureVerifiesWhatItTimes) {
  EXPECT_THAT(error_of(*subject(33), "does_nothing"), HasSubstr("differs from the reference in "));
  EXPECT_THAT(error_of(*subject(33), "infinite"), HasSubstr("differs from the reference in 1 of "));
  EXPECT_EQ(error_of(*subject(33), "fails_later"), "twice: no more");
  EXPECT_EQ(error_of(*subject(33), "takes_few"),
            "twice: 'takes_few' on cpu does not take these arguments");
}

/// What the timed launches left, in the first set of operands and in the last.
TEST(Lab, MeasureLooksAtWhatTimedLaunchesLeft) {
  const char* left = "left other values than the reference in the timed launches: ";
  EXPECT_THAT(error_of(*subject(33), "where_it_is_verified"), HasSubstr(left));
  EXPECT_THAT(error_of(*subject(34), "works_once"), HasSubstr(left));
  EXPECT_THAT(error_of(*subject(35), "believes_a_number"), HasSubstr(left));
  EXPECT_THAT(error_of(*subject(64, false), "at_the_first_address"), HasSubstr(left));
  EXPECT_THAT(error_of(*subject(65), "lazy"), HasSubstr("timed launches: "));
}

TEST(Lab, InPlaceALaunchGoesOnFromWhatEarlierOnesLeft) {
  const char* goes_on =
      " differs from the reference where launches go on from what earlier ones left: ";
  EXPECT_EQ(error_of(**cold(halve_lab()), "right"), "");
  for (const std::string impl : {"knows_what_it_left", "in_the_first_set"})
    EXPECT_THAT(error_of(**cold(halve_lab()), impl), StartsWith(impl + goes_on));
}

/// The same memory in every set, with the same contents, and the reference knows.
TEST(Lab, WarmOperandsAreShared) {
  const auto s = std::move(cold(halve_lab(), {"b"})).value();
  ASSERT_GT(s->num_sets(), 1);
  const size_t open = s->open("right").value();
  seen_b.clear();
  seen_x.clear();
  for (int64_t set = 0; set < s->num_sets(); ++set) EXPECT_TRUE(s->launch(open, set).ok());
  EXPECT_EQ(seen_b.size(), 1u);
  EXPECT_EQ(std::ssize(seen_x), s->num_sets());
  EXPECT_EQ(error_of(*s, "right"), "");
  EXPECT_EQ(error_of(**cold(twice_lab(), {"x"}), "right"), "");
}

TEST(Lab, WarmOperandsMustBeInputs) {
  for (const char* name : {"y", "weight"}) {
    const auto s = cold(twice_lab(), {name});
    ASSERT_FALSE(s.ok()) << name;
    EXPECT_EQ(s.error().message(),
              "--warm-operand must be an input: x; got '" + std::string(name) + "'");
  }
}

TEST(Lab, SetsTakeAShareOfWhatIsFree) {
  EXPECT_GT(machine().bytes_for_sets(), 0);
  EXPECT_LE(machine().bytes_for_sets(), int64_t{1} << 30);
  // As many as the cache wants, as the memory has, but two.
  const Cost cost = {.bytes = 1000};
  EXPECT_EQ(number_of_sets(cost, 1000, 20000, int64_t{1} << 30), 100);
  EXPECT_EQ(number_of_sets(cost, 1000, 20000, 8000), 8);
  EXPECT_EQ(number_of_sets(cost, 1000, 20000, 1000), 2);
}

TEST(Lab, MeasureVerifiesAfterwardsWithOtherContents) {
  for (const char* impl : {"by_address", "by_first_element"})
    EXPECT_THAT(error_of(*subject(37), impl),
                StartsWith("after it was timed: " + std::string(impl) + " differs"));
}

TEST(Lab, MeasureKnowsWhatIsTooFastToBeTrue) {
  const std::string error = error_of(*warm_of(like_twice<Overstated>(), 2000, 500), "right");
  EXPECT_THAT(error, StartsWith("after it was timed: took "));
  EXPECT_THAT(error, HasSubstr("times as fast as the measured roof: it does not do the work"));
}

TEST(Lab, MeasureHasARowForEachAndAControl) {
  const auto s = subject(500);
  const Measurement m = measured(*s, {"right", "does_nothing", "reference"});
  ASSERT_EQ(m.rows.size(), 3u);
  EXPECT_EQ(m.rows[0].implementation, "right");
  EXPECT_EQ(m.rows[0].error, "");
  EXPECT_FALSE(m.rows[0].ratio);
  EXPECT_NE(m.rows[1].error, "");
  EXPECT_FALSE(m.rows[1].ratio);
  ASSERT_TRUE(m.rows[2].ratio);
  EXPECT_GT(m.rows[2].ratio->value, 0);
  ASSERT_TRUE(m.control);
  EXPECT_LE(m.control->low, m.control->high);
  for (const size_t i : {size_t{0}, size_t{2}}) {
    EXPECT_GT(m.rows[i].seconds.value, 0);
    EXPECT_LE(m.rows[i].seconds.low, m.rows[i].seconds.value);
    EXPECT_GE(m.rows[i].seconds.high, m.rows[i].seconds.value);
  }
}

TEST(Lab, WithoutAFirstThereIsNothingToCompareWith) {
  const auto s = subject(500);
  const Measurement m = measured(*s, {"does_nothing", "right"});
  EXPECT_NE(m.rows[0].error, "");
  EXPECT_EQ(m.rows[1].error, "");
  EXPECT_FALSE(m.rows[1].ratio);
  EXPECT_FALSE(m.control);
  EXPECT_GT(m.rows[1].seconds.value, 0);
}

TEST(Lab, ByItselfHasBurstAndControl) {
  const auto s = subject(500);
  const std::vector<std::string> impls = {"right"};
  const Measurement m =
      measure(machine(), *s, Unit::kF32, impls, {.settle = 0.01, .seconds = 0.05});
  EXPECT_EQ(m.rows[0].error, "");
  EXPECT_GT(m.rows[0].burst, 0);
  EXPECT_GT(m.rows[0].itself.value, 0);
  EXPECT_GT(m.rows[0].seconds.value, 0);
}

TEST(Errors, WhatIsNotFiniteHasToBeTheSame) {
  const auto wrong = [](float got, float want) {
    const Tensor t(nullptr, DType::kF32, {1});
    return compare_values({got}, {want}, t, {.rel = 0.1}).wrong;
  };
  EXPECT_EQ(wrong(INFINITY, INFINITY), 0);
  EXPECT_EQ(wrong(NAN, NAN), 0);
  EXPECT_EQ(wrong(1.05f, 1), 0);
  EXPECT_EQ(wrong(1.2f, 1), 1);
  EXPECT_EQ(wrong(42, INFINITY), 1);
  EXPECT_EQ(wrong(-INFINITY, INFINITY), 1);
  EXPECT_EQ(wrong(INFINITY, 42), 1);
  EXPECT_EQ(wrong(NAN, 1), 1);
  EXPECT_EQ(wrong(1, NAN), 1);
}

TEST(Errors, CountsStepsOfTheDtype) {
  const Tensor t(nullptr, DType::kBF16, {5});
  const float step = 0x1p-7f;
  const Errors e = compare_values({1, 1 + step, 1 + 2 * step, 1 + 4 * step, -1}, {1, 1, 1, 1, 1}, t,
                                  {.rel = 0.02});
  EXPECT_EQ(e.elements, 5);
  EXPECT_EQ(e.wrong, 2);
  EXPECT_EQ(e.ulps[0], 1);
  EXPECT_EQ(e.ulps[1], 1);
  EXPECT_EQ(e.ulps[2], 1);
  EXPECT_EQ(e.ulps[3], 1);
  EXPECT_EQ(e.ulps.back(), 1);
  EXPECT_DOUBLE_EQ(e.max_abs, 2);
  EXPECT_DOUBLE_EQ(e.worst, 100);
  EXPECT_THAT(e.worst_at, StartsWith("[4] = -1, reference 1, 100 tolerances"));
}

TEST(Operands, RefilledAreThoseOfTheSeed) {
  HostOperands operands, other(7);
  const auto make = [](Operands& o) {
    return std::array{o.random("a", {100}), o.output("b", {100}), o.random("c", {50}, DType::kBF16),
                      o.random("d", {50}, DType::kU8)};
  };
  const auto refilled = make(operands), made = make(other);
  refilled[1].as<float>()[3] = 1;
  operands.refill(7);
  for (size_t i = 0; i < made.size(); ++i)
    EXPECT_EQ(std::memcmp(refilled[i].data, made[i].data, static_cast<size_t>(made[i].bytes())), 0)
        << i;
  const float first = made[0].as<float>()[0], second = made[0].as<float>()[1];
  operands.refill(8);
  EXPECT_EQ(refilled[0].as<float>()[0], first);
  EXPECT_NE(refilled[0].as<float>()[1], second);
  operands.poison_outputs(Poison::kNumbers);
  EXPECT_TRUE(std::isfinite(refilled[1].as<float>()[3]));
  operands.poison_outputs();
  EXPECT_TRUE(std::isnan(refilled[1].as<float>()[3]));
}

}  // namespace
}  // namespace vlr::bench
