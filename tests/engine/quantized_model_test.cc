// Quantised models: what they score, what may be mixed, and that damaged ones are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/api/quantize_checkpoint.h"
#include "engine/passes/self_check.h"
#include "engine/placement/loaded_model.h"
#include "engine/placement/prepared_model.h"
#include "engine/tasks/pair_score.h"
#include "tests/support/checkpoints.h"
#include "tests/support/tensor_map.h"

namespace vlr {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HeldTensor;
using ::testing::StartsWith;
using testing::TempFolder;
using testing::TensorMap;

Options quantised(std::string quant, std::vector<std::string> rules = {}) {
  Options o;
  o.quant = std::move(quant);
  o.quant_rules = std::move(rules);
  o.num_threads = 2;
  o.device = "cpu";
  return o;
}

/// Why it does not open.
std::string refusal(const std::string& path, const Options& options = quantised("")) {
  const auto reranker = Reranker::open(path, options);
  return reranker ? "opened as " + std::string(reranker->quant()) : reranker.error().message();
}

std::vector<float> log_odds_of(Reranker& reranker, std::span<const Request> requests) {
  std::vector<float> out;
  const auto responses = reranker.score(requests);
  EXPECT_TRUE(responses) << responses.error().message();
  if (!responses) return out;
  for (const Response& response : *responses) {
    for (const DocumentResult& r : response.results) {
      EXPECT_TRUE(r.scored()) << r.index << ": " << r.message;
      out.push_back(r.log_odds);
    }
  }
  return out;
}

std::vector<uint32_t> bits_of(Reranker& reranker, const Request& request) {
  std::vector<uint32_t> out;
  for (const float v : log_odds_of(reranker, {&request, 1}))
    out.push_back(std::bit_cast<uint32_t>(v));
  return out;
}

/// A dozen texts and pictures, of many lengths.
Request dozen() {
  Request r;
  r.query.texts = {"a shining star"};
  for (const char* text :
       {"A chess program with a graphical board and five levels of strength.", "x",
        "Checks the spelling of documents in many languages and suggests corrections.",
        "Ein Stern, der in der Nacht leuchtet: 12 345,678 … ünïcödé 什么", "the moon, drawn",
        "7 7 7", "A star is a celestial body that shines at night.", "Stars!",
        "A planetarium that shows stars, planets and constellations for any place and date."})
    r.documents.push_back(text_document(text));
  for (const char* picture : {"small.png", "gray.jpg", "palette.png"})
    r.documents.push_back(image_document(kGolden / "media" / picture));
  return r;
}
Request only(const Request& request, size_t document) {
  Request r = request;
  r.documents = {request.documents[document]};
  return r;
}

/// The demo model quantised ahead, as the command does it.
Status quantize_demo(const std::string& to, const Options& options) {
  const auto rules = quant_rules(options);
  if (!rules) return rules.error();
  QuantizeOptions how;
  how.probe = [&](const std::string& folder) -> Result<std::vector<float>> {
    Reranker reranker = open_or_die(folder, decoding_options(quantised(""), *rules));
    return probe_log_odds(reranker);
  };
  ThreadPool threads(2);
  return quantize_checkpoint(demo_model(), to, *rules, how, threads);
}

struct Mode {
  const char* name;
  double mean_distance;  // from the log-odds of the model as it is
};
constexpr Mode kModes[] = {{"nf4", 0.4},          {"fp4", 0.5},        {"int8", 0.15},
                           {"int8-weight", 0.05}, {"llm-int8", 0.15},  {"llm-int8-batch", 0.15},
                           {"fp8", 0.25},         {"fp8-weight", 0.2}, {"mxfp4", 0.6}};

class EveryMode : public ::testing::TestWithParam<Mode> {
 protected:
  const std::string mode_ = GetParam().name;
  const Options options_ = quantised(mode_, {"vision=" + mode_});
};
INSTANTIATE_TEST_SUITE_P(, EveryMode, ::testing::ValuesIn(kModes), [](const auto& param) {
  std::string name = param.param.name;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST_P(EveryMode, RanksAsTheModelItIsMadeFrom) {
  constexpr size_t kRequests = 4, kDocuments = 10;
  std::vector<Request> requests;
  std::ifstream in(kSource / "demo/eval/passages.jsonl");
  for (std::string line; requests.size() < kRequests && std::getline(in, line);) {
    const json request = json::parse(line);
    Request& r = requests.emplace_back();
    r.query.texts = {request["query"]["text"]};
    for (const json& d : request["documents"]) r.documents.push_back(text_document(d["text"]));
  }
  Reranker plain = open_or_die(demo_model()), reranker = open_or_die(demo_model(), options_);
  EXPECT_EQ(reranker.quant(), mode_);
  const std::vector<float> want = log_odds_of(plain, requests),
                           got = log_odds_of(reranker, requests);
  ASSERT_EQ(got.size(), kRequests * kDocuments);
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) sum += static_cast<double>(std::fabs(got[i] - want[i]));
  EXPECT_LT(sum / static_cast<double>(got.size()), GetParam().mean_distance);
  EXPECT_NE(got, want);
  for (size_t r = 0; r < kRequests; ++r) {
    const auto top = [&](const std::vector<float>& v) {
      const auto first = v.begin() + static_cast<std::ptrdiff_t>(r * kDocuments);
      return std::max_element(first, first + kDocuments) - first;
    };
    EXPECT_EQ(top(got), top(want)) << "request " << r;
  }
}

TEST_P(EveryMode, QuantisedAheadOrOnLoadTheBitsAreTheSame) {
  const TempFolder folder;
  const Status status = quantize_demo(folder / "q", options_);
  ASSERT_TRUE(status.ok()) << status.message();
  Reranker on_load = open_or_die(demo_model(), options_), ahead = open_or_die(folder / "q");
  EXPECT_EQ(ahead.quant(), mode_);
  EXPECT_EQ(bits_of(ahead, dozen()), bits_of(on_load, dozen()));
}

TEST_P(EveryMode, BitsDoNotDependOnTheBatch) {
  const Request request = dozen();
  Options options = options_;
  options.num_threads = 1;
  options.share_prefix = false;
  Reranker alone = open_or_die(demo_model(), options);
  std::vector<uint32_t> truth;
  for (size_t i = 0; i < request.documents.size(); ++i)
    truth.push_back(bits_of(alone, only(request, i))[0]);
  if (mode_ == "llm-int8-batch") {
    EXPECT_NE(bits_of(alone, request), truth);  // which is why llm-int8 looks at each token alone
    return;
  }
  std::mt19937 rng(1);
  for (const int64_t batch_tokens : {1, 130, 1000, 100000}) {
    for (const bool share : {true, false}) {
      SCOPED_TRACE("batch_tokens " + std::to_string(batch_tokens) +
                   (share ? ", shared" : ", whole"));
      options = options_;
      options.batch_tokens = batch_tokens;
      options.share_prefix = share;
      Reranker reranker = open_or_die(demo_model(), options);
      std::vector<size_t> order(request.documents.size());
      for (size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::ranges::shuffle(order, rng);
      Request shuffled = request;
      std::vector<uint32_t> want;
      for (size_t i = 0; i < order.size(); ++i) {
        shuffled.documents[i] = request.documents[order[i]];
        want.push_back(truth[order[i]]);
      }
      EXPECT_EQ(bits_of(reranker, shuffled), want);
    }
  }
}

TEST(LlmInt8, SetsOutliersApart) {
  Reranker apart = open_or_die(demo_model(), quantised("llm-int8")),
           together = open_or_die(demo_model(), quantised("int8"));
  EXPECT_NE(bits_of(apart, dozen()), bits_of(together, dozen()));
}

TEST(Rules, ChooseLayers) {
  const auto bits = [](const Options& options, std::string_view quant) {
    Reranker reranker = open_or_die(demo_model(), options);
    EXPECT_EQ(reranker.quant(), quant);
    return bits_of(reranker, dozen());
  };
  const std::vector<uint32_t> plain = bits(quantised(""), "none"),
                              nf4 = bits(quantised("nf4"), "nf4");
  EXPECT_EQ(bits(quantised("none"), "none"), plain);
  EXPECT_EQ(bits(quantised("", {"text=nf4"}), "nf4"), nf4);
  EXPECT_EQ(bits(quantised("", {"layers.=nf4", "visual=none"}), "nf4"), nf4);
  EXPECT_EQ(bits(quantised("nf4", {"layers.=none"}), "none"), plain);
  EXPECT_NE(bits(quantised("nf4", {"layers.0.=none"}), "nf4"), nf4);
  EXPECT_NE(bits(quantised("nf4", {"vision=int8"}), "mixed"), nf4);

  // The tower: pictures change, texts do not.
  const std::vector<uint32_t> vision = bits(quantised("", {"vision=nf4"}), "nf4");
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(vision[i] == plain[i], i < 9) << i;
}

TEST(Rules, SayWhatIsWrong) {
  const std::string layer = "model.language_model.layers.0.";
  EXPECT_EQ(refusal(demo_model(), quantised("nf4", {"layers.0.self_attn.q_proj=none"})),
            layer + "self_attn.q_proj.weight is none and " + layer +
                "self_attn.k_proj.weight nf4: parts of one weight need one quantisation");
  EXPECT_EQ(refusal(demo_model(), quantised("int8", {"layers.0.mlp.up_proj=llm-int8"})),
            layer + "mlp.gate_proj.weight is int8 and " + layer +
                "mlp.up_proj.weight llm-int8: parts of one weight need one quantisation");
  EXPECT_THAT(refusal(demo_model(), quantised("fp5")), HasSubstr("got 'fp5'"));
  EXPECT_EQ(refusal(demo_model(), quantised("nf4", {"mlp.dwn_proj=none"})),
            "quantisation rule 'mlp.dwn_proj=none': no linear layer of this model matches");
  EXPECT_THAT(refusal(demo_model(), quantised("", {"vision"})), HasSubstr("PATTERN=MODE"));
}

TEST(StoredQuantised, StaysAsItIsStored) {
  const TempFolder folder;
  const std::string path = folder / "int8", nf4 = folder / "nf4";
  ASSERT_TRUE(quantize_demo(path, quantised("int8")).ok());
  ASSERT_TRUE(quantize_demo(nf4, quantised("nf4")).ok());
  for (const std::string mode : {"int8", "int8-weight", "llm-int8"}) {
    Reranker stored = open_or_die(path, quantised(mode)),
             on_load = open_or_die(demo_model(), quantised(mode));
    EXPECT_EQ(stored.quant(), mode);
    EXPECT_EQ(bits_of(stored, dozen()), bits_of(on_load, dozen()));
  }
  // What is dense there may still be quantised.
  Reranker more = open_or_die(path, quantised("", {"vision=int8"})),
           all = open_or_die(demo_model(), quantised("int8", {"vision=int8"}));
  EXPECT_EQ(bits_of(more, dozen()), bits_of(all, dozen()));

  const std::string q = "model.language_model.layers.0.self_attn.q_proj.weight";
  EXPECT_EQ(refusal(path, quantised("nf4")), q + " is stored in int8 and cannot be opened as nf4");
  EXPECT_EQ(refusal(path, quantised("fp8")), q + " is stored in int8 and cannot be opened as fp8");
  EXPECT_EQ(refusal(nf4, quantised("int8")), q + " is stored in nf4 and cannot be opened as int8");
}

TEST(QuantizeCheckpoint, SaysWhatIsWrong) {
  const TempFolder folder;
  const std::string path = folder / "q";
  ThreadPool threads(2);
  const auto error = [&](const std::string& from, const std::string& to, const char* rule) {
    const std::vector<QuantRule> rules = {*parse_quant_rule(rule)};
    return quantize_checkpoint(from, to, rules, {}, threads).message();
  };
  EXPECT_EQ(
      error(demo_model(), path, "layers.6.=nf4"),
      "the rules choose no linear layer of this checkpoint; --quant chooses those of the text "
      "decoder");
  EXPECT_EQ(
      error(demo_model(), path, "text=none"),
      "the rules choose no linear layer of this checkpoint; --quant chooses those of the text "
      "decoder");
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_EQ(error(demo_model(), path, "layers.5.mlp.=nf4"), "");
  EXPECT_THAT(error(path, path, "text=int8"), HasSubstr("must be another folder"));
  EXPECT_EQ(error(path, folder / "again", "text=int8"),
            "model.language_model.layers.5.mlp.down_proj.weight: is in nf4 already; quantise the "
            "original");
  EXPECT_THAT(error(folder / "nowhere", folder / "again", "text=int8"), HasSubstr("nowhere"));
}

TEST(QuantizeCheckpoint, ShardsAreReadAsOneFile) {
  const TempFolder folder;
  const std::vector<QuantRule> rules = {{"text", QuantMode::kFp8}};
  ThreadPool threads(2);
  int64_t last = 0;
  QuantizeOptions options;
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_GT(done, last);
    EXPECT_LE(done, total);
    last = done;
  };
  ASSERT_TRUE(quantize_checkpoint(demo_model(), folder / "one", rules, options, threads).ok());
  options = {};
  options.max_shard_bytes = 4'000'000;
  ASSERT_TRUE(quantize_checkpoint(demo_model(), folder / "many", rules, options, threads).ok());
  EXPECT_FALSE(std::filesystem::exists(folder / "many/model.safetensors"));
  Reranker one = open_or_die(folder / "one"), many = open_or_die(folder / "many");
  EXPECT_EQ(bits_of(one, dozen()), bits_of(many, dozen()));
}

TEST(RelevanceProbe, DoesNotDependOnTheCallersOptions) {
  const TempFolder folder;
  ASSERT_TRUE(quantize_demo(folder / "q", quantised("nf4")).ok());
  Options options = quantised("");
  options.max_length = 40;  // would cut its documents
  Reranker checked = open_or_die(folder / "q", options);
  options.self_check = false;
  Reranker unchecked = open_or_die(folder / "q", options);
  Usage usage, expected;  // the probe is no part of what a call costs
  EXPECT_EQ(score_bits(checked, dozen(), &usage), score_bits(unchecked, dozen(), &expected));
  EXPECT_GT(usage.tokens, 0);
  EXPECT_EQ(usage.tokens, expected.tokens);
}

std::string probe_says(std::vector<float> log_odds, const ProbeRecord& kept,
                       QuantMode mode = QuantMode::kNf4) {
  return pair_score().check_probe(log_odds, kept, {{"w", mode}}).message();
}

TEST(RelevanceProbe, IsThatOfTheWeightsThatWereWritten) {
  const ProbeRecord kept{.decoded = {6, -6, 3, 4}, .before = {60, -60, 30, 40}};
  EXPECT_EQ(probe_says({6, -6, 3, 4}, kept), "");
  EXPECT_EQ(probe_says({6.6f, -5.4f, 3.6f, 4.6f}, kept), "");
  EXPECT_EQ(probe_says({7, -5, 4, 5}, kept),
            "relevance probe: log-odds are 0.20 from those of the weights that were written, "
            "decoded (nf4), as a share of their size over 4 documents; rounding explains 0.15");
  // Codes of activations cost more.
  EXPECT_EQ(probe_says({7, -5, 4, 5}, kept, QuantMode::kInt8), "");
  EXPECT_THAT(probe_says({8, -4, 5, 6}, kept, QuantMode::kLlmInt8), HasSubstr("explains 0.3"));
  EXPECT_EQ(probe_says({8, -4, 5, 6}, kept, QuantMode::kFp8), "");
  EXPECT_THAT(probe_says({8, -4, 5, 6}, kept, QuantMode::kFp8Weight), HasSubstr("0.15"));
  // Of log-odds near 0, small distances say nothing.
  EXPECT_EQ(probe_says({0.1f, 0.1f}, {.decoded = {0, 0.01f}, .before = {}}), "");
  EXPECT_EQ(probe_says({6, -6, 3, 4}, {.decoded = {6, -6}, .before = {}}),
            "relevance probe: 2 expected log-odds for 4 documents");
  EXPECT_EQ(probe_says({6, NAN, 3, 4}, kept), "relevance probe: a log-odds is nan");
}

TEST(RelevanceProbe, NeedsWhatTheModelGaveBeforeOrAnswersAhead) {
  const auto message = [&](std::vector<float> log_odds, std::vector<float> before) {
    return probe_says(std::move(log_odds), {.decoded = {}, .before = std::move(before)});
  };
  EXPECT_EQ(message({5, -4, 3, -1}, {6, -6, 3, 4}), "");
  EXPECT_EQ(
      message({5, -4, 3, -1}, {6, -6, 3, 5}),
      "relevance probe: log-odds are 2.25 from those before the model was quantised (nf4), on "
      "average over 4 documents; at most 2 are expected");
  EXPECT_EQ(message({5, -4, 3, -1}, {6, -6}),
            "relevance probe: 2 expected log-odds for 4 documents");
  EXPECT_EQ(message({5, -4, 3, -1}, {}), "");
  EXPECT_EQ(message({-4, 5, 11, 1}, {}), "");
  EXPECT_EQ(message({1, 1, 1.5f, 1}, {}),
            "relevance probe: documents that answer are 0.25 ahead of documents that do not (nf4), "
            "on average; a model that ranks has them 0.5 ahead or more");
  EXPECT_EQ(message({5, -INFINITY, 3, -1}, {}), "relevance probe: a log-odds is -inf");
  EXPECT_EQ(message({5, NAN, 3, -1}, {6, -6, 3, 5}), "relevance probe: a log-odds is nan");
}

/// The demo model quantised ahead, to be damaged. Foreign: without what only vlr writes, as
/// bitsandbytes would leave it (and compressed-tensors fp8).
class Damaged : public ::testing::Test {
 protected:
  void quantise(const std::string& mode) {
    ASSERT_TRUE(quantize_demo(path_, quantised(mode)).ok());
    good_ = TensorMap(path_ + "/model.safetensors");
  }
  void make_foreign() {
    good_.erase_ending(".weight_fingerprint");
    good_.erase_ending(".weight_checksum");
    json config = json::parse(testing::read_file(path_ + "/config.json"));
    config["quantization_config"].erase("vlr");
    testing::write_file(path_ + "/config.json", config.dump());
  }
  std::string refusal_with(const std::function<void(TensorMap&)>& damage) {
    TensorMap tensors = good_;
    damage(tensors);
    tensors.write(path_ + "/model.safetensors");
    return refusal(path_);
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "q";
  TensorMap good_;
};

const std::string kLayers = "model.language_model.layers.";
const std::string kDown = kLayers + "2.mlp.down_proj";
const std::string kQ1 = kLayers + "1.self_attn.q_proj", kQ4 = kLayers + "4.self_attn.q_proj";
/// A checkpoint of vlr's keeps checksums of what it left dense, too.
TEST_F(Damaged, DenseTensors) {
  quantise("nf4");
  for (const char* name : {"model.language_model.norm.weight", "model.visual.merger.norm.bias",
                           "model.language_model.embed_tokens.weight"}) {
    EXPECT_THAT(refusal_with([&](TensorMap& t) { t[name].data[1] ^= std::byte{1}; }),
                StartsWith(std::string(name) + ": its bytes have the checksum "));
  }
  make_foreign();
  EXPECT_EQ(refusal_with([](TensorMap& t) {
              t["model.language_model.norm.weight"].data[1] ^= std::byte{1};
            }),
            "opened as nf4");
}

constexpr const char* kProbeSays = "relevance probe: ";

void scale_by_16(HeldTensor& scales) { scales.set(0, 16 * scales.get<float>(0)); }
void swap_nibbles(HeldTensor& codes) {
  for (std::byte& b : codes.data) b = b << 4 | b >> 4;
}
void swap_all_nibbles(TensorMap& tensors) {
  for (auto& [name, tensor] : tensors) {
    if (name.ends_with("_proj.weight")) swap_nibbles(tensor);
  }
}
/// All tensors of two modules, but those with this ending.
void exchange(TensorMap& tensors, std::string_view keep = "-") {
  for (auto& [name, tensor] : tensors) {
    if (name.starts_with(kQ1 + ".") && !name.ends_with(keep))
      std::swap(tensor, tensors[kQ4 + name.substr(kQ1.size())]);
  }
}

TEST_F(Damaged, OwnNf4) {
  quantise("nf4");
  const std::string weight = kDown + ".weight";
  EXPECT_EQ(refusal_with([](TensorMap&) {}), "opened as nf4");

  const auto checksum_of = [](const std::string& name) {
    return StartsWith(name + ": its bytes have the checksum ");
  };
  EXPECT_THAT(refusal_with([&](TensorMap& t) { scale_by_16(t[weight + ".nested_absmax"]); }),
              checksum_of(weight));
  EXPECT_THAT(refusal_with([&](TensorMap& t) {
                HeldTensor& absmax = t[weight + ".absmax"];
                absmax.set<uint8_t>(9, absmax.get<uint8_t>(9) ^ 1);
              }),
              checksum_of(weight));
  EXPECT_THAT(refusal_with([&](TensorMap& t) { swap_nibbles(t[weight]); }), checksum_of(weight));
  EXPECT_THAT(refusal_with([](TensorMap& t) { exchange(t, ".weight_checksum"); }),
              checksum_of(kQ1 + ".weight"));

  // Bytes and checksum fit; the weight is not the one that was quantised.
  const auto product_of = [](const std::string& name) {
    return AllOf(StartsWith(name + ": its product with the probe vector is "),
                 HasSubstr("from what it was before it was quantised (relative L2), nf4 explains"));
  };
  EXPECT_THAT(refusal_with([](TensorMap& t) { exchange(t, ".weight_fingerprint"); }),
              product_of(kQ1 + ".weight"));
  EXPECT_THAT(refusal_with([&](TensorMap& t) {
                swap_nibbles(t[weight]);
                t.erase(kDown + ".weight_checksum");
              }),
              product_of(weight));
  EXPECT_THAT(refusal_with([&](TensorMap& t) {
                scale_by_16(t[weight + ".nested_absmax"]);
                t.erase(kDown + ".weight_checksum");
              }),
              product_of(weight));
  EXPECT_THAT(
      refusal_with([&](TensorMap& t) { t[kDown + ".weight_fingerprint"].set(0, std::nanf("")); }),
      product_of(weight));

  // Everything of two weights exchanged: each of them is whole, and the model is not.
  EXPECT_THAT(refusal_with([](TensorMap& t) { exchange(t); }),
              AllOf(StartsWith(kProbeSays),
                    HasSubstr("from those of the weights that were written, decoded (nf4)")));

  EXPECT_THAT(refusal_with([&](TensorMap& t) { t[weight + ".quant_map"].set(1, 0.00520833f); }),
              StartsWith(weight + ": its codebook is not nf4's: code 1 is 0.00520833"));
  EXPECT_THAT(refusal_with([&](TensorMap& t) { t[kDown + ".weight_checksum"].dtype = DType::kI8; }),
              StartsWith(kDown + ".weight_checksum: expected 8 values of u8, got i8[8]"));
  EXPECT_THAT(refusal_with([&](TensorMap& t) {
                HeldTensor& fingerprint = t[kDown + ".weight_fingerprint"];
                fingerprint.shape = {255};
                fingerprint.data.resize(4 * 255);
              }),
              StartsWith(kDown + ".weight_fingerprint: expected 256 values of f32, got f32[255]"));

  // Nobody looks.
  exchange(good_);
  good_.write(path_ + "/model.safetensors");
  Options options = quantised("");
  options.self_check = false;
  EXPECT_EQ(refusal(path_, options), "opened as nf4");
}

TEST_F(Damaged, Truncated) {
  quantise("nf4");
  const std::string file = path_ + "/model.safetensors", bytes = testing::read_file(file);
  testing::write_file(file, std::string_view(bytes).substr(0, bytes.size() - 1000));
  EXPECT_THAT(refusal(path_), AllOf(HasSubstr("model.safetensors"), HasSubstr("bytes")));

  const std::string weight = kDown + ".weight";
  EXPECT_THAT(refusal_with([&](TensorMap& t) {
                HeldTensor& codes = t[weight];
                codes.data.resize(codes.data.size() / 2);
                codes.shape[0] /= 2;
              }),
              AllOf(StartsWith("1 tensors are not as the model needs them"),
                    HasSubstr(weight + ": 98304 bytes for a weight [256, 768] in nf4")));
  // Seen by its names alone, as `vlr plan` and `vlr inspect` do.
  const auto lacks = [&](const std::string& name) {
    EXPECT_THAT(refusal_with([&](TensorMap& t) { t.erase(name); }),
                StartsWith("1 tensors are not as the model needs them: " + name +
                           ": the checkpoint has none"));
    const auto folder = ModelFolder::open(path_, ModelFolder::Weights::kNeeded);
    ASSERT_TRUE(folder) << folder.error().message();
    const NameReport report = compare_names(folder->config, folder->checkpoint->tensors());
    EXPECT_THAT(report.status().message(), HasSubstr(name + ": the checkpoint has none"));
  };
  for (const char* suffix : {".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map"})
    lacks(weight + suffix);
  EXPECT_THAT(refusal_with([&](TensorMap& t) { t.erase(weight); }),
              AllOf(HasSubstr("lacks 1 tensors"), HasSubstr(weight)));
  quantise("fp8");
  lacks(kDown + ".weight_scale");
  quantise("int8");
  lacks(kDown + ".SCB");
}

/// Codes with more beside them than their format has are not what somebody meant them to be.
TEST_F(Damaged, SomethingOfAnotherFormatBeside) {
  const std::string weight = kDown + ".weight", dense = "model.visual.blocks.0.attn.qkv";
  const auto with = [&](const std::string& name, const std::string& like) {
    return refusal_with([&](TensorMap& t) { t.add(name, t[like]); });
  };
  const auto not_read = [](const std::string& name) {
    return StartsWith("1 tensors that would change scores are not used: " + name +
                      ": is not read, and the weight beside it is");
  };
  quantise("nf4");
  const std::string absmax = weight + ".absmax";
  for (const char* suffix : {".SCB", ".weight_scale", ".input_scale"})
    EXPECT_THAT(with(kDown + suffix, absmax), not_read(kDown + suffix));
  for (const char* suffix : {".SCB", ".weight_scale", ".weight_checksum"})
    EXPECT_THAT(with(dense + suffix, absmax), not_read(dense + suffix));
  quantise("int8");
  EXPECT_THAT(with(weight + ".absmax", kDown + ".SCB"), not_read(weight + ".absmax"));
  EXPECT_THAT(with(kDown + ".weight_scale", kDown + ".SCB"),
              HasSubstr(weight + ": has a SCB and a weight_scale, expected one of them"));
  EXPECT_EQ(with(kDown + ".input_scale", kDown + ".SCB"), "opened as int8");
  quantise("fp8");
  EXPECT_THAT(with(kDown + ".SCB", kDown + ".weight_scale"), not_read(kDown + ".SCB"));
  EXPECT_EQ(with(kDown + ".input_scale", kDown + ".weight_scale"), "opened as fp8");
}

TEST_F(Damaged, OwnInt8AndFp8) {
  for (const std::string mode : {"int8", "fp8"}) {
    SCOPED_TRACE(mode);
    quantise(mode);
    const std::string scales = kDown + (mode == "int8" ? ".SCB" : ".weight_scale");
    EXPECT_EQ(refusal_with([](TensorMap&) {}), "opened as " + mode);
    EXPECT_THAT(refusal_with([&](TensorMap& t) {
                  t[scales].set(0, std::numeric_limits<float>::infinity());
                }),
                StartsWith(kDown + ".weight: its bytes have the checksum "));
    EXPECT_THAT(refusal_with([&](TensorMap& t) {
                  scale_by_16(t[scales]);
                  t.erase(kDown + ".weight_checksum");
                }),
                StartsWith(kDown + ".weight: its product with the probe vector is "));
    EXPECT_THAT(refusal_with([](TensorMap& t) { exchange(t, ".weight_fingerprint"); }),
                StartsWith(kQ1 + ".weight: its product with the probe vector is "));
    EXPECT_THAT(refusal_with([](TensorMap& t) { exchange(t); }), StartsWith(kProbeSays));
    EXPECT_THAT(refusal_with([&](TensorMap& t) {
                  HeldTensor& codes = t[kDown + ".weight"];
                  codes.shape[0] -= 1;
                  codes.data.resize(codes.data.size() - 768);
                }),
                HasSubstr(kDown + ".weight: expected [256, 768], got "));
  }
}

TEST_F(Damaged, ForeignNf4) {
  quantise("nf4");
  Reranker own = open_or_die(path_);
  const std::vector<uint32_t> bits = bits_of(own, dozen());
  make_foreign();
  ASSERT_EQ(refusal_with([](TensorMap&) {}), "opened as nf4");
  Reranker foreign = open_or_die(path_);
  EXPECT_EQ(bits_of(foreign, dozen()), bits);

  const std::string weight = kDown + ".weight";
  EXPECT_THAT(refusal_with([&](TensorMap& t) {
                t[weight + ".nested_absmax"].set(0, std::numeric_limits<float>::infinity());
              }),
              StartsWith(weight + ": scale 0 is inf, expected 0 to 10000"));
  EXPECT_THAT(refusal_with([&](TensorMap& t) { t[weight + ".quant_map"].set(1, 0.00520833f); }),
              StartsWith(weight + ": its codebook is not nf4's: code 1 is 0.00520833"));
  // Codes and scales look like any others: the model has to show that it ranks.
  const auto ranks_no_more =
      AllOf(StartsWith(kProbeSays), HasSubstr("ahead of documents that do not (nf4)"));
  EXPECT_THAT(refusal_with(swap_all_nibbles), ranks_no_more);
  EXPECT_THAT(refusal_with([](TensorMap& t) { exchange(t); }), ranks_no_more);

  // One weight may be wrong without anything to tell it by.
  EXPECT_EQ(refusal_with([&](TensorMap& t) { swap_nibbles(t[weight]); }), "opened as nf4");
  EXPECT_EQ(refusal_with([&](TensorMap& t) { scale_by_16(t[weight + ".nested_absmax"]); }),
            "opened as nf4");
  EXPECT_EQ(refusal_with([&](TensorMap& t) { std::ranges::fill(t[weight].data, std::byte{0x68}); }),
            "opened as nf4");
}

TEST_F(Damaged, ForeignInt8) {
  quantise("int8");
  make_foreign();
  ASSERT_EQ(refusal_with([](TensorMap&) {}), "opened as llm-int8");  // bitsandbytes' way
  Reranker foreign = open_or_die(path_), on_load = open_or_die(demo_model(), quantised("llm-int8"));
  EXPECT_EQ(bits_of(foreign, dozen()), bits_of(on_load, dozen()));
  EXPECT_THAT(refusal_with([](TensorMap& t) {
                t[kDown + ".SCB"].set(0, std::numeric_limits<float>::infinity());
              }),
              StartsWith(kDown + ".weight: scale 0 is inf, expected 0 to 10000"));
  EXPECT_THAT(refusal_with([](TensorMap& t) { t.erase(kDown + ".SCB"); }),
              HasSubstr(kDown + ".SCB: the checkpoint has none"));
  EXPECT_EQ(refusal_with(
                [](TensorMap& t) { std::ranges::fill(t[kDown + ".weight"].data, std::byte{3}); }),
            "opened as llm-int8");  // one weight, and nothing to tell it by
  EXPECT_THAT(refusal_with([](TensorMap& t) { exchange(t); }), StartsWith(kProbeSays));
}

}  // namespace
}  // namespace vlr
