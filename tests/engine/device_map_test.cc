// Which weights stay in host memory, and that models whose layers come and go give the same bits.
#include "engine/placement/device_map.h"
#include "engine/weights/device_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "engine/placement/loaded_model.h"
#include "engine/runtime/hash.h"
#include "engine/weights/weight_stream.h"
#include "model/weight_plan.h"
#include "multimodal/patchify.h"
#include "tests/support/checkpoints.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;
using Names = std::set<std::string>;

struct Model {
  ModelConfig config;
  Checkpoint checkpoint;
  WeightPlan plan;
};

Model open_demo() {
  auto config = read_config(demo_model() + "/config.json");
  auto checkpoint = Checkpoint::open(demo_model());
  EXPECT_TRUE(config && checkpoint);
  auto plan = make_weight_plan(*config, checkpoint->tensors(), {.yes = 3, .no = 5});
  EXPECT_TRUE(plan) << plan.error().message();
  return {*std::move(config), *std::move(checkpoint), *std::move(plan)};
}

/// Groups that a map streams, "disk" before those that come from disk, "host" before weights that
/// are read over the bus, "exec" before layers that the CPU computes.
Names placed(const std::string& text) {
  WeightPlan plan = open_demo().plan;
  const auto map = DeviceMap::parse(text);
  EXPECT_TRUE(map) << text << ": " << map.error().message();
  const Status applied = map->apply(plan);
  EXPECT_TRUE(applied.ok()) << text << ": " << applied.message();
  Names out;
  for (const WeightSpec& spec : plan) {
    if (spec.place == WeightPlace::kStreamed) out.insert(spec.group);
    if (spec.place == WeightPlace::kDisk) out.insert("disk " + spec.group);
    if (spec.place == WeightPlace::kHost) out.insert("host " + spec.name);
  }
  for (const int64_t n : cpu_exec_layers(plan)) out.insert("exec " + std::to_string(n));
  return out;
}

std::string layer(int n) { return "model.language_model.layers." + std::to_string(n) + "."; }

TEST(DeviceMap, NamesOfEverySpelling) {
  EXPECT_EQ(placed(""), Names{});
  EXPECT_EQ(placed("layers.2=cpu"), Names{layer(2)});
  EXPECT_EQ(placed("layers.2-4=cpu"), (Names{layer(2), layer(3), layer(4)}));
  EXPECT_EQ(placed("model.layers.1=cpu,layers.0=cuda"), Names{layer(1)});
  EXPECT_EQ(placed("model.language_model.layers.1-2=cpu"), (Names{layer(1), layer(2)}));
  EXPECT_EQ(placed("text=cpu,layers.1-5=cuda:0"),
            (Names{layer(0), "host model.language_model.embed_tokens.weight"}));
  EXPECT_EQ(placed("embed_tokens=cpu"), Names{"host model.language_model.embed_tokens.weight"});
  EXPECT_EQ(placed("norm=cpu,lm_head=cpu"), Names{});
  EXPECT_EQ(placed("visual.blocks.1=cpu"), Names{"model.visual.blocks.1."});
  const Names vision = placed("vision=cpu");
  EXPECT_TRUE(vision.contains("model.visual.merger.") &&
              vision.contains("model.visual.blocks.0.") &&
              vision.contains("model.visual.deepstack_merger_list.0."));
  EXPECT_FALSE(vision.contains(layer(0)));
}

TEST(DeviceMap, ByMatrix) {
  WeightPlan plan = open_demo().plan;
  ASSERT_TRUE(DeviceMap::parse("layers.2=cpu,visual.blocks.0=cpu")->apply(plan, true).ok());
  std::map<std::string, Names> groups;
  for (const WeightSpec& spec : plan) {
    if (spec.place == WeightPlace::kStreamed) groups[spec.group].insert(spec.name);
  }
  const auto in_layer = [](std::initializer_list<const char*> names) {
    Names out;
    for (const char* name : names) out.insert(layer(2) + name + ".weight");
    return out;
  };
  EXPECT_EQ(groups.size(), 5u);
  EXPECT_EQ(groups[layer(2) + "qkv."], in_layer({"input_layernorm", "self_attn.qkv_proj",
                                                 "self_attn.q_norm", "self_attn.k_norm"}));
  EXPECT_EQ(groups[layer(2) + "o."], in_layer({"self_attn.o_proj"}));
  EXPECT_EQ(groups[layer(2) + "gate_up."],
            in_layer({"post_attention_layernorm", "mlp.gate_up_proj"}));
  EXPECT_EQ(groups[layer(2) + "down."], in_layer({"mlp.down_proj"}));
  EXPECT_EQ(groups["model.visual.blocks.0."].size(), 12u);
}

TEST(DeviceMap, LayersThatTheCpuComputes) {
  EXPECT_EQ(placed("layers.0-1=cpu-exec,layers.3=cpu,layers.1=cuda"), (Names{"exec 0", layer(3)}));
  EXPECT_EQ(placed("text=cpu-exec,embed_tokens=0,layers.0-4=0"), Names{"exec 5"});
  EXPECT_EQ(placed(R"({"": 0, "model.layers.2": "cpu-exec"})"), Names{"exec 2"});
  WeightPlan plan = open_demo().plan;
  const int64_t all = device_weight_bytes(plan, DType::kBF16).device;
  ASSERT_TRUE(DeviceMap::parse("layers.2=cpu-exec")->apply(plan).ok());
  const DeviceWeightBytes bytes = device_weight_bytes(plan, DType::kBF16);
  EXPECT_LT(bytes.device, all);
  EXPECT_EQ(bytes.host + bytes.streamed, 0);
}

TEST(DeviceMap, Disk) {
  const auto disk = [](int n) { return "disk " + layer(n); };
  EXPECT_EQ(placed("layers.2-3=disk,layers.4=cpu"), (Names{disk(2), disk(3), layer(4)}));
  EXPECT_EQ(placed(R"({"": 0, "model.layers.1": "disk", "model.layers.2": "cpu"})"),
            (Names{disk(1), layer(2)}));
  // Rows of embeddings are not read from disk.
  EXPECT_EQ(placed("text=disk,layers.1-5=cuda"),
            (Names{disk(0), "host model.language_model.embed_tokens.weight"}));
  // What is copied together comes from one place.
  EXPECT_EQ(placed("layers.1=cpu,layers.1.mlp=disk"), Names{disk(1)});
  EXPECT_EQ(placed("visual.blocks.0=disk"), Names{"disk model.visual.blocks.0."});
}

TEST(DeviceMap, HuggingFacesJsonInlineAndFromAFile) {
  const std::string json =
      R"({"model.embed_tokens": 0, "model.layers.0": "cuda", "model.layers.1": "cpu",
          "model.layers.2": 0, "model.norm": 0, "lm_head": "cpu", "model.visual": "cuda:0"})";
  EXPECT_EQ(placed(json), Names{layer(1)});
  const testing::TempFolder folder;
  testing::write_file(folder / "map.json", json);
  EXPECT_EQ(placed(folder / "map.json"), Names{layer(1)});
  EXPECT_EQ(placed(R"({"device_map": {"": 0, "model.language_model.layers.3": "cpu"}})"),
            Names{layer(3)});
  EXPECT_EQ(placed(R"({"": "cpu", "model.visual": 0, "model.layers": 0})"),
            Names{"host model.language_model.embed_tokens.weight"});
}

TEST(DeviceMap, SaysWhatIsWrong) {
  const auto refused = [](const std::string& text) {
    const auto map = DeviceMap::parse(text);
    if (!map) return map.error().message();
    WeightPlan plan = open_demo().plan;
    return map->apply(plan).message();
  };
  EXPECT_THAT(refused("layers.0=gpu"),
              HasSubstr("a place is cuda, cuda:N, N, cpu, disk or cpu-exec, got 'gpu'"));
  for (const char* name : {"vision", "embed_tokens", "text", "", "visual.blocks.0"})
    EXPECT_THAT(refused(std::string(name) + "=cpu-exec"), HasSubstr("is for decoder layers"))
        << name;
  EXPECT_THAT(refused("layers.2.mlp=cpu-exec"), HasSubstr("whole layers"));
  EXPECT_THAT(refused("layers.4-2=cpu"), HasSubstr("a range is FIRST-LAST"));
  EXPECT_THAT(refused("layers.1-99999999999=cpu"), HasSubstr("a range is FIRST-LAST"));
  std::string ranges;
  for (int i = 0; i < 17; ++i) ranges += "layers.0-4095=cpu,";
  EXPECT_THAT(refused(ranges), HasSubstr("names more than 65536 parts"));
  EXPECT_THAT(refused(std::string(1000, 'a') + ".0-4095=cpu"),
              HasSubstr("expected a name of at most 256 bytes, got 1007"));
  EXPECT_THAT(refused("layers.99=cpu"), HasSubstr("'layers.99' stands for no weight"));
  EXPECT_THAT(refused("layers.1=cpu,cuda"), HasSubstr("expected NAME=PLACE, got 'cuda'"));
  EXPECT_THAT(refused("no/such.json"), HasSubstr("got 'no/such.json'"));
  EXPECT_THAT(refused("{\"a\": []}"), HasSubstr("got array"));
  EXPECT_THAT(refused("{\"a\""), HasSubstr("device_map: not JSON"));
  const auto on_cpu = Reranker::open(demo_model(), {.device = "cpu", .device_map = "layers.0=cpu"});
  EXPECT_EQ(on_cpu.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(Reranker::open(demo_model(), {.device = "cpu", .device_map = "layers.0=cpu-exec"})
                .error()
                .code(),
            Code::kInvalidArgument);
}

/// The device's side of it on the CPU, where a slot is memory like any other: whatever is
/// overwritten too early, or read before it came, shows.
TEST(Streamed, LayersThatComeAndGoAndChunksOfRowsKeepTheBits) {
  ThreadPool threads(2);
  const ImplChoices choices;
  auto device = std::move(OpenDevice::open({}, true, threads, choices)).value();
  const GraphOptions graph{.dtype = DType::kF32};

  std::vector<int32_t> ids, positions, none;
  constexpr int32_t kTokens = 150;  // and 192 patches: three chunks of rows, or six
  for (int32_t i = 0; i < kTokens; ++i) ids.push_back(7 + 13 * i);
  for (int axis = 0; axis < 3; ++axis)
    for (int32_t i = 0; i < kTokens; ++i) positions.push_back(i);
  none.assign(kTokens, -1);
  const TextInput text{
      .ids = ids, .positions = positions, .positions_stride = kTokens, .visual_rows = none};
  std::vector<uint8_t> pixels(static_cast<size_t>(12 * 16 * kPatchValues));
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * i >> 4);
  const VisionInput picture{.grid_t = 1, .grid_h = 12, .grid_w = 16, .patches = pixels};

  struct Bits {
    float log_odds;
    std::vector<std::byte> features;
    bool operator==(const Bits&) const = default;
  };
  const auto run = [&](ModelRunner& runner) {
    Bits bits;
    VisionFeatures features;
    EXPECT_TRUE(runner.run_vision({&picture, 1}, 1024, features));
    bits.features.resize(static_cast<size_t>(48 * runner.feature_row_bytes()));
    const std::span<std::byte> all(bits.features);
    EXPECT_TRUE(runner.save_features(features, 0, 48, {&all, 1}).ok());
    const auto scores = runner.run_scores({&text, 1}, features);
    EXPECT_TRUE(scores) << scores.error().message();
    bits.log_odds = scores->at(0);
    return bits;
  };

  Model plain = open_demo();
  const auto store = WeightStore::load(std::move(plain.checkpoint), plain.plan, &threads);
  ASSERT_TRUE(store);
  const auto lookup = [&](std::string_view name) { return store->get(name); };
  auto resident = ModelRunner::create(plain.config, lookup, *device, graph, {});
  ASSERT_TRUE(resident) << resident.error().message();
  const Bits truth = run(**resident);
  const int64_t whole = (*resident)->passes().arena.size();
  for (const int64_t chunk : {128, 64}) {
    (*resident)->passes().row_chunk = chunk;
    (*resident)->passes().arena.release();
    EXPECT_EQ(run(**resident), truth) << chunk;
    EXPECT_LT((*resident)->passes().arena.size(), whole);
  }

  for (const char* map : {"layers.2=cpu", "layers.1-2=cpu", "layers.0-5=cpu", "vision=cpu",
                          "layers.0=cpu,layers.3-5=cpu,visual.blocks.1=cpu", "=cpu"})
    for (const bool by_matrix : {false, true}) {
      SCOPED_TRACE(std::string(map) + (by_matrix ? ", by matrix" : ""));
      Model m = open_demo();
      ASSERT_TRUE(DeviceMap::parse(map)->apply(m.plan, by_matrix).ok());
      const auto weights = DeviceWeights::load(m.checkpoint, m.plan, DType::kBF16, *device);
      ASSERT_TRUE(weights) << weights.error().message();
      const DeviceWeightBytes bytes = device_weight_bytes(m.plan, DType::kBF16);
      EXPECT_EQ(weights->bytes(), bytes.device);
      int64_t streamed = 0;
      for (const DeviceWeights::Group& g : weights->groups()) streamed += g.bytes;
      EXPECT_EQ(streamed, bytes.streamed);

      const auto stream = std::move(WeightStream::create(*device, *weights)).value();
      const auto get = [&](std::string_view name) { return weights->get(name); };
      auto runner = ModelRunner::create(m.config, get, *device, graph, {}, stream.get());
      ASSERT_TRUE(runner) << runner.error().message();
      (*runner)->passes().row_chunk = by_matrix ? 64 : 0;
      for (int round = 0; round < 3; ++round) EXPECT_EQ(run(**runner), truth) << round;
      // Up to two groups stay where they are; more have to come again every time, each once.
      if (weights->groups().size() <= 2) {
        EXPECT_EQ(stream->bytes_copied(), streamed);
      } else {
        EXPECT_GT(stream->bytes_copied(), 2 * streamed);
        EXPECT_LE(stream->bytes_copied(), 3 * streamed);
      }
    }
}

/// Three documents behind one prefix, pictures in all but the first document; what a runner makes
/// of them alone, together, and with the prefix computed before.
class Sections : public ::testing::Test {
 protected:
  static constexpr int32_t kPrefix = 12;
  struct Sequence {
    std::vector<int32_t> ids, positions, visual_rows;
    TextInput input(int64_t begin, int64_t end, int64_t prefix_row) const {
      const auto from = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
      return {.ids = std::span(ids).subspan(from, count),
              .positions = positions,
              .positions_stride = std::ssize(ids),
              .offset = begin,
              .visual_rows = std::span(visual_rows).subspan(from, count),
              .prefix_row = prefix_row,
              .prefix_len = begin};
    }
    TextInput whole() const { return input(0, std::ssize(ids), 0); }
  };

  void SetUp() override {
    for (size_t i = 0; i < pixels_.size(); ++i) pixels_[i] = static_cast<uint8_t>(i * i >> 4);
    const int32_t lengths[] = {20, 70, 43};
    for (int32_t d = 0; d < 3; ++d) {
      Sequence& s = sequences_.emplace_back();
      const int32_t n = kPrefix + lengths[d];
      for (int32_t i = 0; i < n; ++i) {
        s.ids.push_back(7 + 13 * i + (i < kPrefix ? 0 : 29 * d));
        // The prefix has the first picture, the last two documents the second one.
        int32_t row = i >= 3 && i < 9 ? i - 3 : -1;
        if (d > 0 && i >= kPrefix + 5 && i < kPrefix + 11) row = 6 + i - kPrefix - 5;
        s.visual_rows.push_back(row);
      }
      for (int axis = 0; axis < 3; ++axis)
        for (int32_t i = 0; i < n; ++i) s.positions.push_back(axis == 2 ? i / 2 : i);
    }
  }

  struct Seen {
    std::vector<float> log_odds;
    std::map<std::string, std::vector<std::string>> values;  // hashes by name
  };

  /// `quant` of the decoder's linear layers; `host_layers` are computed apart.
  Seen run(const std::string& quant, std::set<int64_t> host_layers, int64_t row_chunk = 0) {
    Model m = open_demo();
    const auto modes = prepare_plan(m.plan, {.quant = quant}, {});
    EXPECT_TRUE(modes) << modes.error().message();
    const auto store = WeightStore::load(std::move(m.checkpoint), m.plan, &threads_);
    EXPECT_TRUE(store);
    Seen seen;
    Observers observers;
    observers.on_value = [&](std::string_view name, std::span<const int64_t> dims,
                             const float* values) {
      size_t count = 1;
      for (const int64_t dim : dims) count *= static_cast<size_t>(dim);
      seen.values[std::string(name)].push_back(
          Hasher().add(std::as_bytes(std::span(values, count))).digest().hex());
    };
    if (row_chunk > 0) observers = {};  // who looks wants whole values
    auto made = ModelRunner::create(
        m.config, [&](std::string_view name) { return store->get(name); }, *device_,
        {.dtype = DType::kF32, .quant = *modes}, observers, nullptr, host_layers);
    EXPECT_TRUE(made) << made.error().message();
    ModelRunner& runner = **made;
    runner.passes().row_chunk = row_chunk;
    EXPECT_TRUE(runner.reserve_prefixes(40).ok());
    VisionFeatures features;
    const VisionInput picture{.grid_t = 1, .grid_h = 4, .grid_w = 6, .patches = pixels_};
    const std::vector<VisionInput> pictures = {picture, picture};
    EXPECT_TRUE(runner.run_vision(pictures, 1024, features));
    const auto score = [&](const std::vector<TextInput>& batch) {
      const auto scores = runner.run_scores(batch, features);
      EXPECT_TRUE(scores) << scores.error().message();
      if (scores) seen.log_odds.insert(seen.log_odds.end(), scores->begin(), scores->end());
    };
    for (const Sequence& s : sequences_) score({s.whole()});
    score({sequences_[0].whole(), sequences_[1].whole(), sequences_[2].whole()});
    const TextInput prefix = sequences_[0].input(0, kPrefix, 0);
    constexpr int64_t kRow = 5;
    EXPECT_TRUE(runner.prefix().start({&prefix, 1}, features, kRow));
    std::vector<TextInput> rest;
    for (const Sequence& s : sequences_) rest.push_back(s.input(kPrefix, std::ssize(s.ids), kRow));
    score(rest);
    for (const TextInput& input : rest) score({input});
    return seen;
  }

  ThreadPool threads_{2};
  ImplChoices choices_;
  std::unique_ptr<OpenDevice> device_ = *OpenDevice::open({}, true, threads_, choices_);
  std::vector<uint8_t> pixels_ = std::vector<uint8_t>(static_cast<size_t>(4 * 6 * kPatchValues));
  std::vector<Sequence> sequences_;
};

TEST_F(Sections, KeepTheBitsOfTheWholeGraph) {
  for (const char* quant : {"none", "nf4", "int8"}) {
    const Seen truth = run(quant, {});
    ASSERT_EQ(truth.log_odds.size(), 12u);
    for (size_t i = 3; i < 12; ++i) EXPECT_EQ(truth.log_odds[i], truth.log_odds[i % 3]) << i;
    for (const std::set<int64_t>& host :
         {std::set<int64_t>{0}, {5}, {1, 2}, {0, 2, 4}, {1, 3, 5}, {0, 1, 2, 3, 4, 5}}) {
      SCOPED_TRACE(std::string(quant) + " " + ::testing::PrintToString(host));
      Seen split = run(quant, host);
      EXPECT_EQ(split.log_odds, truth.log_odds);
      EXPECT_EQ(run(quant, host, 64).log_odds, truth.log_odds);
      for (auto& [name, values] : split.values) {
        // Every section makes its own.
        if (name.find("rope_table") != name.npos) values.resize(truth.values.at(name).size());
      }
      EXPECT_EQ(split.values, truth.values);
    }
  }
}

TEST_F(Sections, PlanWhatTheyTake) {
  Model m = open_demo();
  const auto store = WeightStore::load(std::move(m.checkpoint), m.plan, &threads_);
  ASSERT_TRUE(store);
  const auto lookup = [&](std::string_view name) { return store->get(name); };
  const auto make = [&](std::set<int64_t> host_layers) {
    return *ModelRunner::create(m.config, lookup, *device_, {}, {}, nullptr,
                                std::move(host_layers));
  };
  const auto whole = make({}), split = make({1, 2, 5});
  EXPECT_EQ(whole->prefixes().host_row_bytes(), 0);
  EXPECT_EQ(split->prefixes().host_row_bytes(),
            split->prefixes().row_bytes());  // f32 everywhere here
  EXPECT_EQ(2 * split->prefixes().row_bytes(), whole->prefixes().row_bytes());

  const TextInput text = sequences_[0].whole();
  const TextSizes sizes{.tokens = std::ssize(text.ids)};
  const auto plan = split->score().plan(sizes);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(whole->score().plan(sizes)->carried_bytes + whole->score().plan(sizes)->host_bytes, 0);
  const MemoryBudget &on_device = device_->budget(), &on_host = device_->host_budget();
  const int64_t device_before = on_device.bytes("arena"), host_before = on_host.bytes("arena");
  std::vector<int32_t> none(text.ids.size(), -1);
  TextInput plain = text;
  plain.visual_rows = none;
  ASSERT_TRUE(split->run_scores({&plain, 1}, {}));
  EXPECT_EQ(on_device.bytes("arena") - device_before, plan->total());
  const int64_t host = on_host.bytes("arena") - host_before;
  EXPECT_GE(host, plan->host_bytes);
  EXPECT_LT(host, plan->host_bytes + kArenaAlignment);
}

}  // namespace
}  // namespace vlr
