// What a loop's body throws comes out of the loop, once all of it has ended.
#include "kernels/core/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>

namespace vlr {
namespace {

TEST(ThreadPool, ThrowsWhatABodyThrewAndGoesOn) {
  for (const int num_threads : {1, 4}) {
    ThreadPool pool(num_threads);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> ran = 0;
      try {
        pool.parallel_for(100, [&](int64_t i, int) {
          ++ran;
          if (i == 7 || i == 60) throw std::runtime_error(std::to_string(i));
        });
        FAIL() << "nothing was thrown";
      } catch (const std::runtime_error& e) {
        EXPECT_TRUE(e.what() == std::string("7") || e.what() == std::string("60"));
      }
      EXPECT_EQ(ran, num_threads == 1 ? 8 : 100);
      std::atomic<int64_t> sum = 0;
      pool.parallel_for(100, [&](int64_t i, int) { sum += i; });
      EXPECT_EQ(sum, 4950);
    }
  }
}

}  // namespace
}  // namespace vlr
