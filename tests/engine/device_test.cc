// The engine's device: names, memory under a cap, the CPU as a device.
#include "engine/runtime/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
