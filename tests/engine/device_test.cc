// The engine's device: names, memory under a cap, the CPU as a device.
#include "engine/runtime/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace vlr {
namespace {

using ::testing::HasSubstr;

TEST(DeviceSpec, Parses) {
  EXPECT_EQ(DeviceSpec::parse("cpu")->kind, Device::kCpu);
  EXPECT_TRUE(DeviceSpec::parse("auto"));
  for (const char* wrong : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x"}) {
    const auto spec = DeviceSpec::parse(wrong);
    ASSERT_FALSE(spec) << wrong;
    EXPECT_EQ(spec.error().code(), Code::kInvalidArgument) << wrong;
    EXPECT_THAT(spec.error().message(), HasSubstr("auto, cpu, cuda or cuda:N"));
  }
  EXPECT_FALSE(DeviceSpec::parse("cuda:99"));
}

TEST(MemoryBudget, KeepsItsCapAndNamesTheLargestParts) {
  MemoryBudget budget(1000);
  EXPECT_TRUE(budget.take("weights", 600).ok());
  EXPECT_TRUE(budget.take("arena", 300).ok());
  const Status refused = budget.take("features", 101);
  EXPECT_EQ(refused.code(), Code::kOutOfMemory);
  EXPECT_THAT(refused.message(), HasSubstr("features wants"));
  EXPECT_THAT(refused.message(), HasSubstr("the cap is"));
  EXPECT_LT(refused.message().find("weights"), refused.message().find("arena"));
  EXPECT_EQ(budget.used(), 900);
  budget.give("arena", 300);
  EXPECT_EQ(budget.used(), 600);
  EXPECT_EQ(budget.peak(), 900);
  EXPECT_TRUE(budget.take("features", 400).ok());
}

TEST(Buffer, GrowsAndGivesBack) {
  MemoryBudget budget(4096);
  {
    Buffer b(Buffer::Place::kHost, &budget, "test");
    EXPECT_TRUE(b.reserve(100).ok());
    EXPECT_EQ(b.size(), 256);  // rounded up
    EXPECT_TRUE(b.reserve(50).ok());
    EXPECT_EQ(budget.used(), 256);
    EXPECT_TRUE(b.reserve(1000).ok());
    EXPECT_EQ(budget.used(), 1024);
    EXPECT_EQ(b.reserve(1 << 20).code(), Code::kOutOfMemory);
    EXPECT_EQ(budget.used(), 0);  // growing gave the old memory up
    EXPECT_TRUE(b.reserve(1).ok());
    const Buffer moved = std::move(b);
    EXPECT_EQ(budget.used(), 256);
  }
  EXPECT_EQ(budget.used(), 0);
}

TEST(MemoryBudget, TellsOfEveryChangeInItsThread) {
  MemoryBudget budget(1000, "host memory");
  std::vector<std::pair<std::string, int64_t>> seen;
  budget.on_change([&](std::string_view purpose) {
    seen.emplace_back(purpose, budget.bytes(purpose));  // it may be read
  });
  EXPECT_TRUE(budget.take("inputs", 300).ok());
  EXPECT_TRUE(budget.take("pages", 200).ok());
  EXPECT_TRUE(budget.take("inputs", 100).ok());
  budget.give("pages", 200);
  EXPECT_THAT(budget.take("pages", 5000).message(), ::testing::StartsWith("host memory: pages"));
  EXPECT_EQ(seen, (std::vector<std::pair<std::string, int64_t>>{
                      {"inputs", 300}, {"pages", 200}, {"inputs", 400}, {"pages", 0}}));
  EXPECT_EQ(budget.bytes("nothing"), 0);
}

TEST(MemoryBudget, AnyThread) {
  MemoryBudget budget;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&budget, purpose = std::to_string(t)] {
      for (int i = 0; i < 1000; ++i) {
        EXPECT_TRUE(budget.take(purpose, 2).ok());
        budget.give(purpose, 1);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(budget.used(), 4000);
  for (const auto& [purpose, bytes] : budget.parts()) EXPECT_EQ(bytes, 1000) << purpose;
}

TEST(OpenDevice, CountsItsMemoryAndTheHostsBesideIt) {
  ThreadPool threads(1);
  const ImplChoices choices;
  auto device = OpenDevice::open({}, true, threads, choices);
  ASSERT_TRUE(device);
  {
    Buffer memory = (*device)->memory("arena"), staging = (*device)->staging("inputs");
    EXPECT_TRUE(memory.reserve(1000).ok());
    EXPECT_TRUE(staging.reserve(500).ok());
    EXPECT_EQ((*device)->budget().parts(), (MemoryBudget::Parts{{"arena", 1024}}));
    EXPECT_EQ((*device)->host_budget().parts(), (MemoryBudget::Parts{{"inputs", 512}}));
  }
  EXPECT_EQ((*device)->budget().used(), 0);
  EXPECT_EQ((*device)->host_budget().used(), 0);
  EXPECT_EQ((*device)->host_budget().peak(), 512);
}

TEST(OpenDevice, TheCpuDoesEverythingAtOnce) {
  ThreadPool threads(1);
  const ImplChoices choices;
  auto device = OpenDevice::open({}, true, threads, choices);
  ASSERT_TRUE(device);
  OpenDevice& cpu = **device;
  EXPECT_EQ(cpu.name(), "cpu");
  int from = 7, to = 0;
  EXPECT_TRUE(cpu.copy(&to, &from, sizeof(int)).ok());
  EXPECT_EQ(to, 7);
  EXPECT_TRUE(cpu.fill(&to, 0, sizeof(int)).ok());
  EXPECT_EQ(to, 0);
  const auto before = cpu.mark(true), after = cpu.mark(true);
  ASSERT_TRUE(before && after);
  EXPECT_TRUE(cpu.wait(*after).ok());
  EXPECT_GE(*cpu.seconds_between(*before, *after), 0);
  EXPECT_EQ(cpu.card_memory().error().code(), Code::kUnimplemented);
}

}  // namespace
}  // namespace vlr
