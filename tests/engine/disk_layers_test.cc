// Models whose layers come from disk give the same bits, and say what is wrong with the disk.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "engine/placement/device_map.h"
#include "engine/placement/loaded_model.h"
#include "engine/placement/memory_watch.h"
#include "engine/weights/device_weights.h"
#include "engine/weights/weight_stream.h"
#include "model/weight_plan.h"
#include "multimodal/patchify.h"
#include "tests/support/checkpoints.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Bits = std::vector<std::byte>;

std::atomic<int64_t> bytes_written{0};
ssize_t count_writes(int fd, const void* from, size_t bytes, off_t offset) {
  bytes_written += static_cast<int64_t>(bytes);
  return ::pwrite(fd, from, bytes, offset);
}
ssize_t read_unevenly(int fd, void* to, size_t bytes, off_t offset, int flags) {
  static std::atomic<uint32_t> turn{0};
  std::this_thread::sleep_for(std::chrono::microseconds((turn++ * 2654435761u >> 20) % 1500));
  const iovec buffer{to, bytes};
  return ::preadv2(fd, &buffer, 1, offset, flags);
}

/// What a test asks of a model.
struct How {
  std::string map = {};
  std::string quant = {};
  bool by_matrix = false;
  bool with_folder = true;
  ReadOptions::Read read = nullptr;
  int64_t (*free_bytes)(const fs::path&) = nullptr;
};

/// A model whose weights are placed as on a GPU. On the CPU a slot is memory like any other:
/// whatever is overwritten too early, or read before it came, shows.
struct Loaded {
  ModelConfig config;
  WeightPlan plan;
  GraphOptions graph;
  WeightLoading loading;
  DeviceWeights weights;
  std::unique_ptr<WeightStream> stream;
  std::unique_ptr<ModelRunner> runner;
};

class DiskLayers : public ::testing::Test {
 protected:
  DiskLayers() { device_ = std::move(OpenDevice::open({}, true, threads_, choices_)).value(); }

  Result<std::unique_ptr<Loaded>> load(const How& how) {
    auto out = std::make_unique<Loaded>();
    Loaded& m = *out;
    VLR_ASSIGN_OR_RETURN(m.config, read_config(model_ + "/config.json"));
    VLR_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(model_));
    VLR_ASSIGN_OR_RETURN(m.plan,
                         make_weight_plan(m.config, checkpoint.tensors(), {.yes = 3, .no = 5}));
    Options options{.quant = how.quant};
    VLR_ASSIGN_OR_RETURN(m.graph.quant, prepare_plan(m.plan, options, {}));
    m.graph.dtype = DType::kF32;
    VLR_ASSIGN_OR_RETURN(const DeviceMap map, DeviceMap::parse(how.map));
    VLR_RETURN_IF_ERROR(map.apply(m.plan, how.by_matrix));
    m.loading = {.read = {.read = how.read},
                 .offload_folder = how.with_folder ? folder_.path() : "",
                 .offload_system = {.write = count_writes, .free_bytes = how.free_bytes}};
    VLR_ASSIGN_OR_RETURN(
        m.weights, DeviceWeights::load(checkpoint, m.plan, DType::kBF16, *device_, &m.loading));
    VLR_ASSIGN_OR_RETURN(m.stream, WeightStream::create(*device_, m.weights));
    const auto get = [&m](std::string_view name) { return m.weights.get(name); };
    VLR_ASSIGN_OR_RETURN(m.runner,
                         ModelRunner::create(m.config, get, *device_, m.graph, {}, m.stream.get()));
    return out;
  }
  std::unique_ptr<Loaded> load_or_die(const How& how) {
    auto m = load(how);
    if (!m) {
      ADD_FAILURE() << how.map << ": " << m.error().message();
      std::abort();
    }
    return *std::move(m);
  }

  /// Features of a picture, and the log-odds of a text.
  static Result<Bits> run(ModelRunner& runner) {
    std::vector<int32_t> ids, positions, none(40, -1);
    for (int32_t i = 0; i < 40; ++i) ids.push_back(7 + 13 * i);
    for (int axis = 0; axis < 3; ++axis)
      for (int32_t i = 0; i < 40; ++i) positions.push_back(i);
    const TextInput text{
        .ids = ids, .positions = positions, .positions_stride = 40, .visual_rows = none};
    std::vector<uint8_t> pixels(static_cast<size_t>(4 * 6 * kPatchValues));
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * i >> 4);
    const VisionInput picture{.grid_t = 1, .grid_h = 4, .grid_w = 6, .patches = pixels};
    VisionFeatures features;
    if (const auto seen = runner.run_vision({&picture, 1}, 1024, features); !seen)
      return seen.error();
    Bits bits(static_cast<size_t>(6 * runner.feature_row_bytes()));
    const std::span<std::byte> all(bits);
    VLR_RETURN_IF_ERROR(runner.save_features(features, 0, 6, {&all, 1}));
    VLR_ASSIGN_OR_RETURN(const std::vector<float> scores, runner.run_scores({&text, 1}, features));
    const auto* score = reinterpret_cast<const std::byte*>(scores.data());
    bits.insert(bits.end(), score, score + sizeof(float));
    return bits;
  }
  static Bits bits_of(Loaded& m) {
    auto bits = run(*m.runner);
    EXPECT_TRUE(bits) << bits.error().message();
    return bits ? *std::move(bits) : Bits();
  }

  std::vector<std::string> blobs() const {
    std::vector<std::string> out;
    for (const auto& f : fs::recursive_directory_iterator(folder_.path()))
      if (f.is_regular_file()) out.push_back(f.path().string());
    std::ranges::sort(out);
    return out;
  }
  std::string blob_of(std::string_view group) const {
    for (const std::string& path : blobs()) {
      if (path.find(group) != path.npos) return path;
    }
    ADD_FAILURE() << group;
    return {};
  }

  testing::TempFolder folder_;
  std::string model_ = demo_model();
  ThreadPool threads_{2};
  const ImplChoices choices_;
  std::unique_ptr<OpenDevice> device_;
};

TEST_F(DiskLayers, KeepTheBits) {
  for (const char* quant : {"", "nf4", "int8"}) {
    const Bits truth = bits_of(*load_or_die({.quant = quant}));
    for (const char* map :
         {"layers.2=disk", "layers.1-2=disk", "layers.0-2=disk", "layers.0-5=disk", "vision=disk",
          "layers.0=disk,layers.1=cpu,layers.3-4=disk,layers.5=cpu", "text=cpu,layers.1-4=disk",
          "layers.0=cpu,layers.3-5=disk,visual.blocks.1=disk", "=disk"}) {
      for (const bool by_matrix : {false, true}) {
        SCOPED_TRACE(::testing::Message() << quant << " " << map << " " << by_matrix);
        const How how{.map = map, .quant = quant, .by_matrix = by_matrix, .read = read_unevenly};
        const auto m = load_or_die(how);
        for (int round = 0; round < 2; ++round) ASSERT_TRUE(bits_of(*m) == truth) << round;
        int64_t on_disk = 0, pinned = 0, groups_on_disk = 0;
        for (const DeviceWeights::Group& g : m->weights.groups()) {
          EXPECT_EQ(g.host == nullptr, g.blob != nullptr);
          (g.blob ? on_disk : pinned) += g.bytes;
          groups_on_disk += g.blob != nullptr;
        }
        const DeviceWeightBytes bytes = device_weight_bytes(m->plan, DType::kBF16);
        EXPECT_EQ(on_disk, bytes.disk);
        EXPECT_EQ(pinned, bytes.streamed);
        const MemoryBudget& host = device_->host_budget();
        EXPECT_EQ(host.bytes("weights"), bytes.host + bytes.streamed);
        EXPECT_NEAR(static_cast<double>(host.bytes("disk layers")),
                    static_cast<double>(bytes.disk_ring), 4096);
        EXPECT_EQ(host.bytes("disk layers, being written"), 0);
        // What fits into the ring is read once.
        const DiskStats stats = m->stream->disk_stats();
        EXPECT_GE(stats.bytes, on_disk);
        EXPECT_GT(stats.reading_seconds, 0);
        if (groups_on_disk <= 3) {
          EXPECT_LT(stats.bytes, on_disk + groups_on_disk * 4096);
        }
      }
    }
  }
}

TEST_F(DiskLayers, AreWrittenOnce) {
  const How how{.map = "layers.0-4=disk,vision=cpu", .quant = "nf4"};
  bytes_written = 0;
  const auto first = load_or_die(how);
  const Bits truth = bits_of(*first);
  EXPECT_EQ(blobs().size(), 5u);
  EXPECT_GT(bytes_written, device_weight_bytes(first->plan, DType::kBF16).disk);
  bytes_written = 0;
  const auto second = load_or_die(how);
  EXPECT_EQ(bytes_written, 0);
  EXPECT_LT(second->loading.stats.bytes, first->loading.stats.bytes);
  EXPECT_EQ(bits_of(*second), truth);
  // What quantised weights were before is known all the same.
  ASSERT_GT(first->weights.fingerprints().size(), 0u);
  ASSERT_EQ(second->weights.fingerprints().size(), first->weights.fingerprints().size());
  for (const auto& [name, f] : first->weights.fingerprints()) {
    const auto it = second->weights.fingerprints().find(name);
    ASSERT_NE(it, second->weights.fingerprints().end()) << name;
    EXPECT_EQ(it->second.values, f.values) << name;
    EXPECT_EQ(it->second.parts, f.parts) << name;
  }
  // More layers, some of which are there; and others, of another format.
  load_or_die({.map = "layers.3-5=disk", .quant = "nf4"});
  EXPECT_EQ(blobs().size(), 6u);
  load_or_die({.map = "layers.3-5=disk"});
  EXPECT_EQ(blobs().size(), 9u);
}

TEST_F(DiskLayers, OfAnotherCheckpointAreWrittenAgain) {
  const testing::TempFolder copy;
  model_ = copy / "model";
  fs::copy(demo_model(), model_, fs::copy_options::recursive);
  const How how{.map = "layers.0-5=disk"};
  const Bits before = bits_of(*load_or_die(how));
  const std::vector<std::string> names = blobs();

  const auto checkpoint = Checkpoint::open(model_);
  ASSERT_TRUE(checkpoint);
  const StoredTensor* const t =
      checkpoint->find("model.language_model.layers.3.mlp.down_proj.weight");
  ASSERT_TRUE(t);
  const std::string file = checkpoint->files()[static_cast<size_t>(t->file_idx)].path();
  fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
  bytes_written = 0;
  EXPECT_EQ(bits_of(*load_or_die(how)), before);
  EXPECT_GT(bytes_written, 0);
  EXPECT_EQ(blobs(), names);

  // The same names, shapes and sizes, but not the same weights.
  std::string content = testing::read_file(file);
  std::fill_n(content.begin() + t->file_offset, t->bytes(), '\0');
  testing::write_file(file, content);
  const Bits after = bits_of(*load_or_die(how));
  EXPECT_NE(after, before);
  EXPECT_EQ(after, bits_of(*load_or_die({})));
  EXPECT_EQ(blobs(), names);
}

TEST_F(DiskLayers, ThatAreDamagedAreWrittenAgain) {
  const How how{.map = "layers.0-5=disk"};
  const Bits truth = bits_of(*load_or_die(how));
  fs::resize_file(blob_of("layers.1."), 100'000);
  std::string garbled = testing::read_file(blob_of("layers.2."));
  garbled[20] ^= 1;
  testing::write_file(blob_of("layers.2."), garbled);
  testing::write_file(blob_of("layers.3."), "");
  fs::rename(blob_of("layers.4."), blob_of("layers.5."));  // a whole blob, of other weights
  testing::write_file(blob_of("layers.5.") + ".0.tmp", "of a dead writer");
  EXPECT_EQ(bits_of(*load_or_die(how)), truth);
  EXPECT_EQ(blobs().size(), 6u);
  bytes_written = 0;
  EXPECT_EQ(bits_of(*load_or_die(how)), truth);
  EXPECT_EQ(bytes_written, 0);
}

TEST_F(DiskLayers, ThatChangeMeanwhileAreNamedAndMayComeBack) {
  const auto m = load_or_die({.map = "layers.0-5=disk"});
  const Bits truth = bits_of(*m);
  const std::string file = blob_of("layers.3."), whole = testing::read_file(file);
  for (const bool truncate : {true, false}) {
    if (truncate) {
      fs::resize_file(file, whole.size() / 2);
    } else {
      std::string garbled = whole;
      garbled[garbled.size() / 2] ^= 1;
      testing::write_file(file, garbled);
    }
    // What was read ahead before is good, and used.
    Result<Bits> bits = Bits();
    for (int round = 0; round < 3 && bits; ++round) bits = run(*m->runner);
    EXPECT_EQ(bits.error().code(), Code::kDataLoss);
    EXPECT_THAT(bits.error().message(), HasSubstr(file));
    testing::write_file(file, whole);
    EXPECT_EQ(bits_of(*m), truth);
  }
  // Who removes it takes it away from those who come later only.
  fs::remove_all(folder_.path());
  EXPECT_EQ(bits_of(*m), truth);
}

TEST_F(DiskLayers, NeedAFolderWithRoom) {
  auto m = load({.map = "layers.0=disk", .with_folder = false});
  EXPECT_EQ(m.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(m.error().message(), AllOf(HasSubstr("offload_folder"), HasSubstr("layers.0.")));
  m = load(
      {.map = "layers.0-3=disk", .free_bytes = [](const fs::path&) -> int64_t { return 1 << 20; }});
  EXPECT_EQ(m.error().code(), Code::kOutOfMemory);
  EXPECT_THAT(m.error().message(), AllOf(HasSubstr(folder_.path()), HasSubstr("4 groups"),
                                         HasSubstr("1.00 MiB are free")));
  EXPECT_TRUE(blobs().empty());
  EXPECT_TRUE(load({.map = "layers.0=cpu", .with_folder = false}));
}

TEST_F(DiskLayers, AreCounted) {
  const auto m = load_or_die({.map = "layers.0-3=disk,layers.4=cpu"});
  const auto get = [&](std::string_view name) -> Result<ConstTensor> {
    auto t = m->weights.get(name);
    if (t) t->device = Device::kCuda;
    return t;
  };
  const auto layers = layer_bytes(m->plan, get, DType::kBF16, Device::kCuda);
  ASSERT_TRUE(layers);
  int64_t disk = 0, host = 0;
  for (const MemoryPlan::Layer& l : *layers) {
    EXPECT_EQ(l.disk_bytes > 0, l.name.starts_with("layers.") && l.name < "layers.4") << l.name;
    disk += l.disk_bytes;
    host += l.host_bytes;
  }
  const DeviceWeightBytes bytes = device_weight_bytes(m->plan, DType::kBF16);
  EXPECT_EQ(disk, bytes.disk);
  EXPECT_EQ(host, bytes.streamed);
  EXPECT_GT(bytes.disk_ring, 3 * bytes.disk / 4);
}

}  // namespace
}  // namespace vlr
