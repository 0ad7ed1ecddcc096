#include "engine/runtime/arena.h"
#include "kernels/core/integer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace vlr {
namespace {

int64_t aligned(int64_t bytes) { return round_up(bytes, kArenaAlignment); }

bool together(const Lifetime& a, const Lifetime& b) {
  return a.first <= b.last && b.first <= a.last;
}

/// No plan can do with less: the most bytes that are in use at one step.
int64_t peak(const std::vector<Lifetime>& lives) {
  int64_t most = 0;
  for (const Lifetime& at : lives) {  // a peak starts where some life starts
    int64_t sum = 0;
    for (const Lifetime& l : lives) {
      if (l.first <= at.first && at.first <= l.last) sum += aligned(l.bytes);
    }
    most = std::max(most, sum);
  }
  return most;
}

void expect_sound(const ArenaPlan& plan, const std::vector<Lifetime>& lives) {
  ASSERT_EQ(plan.offsets.size(), lives.size());
  for (size_t i = 0; i < lives.size(); ++i) {
    EXPECT_GE(plan.offsets[i], 0);
    EXPECT_EQ(plan.offsets[i] % kArenaAlignment, 0) << "block " << i;
    EXPECT_LE(plan.offsets[i] + lives[i].bytes, plan.bytes) << "block " << i;
    for (size_t j = 0; j < i; ++j) {
      const bool apart = plan.offsets[i] + lives[i].bytes <= plan.offsets[j] ||
                         plan.offsets[j] + lives[j].bytes <= plan.offsets[i];
      EXPECT_TRUE(apart || !together(lives[i], lives[j])) << "blocks " << i << " and " << j;
    }
  }
}

/// Random sizes, most of them small, and lives, most of them short, as a graph has them.
std::vector<Lifetime> random_lives(uint32_t seed) {
  std::mt19937 rng(seed);
  const auto below = [&](uint32_t n) { return static_cast<int32_t>(rng() % n); };
  std::vector<Lifetime> lives(static_cast<size_t>(1 + below(120)));
  for (Lifetime& l : lives) {
    l.bytes = below(4) == 0 ? below(1 << 20) : below(4096);
    l.first = below(100);
    l.last = l.first + (below(8) == 0 ? below(100) : below(5));
  }
  return lives;
}

TEST(Arena, RandomLivesNeverOverlap) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const std::vector<Lifetime> lives = random_lives(seed);
    const ArenaPlan plan = plan_arena(lives);
    expect_sound(plan, lives);
    EXPECT_GE(aligned(plan.bytes), peak(lives));
    EXPECT_LE(plan.bytes, peak(lives) * 3 / 2);
    EXPECT_EQ(plan_arena(lives).offsets, plan.offsets);
    if (HasFailure()) break;
  }
}

TEST(Arena, NothingToPlan) {
  const ArenaPlan plan = plan_arena({});
  EXPECT_TRUE(plan.offsets.empty());
  EXPECT_EQ(plan.bytes, 0);
}

TEST(Arena, EmptyBlocksTakeNoRoom) {
  const std::vector<Lifetime> lives = {{0, 0, 9}, {100, 0, 9}, {0, 3, 4}};
  const ArenaPlan plan = plan_arena(lives);
  expect_sound(plan, lives);
  EXPECT_EQ(plan.bytes, 100);
}

TEST(Arena, AStepSharedIsAStepTogether) {
  EXPECT_EQ(plan_arena(std::vector<Lifetime>{{256, 0, 1}, {256, 1, 2}}).bytes, 512);
  EXPECT_EQ(plan_arena(std::vector<Lifetime>{{256, 0, 1}, {256, 2, 3}}).bytes, 256);
}

// Every node reads the one value before it: two places suffice for a hundred values.
TEST(Arena, AChainNeedsTwoPlaces) {
  std::vector<Lifetime> lives;
  for (int32_t i = 0; i < 100; ++i) lives.push_back({1000, i, i + 1});
  const ArenaPlan plan = plan_arena(lives);
  expect_sound(plan, lives);
  EXPECT_EQ(plan.bytes, 1024 + 1000);
}

TEST(Arena, ASmallBlockGoesIntoAGap) {
  // Two large ones stand at 0 and 4096; when the first is gone, the small one takes its place.
  const std::vector<Lifetime> lives = {{4096, 0, 1}, {4000, 0, 3}, {512, 2, 3}, {512, 2, 3}};
  const ArenaPlan plan = plan_arena(lives);
  expect_sound(plan, lives);
  EXPECT_EQ(plan.offsets, (std::vector<int64_t>{0, 4096, 0, 512}));
  EXPECT_EQ(plan.bytes, 8096);
}

TEST(Arena, SizesBeyond32Bits) {
  const int64_t large = int64_t{5} << 30;
  const std::vector<Lifetime> lives = {{large, 0, 2}, {large, 1, 3}, {large, 3, 4}};
  const ArenaPlan plan = plan_arena(lives);
  expect_sound(plan, lives);
  EXPECT_EQ(plan.bytes, 2 * large);
}

}  // namespace
}  // namespace vlr
