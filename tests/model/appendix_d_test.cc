// The tiny deterministic model, from a checkpoint on disk through both graphs. The expected numbers
// are those of Qwen3VLModel of transformers 4.57, run in float32 with the same weights and inputs.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/runtime/executor.h"
#include "engine/runtime/safetensors.h"
#include "engine/weights/weight_store.h"
#include "kernels/linear/linear.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "model/mrope_positions.h"
#include "model/text_decoder.h"
#include "model/vision_encoder.h"
#include "model/weight_plan.h"
#include "tests/support/appendix_d.h"
#include "tests/support/poisoned_arena.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using testing::PoisonedArena;
using testing::TempFolder;

constexpr double kTolerance = 1e-5;
constexpr int64_t kHidden = 64, kPatchDim = 1536;
constexpr int64_t kKeysAndValues = 2 * 2 * 32;  // of a token, in one layer
constexpr int64_t kLayers = 4;

const std::vector<int32_t> kIds = {9,   10,  11,  27,  118, 121, 121, 121, 121, 119, 28,
                                   118, 121, 121, 121, 121, 119, 12,  118, 120, 120, 120,
                                   120, 120, 120, 119, 13,  14,  15,  16,  17};

/// A value of a run, copied when its node had written it: later nodes may work on it in place.
struct Recorded {
  int64_t width = 0;
  std::vector<float> data;
  const float* row(int64_t i) const { return data.data() + i * width; }
};
using Record = std::map<std::string, Recorded, std::less<>>;

/// Keeps f32 matrices and, as rows, higher axes.
void keep(Record& record, std::string_view name, const ConstTensor& t) {
  if (t.dtype != DType::kF32 || !t.contiguous() || t.rank < 2) return;
  Recorded& r = record[std::string(name)];
  r.width = t.numel() / std::max<int64_t>(t.dim(0), 1);
  r.data.assign(t.as<float>(), t.as<float>() + t.numel());
}

void expect_row(const float* row, const std::vector<double>& expected, std::string_view what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(row[i], expected[i], kTolerance) << what << ", component " << i;
  }
}

template <class T>
Tensor view(std::vector<T>& data, std::initializer_list<int64_t> dims) {
  constexpr DType kType = std::is_same_v<T, float>     ? DType::kF32
                          : std::is_same_v<T, int32_t> ? DType::kI32
                                                       : DType::kU8;
  return Tensor(data.data(), kType, dims);
}

Status execute(const Executor& executor, RunArgs& args, Context& ctx, Record* record) {
  VLR_ASSIGN_OR_RETURN(const RunPlan plan, executor.plan(args, ctx));
  PoisonedArena arena(plan.total());
  if (record) {
    args.on_value = [record](std::string_view name, const ConstTensor& t) {
      keep(*record, name, t);
      return Status();
    };
  }
  return executor.run(args, plan, arena.span(), ctx);
}

/// Tokens [0, end) of the prompt, or any other text.
struct Sequence {
  std::vector<int32_t> ids;
  std::array<std::vector<int32_t>, 3> positions;  // by axis
  std::vector<int32_t> visual_row;

  int32_t size() const { return static_cast<int32_t>(ids.size()); }
};

/// Several sequences' tokens, one after the other, without the first `skip` of each.
struct Packed {
  std::vector<int32_t> ids, visual_row, positions, last_rows, last_positions;
  std::vector<ops::AttentionSegment> all, last;

  Packed(const std::vector<Sequence>& sequences, int32_t skip) {
    std::array<std::vector<int32_t>, 3> by_axis;
    for (const Sequence& s : sequences) {
      const auto begin = static_cast<int32_t>(ids.size());
      const int32_t len = s.size() - skip;
      ids.insert(ids.end(), s.ids.begin() + skip, s.ids.end());
      visual_row.insert(visual_row.end(), s.visual_row.begin() + skip, s.visual_row.end());
      for (size_t a = 0; a < 3; ++a) {
        by_axis[a].insert(by_axis[a].end(), s.positions[a].begin() + skip, s.positions[a].end());
      }
      last.push_back({.q_begin = static_cast<int32_t>(last_rows.size()),
                      .q_len = 1,
                      .k_begin = begin,
                      .k_len = len,
                      .prefix_begin = 0,
                      .prefix_len = skip});
      all.push_back({.q_begin = begin,
                     .q_len = len,
                     .k_begin = begin,
                     .k_len = len,
                     .prefix_begin = 0,
                     .prefix_len = skip});
      last_rows.push_back(begin + len - 1);
    }
    for (const auto& axis : by_axis) {
      positions.insert(positions.end(), axis.begin(), axis.end());
      for (const int32_t row : last_rows) last_positions.push_back(axis[static_cast<size_t>(row)]);
    }
  }
};

/// The model, and the features of its image and its video.
class TinyModel {
 public:
  struct Features {
    int64_t tokens = 0;
    std::vector<float> visual;
    std::vector<std::vector<float>> deepstack;
  };

  static Status write_checkpoint(const TempFolder& folder) {
    const ModelConfig config = testing::appendix_d_config();
    testing::write_file(folder / "config.json", format_config(config));
    return write_safetensors(
        folder / "model.safetensors", checkpoint_tensors(config, DType::kF32),
        [](const NamedShape& t, int64_t begin, std::span<std::byte> out) {
          const std::vector<float> values = testing::appendix_d_values(t.name, t.shape);
          std::memcpy(out.data(), reinterpret_cast<const std::byte*>(values.data()) + begin,
                      out.size());
          return Status();
        });
  }

  static Result<std::unique_ptr<TinyModel>> create() {
    auto model = std::unique_ptr<TinyModel>(new TinyModel);
    TempFolder folder;
    VLR_RETURN_IF_ERROR(write_checkpoint(folder));
    VLR_ASSIGN_OR_RETURN(model->config, read_config(folder / "config.json"));
    VLR_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(folder.path()));
    VLR_ASSIGN_OR_RETURN(
        const WeightPlan plan,
        make_weight_plan(model->config, checkpoint.tensors(),
                         {.yes = testing::kAppendixDYes, .no = testing::kAppendixDNo}));
    VLR_ASSIGN_OR_RETURN(WeightStore weights, WeightStore::load(std::move(checkpoint), plan));
    model->weights.emplace(std::move(weights));
    model->vision_graph = build_vision_graph(*model->config.vision_config);
    model->score_graph = build_text_graph(model->config, TextGraph::kScore);
    model->prefix_graph = build_text_graph(model->config, TextGraph::kPrefix);

    VLR_ASSIGN_OR_RETURN(const Features image,
                         model->run_vision("pixel_values", 1, 4, 6, &model->image_record));
    VLR_ASSIGN_OR_RETURN(const Features video,
                         model->run_vision("pixel_values_videos", 2, 4, 4, &model->video_record));
    model->image = model->features = image;
    model->video = video;
    Features& both = model->features;
    both.tokens += video.tokens;
    both.visual.insert(both.visual.end(), video.visual.begin(), video.visual.end());
    for (size_t k = 0; k < both.deepstack.size(); ++k) {
      both.deepstack[k].insert(both.deepstack[k].end(), video.deepstack[k].begin(),
                               video.deepstack[k].end());
    }
    return model;
  }

  /// The vision tower on one image or video, whose pixels are generated under `name`.
  Result<Features> run_vision(std::string_view name, int64_t t, int64_t h, int64_t w,
                              Record* record) {
    const int64_t patches = t * h * w;
    std::vector<uint8_t> pixels(static_cast<size_t>(patches * kPatchDim));
    for (size_t i = 0; i < pixels.size(); ++i) {
      pixels[i] = static_cast<uint8_t>(splitmix64(fnv1a64(name) + i) >> 56);
    }
    VisionPositions vision;
    vision.append(*config.vision_config, t, h, w);
    std::vector<int32_t> positions = vision.rows;
    positions.insert(positions.end(), vision.columns.begin(), vision.columns.end());
    RotaryPairs pairs = vision_rotary_pairs(*config.vision_config);

    Features out;
    out.tokens = patches / 4;
    out.visual.assign(static_cast<size_t>(out.tokens * kHidden), 0);
    out.deepstack.assign(3, out.visual);
    RunArgs args;
    size_of(args.sizes, Sym::kPatches) = patches;
    args.bound = {{"patches", view(pixels, {patches, kPatchDim})},
                  {"pos_indices", view(vision.pos_indices, {patches, 4})},
                  {"pos_weights", view(vision.pos_weights, {patches, 4})},
                  {"positions", view(positions, {2, patches})},
                  {"rope.axis", view(pairs.axis, {8})},
                  {"rope.inv_freq", view(pairs.inv_freq, {8})},
                  {"visual", view(out.visual, {out.tokens, kHidden})}};
    for (size_t k = 0; k < 3; ++k) {
      args.bound["deepstack." + std::to_string(k)] = view(out.deepstack[k], {out.tokens, kHidden});
    }
    args.segments = {vision.segments};
    Context ctx = context();
    VLR_ASSIGN_OR_RETURN(const Executor executor, Executor::create(vision_graph, *weights));
    VLR_RETURN_IF_ERROR(execute(executor, args, ctx, record));
    return out;
  }

  /// Log-odds of sequences that all start with the same `shared` tokens, which are computed once,
  /// in a pass of their own. ids and pictures of the whole prompt: see prompt().
  Result<std::vector<float>> score(const std::vector<Sequence>& sequences, int32_t shared = 0,
                                   Record* record = nullptr, const ImplChoices* choices = nullptr) {
    Context ctx = context();
    ctx.choices = choices;
    std::vector<std::vector<float>> prefix(
        kLayers, std::vector<float>(static_cast<size_t>(shared * kKeysAndValues)));
    if (shared > 0) {
      Sequence head = sequences.front();
      head.ids.resize(static_cast<size_t>(shared));
      head.visual_row.resize(static_cast<size_t>(shared));
      for (auto& axis : head.positions) axis.resize(static_cast<size_t>(shared));
      Packed packed({head}, 0);
      RunArgs args = text_args(packed);
      add_prefix(args, prefix, shared);
      VLR_ASSIGN_OR_RETURN(const Executor executor, Executor::create(prefix_graph, *weights));
      VLR_RETURN_IF_ERROR(execute(executor, args, ctx, nullptr));
    }

    Packed packed(sequences, shared);
    RunArgs args = text_args(packed);
    add_prefix(args, prefix, shared);
    const auto count = static_cast<int64_t>(sequences.size());
    std::vector<float> log_odds(sequences.size());
    size_of(args.sizes, Sym::kSequences) = count;
    size_of(args.sizes, Sym::kPrefixTokens) = shared;
    args.bound["last_rows"] = view(packed.last_rows, {count});
    args.bound["last_positions"] = view(packed.last_positions, {3, count});
    args.bound["log_odds"] = view(log_odds, {count});
    VLR_ASSIGN_OR_RETURN(const Executor executor, Executor::create(score_graph, *weights));
    VLR_RETURN_IF_ERROR(execute(executor, args, ctx, record));
    return log_odds;
  }

  /// The first `length` tokens of the prompt with the image and the video.
  Sequence prompt(size_t length = kIds.size()) const {
    const std::vector<VisualRun> image_runs = {{.rows = 2, .columns = 3}};
    const std::vector<VisualRun> video_runs = {{.rows = 2, .columns = 2},
                                               {.rows = 2, .columns = 2}};
    const auto whole = mrope_positions(kIds, config, image_runs, video_runs);
    EXPECT_TRUE(whole) << whole.error().message();
    if (!whole) return {};
    return cut(kIds, *whole, length);
  }

  Sequence text(const std::vector<int32_t>& ids) const {
    return cut(ids, *mrope_positions(ids, config, {}, {}), ids.size());
  }

  ConstTensor weight(std::string_view name) const { return *weights->get(name); }

  ModelConfig config;
  std::optional<WeightStore> weights;
  Graph vision_graph, score_graph, prefix_graph;
  Features image, video, features;  // features: of both, the image's tokens first
  Record image_record, video_record;

 private:
  TinyModel() = default;

  Context context() {
    Context ctx;
    ctx.threads = &pool_;
    return ctx;
  }

  static Sequence cut(const std::vector<int32_t>& ids, const SequencePositions& p, size_t length) {
    Sequence s;
    const auto n = static_cast<std::ptrdiff_t>(length), all = std::ssize(ids);
    s.ids.assign(ids.begin(), ids.begin() + n);
    s.visual_row.assign(p.visual_index.begin(), p.visual_index.begin() + n);
    for (std::ptrdiff_t a = 0; a < 3; ++a) {
      const auto begin = p.positions.begin() + a * all;
      s.positions[static_cast<size_t>(a)].assign(begin, begin + n);
    }
    return s;
  }

  RunArgs text_args(Packed& packed) {
    RunArgs args;
    const auto tokens = std::ssize(packed.ids);
    size_of(args.sizes, Sym::kTokens) = tokens;
    size_of(args.sizes, Sym::kVisualTokens) = features.tokens;
    args.bound = {{"ids", view(packed.ids, {tokens})},
                  {"visual_row", view(packed.visual_row, {tokens})},
                  {"positions", view(packed.positions, {3, tokens})},
                  {"rope.axis", view(pairs_.axis, {16})},
                  {"rope.inv_freq", view(pairs_.inv_freq, {16})},
                  {"visual", view(features.visual, {features.tokens, kHidden})}};
    for (size_t k = 0; k < 3; ++k) {
      args.bound["deepstack." + std::to_string(k)] =
          view(features.deepstack[k], {features.tokens, kHidden});
    }
    args.segments = {packed.all, packed.last};
    return args;
  }

  static void add_prefix(RunArgs& args, std::vector<std::vector<float>>& prefix, int32_t rows) {
    for (size_t i = 0; i < prefix.size(); ++i) {
      args.bound["prefix_kv." + std::to_string(i)] = view(prefix[i], {rows, kKeysAndValues});
    }
  }

  ThreadPool pool_{2};
  RotaryPairs pairs_ = text_rotary_pairs(testing::appendix_d_config().text_config);
};

/// Bit patterns, so that a NaN is not equal to a number and -0 not to 0.
std::vector<uint32_t> bits(const std::vector<float>& values) {
  std::vector<uint32_t> out(values.size());
  std::memcpy(out.data(), values.data(), 4 * values.size());
  return out;
}

class AppendixDModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = TinyModel::create();
    ASSERT_TRUE(model) << model.error().message();
    model_ = std::move(*model).release();
  }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }
  void SetUp() override { ASSERT_NE(model_, nullptr); }

  static std::vector<float> score(const std::vector<Sequence>& sequences, int32_t shared = 0,
                                  Record* record = nullptr, const ImplChoices* choices = nullptr) {
    const auto log_odds = model_->score(sequences, shared, record, choices);
    EXPECT_TRUE(log_odds) << log_odds.error().message();
    return log_odds ? *log_odds : std::vector<float>(sequences.size(), NAN);
  }

  inline static TinyModel* model_ = nullptr;
};

TEST_F(AppendixDModel, ConfigSurvivesTheFile) {
  EXPECT_EQ(model_->config, testing::appendix_d_config());
}

TEST_F(AppendixDModel, PatchEmbedding) {
  const Recorded& x = model_->image_record.at("patch_embed");
  expect_row(x.row(0), {0.1795343, -0.4485677, -0.4004366, -0.7917394}, "row 0");
  expect_row(x.row(5), {-0.1731847, -0.3604320, -0.5343444, -0.0121285}, "row 5");
}

TEST_F(AppendixDModel, PositionEmbedding) {
  const Recorded& before = model_->image_record.at("patch_embed");
  const Recorded& after = model_->image_record.at("pos_embed");
  const auto added = [&](int64_t row) {
    std::vector<float> out;
    for (int64_t i = 0; i < 4; ++i) out.push_back(after.row(row)[i] - before.row(row)[i]);
    return out;
  };
  expect_row(added(0).data(), {0.0585938, -0.0380859, 0.0546875, -0.0537109}, "row 0");
  expect_row(added(5).data(), {0.0224609, -0.0371094, -0.0009766, -0.0537109}, "row 5");
}

TEST_F(AppendixDModel, VisionBlocks) {
  const Recorded& first = model_->image_record.at("blocks.0.mlp.residual");
  expect_row(first.row(0), {0.2683353, -0.4599238, -0.3734221, -0.7562939}, "block 0, row 0");
  expect_row(first.row(5), {-0.2305115, -0.3848726, -0.4950170, -0.1211499}, "block 0, row 5");
  const Recorded& last = model_->image_record.at("blocks.3.mlp.residual");
  expect_row(last.row(0), {0.0495799, -0.4323110, -0.2987997, -0.7724145}, "block 3, row 0");
  expect_row(last.row(5), {-0.3379793, -0.3748333, -0.3243701, -0.2571252}, "block 3, row 5");
}

TEST_F(AppendixDModel, VisionFeatures) {
  const auto row = [](const std::vector<float>& m, int64_t i) { return m.data() + i * kHidden; };
  expect_row(row(model_->image.visual, 0),
             {0.2088574, 0.0444910, 0.0201262, -0.0306688, -0.0423668, -0.0074838}, "image 0");
  expect_row(row(model_->image.visual, 5),
             {0.1653343, -0.2431199, -0.1089090, 0.1992609, 0.1146108, -0.2441756}, "image 5");
  expect_row(row(model_->image.deepstack[0], 0),
             {0.1959278, -0.4083149, 0.1854613, -0.3306398, -0.0476659, 0.3121942}, "deepstack 0");
  expect_row(row(model_->image.deepstack[2], 5),
             {0.2527294, -0.2492999, 0.1455225, -0.2488916, 0.0364656, -0.1950610}, "deepstack 2");
  expect_row(row(model_->video.visual, 0),
             {0.0966801, -0.1115727, -0.2577467, -0.0839199, -0.0548931, 0.0406039}, "video 0");
  expect_row(row(model_->video.visual, 7),
             {0.2120787, -0.1495402, 0.0302070, 0.2696648, -0.0573299, -0.0617706}, "video 7");
}

TEST_F(AppendixDModel, RotaryTable) {
  Record record;
  score({model_->prompt()}, 0, &record);
  const float* cosines = record.at("rope_table").row(19);
  const float* sines = cosines + 16;
  const std::vector<double> angles = {15, 5.7201265, 2.1813232, 0.8318296, 0.3172114, 0.1209659};
  for (size_t j = 0; j < angles.size(); ++j) {
    EXPECT_NEAR(cosines[j], std::cos(angles[j]), 1e-6) << j;
    EXPECT_NEAR(sines[j], std::sin(angles[j]), 1e-6) << j;
  }
}

TEST_F(AppendixDModel, FirstDecoderLayer) {
  Record record;
  score({model_->prompt()}, 0, &record);
  const Recorded& x = record.at("layers.0.mlp.residual");
  expect_row(x.row(0), {-0.0538567, -0.0187162, -0.0620813, -0.0168078}, "row 0");
  expect_row(x.row(5), {-0.0617115, -0.0248812, -0.1831081, -0.2318400}, "row 5");
  expect_row(x.row(30), {-0.0677643, 0.0366709, 0.0076366, 0.0344627}, "row 30");
  const Recorded& added = record.at("layers.0.deepstack_add");
  expect_row(added.row(5), {-0.0858813, -0.3399463, -0.0180659, -0.5077273}, "row 5 + DeepStack");
  EXPECT_EQ(std::memcmp(added.row(30), x.row(30), kHidden * sizeof(float)), 0) << "a text token";
}

// The last layer computes final tokens only. Attention is causal, so rows 0 and 5 of the prompt are
// the final tokens of its first 1 and 6 tokens.
TEST_F(AppendixDModel, LastDecoderLayerAndFinalNorm) {
  Record record;
  score({model_->prompt(1), model_->prompt(6), model_->prompt()}, 0, &record);
  Recorded& x = record.at("layers.3.mlp.residual");
  ASSERT_EQ(x.data.size(), 3u * kHidden);
  expect_row(x.row(0), {-0.2288481, 0.0261075, 0.0207450, -0.1712624}, "layer 3, row 0");
  expect_row(x.row(2), {-0.2673618, 0.0606287, 0.0334397, 0.0414327}, "layer 3, row 30");

  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  std::vector<float> y(x.data.size());
  const ops::RmsNorm::Args norm = {.x = view(x.data, {3, kHidden}),
                                   .weight = model_->weight(weights::kTextNorm),
                                   .y = view(y, {3, kHidden}),
                                   .eps = 1e-6f};
  PoisonedArena workspace(*ops::workspace_bytes<ops::RmsNorm>(norm, ctx));
  ctx.workspace = workspace.span();
  const Status normed = ops::run<ops::RmsNorm>(norm, ctx);
  ASSERT_TRUE(normed.ok()) << normed.message();
  expect_row(y.data(), {-0.9938298, 0.1036603, 0.0900904, -0.7649996, -0.0722706, -0.3283307},
             "final norm, row 0");
  expect_row(y.data() + kHidden,
             {1.2400807, -0.7497851, -1.0631838, -2.7666102, -0.3584520, -0.4109239},
             "final norm, row 5");
  expect_row(
      y.data() + 2 * kHidden,
      {-1.9219446, 0.3984756, 0.2403832, 0.3063510, 0.4009092, -1.3162982, -0.2921253, 0.0091317},
      "final norm, row 30");

  const auto logit = [&](int32_t id) {
    const float* row = model_->weight(weights::kEmbedTokens).row<float>(id);
    double sum = 0;
    for (int64_t i = 0; i < kHidden; ++i)
      sum += double{y[static_cast<size_t>(2 * kHidden + i)]} * row[i];
    return sum;
  };
  EXPECT_NEAR(logit(testing::kAppendixDYes), -0.3690159, kTolerance);
  EXPECT_NEAR(logit(testing::kAppendixDNo), -0.2255228, kTolerance);
}

TEST_F(AppendixDModel, Score) {
  const float log_odds = score({model_->prompt()})[0];
  EXPECT_NEAR(log_odds, -0.1434931, kTolerance);
  EXPECT_NEAR(1 / (1 + std::exp(-log_odds)), 0.4641882, kTolerance);
}

TEST_F(AppendixDModel, ScoreWithEveryImplementation) {
  ImplChoices choices;
  const auto check = [&](std::string_view op, std::string_view impl) {
    choices = {{std::string(op), std::string(impl)}};
    EXPECT_NEAR(score({model_->prompt()}, 0, nullptr, &choices)[0], -0.1434931, kTolerance)
        << op << "=" << impl;
  };
  for (const auto& impl : ops::Linear::impls()) {
    if (impl.device == Device::kCpu) check(ops::Linear::kName, impl.name);
  }
  for (const auto& impl : ops::Attention::impls()) {
    if (impl.device == Device::kCpu) check(ops::Attention::kName, impl.name);
  }
}

/// The default, and one choice for every implementation whose rows do not depend on each other.
std::vector<ImplChoices> bit_invariant_choices() {
  std::vector<ImplChoices> out = {{}};
  const auto add = [&](std::string_view op, Device device, std::string_view impl) {
    if (device == Device::kCpu && impl != "openblas") {
      out.push_back({{std::string(op), std::string(impl)}});
    }
  };
  for (const auto& impl : ops::Linear::impls()) add(ops::Linear::kName, impl.device, impl.name);
  for (const auto& impl : ops::Attention::impls())
    add(ops::Attention::kName, impl.device, impl.name);
  return out;
}

// Shared prefixes cut between words, inside the video, inside the image and before the last token.
TEST_F(AppendixDModel, SharedPrefixChangesNoBit) {
  const std::vector<Sequence> one = {model_->prompt()};
  std::vector<Sequence> several = {model_->prompt(28), model_->prompt(), model_->prompt(12)};
  several.push_back(several[1]);
  several.back().ids[29] = 40;
  std::vector<int32_t> ids;  // longer than the blocks of any implementation
  for (int32_t i = 0; i < 300; ++i) ids.push_back(i * i % 113);
  const std::vector<Sequence> long_text = {model_->text(ids)};
  for (const ImplChoices& choices : bit_invariant_choices()) {
    SCOPED_TRACE(::testing::PrintToString(choices));
    const std::vector<float> unshared = score(one, 0, nullptr, &choices);
    for (const int32_t shared : {1, 5, 7, 19, 22, 26, 30}) {
      EXPECT_EQ(bits(score(one, shared, nullptr, &choices)), bits(unshared)) << shared << " shared";
    }
    const std::vector<float> long_unshared = score(long_text, 0, nullptr, &choices);
    for (const int32_t shared : {63, 64, 130, 257, 299}) {
      EXPECT_EQ(bits(score(long_text, shared, nullptr, &choices)), bits(long_unshared))
          << shared << " of 300 shared";
    }
    const std::vector<float> apart = score(several, 0, nullptr, &choices);
    EXPECT_NE(apart[1], apart[3]);
    for (const int32_t shared : {3, 8, 11}) {
      EXPECT_EQ(bits(score(several, shared, nullptr, &choices)), bits(apart))
          << shared << " shared";
    }
  }
}

TEST_F(AppendixDModel, PackingChangesNoBit) {
  const std::vector<Sequence> sequences = {model_->prompt(),
                                           model_->text({9, 10, 11, 40}),
                                           model_->prompt(23),
                                           model_->text({5}),
                                           model_->text(std::vector<int32_t>(77, 33)),
                                           model_->prompt(30)};
  const std::vector<std::vector<size_t>> orders = {
      {0, 1, 2, 3, 4, 5}, {5, 4, 3, 2, 1, 0}, {3, 0, 0, 4}, {4, 2, 0}, {1, 5, 0, 3, 2}};
  for (const ImplChoices& choices : bit_invariant_choices()) {
    SCOPED_TRACE(::testing::PrintToString(choices));
    std::vector<float> alone;
    for (const Sequence& s : sequences) alone.push_back(score({s}, 0, nullptr, &choices)[0]);
    for (const std::vector<size_t>& order : orders) {
      std::vector<Sequence> packed;
      std::vector<float> expected;
      for (const size_t i : order) {
        packed.push_back(sequences[i]);
        expected.push_back(alone[i]);
      }
      EXPECT_EQ(bits(score(packed, 0, nullptr, &choices)), bits(expected))
          << ::testing::PrintToString(order);
    }
  }
}

TEST_F(AppendixDModel, VisionFeaturesDoNotDependOnTheBatch) {
  // The video's two frames are two segments: each alone gives the same features.
  const auto again = model_->run_vision("pixel_values_videos", 1, 4, 4, nullptr);
  ASSERT_TRUE(again) << again.error().message();
  const std::vector<float> first(model_->video.visual.begin(),
                                 model_->video.visual.begin() + 4 * kHidden);
  EXPECT_EQ(bits(again->visual), bits(first));
}

}  // namespace
}  // namespace vlr
