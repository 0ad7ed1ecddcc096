// Rows of the prefix memory: handed out, found again, given up in the order of use.
#include "engine/scheduling/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace vlr {
namespace {

TEST(PrefixCache, FindsWhatWasAddedUntilItIsReset) {
  PrefixCache cache;
  EXPECT_FALSE(cache.add({{.key = "a", .tokens = 1}}));  // no capacity yet
  cache.reset(100);
  EXPECT_EQ(cache.add({{.key = "a", .tokens = 10}, {.key = "b", .tokens = 20}}), 0);
  EXPECT_EQ(cache.add({{.key = "c", .tokens = 5}}), 30);
  EXPECT_EQ(cache.rows_used(), 35);
  ASSERT_TRUE(cache.find("b"));
  EXPECT_EQ(cache.find("b")->row, 10);
  EXPECT_EQ(cache.find("b")->tokens, 20);
  EXPECT_FALSE(cache.find("d"));
  cache.reset(100);
  EXPECT_FALSE(cache.find("a"));
}

TEST(PrefixCache, GivesUpTheLeastRecentlyUsedBlockThatIsNotPinned) {
  PrefixCache cache;
  cache.reset(30);
  for (const char* key : {"a", "b", "c"}) EXPECT_TRUE(cache.add({{.key = key, .tokens = 10}}));
  EXPECT_FALSE(cache.add({{.key = "d", .tokens = 10}}));  // all are pinned
  cache.unpin_all();
  EXPECT_TRUE(cache.find("a"));                            // used, and pinned
  EXPECT_EQ(cache.add({{.key = "d", .tokens = 10}}), 10);  // where b was
  EXPECT_FALSE(cache.find("b"));
  EXPECT_TRUE(cache.find("a"));
  EXPECT_TRUE(cache.find("c"));
  EXPECT_FALSE(cache.add({{.key = "e", .tokens = 31}}));
}

TEST(PrefixCache, BlocksNeverOverlap) {
  std::mt19937 rng(1);
  PrefixCache cache;
  cache.reset(200);
  std::map<std::string, PrefixCache::Entry> added;
  for (int step = 0; step < 2000; ++step) {
    cache.unpin_all();
    std::vector<PrefixCache::Prefix> block;
    for (int n = 1 + static_cast<int>(rng() % 3); n > 0; --n)
      block.push_back({.key = std::to_string(step) + "/" + std::to_string(n),
                       .tokens = 1 + static_cast<int64_t>(rng() % 40)});
    const auto row = cache.add(block);
    ASSERT_TRUE(row);
    std::vector<int> owner(200, 0);
    for (const auto& p : block) added[p.key] = {};
    for (auto& [key, unused] : added) {
      const auto entry = cache.find(key);
      if (!entry) continue;
      for (int64_t r = entry->row; r < entry->row + entry->tokens; ++r)
        ASSERT_EQ(owner[static_cast<size_t>(r)]++, 0) << key;
    }
  }
}

}  // namespace
}  // namespace vlr
