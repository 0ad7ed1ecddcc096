// The memory contract: whatever the work and the cap, either what is taken stays within the plan,
// and the plan within the cap, or the work is refused beforehand with the smallest cap that allows
// it. Simulated on a device that only counts, and on a GPU.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>

#include "engine/placement/device_options.h"
#include "engine/placement/loaded_model.h"
#include "engine/placement/memory_plan.h"
#include "engine/scheduling/wave_scorer.h"
#include "engine/tasks/pair_score.h"
#include "model/synthetic.h"
#include "model/weight_plan.h"
#include "multimodal/patchify.h"

namespace vlr {
namespace {

constexpr int64_t kMega = 1'000'000, kGiga = 1'000 * kMega;

/// Some work under some cap.
struct Case {
  std::string model;
  Options options;
  Workload work;
  uint64_t seed = 0;

  std::string text() const {
    return fmt::format(
        "{} {} cap {} max_length {}: {} documents of {} tokens, {} + {} images of {} patches",
        model, options.quant.empty() ? options.dtype : options.quant, options.gpu_memory,
        options.max_length, work.documents, work.tokens_per_document, work.images_per_document,
        work.images_per_query, work.patches_per_image);
  }
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  /// Evenly spread in its logarithm.
  int64_t scaled(int64_t low, int64_t high) {
    const double u = static_cast<double>(engine_() >> 11) * 0x1p-53;
    return static_cast<int64_t>(static_cast<double>(low) *
                                std::pow(static_cast<double>(high) / static_cast<double>(low), u));
  }
  bool one_in(int64_t n) { return below(n) == 0; }

 private:
  std::mt19937_64 engine_;
};

Case make_case(const std::string& model, uint64_t seed, int64_t smallest_cap) {
  Random random(seed);
  Case c{.model = model, .options = {}, .work = {}, .seed = seed};
  c.options.device = "cuda";
  c.options.vision_cache_bytes = 0;
  c.options.measure_kernels = random.one_in(8);
  c.options.dtype = random.one_in(6) ? "f16" : "bf16";
  static constexpr const char* kQuant[] = {"nf4", "int8", "fp8"};
  if (random.one_in(4)) c.options.quant = kQuant[random.below(3)];
  c.options.gpu_memory = random.scaled(smallest_cap, 80 * kGiga);
  if (random.one_in(3)) c.options.max_length = 32768;
  c.options.share_prefix = !random.one_in(5);
  c.work.tokens_per_document = random.scaled(16, random.one_in(3) ? 30000 : 2000);
  c.work.documents =
      std::min<int64_t>(random.scaled(1, 200), 1 + 60000 / c.work.tokens_per_document);
  if (random.one_in(3)) {
    c.work.images_per_document = random.between(1, 4);
    c.work.patches_per_image = 4 * random.between(4, 1800);
    c.work.documents = std::min<int64_t>(
        c.work.documents, 1 + 60000 / (c.work.images_per_document * c.work.patches_per_image));
  }
  if (random.one_in(6)) {
    c.work.images_per_query = 1;
    if (c.work.images_per_document == 0) c.work.patches_per_image = 4 * random.between(4, 1800);
  }
  // More pictures than a document may have would be refused whatever the cap.
  while ((c.work.images_per_document + c.work.images_per_query) * c.work.patches_per_image / 4 + 2 >
         c.options.max_length)
    c.work.patches_per_image -= 4 * (1 + c.work.patches_per_image / 16);
  return c;
}

/// Waves of such work, as a request of so many documents would make them.
class Waves {
 public:
  Waves(const Case& c, const ModelConfig& config) : case_(c), config_(config), random_(c.seed + 1) {
    const Workload& w = c.work;
    image_tokens_ = w.patches_per_image / 4;
    // Pictures of one row of blocks: frames are of that many patches either way.
    if (w.images_per_document + w.images_per_query > 0) {
      pixels_ = std::shared_ptr<uint8_t[]>(
          new uint8_t[static_cast<size_t>(w.patches_per_image * kPatchValues)]());
    }
    const int64_t room =
        c.options.max_length - 1 - (w.images_per_document + w.images_per_query) * image_tokens_;
    query_tokens_ = random_.between(
        1, std::clamp<int64_t>(w.tokens_per_document / 2, 1, std::max<int64_t>(1, room)));
  }
  bool more() const { return next_ < case_.work.documents; }
  std::shared_ptr<Wave> next() {
    auto wave = std::make_shared<Wave>();
    while (more() && wave->tokens < kWaveTokens && wave->visual_tokens < kWaveVisualTokens) {
      int64_t media = 0;
      for (int64_t i = 0; more() && i < 64 && media < kChunkMedia; ++i) {
        add(*wave);
        media += case_.work.images_per_document;
      }
    }
    return wave;
  }

 private:
  void append(std::vector<int32_t>& ids, int64_t count) {
    for (; count > 0; --count) ids.push_back(static_cast<int32_t>(10 + random_.below(1000)));
  }
  void append_image(Wave& wave, Pair& pair, std::vector<VisualRun>& runs, uint64_t content) {
    const int64_t patches = case_.work.patches_per_image;
    pair.prompt.ids.insert(pair.prompt.ids.end(), static_cast<size_t>(image_tokens_),
                           config_.image_token_id);
    runs.push_back({.rows = 1, .columns = image_tokens_});
    const std::string key = std::to_string(content);
    const auto [it, is_new] = wave.media_by_key.try_emplace(key, wave.media.size());
    if (is_new) {
      LoadedMedia& m = wave.media.emplace_back();
      m.patches = Patches{.grid_t = 1,
                          .grid_h = 2,
                          .grid_w = patches / 2,
                          .data = {pixels_.get(), static_cast<size_t>(patches * kPatchValues)},
                          .owner = nullptr,
                          .seconds = {}};
      m.content.low = content;
      wave.visual_tokens += image_tokens_;
    }
    pair.media.push_back(it->second);
    pair.images.push_back(it->second);
  }
  void add(Wave& wave) {
    const Workload& w = case_.work;
    Pair& pair = wave.pairs.emplace_back();
    pair.result.index = next_++;
    pair.result.status = DocumentStatus::kOk;
    std::vector<VisualRun> runs;
    for (int64_t i = 0; i < w.images_per_query; ++i)
      append_image(wave, pair, runs, static_cast<uint64_t>(i));
    append(pair.prompt.ids, query_tokens_);
    pair.prompt.prefix_len = std::ssize(pair.prompt.ids);
    pair.prefix_key = "query";
    for (int64_t i = 0; i < w.images_per_document; ++i)
      append_image(wave, pair, runs, static_cast<uint64_t>(1000 + 100 * next_ + i));
    const int64_t text = std::max<int64_t>(1, w.tokens_per_document - query_tokens_),
                  room = case_.options.max_length - std::ssize(pair.prompt.ids);
    append(pair.prompt.ids, std::max<int64_t>(1, std::min(random_.between(text / 2, text), room)));
    auto where = mrope_positions(pair.prompt.ids, config_, runs, {});
    ASSERT_TRUE(where) << where.error().message();
    pair.where = *std::move(where);
    wave.tokens += std::ssize(pair.prompt.ids);
  }

  const Case& case_;
  const ModelConfig& config_;
  Random random_;
  int64_t image_tokens_ = 0, query_tokens_ = 0, next_ = 0;
  std::shared_ptr<uint8_t[]> pixels_;
};

/// A model's configuration and weights, without data.
struct Model {
  ModelConfig config;
  WeightPlan plan;
};

const Model& model_of(const std::string& name) {
  static std::map<std::string, Model> models;
  const auto [it, is_new] = models.try_emplace(name);
  if (is_new) {
    it->second.config = *synthetic_config(name);
    it->second.plan = *make_weight_plan(
        it->second.config, checkpoint_without_data(it->second.config), {.yes = 0, .no = 1});
  }
  return it->second;
}

/// With VLR_CONTRACT_PLANS=FILE, a line a case: what its plan says, to be held against another build's.
void record(const Case& c, const std::optional<MemoryPlan>& plan) {
  const char* path = std::getenv("VLR_CONTRACT_PLANS");
  if (!path) return;
  std::string line = fmt::format("{} {} {}", c.model, c.seed, c.options.gpu_memory);
  if (!plan) line += " refused";
  for (const auto* parts : {plan ? &plan->parts : nullptr, plan ? &plan->host_parts : nullptr}) {
    if (!parts) break;
    for (const MemoryPlan::Part& p : *parts) line += fmt::format("; {}: {}", p.name, p.bytes);
  }
  if (plan) {
    for (const MemoryPlan::Choice& x : plan->choices)
      line += fmt::format("; {}={}", x.name, x.value);
  }
  line += "\n";
  std::FILE* out = std::fopen(path, "a");
  if (!out) return;
  (void)std::fwrite(line.data(), 1, line.size(), out);
  (void)std::fclose(out);
}

/// What a case's plan says: a plan; or that it is refused, which is checked.
std::optional<MemoryPlan> planned(const Case& c, ThreadPool& threads) {
  const Model& model = model_of(c.model);
  const ImplChoices choices;
  const DeviceSpec spec = *DeviceSpec::parse_for_planning("cuda");
  const auto device = *OpenDevice::for_planning(spec, threads, choices);
  Options options = c.options;
  PreparedModel prepared = *prepare({.config = model.config, .plan = model.plan}, options, *device);
  const auto planner = *MemoryPlanner::create(
      c.options, model.config, std::move(prepared.source.plan), prepared.graph, *device);
  const auto placed = planner->choose(*cap_of(*device, c.options.gpu_memory));
  if (placed) {
    auto out = plan_memory(*planner, *placed, c.options, c.work);
    if (out) return *std::move(out);
    EXPECT_EQ(out.error().code(), Code::kOutOfMemory) << out.error().message();
  } else {
    EXPECT_EQ(placed.error().code(), Code::kOutOfMemory) << placed.error().message();
  }
  // Refused: there is a smallest cap, it is larger, and a little less is not enough.
  const auto works = [&](int64_t cap) {
    const auto p = planner->choose(cap - context_estimate());
    return p && enough_for(c.work, c.options, p->limits);
  };
  const int64_t smallest = planner->smallest_cap(
      [&](const BatchLimits& limits) { return enough_for(c.work, c.options, limits); });
  EXPECT_GT(smallest, c.options.gpu_memory);
  EXPECT_TRUE(works(smallest));
  EXPECT_FALSE(works(smallest - (int64_t{16} << 20)));
  return {};
}

/// Loads the model, scores all documents, and returns the most that was counted, context included.
int64_t run(const Case& c, OpenDevice& device, ThreadPool& threads, const ModelSource::Fill& fill) {
  const Model& model = model_of(c.model);
  device.budget().reset_peak();
  Options options = c.options;
  const auto loaded = LoadedModel::load(
      options,
      *prepare({.config = model.config, .plan = model.plan, .fill = fill}, options, device), device,
      {});
  EXPECT_TRUE(loaded) << loaded.error().message();
  if (!loaded) return 0;
  Usage usage;
  const std::atomic<bool> cancelled{false};
  WaveScorer scorer(pair_score(), options, *(*loaded)->runner, (*loaded)->placed.limits, threads,
                    cancelled);
  int64_t scored = 0;
  std::string failure;
  const auto on_done = [&](const Pair& pair) {
    scored += pair.result.scored();
    if (!pair.result.scored()) failure = pair.result.message;
  };
  const ScoringCall call{.usage = usage, .on_done = on_done};
  Waves waves(c, model.config);
  while (waves.more()) scorer.score(waves.next(), call);
  EXPECT_TRUE(scorer.finish(call).ok());
  EXPECT_EQ(scored, c.work.documents) << failure;
  return device.budget().peak() + context_estimate();
}

class MemoryContract : public ::testing::TestWithParam<int> {};

/// 5,000 cases in 20 parts, of which one in ten has less than 2 GB.
TEST_P(MemoryContract, Simulated) {
  constexpr int kCases = 250;
  ThreadPool threads(1);
  const ImplChoices choices;
  int ran = 0, with_room = 0, ran_with_room = 0;
  for (int i = 0; i < kCases; ++i) {
    const auto seed = static_cast<uint64_t>(GetParam() * kCases + i);
    const Case c = make_case(seed % 5 == 0 ? "8b" : "2b", seed, seed % 10 == 1 ? kGiga : 2 * kGiga);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, c.text()));
    const std::optional<MemoryPlan> plan = planned(c, threads);
    record(c, plan);
    with_room += c.options.gpu_memory >= 2 * kGiga;
    if (!plan) continue;
    EXPECT_LE(plan->total(), c.options.gpu_memory);
    const auto device =
        *OpenDevice::for_planning(*DeviceSpec::parse_for_planning("cuda"), threads, choices);
    EXPECT_LE(run(c, *device, threads, {}), plan->total());
    ++ran;
    ran_with_room += c.options.gpu_memory >= 2 * kGiga;
    if (HasFailure()) return;
  }
  EXPECT_GE(ran_with_room, with_room * 9 / 10);
  RecordProperty("ran", ran);
}

INSTANTIATE_TEST_SUITE_P(All, MemoryContract, ::testing::Range(0, 20));

/// The same with decoder layers that the CPU computes, in one run or in many.
TEST(CpuExecMemoryContract, Simulated) {
  ThreadPool threads(1);
  const ImplChoices choices;
  int ran = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Case c = make_case("2b", seed, kGiga);
    Random random(seed);
    const int64_t layers = model_of("2b").config.text_config.num_hidden_layers;
    if (random.one_in(3)) {
      for (int64_t layer = random.below(2); layer < layers; layer += random.between(1, 4))
        c.options.device_map += fmt::format(",layers.{}=cpu-exec", layer);
      c.options.device_map.erase(0, 1);
    } else {
      const int64_t first = random.below(layers);
      c.options.device_map =
          fmt::format("layers.{}-{}=cpu-exec,vision=cpu", first, random.between(first, layers - 1));
    }
    SCOPED_TRACE(fmt::format("seed {}: {}, {}", seed, c.text(), c.options.device_map));
    const std::optional<MemoryPlan> plan = planned(c, threads);
    record(c, plan);
    if (!plan) continue;
    EXPECT_LE(plan->total(), c.options.gpu_memory);
    const auto device =
        *OpenDevice::for_planning(*DeviceSpec::parse_for_planning("cuda"), threads, choices);
    EXPECT_LE(run(c, *device, threads, {}), plan->total());
    int64_t on_host = 0;
    for (const MemoryPlan::Part& p : plan->host_parts) on_host += p.bytes;
    EXPECT_LE(device->host_budget().peak(), on_host);
    ++ran;
    if (HasFailure()) return;
  }
  EXPECT_GE(ran, 50);
}

/// What documents may need only grows with the cap, on which looking for the smallest one rests.
TEST(MemoryContract, SimulatedLargerCapsHaveRoomForMore) {
  ThreadPool threads(1);
  const ImplChoices choices;
  const DeviceSpec spec = *DeviceSpec::parse_for_planning("cuda");
  for (const std::string name : {"2b", "8b"}) {
    for (const char* quant : {"", "nf4"}) {
      SCOPED_TRACE(name + " " + quant);
      Options options{.device = "cuda", .dtype = "bf16"};
      options.quant = quant;
      const Model& model = model_of(name);
      const auto device = *OpenDevice::for_planning(spec, threads, choices);
      WeightPlan plan = model.plan;
      QuantModes modes = *prepare_plan(plan, options, {});
      const GraphOptions graph = graph_options(options, *device, DType::kBF16, std::move(modes));
      const auto planner =
          *MemoryPlanner::create(options, model.config, std::move(plan), graph, *device);
      std::array<int64_t, 3> before{};
      int found = 0;
      for (int64_t cap = 100 * kMega; cap < 4 * kGiga;
           cap += cap < kGiga ? 4 * kMega : 50 * kMega) {
        const auto placed = planner->choose(cap);
        if (!placed) {
          EXPECT_EQ(found, 0) << cap;
          continue;
        }
        ++found;
        const BatchLimits& l = placed->limits;
        // But for what rounding leaves to one or the other.
        const std::array<int64_t, 3> now = {
            std::min(l.max_sequence, options.max_length + kTailBound),
            std::min(l.visual_rows, options.max_length), std::min<int64_t>(l.frame_patches, 7200)};
        const bool full = before[0] == options.max_length + kTailBound;
        EXPECT_GE(now[0], before[0] * 99 / 100) << cap;
        EXPECT_GE(now[2], before[2]) << cap;
        if (full) {
          EXPECT_EQ(now[0], before[0]) << cap;
          EXPECT_GE(now[1], before[1] * 99 / 100) << cap;
        }
        before = now;
      }
      EXPECT_GT(found, 100);
    }
  }
}

/// The most that the whole card had in use, looked at a thousand times a second.
class CardPeak {
 public:
  explicit CardPeak(OpenDevice& device)
      : thread_([this, &device] {
          (void)device.activate();
          while (!stop_) {
            if (const auto card = device.card_memory())
              peak_ = std::max(peak_.load(), card->total - card->free);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          }
        }) {}
  ~CardPeak() { stop(); }
  int64_t stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    return peak_;
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> peak_{0};
  std::thread thread_;
};

/// VLR_CONTRACT_2B and VLR_CONTRACT_8B cases, one after the other in this process.
TEST(CudaMemoryContract, OnACard) {
  const auto spec = DeviceSpec::parse("cuda");
  if (!spec) {
    if (std::getenv("VLR_TEST_REQUIRE_CUDA")) FAIL() << spec.error().message();
    GTEST_SKIP() << spec.error().message();
  }
  const auto count = [](const char* name, int64_t usual) {
    const char* text = std::getenv(name);
    return text ? std::atoll(text) : usual;
  };
  const int64_t small = count("VLR_CONTRACT_2B", 6), large = count("VLR_CONTRACT_8B", 1);
  ThreadPool threads(0);
  const ImplChoices choices;
  const auto device = *OpenDevice::open(*spec, true, threads, choices);
  int64_t ran = 0;
  double closest = 0;
  for (int64_t i = 0; i < small + large; ++i) {
    const Case c = make_case(i < small ? "2b" : "8b", static_cast<uint64_t>(100000 + i), 2 * kGiga);
    SCOPED_TRACE(c.text());
    const std::optional<MemoryPlan> plan = planned(c, threads);
    record(c, plan);
    if (!plan) {
      fmt::print("refused: {}\n", c.text());
      continue;
    }
    EXPECT_LE(plan->total(), c.options.gpu_memory);
    CardPeak card(*device);
    const auto start = std::chrono::steady_clock::now();
    const int64_t counted =
        run(c, *device, threads, [](const WeightSpec& w, const Tensor& to, Context& ctx) {
          return fill_synthetic_weight(w, to, ctx.stream);
        });
    const int64_t measured = card.stop();
    EXPECT_LE(counted, plan->total());
    EXPECT_LE(measured, plan->total());
    closest = std::max(closest, static_cast<double>(measured) / static_cast<double>(plan->total()));
    fmt::print(
        "measured {:.2f} counted {:.2f} plan {:.2f} cap {:.2f} GB, {:.1f} s: {}\n",
        static_cast<double>(measured) / 1e9, static_cast<double>(counted) / 1e9,
        static_cast<double>(plan->total()) / 1e9, static_cast<double>(c.options.gpu_memory) / 1e9,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), c.text());
    std::fflush(stdout);
    ++ran;
  }
  fmt::print("{} of {} ran; the closest took {:.3f} of its plan\n", ran, small + large, closest);
  EXPECT_GE(ran, (small + large) * 9 / 10);
}

}  // namespace
}  // namespace vlr
