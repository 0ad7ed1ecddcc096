// score(): one pair, one set of bits; one bad document costs one document; parity on the demo's
// evaluation sets.
#include "vlr/reranker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <thread>

#include "engine/api/request_json.h"
#include "tests/support/checkpoints.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;

/// Texts of many lengths, pictures, frames, and documents of several parts.
std::vector<Content> mixed_documents() {
  std::vector<Content> out = {
      text_document("A chess program with a graphical board and five levels of strength."),
      text_document("x"),
      text_document("Checks the spelling of documents in many languages and suggests corrections."),
      text_document("Ein Stern, der in der Nacht leuchtet: 12 345,678 … ünïcödé 什么"),
      text_document(std::string(700, 'a') + " a long document without many words in it, " +
                    std::string(300, '7')),
      Content{},
      image_document(kGolden / "media/small.png"),
      image_document(kGolden / "media/gray.jpg"),
      image_document(kGolden / "media/palette.png"),
      image_document(kSource / "demo/documents/star.png"),
  };
  Content both = image_document(kSource / "demo/documents/moon.png");
  both.texts = {"the moon, ", "drawn"};
  out.push_back(both);
  Content frames;
  frames.videos = {{.frames = {{.path = (kGolden / "media/small.png").string()},
                               {.path = (kGolden / "media/small.png").string()}}}};
  out.push_back(frames);
  return out;
}

Request request_of(std::string query, std::vector<Content> documents) {
  Request r;
  r.query.texts = {std::move(query)};
  r.documents = std::move(documents);
  return r;
}

TEST(BitInvariance, AloneInBatchesShuffledSharedAndTogether) {
  const std::vector<Content> documents = mixed_documents();
  const std::vector<std::string> queries = {"a shining star", "a game for two", "Wie heißt das?"};

  // The truth: every pair alone, whole, on one thread.
  Reranker alone = open_or_die(demo_model(), {.num_threads = 1, .share_prefix = false});
  std::vector<std::vector<uint32_t>> truth;
  for (const std::string& query : queries) {
    std::vector<uint32_t>& bits = truth.emplace_back();
    for (const Content& d : documents) bits.push_back(score_bits(alone, request_of(query, {d}))[0]);
  }
  ASSERT_NE(truth[0], truth[1]);

  std::mt19937 rng(1);
  for (const int64_t batch_tokens : {1, 130, 300, 1000, 100000}) {
    for (const bool share : {true, false}) {
      SCOPED_TRACE("batch_tokens " + std::to_string(batch_tokens) +
                   (share ? ", shared" : ", whole"));
      Reranker reranker = open_or_die(
          demo_model(), {.num_threads = 2, .batch_tokens = batch_tokens, .share_prefix = share});
      // One request in shuffled order, some documents twice.
      std::vector<size_t> order(documents.size() + 4);
      for (size_t i = 0; i < order.size(); ++i) order[i] = i % documents.size();
      std::shuffle(order.begin(), order.end(), rng);
      std::vector<Content> shuffled;
      for (size_t i : order) shuffled.push_back(documents[i]);
      const std::vector<uint32_t> got = score_bits(reranker, request_of(queries[0], shuffled));
      for (size_t i = 0; i < order.size(); ++i)
        EXPECT_EQ(got[i], truth[0][order[i]]) << "document " << order[i];

      // Several requests at once.
      std::vector<Request> requests;
      for (const std::string& query : queries) requests.push_back(request_of(query, documents));
      const auto responses = reranker.score(requests);
      ASSERT_TRUE(responses);
      for (size_t r = 0; r < queries.size(); ++r)
        EXPECT_EQ(bits_of((*responses)[r]), truth[r]) << "request " << r;
      for (const Response& response : *responses) {  // each has that of the whole call
        EXPECT_EQ(response.usage.tokens, responses->front().usage.tokens);
        EXPECT_EQ(response.usage.shared_prefix_tokens > 0, share);
      }
    }
  }
}

TEST(BitInvariance, QueriesWithPictures) {
  Usage usage;
  const std::vector<Content> documents = mixed_documents();
  Request request = request_of("which one?", documents);
  request.query.images = {{.path = (kSource / "demo/documents/star.png").string()}};
  Reranker shared = open_or_die(demo_model(), {.batch_tokens = 400});
  Reranker whole = open_or_die(demo_model(), {.share_prefix = false});
  EXPECT_EQ(score_bits(shared, request, &usage), score_bits(whole, request));
  EXPECT_GT(usage.shared_prefix_tokens, 0);
}

TEST(Score, ResultsComeOnceEachAndInOrderAtTheEnd) {
  Reranker reranker = open_or_die(demo_model(), {.batch_tokens = 200});
  const Request request = request_of("a shining star", mixed_documents());
  std::vector<DocumentResult> streamed;
  const auto response =
      reranker.score(request, [&](const DocumentResult& r) { streamed.push_back(r); });
  ASSERT_TRUE(response);
  ASSERT_EQ(streamed.size(), request.documents.size());
  for (size_t i = 0; i < response->results.size(); ++i)
    EXPECT_EQ(response->results[i].index, static_cast<int64_t>(i));
  for (const DocumentResult& r : streamed) {
    EXPECT_EQ(std::bit_cast<uint32_t>(r.log_odds),
              std::bit_cast<uint32_t>(response->results[static_cast<size_t>(r.index)].log_odds));
  }
  EXPECT_EQ(response->results[5].status, DocumentStatus::kEmpty);
  EXPECT_THAT(response->results[5].message, HasSubstr("NULL"));
  EXPECT_GT(response->usage.batches, 2);
}

TEST(Score, ACallbackThatThrowsLeavesNothingBehind) {
  Reranker reranker = open_or_die(demo_model(), {.batch_tokens = 100});
  const Request request = request_of("a star", mixed_documents()),
                one = request_of("a", {text_document("b")});
  const auto truth = score_bits(reranker, request);
  int calls = 0;
  EXPECT_THROW((void)reranker.score(request,
                                    [&](const DocumentResult&) {
                                      if (++calls == 3) throw std::runtime_error("enough");
                                    }),
               std::runtime_error);
  EXPECT_EQ(score_bits(reranker, one).size(), 1u);
  EXPECT_EQ(score_bits(reranker, request), truth);
}

TEST(Score, ASecondCallBesideOneIsRefused) {
  Reranker reranker = open_or_die(demo_model(), {.batch_tokens = 100});
  const Request request = request_of("a star", mixed_documents());
  const auto truth = score_bits(reranker, request);
  std::vector<std::string> refused;
  int explained = 0;
  ASSERT_TRUE(reranker.score(request, [&](const DocumentResult&) {
    for (const Status& s : {reranker.score(request).error(), reranker.prefetch(request).error()})
      refused.push_back(s.code() == Code::kInvalidArgument ? s.message() : "another code");
    std::thread([&] {
      refused.push_back(reranker.score(std::span(&request, 1)).error().message());
    }).join();
    explained += reranker.explain(request).has_value();
    EXPECT_GT(reranker.memory().total(), 0);
  }));
  EXPECT_EQ(refused.size(), 3 * truth.size());
  EXPECT_THAT(refused, ::testing::Each(HasSubstr("score() or prefetch() is running")));
  EXPECT_EQ(explained, static_cast<int>(truth.size()));
  EXPECT_EQ(score_bits(reranker, request), truth);
}

TEST(Score, OfAModelThatWasMovedFromIsAnError) {
  Reranker from = open_or_die(demo_model());
  const Request request = request_of("a star", {text_document("a sun")});
  Reranker to = std::move(from);
  const auto moved = [&](const Status& s) {
    EXPECT_EQ(s.code(), Code::kInvalidArgument);
    EXPECT_EQ(s.message(), "this Reranker was moved from");
  };
  moved(from.score(request).error());  // NOLINT: what this is about
  moved(from.score(std::span(&request, 1)).error());
  moved(from.explain(request).error());
  moved(from.prefetch(request).error());
  from.cancel();
  EXPECT_EQ(from.model_name(), "");
  EXPECT_EQ(from.device(), "");
  EXPECT_EQ(from.dtype(), "");
  EXPECT_EQ(from.quant(), "");
  EXPECT_EQ(from.preset(), "");
  EXPECT_EQ(from.memory().total(), 0);
  EXPECT_EQ(from.peak_memory(), 0);
  from = std::move(to);
  EXPECT_TRUE(from.score(request));
  EXPECT_FALSE(to.score(request));  // NOLINT
}

// A child has none of its parent's threads: an error instead of waiting for them for ever.
TEST(Score, InAForkedChildIsAnError) {
  const Request request = request_of("a star", {text_document("a sun")});
  for (const int num_threads : {1, 2}) {
    auto reranker =
        std::make_unique<Reranker>(open_or_die(demo_model(), {.num_threads = num_threads}));
    const auto truth = score_bits(*reranker, request);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      alarm(60);
      const auto scored = reranker->score(request);
      const bool right =
          num_threads == 1
              ? scored && std::bit_cast<uint32_t>(scored->results[0].log_odds) == truth[0]
              : scored.error().message() == "a Reranker works in the process that opened it only";
      reranker.reset();
      _exit(right ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << num_threads << ": " << status;
    EXPECT_EQ(score_bits(*reranker, request), truth);
  }
}

// Prefixes have rows in the cache before they are computed.
TEST(Score, APrefixThatWasNotComputedIsNotUsed) {
  const Request request = request_of("a star", mixed_documents());
  Reranker fresh = open_or_die(demo_model(), {});
  const auto truth = score_bits(fresh, request);
  for (const char* pass : {"vision.", "prefix."}) {
    bool fail = true;
    Reranker reranker =
        open_or_die(demo_model(), {.on_value = [&](std::string_view name, auto&&...) {
                      if (!fail || !name.starts_with(pass)) return;
                      fail = false;
                      throw std::runtime_error("enough");
                    }});
    EXPECT_THROW((void)reranker.score(request), std::runtime_error);
    EXPECT_FALSE(fail);
    EXPECT_EQ(score_bits(reranker, request), truth) << pass;
  }
}

TEST(Score, NoDocumentsNoResults) {
  Reranker reranker = open_or_die(demo_model());
  const auto response = reranker.score(request_of("a shining star", {}));
  ASSERT_TRUE(response);
  EXPECT_TRUE(response->results.empty());
}

TEST(Score, CancelKeepsWhatIsThere) {
  Reranker reranker = open_or_die(demo_model(), {.batch_tokens = 1});
  const auto response = reranker.score(request_of("a shining star", mixed_documents()),
                                       [&](const DocumentResult&) { reranker.cancel(); });
  ASSERT_TRUE(response);
  const auto count = [&](DocumentStatus s) {
    return std::count_if(response->results.begin(), response->results.end(),
                         [&](const DocumentResult& r) { return r.status == s; });
  };
  EXPECT_GE(count(DocumentStatus::kOk), 1);
  EXPECT_GE(count(DocumentStatus::kCancelled), 1);
  EXPECT_TRUE(reranker.score(request_of("again", {text_document("x")}))->results[0].scored());
}

void write(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(BadDocuments, EachCostsItself) {
  const testing::TempFolder folder;
  const auto file = [&](std::string name) { return std::filesystem::path(folder / name); };
  const std::string jpeg = read(kGolden / "media/photo.jpg");
  write(file("truncated.jpg"), std::string_view(jpeg).substr(0, jpeg.size() / 2));
  write(file("text.png"), "this is no picture");
  write(file("empty.png"), "");
  write(file("zero.gif"), std::string_view("GIF89a\0\0\0\0\0\0\0;", 14));
  // A BMP of 201 x 1 pixels: 54 bytes of header, then rows of 3 bytes a pixel, padded to 4.
  std::string bmp = "BM";
  const auto u32 = [&](uint32_t v) {
    for (int i = 0; i < 4; ++i) bmp += static_cast<char>(v >> (8 * i));
  };
  const auto u16 = [&](uint16_t v) {
    for (int i = 0; i < 2; ++i) bmp += static_cast<char>(v >> (8 * i));
  };
  u32(54 + 604), u32(0), u32(54), u32(40), u32(201), u32(1), u16(1), u16(24), u32(0), u32(604),
      u32(0), u32(0), u32(0), u32(0);
  bmp.append(604, '\x40');
  write(file("wide.bmp"), bmp);

  Content invalid;
  invalid.error = "the document has a key 'txt'; known are text, image and video";
  Content many_pictures;  // 12 x 1,728 tokens
  for (int i = 0; i < 12; ++i)
    many_pictures.images.push_back({.path = (kGolden / "media/big.jpg").string()});
  Content unequal;
  unequal.videos = {{.frames = {{.path = (kGolden / "media/frame0.png").string()},
                                {.path = (kGolden / "media/small.png").string()}}}};
  Content no_frames;
  no_frames.videos.resize(1);

  struct Bad {
    Content content;
    DocumentStatus status;
    std::string message;
  };
  const std::vector<Bad> bad = {
      {image_document(file("missing.png")), DocumentStatus::kBadMedia, "missing.png"},
      {image_document(file("truncated.jpg")), DocumentStatus::kBadMedia, "truncated"},
      {image_document(file("text.png")), DocumentStatus::kBadMedia, "text.png"},
      {image_document(file("empty.png")), DocumentStatus::kBadMedia, "empty"},
      {image_document(file("zero.gif")), DocumentStatus::kBadMedia, "zero.gif"},
      {image_document(file("wide.bmp")), DocumentStatus::kBadMedia, "200"},
      {image_document(folder.path()), DocumentStatus::kBadMedia, ""},
      {unequal, DocumentStatus::kBadMedia, "frame"},
      {no_frames, DocumentStatus::kBadMedia, ""},
      {invalid, DocumentStatus::kInvalid, "'txt'"},
      {many_pictures, DocumentStatus::kTooLong, "10240"},
  };
  const std::vector<Content> good = mixed_documents();
  Reranker reranker = open_or_die(demo_model());
  const std::vector<uint32_t> clean = score_bits(reranker, request_of("a shining star", good));

  std::vector<Content> all;
  for (size_t i = 0; i < std::max(good.size(), bad.size()); ++i) {
    if (i < bad.size()) all.push_back(bad[i].content);
    if (i < good.size()) all.push_back(good[i]);
  }
  const auto response = reranker.score(request_of("a shining star", all));
  ASSERT_TRUE(response) << response.error().message();
  size_t next = 0;
  for (size_t i = 0; i < std::max(good.size(), bad.size()); ++i) {
    if (i < bad.size()) {
      const DocumentResult& r = response->results[next++];
      EXPECT_EQ(document_status_name(r.status), document_status_name(bad[i].status))
          << i << ": " << r.message;
      EXPECT_THAT(r.message, HasSubstr(bad[i].message)) << i;
      EXPECT_FALSE(r.message.empty()) << i;
    }
    if (i < good.size()) {
      EXPECT_EQ(std::bit_cast<uint32_t>(response->results[next++].log_odds), clean[i]) << i;
    }
  }
}

TEST(BadDocuments, CompatNullScoresTheFallbackPrompt) {
  Reranker strict = open_or_die(demo_model()),
           compat = open_or_die(demo_model(), {.compat_null = true});
  const Request request = request_of(
      "a shining star",
      {image_document("/nowhere/a.png"), image_document("/nowhere/b.png"), text_document("x")});
  EXPECT_EQ(strict.score(request)->results[0].status, DocumentStatus::kBadMedia);
  const auto response = compat.score(request);
  ASSERT_TRUE(response);
  EXPECT_EQ(response->results[0].status, DocumentStatus::kEmpty);
  EXPECT_EQ(response->results[0].num_tokens,
            11);  // with the demo's vocabulary; 9 with the published one
  EXPECT_EQ(response->results[0].log_odds, response->results[1].log_odds);
  EXPECT_NE(response->results[0].log_odds, response->results[2].log_odds);
}

TEST(BadDocuments, AQueryThatFailsFailsEveryPairOfItsRequestOnly) {
  Reranker reranker = open_or_die(demo_model());
  std::vector<Request> requests = {request_of("a", {text_document("x")}),
                                   request_of("b", {text_document("x"), text_document("y")})};
  requests[1].query.images = {{.path = "/nowhere.png"}};
  const auto responses = reranker.score(requests);
  ASSERT_TRUE(responses);
  EXPECT_TRUE((*responses)[0].results[0].scored());
  for (const DocumentResult& r : (*responses)[1].results) {
    EXPECT_EQ(r.status, DocumentStatus::kBadMedia);
    EXPECT_THAT(r.message, HasSubstr("query: "));
  }
}

TEST(BadDocuments, ATextOnlyCheckpointRefusesPicturesOnly) {
  const testing::TempFolder folder;
  const std::string path = make_synthetic(folder, "b");
  nlohmann::json config = nlohmann::json::parse(read(path + "/config.json"));
  config.erase("vision_config");
  write(path + "/config.json", config.dump());
  std::vector<std::string> log;
  Reranker reranker =
      open_or_die(path, {.log = [&](std::string_view line) { log.emplace_back(line); }});
  ASSERT_EQ(log.size(), 1u);  // the vision tower's tensors are there all the same
  EXPECT_THAT(log[0], HasSubstr("model.visual."));
  const auto response = reranker.score(
      request_of("q", {image_document(kGolden / "media/small.png"), text_document("x")}));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->results[0].status, DocumentStatus::kInvalid);
  EXPECT_EQ(response->results[1].status, DocumentStatus::kOk);
}

TEST(SpecialTokens, AreTextUnlessAllowed) {
  const Request request =
      request_of("a star", {text_document("<|im_end|>"), text_document("<|image_pad|>")});
  Reranker escaping = open_or_die(demo_model()),
           allowing = open_or_die(demo_model(), {.allow_special = true});
  const auto escaped = escaping.explain(request), allowed = allowing.explain(request);
  ASSERT_TRUE(escaped && allowed);
  EXPECT_EQ((*escaped)[0].prompt, (*allowed)[0].prompt);
  EXPECT_GT((*escaped)[0].token_ids.size(), (*allowed)[0].token_ids.size());
  EXPECT_TRUE(allowing.score(request)->results[1].scored());
}

TEST(Open, SaysWhatIsWrong) {
  const auto error = [](const std::string& path, const Options& options) {
    return Reranker::open(path, options).error();
  };
  EXPECT_EQ(error("/nowhere", {}).code(), Code::kNotFound);
  EXPECT_THAT(error("/nowhere", {}).message(), HasSubstr("/nowhere: No such file or directory"));
  EXPECT_EQ(error(demo_model(), {.max_length = 0}).code(), Code::kInvalidArgument);
  EXPECT_EQ(error(demo_model(), {.frame_factor = 48}).code(), Code::kInvalidArgument);
  EXPECT_EQ(error(demo_model(), {.device = "tpu"}).code(), Code::kInvalidArgument);
  EXPECT_THAT(error(demo_model(), {.device = "cpu", .impls = {{"linear", "nobody"}}}).message(),
              HasSubstr("no implementation 'nobody'"));
  // Of an op that only the prefix pass runs, of a part of another op, and no name at all.
  EXPECT_THAT(error(demo_model(), {.device = "cpu", .impls = {{"convert", "zz"}}}).message(),
              HasSubstr("convert: no implementation 'zz' on cpu; there "));
  EXPECT_THAT(
      error(demo_model(), {.device = "cpu", .quant = "nf4", .impls = {{"dequantize", "zz"}}})
          .message(),
      HasSubstr("dequantize: no implementation 'zz' on cpu; there are threads, reference"));
  EXPECT_THAT(error(demo_model(), {.device = "cpu", .impls = {{"linear", ""}}}).message(),
              HasSubstr("linear: no implementation '' on cpu"));
  EXPECT_THAT(error(demo_model(), {.device = "cpu", .impls = {{"lineal", "blocked"}}}).message(),
              HasSubstr("the model runs no op 'lineal'"));
  EXPECT_EQ(error(demo_model(), {.device = "cpu", .dtype = "bf16"}).code(), Code::kUnimplemented);
  EXPECT_EQ(error(demo_model(), {.no_fuse = {"everything"}}).code(), Code::kInvalidArgument);
}

TEST(Impls, ReferencesAgreeWithTheFastOnes) {
  const Request request = request_of(
      "a shining star", {text_document("a star"), image_document(kGolden / "media/small.png")});
  std::map<std::string, std::string> references;
  for (const char* op : {"linear", "attention", "rmsnorm", "layernorm", "swiglu", "gelu", "rope",
                         "add", "patch_embed"})
    references[op] = "reference";
  Reranker fast = open_or_die(demo_model()),
           plain = open_or_die(demo_model(), {.impls = references});
  const auto a = fast.score(request), b = plain.score(request);
  ASSERT_TRUE(a && b);
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(a->results[i].log_odds, b->results[i].log_odds, 1e-4);
}

TEST(Plan, CoversWhatScoringTakes) {
  const auto plan = Reranker::plan(demo_model(), {.num_threads = 2},
                                   {.documents = 10, .tokens_per_document = 100});
  ASSERT_TRUE(plan) << plan.error().message();
  int64_t weights = 0;
  for (const MemoryPlan::Part& part : plan->parts) {
    EXPECT_GE(part.bytes, 0) << part.name;
    if (part.name.starts_with("weights")) weights += part.bytes;
  }
  EXPECT_GT(weights, 25'000'000);
  EXPECT_LT(weights, 30'000'000);
  EXPECT_GT(plan->total(), weights);
  EXPECT_FALSE(Reranker::plan(demo_model(), {}, {.documents = 0}));
}

/// The demo's evaluation sets hold what transformers gives in fp32. Every line of the first, some
/// of the others.
class Evaluation : public ::testing::TestWithParam<std::pair<const char*, int>> {};

TEST_P(Evaluation, LogOddsAndBestDocument) {
  const auto [name, step] = GetParam();
  std::ifstream in(kSource / "demo/eval" / name);
  std::vector<ParsedRequest> parsed;
  int line_number = 0;
  for (std::string line; std::getline(in, line);) {
    if (line_number++ % step != 0) continue;
    auto request = parse_request(line);
    ASSERT_TRUE(request) << request.error().message();
    request->request.media_root = (kSource / "demo/eval/media").string();
    parsed.push_back(*std::move(request));
  }
  ASSERT_GE(parsed.size(), 5u);
  std::vector<Request> requests;
  for (const ParsedRequest& p : parsed) requests.push_back(p.request);
  Reranker reranker = open_or_die(demo_model());
  const auto responses = reranker.score(requests);
  ASSERT_TRUE(responses) << responses.error().message();
  for (size_t r = 0; r < parsed.size(); ++r) {
    const auto& results = (*responses)[r].results;
    const std::vector<double>& expected = parsed[r].log_odds;
    ASSERT_EQ(results.size(), expected.size());
    size_t best = 0, expected_best = 0;
    for (size_t i = 0; i < results.size(); ++i) {
      ASSERT_TRUE(results[i].scored()) << results[i].message;
      EXPECT_NEAR(results[i].log_odds, expected[i], 2e-3) << "request " << r << ", document " << i;
      if (results[i].log_odds > results[best].log_odds) best = i;
      if (expected[i] > expected[expected_best]) expected_best = i;
    }
    EXPECT_EQ(best, expected_best) << "request " << r;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Demo, Evaluation,
    ::testing::Values(std::pair{"passages.jsonl", 1}, std::pair{"wordnet.jsonl", 10},
                      std::pair{"emoji.jsonl", 10}, std::pair{"shapes.jsonl", 10}),
    [](const auto& test) {
      return std::string(test.param.first).substr(0, std::string(test.param.first).find('.'));
    });

TEST(Demo, RanksAsTheReferenceDoes) {
  const auto parsed = parse_request(read(kSource / "demo/request.json"));
  ASSERT_TRUE(parsed) << parsed.error().message();
  Request request = parsed->request;
  request.media_root = (kSource / "demo").string();
  Reranker reranker = open_or_die(demo_model());
  const auto response = reranker.score(request);
  ASSERT_TRUE(response);
  ASSERT_EQ(response->results.size(), 10u);
  const std::string expected = read(kSource / "demo/expected.json");
  const auto reference =
      parse_request(R"({"query": {}, "documents": [{},{},{},{},{},{},{},{},{},{}], )" +
                    expected.substr(expected.find("\"log_odds\"")));
  ASSERT_TRUE(reference) << reference.error().message();
  for (size_t i = 0; i < 10; ++i)
    EXPECT_NEAR(response->results[i].log_odds, reference->log_odds[i], 2e-3) << i;
}

}  // namespace
}  // namespace vlr
