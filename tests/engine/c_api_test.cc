// The C API: every function of vlr.h, its errors, and that it reaches what C++ has.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "engine/api/c_api.h"
#include "tests/support/checkpoints.h"
#include "tests/support/option_values.h"
#include "vlr/json.h"

namespace vlr {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct FreeOptions {
  void operator()(vlr_options* o) const { vlr_options_free(o); }
};
struct FreeRequest {
  void operator()(vlr_request* r) const { vlr_request_free(r); }
};
struct Close {
  void operator()(vlr_reranker* r) const { vlr_close(r); }
};
using OptionsHandle = std::unique_ptr<vlr_options, FreeOptions>;
using RequestHandle = std::unique_ptr<vlr_request, FreeRequest>;
using RerankerHandle = std::unique_ptr<vlr_reranker, Close>;

std::string taken(char* text) {
  std::string out = text ? text : "";
  vlr_string_free(text);
  return out;
}

OptionsHandle cpu_options() {
  OptionsHandle out(vlr_options_new());
  EXPECT_EQ(vlr_options_set(out.get(), "device", "cpu", nullptr), VLR_OK);
  EXPECT_EQ(vlr_options_set(out.get(), "num_threads", "2", nullptr), VLR_OK);
  return out;
}

RerankerHandle open_demo(const vlr_options* options) {
  vlr_error error = VLR_ERROR_INIT;
  vlr_reranker* out = nullptr;
  EXPECT_EQ(vlr_open(demo_model().c_str(), options, &out, &error), VLR_OK) << error.message;
  return RerankerHandle(out);
}
RerankerHandle open_demo() { return open_demo(cpu_options().get()); }

RequestHandle request_of(const char* query, const std::vector<std::string>& texts) {
  RequestHandle out(vlr_request_new());
  EXPECT_EQ(vlr_request_add_text(out.get(), VLR_QUERY, query, nullptr), VLR_OK);
  for (const std::string& text : texts) {
    int64_t document = -1;
    EXPECT_EQ(vlr_request_add_document(out.get(), &document, nullptr), VLR_OK);
    EXPECT_EQ(vlr_request_add_text(out.get(), document, text.c_str(), nullptr), VLR_OK);
  }
  return out;
}

std::vector<vlr_result> scores_of(vlr_reranker* reranker, const vlr_request* request,
                                  vlr_usage* usage = nullptr) {
  std::vector<vlr_result> out(static_cast<size_t>(vlr_request_num_documents(request)));
  vlr_error error = VLR_ERROR_INIT;
  EXPECT_EQ(
      vlr_score(reranker, request, out.data(), sizeof(vlr_result), usage, nullptr, nullptr, &error),
      VLR_OK)
      << error.message;
  return out;
}

std::vector<char> bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
const std::string kStar = (kSource / "demo/documents/star.png").string();

TEST(CApi, VersionAndNames) {
  EXPECT_STREQ(vlr_version(), VLR_VERSION);
  EXPECT_STREQ(vlr::version(), VLR_VERSION);
  EXPECT_EQ(std::to_string(VLR_VERSION_MAJOR) + "." + std::to_string(VLR_VERSION_MINOR) + "." +
                std::to_string(VLR_VERSION_PATCH),
            VLR_VERSION);
  EXPECT_EQ(VLR_VERSION_NUMBER,
            VLR_VERSION_MAJOR * 10000 + VLR_VERSION_MINOR * 100 + VLR_VERSION_PATCH);
  for (int s = VLR_DOCUMENT_OK; s <= VLR_DOCUMENT_ERROR; ++s) {
    EXPECT_EQ(vlr_document_status_name(static_cast<vlr_document_status>(s)),
              document_status_name(static_cast<DocumentStatus>(s)));
  }
  vlr_string_free(nullptr);
  vlr_close(nullptr);
  vlr_cancel(nullptr);
}

/// The table, walked through C and C++ at once.
TEST(CApi, EveryOptionIsReached) {
  vlr_error error = VLR_ERROR_INIT;
  const OptionsHandle options(vlr_options_new());
  Options expected;
  size_t count = 0;
  for (; const char* name = vlr_options_name(count); ++count) {
    char* value = nullptr;
    ASSERT_EQ(vlr_options_get(options.get(), name, &value, &error), VLR_OK) << error.message;
    EXPECT_EQ(taken(value), *get_option(Options(), name)) << name;  // its default
    const std::string other = testing::other_value(name);
    ASSERT_EQ(vlr_options_set(options.get(), name, other.c_str(), &error), VLR_OK) << error.message;
    ASSERT_TRUE(set_option(expected, name, other).ok());
    ASSERT_EQ(vlr_options_get(options.get(), name, &value, &error), VLR_OK) << error.message;
    EXPECT_EQ(taken(value), other);
  }
  EXPECT_EQ(count, option_names().size());
  // What C set is what the members of the struct are, and nothing is left at its default.
  for (const OptionInfo& info : option_table()) {
    std::visit(
        [&](auto member) {
          EXPECT_EQ(options->options.*member, expected.*member) << info.name;
          EXPECT_NE(options->options.*member, Options().*member) << info.name;
        },
        info.member);
  }
}

TEST(CApi, OptionsSayWhatIsWrong) {
  vlr_error error = VLR_ERROR_INIT;
  const OptionsHandle options(vlr_options_new());
  EXPECT_EQ(vlr_options_set(options.get(), "max_length", "0", &error), VLR_INVALID_ARGUMENT);
  EXPECT_EQ(error.code, VLR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "options: max_length must be at least 1, got 0");
  EXPECT_EQ(options->options.max_length, Options().max_length);
  EXPECT_EQ(vlr_options_set(options.get(), "no such", "0", &error), VLR_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("no option 'no such'"));
  char* value = nullptr;
  EXPECT_EQ(vlr_options_get(options.get(), "no such", &value, &error), VLR_INVALID_ARGUMENT);
  EXPECT_EQ(value, nullptr);
  EXPECT_EQ(vlr_options_set(nullptr, "exact", "0", &error), VLR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "options must not be NULL");
  EXPECT_EQ(vlr_options_set(options.get(), "exact", nullptr, &error), VLR_INVALID_ARGUMENT);
  EXPECT_EQ(vlr_options_get(options.get(), nullptr, &value, &error), VLR_INVALID_ARGUMENT);
  vlr_options_free(nullptr);
}

TEST(CApi, ScoresWhatCppScores) {
  const RequestHandle request =
      request_of("a shining star", {"a star in the sky", "a game of chess", "the moon"});
  EXPECT_EQ(vlr_request_num_documents(request.get()), 3);
  const RerankerHandle reranker = open_demo();
  vlr_usage usage = VLR_USAGE_INIT;
  const std::vector<vlr_result> results = scores_of(reranker.get(), request.get(), &usage);

  Reranker cpp = open_or_die(demo_model());
  const auto response = cpp.score(request->request);
  ASSERT_TRUE(response);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(results[i].request, 0);
    EXPECT_EQ(results[i].index, static_cast<int64_t>(i));
    EXPECT_EQ(results[i].status, VLR_DOCUMENT_OK);
    EXPECT_EQ(results[i].log_odds, response->results[i].log_odds);
    EXPECT_EQ(results[i].score, response->results[i].score);
    EXPECT_EQ(results[i].num_tokens, response->results[i].num_tokens);
    EXPECT_EQ(results[i].truncated, 0);
    EXPECT_STREQ(results[i].message, "");
  }
  EXPECT_EQ(usage.struct_size, sizeof usage);
  EXPECT_EQ(usage.tokens, response->usage.tokens);
  EXPECT_EQ(usage.shared_prefix_tokens, response->usage.shared_prefix_tokens);
  EXPECT_EQ(usage.batches, response->usage.batches);
  EXPECT_GT(usage.total_seconds, 0);

  EXPECT_EQ(vlr_model_name(reranker.get()), cpp.model_name());
  EXPECT_EQ(vlr_device(reranker.get()), cpp.device());
  EXPECT_EQ(vlr_dtype(reranker.get()), cpp.dtype());
  EXPECT_EQ(vlr_quant(reranker.get()), cpp.quant());
  EXPECT_STREQ(vlr_preset(reranker.get()), "");
  EXPECT_GT(vlr_peak_memory(reranker.get()), 0);
  EXPECT_EQ(vlr_peak_memory(nullptr), 0);
}

TEST(CApi, SeveralRequestsShareACall) {
  const RerankerHandle reranker = open_demo();
  const RequestHandle first = request_of("a star", {"a sun", "chess"}), none = request_of("x", {}),
                      last = request_of("a game", {"chess"});
  const vlr_request* all[] = {first.get(), none.get(), last.get()};
  std::vector<vlr_result> results(3);
  struct Seen {
    std::set<std::pair<int64_t, int64_t>> documents;
  } seen;
  const auto on_result = [](void* user, const vlr_result* r) {
    static_cast<Seen*>(user)->documents.emplace(r->request, r->index);
  };
  vlr_usage usage = VLR_USAGE_INIT;
  vlr_error error = VLR_ERROR_INIT;
  ASSERT_EQ(vlr_score_many(reranker.get(), all, 3, results.data(), sizeof(vlr_result), &usage,
                           on_result, &seen, &error),
            VLR_OK)
      << error.message;
  EXPECT_EQ(seen.documents, (std::set<std::pair<int64_t, int64_t>>{{0, 0}, {0, 1}, {2, 0}}));
  EXPECT_GT(usage.tokens, 0);
  const std::vector<vlr_result> one = scores_of(reranker.get(), first.get()),
                                other = scores_of(reranker.get(), last.get());
  EXPECT_EQ(results[0].log_odds, one[0].log_odds);
  EXPECT_EQ(results[1].log_odds, one[1].log_odds);
  EXPECT_EQ(results[2].log_odds, other[0].log_odds);
  EXPECT_EQ(results[2].request, 2);
  EXPECT_EQ(
      vlr_score_many(reranker.get(), nullptr, 0, nullptr, 0, nullptr, nullptr, nullptr, &error),
      VLR_OK);
  const vlr_request* missing[] = {first.get(), nullptr};
  EXPECT_EQ(vlr_score_many(reranker.get(), missing, 2, results.data(), sizeof(vlr_result), nullptr,
                           nullptr, nullptr, &error),
            VLR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "requests[1] must not be NULL");
}

/// A caller whose structs are shorter, and one whose structs are longer.
TEST(CApi, TouchesNothingBehindACallersStruct) {
  const RerankerHandle reranker = open_demo();
  const RequestHandle request = request_of("a star", {"a sun", "chess"});
  const std::vector<vlr_result> whole = scores_of(reranker.get(), request.get());
  for (const size_t stride : {sizeof(vlr_result), sizeof(vlr_result) + 24}) {
    std::vector<char> raw(2 * stride, '\x7e');
    ASSERT_EQ(vlr_score(reranker.get(), request.get(), reinterpret_cast<vlr_result*>(raw.data()),
                        stride, nullptr, nullptr, nullptr, nullptr),
              VLR_OK);
    const size_t known = std::min(stride, sizeof(vlr_result));
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(std::memcmp(raw.data() + i * stride, &whole[i], known), 0);
      for (size_t b = known; b < stride; ++b) EXPECT_EQ(raw[i * stride + b], '\x7e');
    }
  }
  vlr_error error = VLR_ERROR_INIT;
  std::vector<vlr_result> results(2);
  EXPECT_EQ(vlr_score(reranker.get(), request.get(), results.data(), 8, nullptr, nullptr, nullptr,
                      &error),
            VLR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "result_size must be sizeof(vlr_result), got 8");
  // Nothing that would cut a message, or leave the next result where no vlr_result may be.
  for (const size_t wrong : {offsetof(vlr_result, message) + 5, sizeof(vlr_result) + 1}) {
    EXPECT_EQ(vlr_score(reranker.get(), request.get(), results.data(), wrong, nullptr, nullptr,
                        nullptr, &error),
              VLR_INVALID_ARGUMENT)
        << wrong;
  }

  vlr_usage usage = VLR_USAGE_INIT;
  usage.struct_size = offsetof(vlr_usage, image_tokens);
  usage.image_tokens = -7;
  (void)scores_of(reranker.get(), request.get(), &usage);
  EXPECT_GT(usage.tokens, 0);
  EXPECT_EQ(usage.image_tokens, -7);

  vlr_error empty{};  // its size was not set
  EXPECT_EQ(vlr_score(nullptr, request.get(), nullptr, 0, nullptr, nullptr, nullptr, &empty),
            VLR_INVALID_ARGUMENT);
  EXPECT_EQ(empty.code, VLR_OK);
  EXPECT_STREQ(empty.message, "");
}

TEST(CApi, RequestsHoldWhatCppRequestsHold) {
  vlr_error error = VLR_ERROR_INIT;
  const RequestHandle handle(vlr_request_new());
  vlr_request* r = handle.get();
  const std::vector<char> star = bytes_of(kStar);
  const char* const paths[] = {"a.png", "b.png"};
  const void* const data[] = {star.data(), star.data()};
  const size_t sizes[] = {star.size(), 3};
  int64_t document = -1;
  for (const vlr_code code :
       {vlr_request_set_instruction(r, "Find it.", &error),
        vlr_request_set_media_root(r, "media", &error), vlr_request_set_fps(r, 2.5, &error),
        vlr_request_set_max_frames(r, 8, &error),
        vlr_request_set_number(r, "sample_fps", 0.5, &error),
        vlr_request_set_number(r, "max_tokens_per_doc", 100, &error),
        vlr_request_set_number(r, "top_n", 3, &error),
        vlr_request_set_return_documents(r, 1, &error),
        vlr_request_add_image_file(r, VLR_QUERY, "q.png", &error),
        vlr_request_add_document(r, nullptr, &error),
        vlr_request_add_document(r, &document, &error),
        vlr_request_add_text_n(r, 1, "a\0b and more", 3, &error),
        vlr_request_add_text_n(r, 1, nullptr, 0, &error),
        vlr_request_add_image(r, 1, "star", star.data(), star.size(), &error),
        vlr_request_add_video_file(r, 1, "v.mp4", &error),
        vlr_request_add_video(r, 1, nullptr, star.data(), 4, &error),
        vlr_request_add_frames(r, 1, paths, 2, &error),
        vlr_request_add_frames_data(r, 1, "frame", data, sizes, 2, &error),
        vlr_request_set_document_error(r, 0, "the database lost it", &error)})
    EXPECT_EQ(code, VLR_OK) << error.message;
  EXPECT_EQ(document, 1);
  const Request& request = r->request;
  EXPECT_EQ(request.instruction, "Find it.");
  EXPECT_EQ(request.media_root, "media");
  EXPECT_EQ(request.fps, 2.5);
  EXPECT_EQ(request.max_frames, 8);
  EXPECT_EQ(request.sample_fps, 0.5);
  EXPECT_EQ(request.max_tokens_per_doc, 100);
  EXPECT_EQ(request.top_n, 3);
  EXPECT_TRUE(request.return_documents);
  EXPECT_EQ(request.query.images.at(0).path, "q.png");
  EXPECT_EQ(request.documents.at(0).error, "the database lost it");
  const Content& c = request.documents.at(1);
  EXPECT_EQ(c.texts, (std::vector<std::string>{std::string("a\0b", 3), ""}));
  EXPECT_EQ(c.images.at(0).path, "star");
  EXPECT_EQ(c.images.at(0).bytes->size(), star.size());
  ASSERT_EQ(c.videos.size(), 4u);
  EXPECT_EQ(c.videos[0].file->path, "v.mp4");
  EXPECT_EQ(c.videos[1].file->bytes->size(), 4u);
  EXPECT_EQ(c.videos[2].frames.at(1).path, "b.png");
  EXPECT_EQ(c.videos[3].frames.at(0).path, "frame");
  EXPECT_EQ(c.videos[3].frames.at(0).bytes->size(), star.size());
  EXPECT_EQ(c.videos[3].frames.at(1).bytes->size(), 3u);
}

TEST(CApi, RequestsSayWhatIsWrong) {
  vlr_error error = VLR_ERROR_INIT;
  const RequestHandle handle(vlr_request_new());
  vlr_request* r = handle.get();
  const char* const no_path[] = {nullptr};
  const void* const no_data[] = {nullptr};
  const size_t size = 1;
  for (const vlr_code code :
       {vlr_request_set_instruction(r, nullptr, &error),
        vlr_request_set_media_root(r, nullptr, &error),
        vlr_request_set_fps(r, 0, &error),
        vlr_request_set_fps(nullptr, 1, &error),
        vlr_request_set_max_frames(r, 0, &error),
        vlr_request_set_max_frames(nullptr, 1, &error),
        vlr_request_set_number(r, nullptr, 1, &error),
        vlr_request_set_number(nullptr, "top_n", 1, &error),
        vlr_request_set_number(r, "top_m", 1, &error),
        vlr_request_set_number(r, "top_n", -1, &error),
        vlr_request_set_number(r, "top_n", 0.5, &error),
        vlr_request_set_return_documents(nullptr, 1, &error),
        vlr_request_add_document(nullptr, nullptr, &error),
        vlr_request_add_text(r, VLR_QUERY, nullptr, &error),
        vlr_request_add_text_n(r, VLR_QUERY, nullptr, 1, &error),
        vlr_request_add_image_file(r, VLR_QUERY, nullptr, &error),
        vlr_request_add_image(r, VLR_QUERY, "a", nullptr, 1, &error),
        vlr_request_add_video_file(r, VLR_QUERY, nullptr, &error),
        vlr_request_add_video(r, VLR_QUERY, "a", nullptr, 1, &error),
        vlr_request_add_frames(r, VLR_QUERY, no_path, 1, &error),
        vlr_request_add_frames_data(r, VLR_QUERY, "a", no_data, &size, 1, &error),
        vlr_request_add_frames_data(r, VLR_QUERY, "a", no_data, nullptr, 1, &error),
        vlr_request_set_document_error(r, VLR_QUERY, nullptr, &error)})
    EXPECT_EQ(code, VLR_INVALID_ARGUMENT);
  EXPECT_EQ(vlr_request_add_text(r, 0, "x", &error), VLR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "document 0 of 0");
  EXPECT_EQ(vlr_request_add_text(r, -2, "x", nullptr), VLR_INVALID_ARGUMENT);
  EXPECT_EQ(vlr_request_num_documents(nullptr), 0);
  vlr_request_free(nullptr);

  // A client's text is the caller's value, not a file that is damaged.
  for (const char* bad : {"{bad", "[]", R"({"query": {}})"}) {
    auto* out = r;
    EXPECT_EQ(vlr_request_from_json(bad, &out, &error), VLR_INVALID_ARGUMENT) << bad;
    EXPECT_EQ(out, nullptr);
    EXPECT_EQ(request_from_json(bad).error().code(), Code::kInvalidArgument);
    EXPECT_EQ(std::string_view(error.message).find("json.exception"), std::string_view::npos);
  }
  EXPECT_EQ(vlr_request_from_json(nullptr, &r, &error), VLR_INVALID_ARGUMENT);
}

TEST(CApi, OpenSaysWhatIsWrong) {
  vlr_error error = VLR_ERROR_INIT;
  vlr_reranker* out = nullptr;
  EXPECT_EQ(vlr_open("/nowhere", nullptr, &out, &error), VLR_NOT_FOUND);
  EXPECT_EQ(error.code, VLR_NOT_FOUND);
  EXPECT_THAT(error.message, HasSubstr("/nowhere: No such file or directory"));
  EXPECT_EQ(out, nullptr);
  EXPECT_EQ(vlr_open(("/" + std::string(3000, 'x')).c_str(), nullptr, &out, &error), VLR_NOT_FOUND);
  EXPECT_EQ(std::strlen(error.message), sizeof error.message - 1);  // cut, and terminated
  EXPECT_EQ(vlr_open(nullptr, nullptr, &out, &error), VLR_INVALID_ARGUMENT);
  EXPECT_EQ(vlr_open("/nowhere", nullptr, nullptr, nullptr), VLR_INVALID_ARGUMENT);
}

TEST(CApi, ScoringSaysWhatIsWrong) {
  const RerankerHandle reranker = open_demo();
  const RequestHandle request = request_of("a star", {"a sun"});
  vlr_error error = VLR_ERROR_INIT;
  char* text = nullptr;
  EXPECT_EQ(vlr_score(reranker.get(), request.get(), nullptr, 0, nullptr, nullptr, nullptr, &error),
            VLR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "results must not be NULL");
  for (const vlr_code code :
       {vlr_score_json(reranker.get(), nullptr, 0, &text, &error),
        vlr_score_json(reranker.get(), request.get(), 0, nullptr, &error),
        vlr_explain_json(nullptr, request.get(), &text, &error),
        vlr_prefetch(reranker.get(), nullptr, nullptr, nullptr, nullptr, &error),
        vlr_memory_json(nullptr, &text, &error),
        vlr_plan(nullptr, nullptr, nullptr, nullptr, nullptr, &error)})
    EXPECT_EQ(code, VLR_INVALID_ARGUMENT);
  // A document that could not be read costs itself.
  ASSERT_EQ(vlr_request_set_document_error(request.get(), 0, "lost", &error), VLR_OK);
  const std::vector<vlr_result> results = scores_of(reranker.get(), request.get());
  EXPECT_EQ(results[0].status, VLR_DOCUMENT_INVALID);
  EXPECT_STREQ(results[0].message, "lost");
}

TEST(CApi, JsonOfScoresAndExplanations) {
  const RerankerHandle reranker = open_demo();
  vlr_error error = VLR_ERROR_INIT;
  vlr_request* parsed = nullptr;
  const std::string official = R"({"query": {"text": "a star"}, "documents": [{"text": "a sun"}, 7,
      {"image": ")" + kStar + R"("}]})";
  ASSERT_EQ(vlr_request_from_json(official.c_str(), &parsed, &error), VLR_OK) << error.message;
  const RequestHandle request(parsed);
  char* text = nullptr;
  ASSERT_EQ(vlr_score_json(reranker.get(), parsed, 1, &text, &error), VLR_OK) << error.message;
  json scored = json::parse(taken(text));
  ASSERT_EQ(vlr_explain_json(reranker.get(), parsed, &text, &error), VLR_OK) << error.message;
  const json explained = json::parse(taken(text));
  ASSERT_EQ(explained["results"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(scored["results"][i]["explain"], explained["results"][i]["explain"]);
    EXPECT_FALSE(explained["results"][i].contains("score"));
  }
  EXPECT_EQ(explained["results"][1]["status"], "invalid");

  // The same from C++, but for what a clock says.
  Reranker cpp = open_or_die(demo_model());
  const auto from_cpp = request_from_json(official);
  ASSERT_TRUE(from_cpp) << from_cpp.error().message();
  const auto response = cpp.score(*from_cpp);
  ASSERT_TRUE(response);
  json expected = json::parse(response_json(*response, cpp, *cpp.explain(*from_cpp)));
  scored["usage"].erase("seconds");
  expected["usage"].erase("seconds");
  EXPECT_EQ(scored, expected);
  EXPECT_EQ(json::parse(usage_json(response->usage))["tokens"], expected["usage"]["tokens"]);
  EXPECT_FALSE(json::parse(response_json(*response, cpp, {}, {.usage = false})).contains("usage"));
}

TEST(CApi, PrefetchFillsTheVisionCache) {
  const RerankerHandle reranker = open_demo();
  const RequestHandle request(vlr_request_new());
  const std::vector<char> star = bytes_of(kStar);
  const void* const frames[] = {star.data(), star.data()};
  const size_t sizes[] = {star.size(), star.size()};
  ASSERT_EQ(
      vlr_request_add_image(request.get(), VLR_QUERY, "star", star.data(), star.size(), nullptr),
      VLR_OK);
  ASSERT_EQ(vlr_request_add_document(request.get(), nullptr, nullptr), VLR_OK);
  ASSERT_EQ(vlr_request_add_image_file(request.get(), 0, "/no/such.png", nullptr), VLR_OK);
  ASSERT_EQ(vlr_request_add_frames_data(request.get(), 0, "frame", frames, sizes, 2, nullptr),
            VLR_OK);
  vlr_error error = VLR_ERROR_INIT;
  vlr_usage usage = VLR_USAGE_INIT;
  int64_t failed = -1;
  char* text = nullptr;
  ASSERT_EQ(vlr_prefetch(reranker.get(), request.get(), &failed, &text, &usage, &error), VLR_OK)
      << error.message;
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(usage.decoded_media, 2);
  EXPECT_GT(usage.image_tokens, 0);
  const json out = json::parse(taken(text));
  ASSERT_EQ(out["media"].size(), 3u);
  EXPECT_EQ(out["media"][0]["name"], "star");
  EXPECT_EQ(out["media"][0]["status"], "ok");
  EXPECT_EQ(out["media"][0]["was_cached"], false);
  EXPECT_EQ(out["usage"]["decoded_media"], 2);
  ASSERT_EQ(vlr_prefetch(reranker.get(), request.get(), nullptr, &text, nullptr, &error), VLR_OK);
  EXPECT_EQ(json::parse(taken(text))["media"][0]["was_cached"], true);

  const OptionsHandle none = cpu_options();
  ASSERT_EQ(vlr_options_set(none.get(), "vision_cache_bytes", "0", &error), VLR_OK);
  const RerankerHandle without = open_demo(none.get());
  EXPECT_EQ(vlr_prefetch(without.get(), request.get(), nullptr, &text, nullptr, &error),
            VLR_INVALID_ARGUMENT);
  EXPECT_EQ(text, nullptr);
}

TEST(CApi, PlanAndMemory) {
  const OptionsHandle options = cpu_options();
  vlr_error error = VLR_ERROR_INIT;
  vlr_workload work = VLR_WORKLOAD_INIT;
  const Workload defaults;
  EXPECT_EQ(work.documents, defaults.documents);
  EXPECT_EQ(work.tokens_per_document, defaults.tokens_per_document);
  EXPECT_EQ(work.patches_per_image, defaults.patches_per_image);
  work.images_per_document = 1;
  work.pictures = 1;
  int64_t bytes = 0;
  char* text = nullptr;
  ASSERT_EQ(vlr_plan(demo_model().c_str(), options.get(), &work, &bytes, &text, &error), VLR_OK)
      << error.message;
  const json plan = json::parse(taken(text));
  EXPECT_EQ(plan["total"], bytes);
  EXPECT_TRUE(plan["pictures"].contains("vision"));
  const auto cpp =
      Reranker::plan(demo_model(), options->options, {.images_per_document = 1, .pictures = true});
  ASSERT_TRUE(cpp);
  EXPECT_EQ(plan, json::parse(memory_plan_json(*cpp)));
  work.documents = 0;
  EXPECT_EQ(vlr_plan(demo_model().c_str(), options.get(), &work, &bytes, nullptr, &error),
            VLR_INVALID_ARGUMENT);
  EXPECT_EQ(vlr_plan(demo_model().c_str(), options.get(), nullptr, nullptr, nullptr, &error),
            VLR_OK);

  const RerankerHandle reranker = open_demo();
  ASSERT_EQ(vlr_memory_json(reranker.get(), &text, &error), VLR_OK) << error.message;
  const json memory = json::parse(taken(text));
  EXPECT_FALSE(memory["parts"].empty());
  EXPECT_FALSE(memory["layers"].empty());
}

struct Heard {
  std::vector<std::string> lines, values, nodes;
  std::set<std::string> purposes;
  int64_t progress = 0, copies = 0;
  bool scoring = false;
};

TEST(CApi, CallbacksAreCalled) {
  Heard heard;
  const OptionsHandle options = cpu_options();
  vlr_options* o = options.get();
  ASSERT_EQ(vlr_options_set(o, "preset", "high", nullptr), VLR_OK);
  vlr_options_on_log(
      o, [](void* user, const char* line) { static_cast<Heard*>(user)->lines.emplace_back(line); },
      &heard);
  vlr_options_on_progress(
      o,
      [](void* user, const vlr_load_progress* p) {
        EXPECT_EQ(p->struct_size, sizeof *p);
        EXPECT_STRNE(p->what, "");
        static_cast<Heard*>(user)->progress = p->bytes_total;
      },
      &heard);
  vlr_options_on_memory(
      o,
      [](void* user, const vlr_memory_event* e) {
        auto& h = *static_cast<Heard*>(user);
        h.purposes.emplace(e->purpose);
        h.scoring = h.scoring || e->scoring != 0;
      },
      &heard);
  vlr_options_on_value(
      o,
      [](void* user, const char* name, const int64_t* shape, size_t rank, const float* data) {
        EXPECT_GT(rank, 0u);
        EXPECT_GT(shape[0], 0);
        EXPECT_NE(data, nullptr);
        static_cast<Heard*>(user)->values.emplace_back(name);
      },
      [](void*, const char* name) -> int {
        return std::string_view(name).find("layers.0.mlp.residual") != std::string_view::npos;
      },
      &heard);
  vlr_options_on_node(
      o,
      [](void* user, const vlr_node_timing* t) {
        static_cast<Heard*>(user)->nodes.emplace_back(t->op);
      },
      &heard);
  vlr_options_on_copy(
      o, [](void* user, const vlr_copy_timing*) { ++static_cast<Heard*>(user)->copies; }, &heard);
  {
    const RerankerHandle reranker = open_demo(o);
    EXPECT_THAT(vlr_preset(reranker.get()), HasSubstr("preset high"));
    (void)scores_of(reranker.get(), request_of("a star", {"a sun"}).get());
  }
  EXPECT_THAT(heard.lines, ::testing::Contains(HasSubstr("preset high")));
  EXPECT_GT(heard.progress, 0);
  EXPECT_FALSE(heard.purposes.empty());
  EXPECT_TRUE(heard.scoring);
  EXPECT_THAT(heard.values, ::testing::Each(HasSubstr("layers.0.mlp.residual")));
  EXPECT_FALSE(heard.values.empty());
  EXPECT_THAT(heard.nodes, ::testing::Contains("linear"));
  EXPECT_EQ(heard.copies, 0);  // a GPU's

  // Without them again.
  vlr_options_on_log(o, nullptr, nullptr);
  vlr_options_on_progress(o, nullptr, nullptr);
  vlr_options_on_memory(o, nullptr, nullptr);
  vlr_options_on_value(o, nullptr, nullptr, nullptr);
  vlr_options_on_node(o, nullptr, nullptr);
  vlr_options_on_copy(o, nullptr, nullptr);
  EXPECT_FALSE(o->options.log || o->options.on_progress || o->options.on_memory ||
               o->options.on_value || o->options.wants_value || o->options.on_node ||
               o->options.on_copy);
  vlr_options_on_log(nullptr, nullptr, nullptr);
}

TEST(CApi, CancelEndsAfterTheBatch) {
  const OptionsHandle options = cpu_options();
  ASSERT_EQ(vlr_options_set(options.get(), "batch_tokens", "1", nullptr), VLR_OK);
  const RerankerHandle reranker = open_demo(options.get());
  const RequestHandle request = request_of("a star", std::vector<std::string>(200, "a sun"));
  std::vector<vlr_result> results(200);
  vlr_error error = VLR_ERROR_INIT;
  ASSERT_EQ(vlr_score(
                reranker.get(), request.get(), results.data(), sizeof(vlr_result), nullptr,
                [](void* user, const vlr_result*) { vlr_cancel(static_cast<vlr_reranker*>(user)); },
                reranker.get(), &error),
            VLR_OK)
      << error.message;
  EXPECT_EQ(results.front().status, VLR_DOCUMENT_OK);
  EXPECT_EQ(results.back().status, VLR_DOCUMENT_CANCELLED);
  EXPECT_STRNE(results.back().message, "");
  for (const vlr_result& r : scores_of(reranker.get(), request.get()))
    EXPECT_EQ(r.status, VLR_DOCUMENT_OK);
}

TEST(CApi, NothingIsThrownAcrossIt) {
  const RerankerHandle reranker = open_demo();
  const RequestHandle request = request_of("a star", {"a sun"});
  vlr_result result;
  vlr_error error = VLR_ERROR_INIT;
  EXPECT_EQ(vlr_score(
                reranker.get(), request.get(), &result, sizeof result, nullptr,
                [](void*, const vlr_result*) { throw std::runtime_error("from a callback"); },
                nullptr, &error),
            VLR_INTERNAL);
  EXPECT_STREQ(error.message, "from a callback");
  EXPECT_EQ(scores_of(reranker.get(), request.get())[0].status, VLR_DOCUMENT_OK);
}

/// Every function that the header declares is called in this file.
TEST(CApi, EveryFunctionIsTested) {
  const auto read = [](const char* path) {
    const std::vector<char> bytes = bytes_of(kSource / path);
    return std::string(bytes.begin(), bytes.end());
  };
  const std::string header = read("include/vlr/vlr.h"), here = read("tests/engine/c_api_test.cc");
  std::vector<std::string> untested;
  size_t found = 0;
  for (size_t at = 0; (at = header.find("VLR_API ", at)) != std::string::npos; ++at) {
    const size_t end = header.find('(', at), begin = header.find_last_of(" *", end) + 1;
    const std::string name = header.substr(begin, end - begin);
    ++found;
    if (here.find(name + "(") == std::string::npos) untested.push_back(name);
  }
  EXPECT_GT(found, 40u);
  EXPECT_THAT(untested, IsEmpty());
}

}  // namespace
}  // namespace vlr
