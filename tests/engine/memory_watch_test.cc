// Memory by purpose and by layer, and who is told of its changes.
#include "engine/placement/memory_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "tests/support/checkpoints.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Key;
using ::testing::Not;

using Parts = std::map<std::string, int64_t>;

Parts as_map(const std::vector<MemoryPlan::Part>& parts) {
  Parts out;
  for (const MemoryPlan::Part& p : parts) out[p.name] = p.bytes;
  return out;
}

int64_t sum_of(const Parts& parts) {
  int64_t sum = 0;
  for (const auto& [name, bytes] : parts) sum += bytes;
  return sum;
}

Request with_picture() {
  Request r;
  r.query.texts = {"a shining star"};
  r.documents = {text_document("a star"), image_document(kGolden / "media/small.png")};
  return r;
}

TEST(SectionName, NamesOfEveryKind) {
  EXPECT_EQ(section_name("model.language_model.layers.12.mlp.down_proj.weight"), "layers.12");
  EXPECT_EQ(section_name("model.language_model.embed_tokens.weight"), "embed_tokens");
  EXPECT_EQ(section_name("model.language_model.norm.weight"), "norm");
  EXPECT_EQ(section_name("model.visual.blocks.5.attn.qkv.bias"), "visual.blocks.5");
  EXPECT_EQ(section_name("model.visual.deepstack_merger_list.0.norm.weight"),
            "visual.deepstack_merger_list.0");
  EXPECT_EQ(section_name("model.visual.merger.linear_fc1.weight"), "visual.merger");
  EXPECT_EQ(section_name("model.visual.patch_embed.proj.bias"), "visual.patch_embed");
  EXPECT_EQ(section_name("score_head.weight"), "score_head");
  EXPECT_EQ(section_name("weight"), "weight");
}

TEST(Memory, LayersAddUpToTheWeights) {
  for (const char* quant : {"none", "nf4"}) {
    SCOPED_TRACE(quant);
    const Reranker reranker = open_or_die(demo_model(), {.quant = quant});
    const MemoryPlan memory = reranker.memory();
    const Parts held = as_map(memory.parts);
    int64_t layers = 0;
    std::set<std::string> names;
    for (const MemoryPlan::Layer& l : memory.layers) {
      EXPECT_EQ(l.device_bytes, 0) << l.name;
      EXPECT_GT(l.host_bytes, 0) << l.name;
      EXPECT_TRUE(names.insert(l.name).second) << l.name;
      layers += l.host_bytes;
    }
    EXPECT_THAT(names, AllOf(Contains("layers.0"), Contains("layers.5"), Not(Contains("layers.6")),
                             Contains("embed_tokens"), Contains("visual.merger")));
    EXPECT_EQ(layers, held.at("weights, mapped from the checkpoint") +
                          held.at("weights, fused or quantised copies"));

    const auto plan = Reranker::plan(demo_model(), {.device = "cpu", .quant = quant}, {});
    ASSERT_TRUE(plan) << plan.error().message();
    // The same rows, and of weights the same bytes.
    const Parts planned = as_map(plan->parts);
    for (const auto& [name, bytes] : held) EXPECT_TRUE(planned.contains(name)) << name;
    for (const char* name :
         {"weights, mapped from the checkpoint", "weights, fused or quantised copies"})
      EXPECT_EQ(planned.at(name), held.at(name)) << name;
    ASSERT_EQ(plan->layers.size(), memory.layers.size());
    for (size_t i = 0; i < plan->layers.size(); ++i) {
      EXPECT_EQ(plan->layers[i].name, memory.layers[i].name);
      EXPECT_EQ(plan->layers[i].host_bytes, memory.layers[i].host_bytes) << plan->layers[i].name;
    }
  }
}

/// A copy of a checkpoint whose files have a header of odd length: no tensor is aligned.
void copy_unaligned(const std::string& from, const std::string& to) {
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".xz")) continue;
    std::string bytes = testing::read_file(entry.path().string());
    if (name.ends_with(".safetensors")) {
      uint64_t header = 0;
      std::memcpy(&header, bytes.data(), sizeof header);
      bytes.insert(8 + header, " ");
      ++header;
      std::memcpy(bytes.data(), &header, sizeof header);
    }
    testing::write_file(to + "/" + name, bytes);
  }
}

TEST(Memory, PlansKnowWhatIsUnaligned) {
  const testing::TempFolder folder;
  copy_unaligned(demo_model(), folder.path());
  const Options options{.device = "cpu"};
  const Parts held = as_map(open_or_die(folder.path(), options).memory().parts);
  const auto plan = Reranker::plan(folder.path(), options, {});
  ASSERT_TRUE(plan) << plan.error().message();
  const Parts planned = as_map(plan->parts);
  EXPECT_THAT(held, Not(Contains(Key("weights, mapped from the checkpoint"))));
  EXPECT_THAT(planned, Not(Contains(Key("weights, mapped from the checkpoint"))));
  const char* const copies = "weights, fused or quantised copies";
  EXPECT_EQ(planned.at(copies), held.at(copies));
}

TEST(Memory, StreamedLayersAreInHostMemory) {
  WeightPlan plan(4);
  int64_t rows = 8;
  for (size_t i = 0; i < plan.size(); ++i) {
    plan[i].name = "model.language_model.layers." + std::to_string(i) + ".w";
    plan[i].shape = {rows, 64};  // 2048 bytes each 8 rows
    if (i % 2 == 1) {
      plan[i].place = WeightPlace::kStreamed;
      plan[i].group = plan[i].name;
    }
    rows += 8;
  }
  plan[0].place = WeightPlace::kHost;
  const WeightLookup lookup = [&](std::string_view name) -> Result<ConstTensor> {
    for (const WeightSpec& spec : plan) {
      if (spec.name == name)
        return ConstTensor(nullptr, DType::kF32, {spec.shape[0], 64}, Device::kCuda);
    }
    return {Code::kNotFound, std::string(name)};
  };
  const auto layers = layer_bytes(plan, lookup, DType::kF32, Device::kCuda);
  ASSERT_TRUE(layers) << layers.error().message();
  std::vector<std::tuple<std::string, int64_t, int64_t>> found;
  for (const MemoryPlan::Layer& l : *layers)
    found.emplace_back(l.name, l.device_bytes, l.host_bytes);
  EXPECT_EQ(found, (std::vector<std::tuple<std::string, int64_t, int64_t>>{
                       {"layers.0", 0, 2048},
                       {"layers.1", 0, 4096},
                       {"layers.2", 6144, 0},
                       {"layers.3", 0, 8192},
                       {"slots of streamed layers", 8192 + 4096, 0}}));
}

TEST(Memory, EventsAddUpToWhatIsHeld) {
  struct Seen {
    Parts device, host, layers;
    int64_t device_total = 0, host_total = 0, device_peak = 0;
    int loading = 0, scoring = 0;
    bool out_of_order = false;
  } seen;
  {
    Options options;
    options.on_memory = [&seen](const MemoryEvent& e) {
      const bool load = e.phase == MemoryEvent::Phase::kLoad;
      seen.out_of_order = seen.out_of_order || (load && seen.scoring > 0);
      ++(load ? seen.loading : seen.scoring);
      if (!e.layer.empty()) {
        EXPECT_EQ(e.purpose, "weights");
        seen.layers[std::string(e.layer)] = e.device_bytes + e.host_bytes;
        return;
      }
      seen.device[std::string(e.purpose)] = e.device_bytes;
      seen.host[std::string(e.purpose)] = e.host_bytes;
      seen.device_total = e.device_total;
      seen.host_total = e.host_total;
      seen.device_peak = std::max(seen.device_peak, e.device_total);
      EXPECT_EQ(sum_of(seen.device), e.device_total) << e.purpose;
      EXPECT_EQ(sum_of(seen.host), e.host_total) << e.purpose;
    };
    Reranker reranker = open_or_die(demo_model(), options);
    EXPECT_GT(seen.loading, 0);
    EXPECT_EQ(seen.scoring, 0);
    EXPECT_EQ(seen.layers.size(), reranker.memory().layers.size());
    const int64_t loaded = seen.device_total;
    score_bits(reranker, with_picture());
    EXPECT_GT(seen.scoring, 0);
    EXPECT_FALSE(seen.out_of_order);
    EXPECT_GT(seen.device_total, loaded);

    const MemoryPlan memory = reranker.memory();
    const auto without_zeros = [](Parts parts) {
      std::erase_if(parts, [](const auto& p) { return p.second == 0; });
      return parts;
    };
    Parts all = seen.device;  // the CPU has one memory
    for (const auto& [name, bytes] : seen.host) all[name] += bytes;
    EXPECT_EQ(as_map(memory.parts), without_zeros(all));
    EXPECT_TRUE(memory.host_parts.empty());
    EXPECT_THAT(
        as_map(memory.parts),
        AllOf(Contains(Key("arena")), Contains(Key("vision features")), Contains(Key("inputs")),
              Contains(Key("vision cache")), Contains(Key("decoded patches"))));
    // What a plan says of pictures is what they take.
    const auto plan = Reranker::plan(demo_model(), options,
                                     {.documents = 1,
                                      .tokens_per_document = 100,
                                      .images_per_document = 1,
                                      .patches_per_image = 64});
    ASSERT_TRUE(plan) << plan.error().message();
    EXPECT_EQ(as_map(plan->parts)["vision cache"], as_map(memory.parts)["vision cache"]);
    EXPECT_GT(as_map(plan->parts)["decoded patches"], 0);
    EXPECT_EQ(reranker.peak_memory(), seen.device_peak);

    score_bits(reranker, with_picture());  // inputs take turns in two places
    const int events = seen.scoring;
    score_bits(reranker, with_picture());  // all that it needs is there
    EXPECT_EQ(seen.scoring, events);
  }
  EXPECT_EQ(seen.device_total, 0);  // everything was given back
}

}  // namespace
}  // namespace vlr
