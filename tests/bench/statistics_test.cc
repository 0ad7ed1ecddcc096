// What is said of samples of which the truth is known.
#include "bench/support/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "bench/support/lab.h"

namespace vlr::bench {
namespace {

using Samples = std::vector<double>;

/// Noise of a deviation of `share`; with `memory` a part of each value is the one before.
class Noise {
 public:
  Noise(uint64_t seed, double share, double memory = 0)
      : rng_(seed), share_(share), memory_(memory), last_(normal_(rng_)) {}
  double next() {
    last_ = memory_ * last_ + std::sqrt(1 - memory_ * memory_) * normal_(rng_);
    return 1 + share_ * last_;
  }

 private:
  std::mt19937_64 rng_;
  std::normal_distribution<double> normal_;
  double share_, memory_, last_;
};

/// Baseline, itself again and a candidate, taken side by side while the machine slows down by a
/// fifth.
struct Run {
  Samples a, again, b;
};
constexpr size_t kSamples = 100;
Run run(uint64_t seed, double ratio, double share, double memory = 0) {
  Noise of_a(3 * seed, share, memory), of_again(3 * seed + 1, share, memory),
      of_b(3 * seed + 2, share, memory);
  Run r;
  for (size_t i = 0; i < kSamples; ++i) {
    const double drift = 1 + 0.2 * static_cast<double>(i) / kSamples;
    r.a.push_back(drift * of_a.next());
    r.again.push_back(drift * of_again.next());
    r.b.push_back(ratio * drift * of_b.next());
  }
  return r;
}

constexpr int kSeeds = 200;
struct Count {
  int verdicts[4] = {};  // by Verdict
  int held = 0;          // intervals that hold the true ratio
  int of(Verdict v) const { return verdicts[static_cast<int>(v)]; }
};
Count count(double ratio, double share, double memory = 0) {
  Count out;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Run r = run(seed, ratio, share, memory);
    const Interval i = ratio_interval(r.a, r.b);
    ++out.verdicts[static_cast<int>(judge(i, ratio_interval(r.a, r.again), 0.01))];
    out.held += i.holds(ratio);
  }
  return out;
}

TEST(Statistics, Medians) {
  EXPECT_EQ(median(Samples{}), 0);
  EXPECT_EQ(median(Samples{3}), 3);
  EXPECT_EQ(median(Samples{5, 1, 3}), 3);
  EXPECT_EQ(median(Samples{5, 1, 3, 4}), 3.5);
}

TEST(Statistics, AnIntervalIsAroundItsValueAndTheSameEachTime) {
  Noise noise(1, 0.01);
  Samples s;
  for (int i = 0; i < 101; ++i) s.push_back(noise.next());
  const Interval i = median_interval(s), again = median_interval(s);
  EXPECT_EQ(i.value, median(s));
  EXPECT_LE(i.low, i.value);
  EXPECT_GE(i.high, i.value);
  EXPECT_LT(i.low, i.high);
  EXPECT_EQ(i.low, again.low);
  EXPECT_EQ(i.high, again.high);
  EXPECT_DOUBLE_EQ(i.spread(), (i.high - i.low) / 2 / i.value);
  EXPECT_TRUE(i.holds(i.low) && i.holds(i.value) && !i.holds(i.high + 1e-9));
  const Interval one = median_interval(Samples{7});
  EXPECT_TRUE(one.low == 7 && one.value == 7 && one.high == 7);
  EXPECT_EQ(median_interval(Samples{}).value, 0);
  // A ratio is of what was taken side by side, of the shorter row.
  const Interval twice = ratio_interval(Samples{1, 2, 3, 4}, Samples{2, 4, 6});
  EXPECT_TRUE(twice.low == 2 && twice.value == 2 && twice.high == 2);
}

TEST(Statistics, ATimeAndARatioStayAboveZero) {
  Samples a, b;
  for (int i = 0; i < 12; ++i) {
    a.push_back(1);
    b.push_back(i % 2 == 0 ? 0.1 : 4);
  }
  const Interval ratio = ratio_interval(a, b);
  EXPECT_GT(ratio.low, 0);
  EXPECT_LT(ratio.low, 0.1) << "wider than what was drawn";
  EXPECT_GT(ratio.high, 4);
}

TEST(Statistics, AMedianIsHeldByNineIntervalsOfTen) {
  for (const double memory : {0.0, 0.5}) {
    int held = 0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      Noise noise(seed, 0.01, memory);
      Samples s;
      for (size_t i = 0; i < kSamples; ++i) s.push_back(noise.next());
      held += median_interval(s).holds(1);
    }
    EXPECT_GE(held, kSeeds * 90 / 100) << memory;
  }
}

TEST(Statistics, TheSameIsTheSame) {
  const Count c = count(1, 0.01);
  EXPECT_LE(c.of(Verdict::kFaster) + c.of(Verdict::kSlower), kSeeds * 5 / 100);
  EXPECT_GE(c.of(Verdict::kSame), kSeeds * 90 / 100);
  EXPECT_GE(c.held, kSeeds * 90 / 100);
}

TEST(Statistics, ThreePercentAreSeenThroughADriftOfTwenty) {
  const Count slower = count(1.03, 0.01), faster = count(0.97, 0.01);
  EXPECT_GE(slower.of(Verdict::kSlower), kSeeds * 95 / 100);
  EXPECT_GE(faster.of(Verdict::kFaster), kSeeds * 95 / 100);
  EXPECT_EQ(slower.of(Verdict::kFaster) + slower.of(Verdict::kSame), 0);
  EXPECT_EQ(faster.of(Verdict::kSlower) + faster.of(Verdict::kSame), 0);
  EXPECT_GE(slower.held, kSeeds * 90 / 100);
  EXPECT_GE(faster.held, kSeeds * 90 / 100);
}

TEST(Statistics, NeighboursThatAreAlikeAreNotTakenForMoreSamples) {
  const Count same = count(1, 0.01, 0.5), slower = count(1.03, 0.01, 0.5);
  EXPECT_LE(same.of(Verdict::kFaster) + same.of(Verdict::kSlower), kSeeds * 5 / 100);
  EXPECT_EQ(slower.of(Verdict::kFaster) + slower.of(Verdict::kSame), 0);
  EXPECT_GE(same.held, kSeeds * 90 / 100);
  EXPECT_GE(slower.held, kSeeds * 90 / 100);
}

TEST(Statistics, InMuchNoiseNothingWrongIsSaid) {
  const Count same = count(1, 0.05), slower = count(1.03, 0.05), faster = count(0.97, 0.05);
  EXPECT_LE(same.of(Verdict::kFaster) + same.of(Verdict::kSlower), kSeeds * 5 / 100);
  EXPECT_EQ(slower.of(Verdict::kFaster) + slower.of(Verdict::kSame), 0);
  EXPECT_EQ(faster.of(Verdict::kSlower) + faster.of(Verdict::kSame), 0);
  EXPECT_GE(same.held, kSeeds * 90 / 100);
}

TEST(Statistics, JudgesByMarginAndControl) {
  const Interval quiet = {1, 0.999, 1.001}, noisy = {1, 0.97, 1.02};
  const auto at = [](double v) { return Interval{v, v - 0.002, v + 0.002}; };
  EXPECT_EQ(judge(at(1), quiet, 0.01), Verdict::kSame);
  EXPECT_EQ(judge(at(1.009), quiet, 0.01), Verdict::kUndecided);
  EXPECT_EQ(judge(at(1.013), quiet, 0.01), Verdict::kSlower);
  EXPECT_EQ(judge(at(0.98), quiet, 0.01), Verdict::kFaster);
  EXPECT_EQ(judge(at(0.98), noisy, 0.01), Verdict::kUndecided);
  EXPECT_EQ(judge(at(1), noisy, 0.01), Verdict::kUndecided);
  EXPECT_EQ(judge(at(1.1), noisy, 0.01), Verdict::kSlower);
  EXPECT_EQ(judge({1, 0.9, 1.1}, quiet, 0.01), Verdict::kUndecided);
}

TEST(Statistics, ExitCodesAreOfTheWorst) {
  using V = Verdict;
  const auto code = [](std::vector<Verdict> v) { return exit_code(v); };
  EXPECT_EQ(code({V::kFaster, V::kSame}), 0);
  EXPECT_EQ(code({V::kSame, V::kSame}), 3);
  EXPECT_EQ(code({V::kFaster, V::kUndecided, V::kSlower}), 4);
  EXPECT_EQ(code({V::kFaster, V::kUndecided}), 5);
  EXPECT_EQ(code({}), 5);
  // A model that is slower contradicts an op that is faster.
  const std::vector<Verdict> faster = {V::kFaster}, same = {V::kSame}, slower = {V::kSlower};
  const std::vector<Verdict> in_model = {V::kSame, V::kSlower};
  EXPECT_EQ(exit_code(faster, in_model), 5);
  EXPECT_EQ(exit_code(faster, same), 0);
  EXPECT_EQ(exit_code(same, in_model), 3);
  EXPECT_EQ(exit_code(slower, faster), 4);
  for (const auto& [v, name] : {std::pair{V::kFaster, "FASTER"},
                                {V::kSlower, "SLOWER"},
                                {V::kSame, "SAME"},
                                {V::kUndecided, "UNDECIDED"}})
    EXPECT_EQ(verdict_name(v), name);
}

}  // namespace
}  // namespace vlr::bench
