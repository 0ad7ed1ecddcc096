// The workloads of vlr bench: their sizes, their cost, and that what they run is what the engine
// promises.
#include "tools/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/runtime/safetensors.h"
#include "engine/weights/weight_store.h"
#include "model/synthetic.h"
#include "model/weight_plan.h"

namespace vlr::tools {
namespace {

TEST(Workload, Sizes) {
  const auto text100 = workloads_of("text100", true);
  ASSERT_EQ(text100.size(), 2u);
  EXPECT_EQ(text100[0].name, "text100");
  EXPECT_EQ(text100[0].pairs(), 100);
  EXPECT_EQ(text100[0].tokens(), 15140);
  EXPECT_EQ(text100[0].tokens_run(), 15140 - 99 * 60);
  EXPECT_EQ(text100[1].name, "text100_whole");
  EXPECT_EQ(text100[1].tokens_run(), 15140);
  ASSERT_EQ(workloads_of("text100", false).size(), 1u);
  EXPECT_EQ(workloads_of("text100", false)[0].name, "text100_whole");

  const auto long_pair = workloads_of("1x32768", true);
  ASSERT_EQ(long_pair.size(), 1u);
  EXPECT_THAT(long_pair[0].lengths, ::testing::ElementsAre(32768));
  const auto equal = workloads_of("32x512", true);
  EXPECT_EQ(equal[0].pairs(), 32);
  EXPECT_EQ(equal[0].tokens(), 32 * 512);
  const auto images = workloads_of("images8", true);
  EXPECT_EQ(images[0].patches(), 8 * 4800);
  EXPECT_EQ(images[0].tokens(), 8 * 1280);
}

TEST(Workload, ModelFlops) {
  const auto config = synthetic_config("8b");
  ASSERT_TRUE(config);
  // One token: the linear layers, by hand, and attention to itself.
  const double q = 32 * 128, kv = 8 * 128, c = 4096, f = 12288;
  const double one = 36 * (2 * c * (2 * q + 2 * kv + 3 * f) + 4 * q);
  WorkloadSpec spec{.name = "1x1", .lengths = {1}};
  EXPECT_DOUBLE_EQ(model_flops(spec, *config), one);
  // What is shared counts for every pair.
  const auto text100 = workloads_of("text100", true);
  EXPECT_DOUBLE_EQ(model_flops(text100[0], *config), model_flops(text100[1], *config));
  // A row of images costs as many times one.
  EXPECT_DOUBLE_EQ(model_flops(workloads_of("images8", true)[0], *config),
                   8 * model_flops(workloads_of("images1", true)[0], *config));
}

/// The demo model, without its tokenizer.
class WorkloadRun : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string folder = VLR_SOURCE_DIR "/demo/model";
    auto checkpoint = Checkpoint::open(folder);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    config_ = *read_config(folder + "/config.json");
    const auto plan = make_weight_plan(config_, checkpoint->tensors());
    ASSERT_TRUE(plan) << plan.error().message();
    weights_ = *WeightStore::load(*std::move(checkpoint), *plan);
    device_ = *OpenDevice::open({}, true, threads_, choices_);
    runner_ = *ModelRunner::create(
        config_, [this](std::string_view name) { return weights_.get(name); }, *device_, {}, {});
  }
  std::vector<float> run(WorkloadSpec spec) {
    const BatchLimits limits{.tokens = 128,  // several batches
                             .sequences = 8,
                             .patches = 2048,
                             .visual_rows = 4096,
                             .prefix_rows = 1024,
                             .max_prefix_rows = 1024,
                             .max_sequence = 4096};
    auto work = Work::create(std::move(spec), config_, *runner_, limits);
    EXPECT_TRUE(work) << work.error().message();
    EXPECT_TRUE(work->fits().ok());
    auto log_odds = work->run();
    EXPECT_TRUE(log_odds) << log_odds.error().message();
    return *std::move(log_odds);
  }

  ThreadPool threads_{2};
  ImplChoices choices_;
  ModelConfig config_;
  WeightStore weights_;
  std::unique_ptr<OpenDevice> device_;
  std::unique_ptr<ModelRunner> runner_;
};

TEST_F(WorkloadRun, SharingAPrefixKeepsTheBits) {
  WorkloadSpec spec{.name = "text4", .lengths = {100, 61, 75, 130}, .images = false, .shared = 60};
  const std::vector<float> shared = run(spec);
  spec.shared = 0;
  const std::vector<float> whole = run(spec);
  ASSERT_EQ(whole.size(), 4u);
  EXPECT_EQ(shared, whole);
  for (const float v : whole) EXPECT_TRUE(std::isfinite(v));
  EXPECT_NE(whole[0], whole[1]);
}

TEST_F(WorkloadRun, EveryDocumentHasItsOwnImage) {
  WorkloadSpec spec = workloads_of("images1", true)[0];
  const std::vector<float> one = run(spec);
  spec.lengths.resize(2, spec.lengths[0]);
  const std::vector<float> two = run(spec);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0], one[0]);
  EXPECT_NE(two[0], two[1]);
}

}  // namespace
}  // namespace vlr::tools
