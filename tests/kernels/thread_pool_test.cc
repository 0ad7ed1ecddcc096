// What a loop's body throws comes out of the loop, once all of it has ended; how many threads there
// are, and what they leave to the host.
#include "kernels/core/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "kernels/core/cpus.h"
#include "tests/support/temp_folder.h"

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

TEST(ThreadPool, WorkersAreNamedAndTakeNoSignals) {
  ThreadPool pool(3);
  ASSERT_EQ(pool.num_threads(), 3);
  EXPECT_EQ(pool.shortage(), "");
  std::atomic<int> workers = 0;
  for (int round = 0; round < 100 && workers == 0; ++round) {
    pool.parallel_for(200, [&](int64_t, int thread) {
      sched_yield();
      if (thread == 0) return;
      ++workers;
      char name[16];
      ASSERT_EQ(pthread_getname_np(pthread_self(), name, sizeof name), 0);
      EXPECT_STREQ(name, "vlr-worker");
      sigset_t blocked;
      ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &blocked), 0);
      for (const int signal : {SIGTERM, SIGINT, SIGCHLD, SIGUSR1})
        EXPECT_TRUE(sigismember(&blocked, signal));
      EXPECT_FALSE(sigismember(&blocked, SIGSEGV));  // a crash handler's
    });
  }
  EXPECT_GT(workers, 0);
  sigset_t mine;
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &mine), 0);
  EXPECT_FALSE(sigismember(&mine, SIGTERM));
}

TEST(ThreadPool, SaysThatThereAreFewerThreadsThanWereAskedFor) {
  ThreadPool pool(2'000'000'000);
  EXPECT_LE(pool.num_threads(), ThreadPool::kMaxThreads);
  EXPECT_THAT(pool.shortage(), ::testing::HasSubstr("threads instead of 2000000000: "));
  std::atomic<int64_t> sum = 0;
  pool.parallel_for(100, [&](int64_t i, int) { sum += i; });
  EXPECT_EQ(sum, 4950);
}

TEST(Cpus, AreThoseOfTheAffinity) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const int cpus = usable_cpus();
  EXPECT_GE(cpus, 1);
  EXPECT_LE(cpus, CPU_COUNT(&before));
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cpus(), 1);
  EXPECT_EQ(ThreadPool().num_threads(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(Cpus, QuotasOfControlGroups) {
  const testing::TempFolder mount;
  const auto write = [&](const std::string& path, const std::string& text) {
    const std::filesystem::path file = mount / path;
    std::filesystem::create_directories(file.parent_path());
    testing::write_file(file.string(), text);
  };
  const auto quota = [&](std::string_view groups) { return cpu_quota(groups, mount.path()); };
  EXPECT_EQ(quota("0::/\n"), 0);  // no files
  write("pod/job/cpu.max", "max 100000\n");
  EXPECT_EQ(quota("0::/pod/job\n"), 0);
  write("pod/cpu.max", "250000 100000\n");  // of the group around it
  EXPECT_EQ(quota("0::/pod/job\n"), 3);
  write("pod/job/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota("0::/pod/job\n"), 1);
  EXPECT_EQ(quota("0::/pod/elsewhere\n"), 3);
  write("cpu.max", "200000 100000\n");  // of a container, whose root its group is
  EXPECT_EQ(quota("0::/\n"), 2);
  EXPECT_EQ(quota("0::/pod/job"), 1);
  // Version 1: a hierarchy a controller; -1 is none.
  write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  write("cpu,cpuacct/job/cpu.cfs_quota_us", "410000\n");
  write("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota("4:cpu,cpuacct:/job\n2:memory:/x\n"), 5);
  EXPECT_EQ(quota("3:cpuset:/job\n"), 0);
  EXPECT_EQ(quota("nonsense\n::\n\n"), 2);  // an empty path is the root
  EXPECT_EQ(quota(""), 0);
}

}  // namespace
}  // namespace vlr
