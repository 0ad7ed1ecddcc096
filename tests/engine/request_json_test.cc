// The official request as JSON: what upstream takes for what, and what is refused.
#include "engine/api/request_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/api/json_reader.h"
#include "tests/support/checkpoints.h"
#include "tokenizer/tokenizer.h"
#include "vlr/json.h"

namespace vlr {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

/// The request of these members; the message where there is none.
Result<ParsedRequest> with(const std::string& members) {
  return parse_request("{" + members + R"(, "query": "q", "documents": ["d", "e"]})");
}
std::string refused(const std::string& json) {
  const auto parsed = parse_request(json);
  EXPECT_FALSE(parsed) << json;
  if (parsed) return "";
  EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument) << json;
  return parsed.error().message();
}

Content document(const std::string& side) {
  const auto parsed = parse_request(R"({"query": {}, "documents": [)" + side + "]}");
  EXPECT_TRUE(parsed) << side << ": " << parsed.error().message();
  return parsed ? parsed->request.documents.at(0) : Content{};
}

/// "file a.mp4", "frames a.png b.png", one a video.
std::vector<std::string> videos_of(const std::string& value) {
  const Content c = document(R"({"video": )" + value + "}");
  EXPECT_EQ(c.error, "");
  std::vector<std::string> out;
  for (const Video& v : c.videos) {
    std::string& text = out.emplace_back(v.file ? "file " + v.file->path : "frames");
    EXPECT_TRUE(!v.file || v.frames.empty());
    for (const Media& m : v.frames) text += " " + m.path;
  }
  return out;
}

TEST(RequestJson, OfEqualKeysTheLastOneCountsAndOthersStay) {
  const Content texts = document(R"({"text": "a", "content": "b", "text": "c"})");
  EXPECT_EQ(texts.error, "");
  EXPECT_THAT(texts.texts, ElementsAre("c", "b"));
  const Content images =
      document(R"({"image": "a.png", "image_url": "b.png", "image": ["c.png", "d.png"]})");
  ASSERT_EQ(images.images.size(), 3u);
  EXPECT_EQ(images.images[0].path, "c.png");
  EXPECT_EQ(images.images[2].path, "b.png");
}

TEST(RequestJson, APartNamesSomething) {
  EXPECT_EQ(document(R"([{"type": "image_url", "image_url": null}])").error,
            "the document: image_url must be what the part is, got null");
  EXPECT_EQ(document(R"({"content": [{"type": "text", "text": null}]})").error,
            "the document: text must be what the part is, got null");
}

TEST(RequestJson, ASideHasABoundedNumberOfParts) {
  const auto many = [](const std::string& item, int count) {
    std::string list;
    for (int i = 0; i < count; ++i) list += (i == 0 ? "" : ",") + item;
    return "[" + list + "]";
  };
  constexpr int kMost = 65536;
  EXPECT_EQ(document(R"({"text": )" + many(R"("")", kMost) + "}").error, "");
  for (const auto& [key, item] : std::vector<std::pair<std::string, std::string>>{
           {"text", R"("")"},
           {"image", R"("a.png")"},
           {"video", R"("a.png")"},
           {"video", "[]"},
           {"content", R"({"type": "text", "text": ""})"}}) {
    EXPECT_EQ(document("{\"" + key + "\": " + many(item, kMost + 1) + "}").error,
              "the document has more than 65536 texts, images and frames")
        << key;
  }
  EXPECT_THAT(document(R"({"video": [)" + many(R"("a.png")", kMost + 1) + "]}").error,
              HasSubstr("more than 65536"));
}

TEST(RequestJson, TwoInstructionsThatDiffer) {
  const auto differ = with(R"("instruction": "a", "instruct": "b")");
  ASSERT_TRUE(differ);
  EXPECT_EQ(differ->request.instruction, "b");
  EXPECT_THAT(differ->request.warnings,
              ElementsAre("instruction and instruct differ; the last one counts"));
  EXPECT_THAT(with(R"("instruction": "a", "instruct": "a")")->request.warnings, IsEmpty());
}

TEST(RequestJson, BoundsOfNumbersAreSaid) {
  EXPECT_THAT(with(R"("top_n": 9223372036854775807)").error().message(),
              HasSubstr("top_n must be a whole number within 53 bits, 0 or more"));
}

using Videos = std::vector<std::string>;

TEST(RequestJson, WhatAVideoIs) {
  EXPECT_EQ(videos_of(R"("a.mp4")"), Videos{"file a.mp4"});
  EXPECT_EQ(videos_of(R"("a.gif")"),
            Videos{"file a.gif"});  // a string is a file, whatever its name
  EXPECT_EQ(videos_of(R"(["a.PNG", "b.mp4"])"), Videos{"frames a.PNG b.mp4"});
  EXPECT_EQ(videos_of(R"(["data:image/png;base64,AA", "b"])"),
            Videos{"frames data:image/png;base64,AA b"});
  EXPECT_EQ(videos_of(R"(["a.mp4", "b.mkv"])"), (Videos{"file a.mp4", "file b.mkv"}));
  EXPECT_EQ(videos_of(R"(["a.mp4", ["a.png", "b.png"]])"),
            (Videos{"file a.mp4", "frames a.png b.png"}));
  EXPECT_EQ(videos_of(R"([["a.tif"], ["b.png"]])"), (Videos{"frames a.tif", "frames b.png"}));
  EXPECT_EQ(videos_of("[]"), Videos{});
  EXPECT_EQ(videos_of("null"), Videos{});
  EXPECT_THAT(document(R"({"video": 3})").error, HasSubstr("got number"));
  EXPECT_THAT(document(R"({"video": [3]})").error, HasSubstr("got number"));
  EXPECT_THAT(document(R"({"video": [["a.png", 3]]})").error, HasSubstr("a list with number"));
}

TEST(RequestJson, FramesPerRequest) {
  const auto parse = [](const std::string& members) {
    return parse_request("{" + members + R"(, "query": {}, "documents": []})");
  };
  const auto parsed = parse(R"("fps": 2.5, "max_frames": 8)");
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->request.fps, 2.5);
  EXPECT_EQ(parsed->request.max_frames, 8);
  const auto neither = parse(R"("fps": null, "max_frames": null)");
  ASSERT_TRUE(neither);
  EXPECT_FALSE(neither->request.fps || neither->request.max_frames);
  for (const char* bad : {R"("fps": 0)", R"("fps": -1)", R"("fps": "1")", R"("max_frames": 0)",
                          R"("max_frames": 1.5)", R"("max_frames": "8")"}) {
    const auto refused = parse(bad);
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument) << bad;
    EXPECT_THAT(refused.error().message(), HasSubstr("above 0, got")) << bad;
  }
}

// ---- One string's defect costs its document ----

struct Defect {
  std::string text;  // between the quotes of a JSON string
  const char* name;
};
const std::vector<Defect>& defects() {
  static const std::vector<Defect> all = {
      {R"(ok \ud83d)", R"(half a surrogate pair, \ud83d)"},
      {R"(\udc00 ok)", R"(half a surrogate pair, \udc00)"},
      {R"(\ud83d\u0041)", R"(half a surrogate pair, \ud83d)"},
      {"caf\xe9", "bytes that are not UTF-8, the first being 0xe9"},
      {"\xed\xa0\xbd", "bytes that are not UTF-8, the first being 0xed"},
      {"\xc0\xaf", "bytes that are not UTF-8, the first being 0xc0"},
      {"cut \xf0\x9f", "bytes that are not UTF-8, the first being 0xf0"},
      {std::string("a\0b", 3), "a control character that is not escaped, 0x00"},
      {"a\nb", "a control character that is not escaped, 0x0a"},
      {R"(\u12g4)", R"(\u without four hexadecimal digits)"},
      {R"(\u1)", R"(\u without four hexadecimal digits)"},
      {R"(\x41)", R"(an escape that is none, \x)"},
  };
  return all;
}

TEST(RequestJson, AStringsDefectCostsItsDocument) {
  for (const auto& [text, name] : defects()) {
    for (const std::string side :
         {"\"%\"", R"({"text": "%"})", R"({"text": ["a", "%"]})", R"({"image": "%"})",
          R"({"video": ["a.png", "%"]})", R"({"content": [{"type": "text", "text": "%"}]})",
          R"([{"type": "image_url", "image_url": {"url": "%"}}])", R"({"%": 1})"}) {
      std::string json = side;
      json.replace(json.find('%'), 1, text);
      const auto parsed =
          parse_request(R"({"query": "q", "documents": [{"text": "a"}, )" + json + R"(, "b"]})");
      ASSERT_TRUE(parsed) << json << ": " << parsed.error().message();
      const std::vector<Content>& documents = parsed->request.documents;
      ASSERT_EQ(documents.size(), 3u) << json;
      EXPECT_THAT(documents[1].error, AllOf(StartsWith("the document"), HasSubstr(name))) << json;
      EXPECT_THAT(documents[0].texts, ElementsAre("a"));
      EXPECT_THAT(documents[2].texts, ElementsAre("b"));
      EXPECT_EQ(documents[0].error + documents[2].error, "");
      // In the query it is the request's.
      EXPECT_THAT(refused(R"({"documents": ["a"], "query": )" + json + "}"),
                  AllOf(StartsWith("request: query: "), HasSubstr(name)));
    }
    EXPECT_THAT(refused(R"({"instruction": ")" + text + R"(", "query": "q", "documents": []})"),
                AllOf(HasSubstr("instruction has "), HasSubstr(name)));
  }
}

TEST(RequestJson, EscapesAndCharactersAreRead) {
  EXPECT_THAT(document(R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude00")").texts,
              ElementsAre("\"\\/\b\f\n\r\tA\u00e9\u20ac\U0001f600"));
  EXPECT_THAT(document("\"\u00e9\u20ac\U0001f600\x7f\"").texts,
              ElementsAre("\u00e9\u20ac\U0001f600\x7f"));
  EXPECT_THAT(document(R"("\u0000")").texts, ElementsAre(std::string(1, '\0')));
}

TEST(RequestJson, WhatIsNoJsonIsOfTheWhole) {
  const std::string begin = R"({"query": "q", "documents": [)";
  for (const auto& [json, message] : std::vector<std::pair<std::string, std::string>>{
           {"", "not JSON: expected a value at line 1, column 1, got the end"},
           {"{", "expected a key in double quotes at line 1, column 2, got the end"},
           {begin + "\n\"a\" \"b\"]}", "expected ',' or ']' at line 2, column 5, got '\"'"},
           {begin + "]} x", "expected nothing more at line 1, column 33, got 'x'"},
           {begin + "{\"text\" \"a\"}]}", "expected ':'"},
           {begin + "{\"text\": tru}]}", "expected true"},
           {begin + "01]}", "expected ',' or ']'"},
           {begin + "-]}", "expected a digit"},
           {begin + "1.]}", "expected a digit"},
           {begin + "1e]}", "expected a digit"},
           {begin + "\"a]}", "expected '\"' at the end of a string"},
           {begin + "\"a\",]}", "expected a value"},
           {begin + "{\"a\": 1,}]}", "expected a key in double quotes"},
           {begin + "]}" + std::string(1, '\0'), "expected nothing more"},
           {begin + std::string(100, '['), "nested deeper than 64 levels"},
           {"[]", "must be an object, got array"},
           {R"({"documents": []})", "no query"},
           {R"({"query": "q"})", "documents must be a list, got none"},
           {R"({"query": "q", "documents": 3})",
            "documents must be a list, a text or an object, got number"},
           {R"({"query": 1, "documents": []})", "query: must be a text"}}) {
    EXPECT_THAT(refused(json), AllOf(HasSubstr(message), Not(HasSubstr("json.exception"))));
  }
  EXPECT_TRUE(parse_request("\xEF\xBB\xBF {\"query\": \"q\", \"documents\": []}\r\n"));
}

TEST(RequestJson, WhereJsonEnds) {
  for (const char* whole : {"{}", " [1, {\"a\": null}] \n", "\"a\"", "-0.5e+3", "true"})
    EXPECT_EQ(json_extent(whole), JsonExtent::kWhole) << whole;
  for (const char* beginning : {"", "{", "{\"a\": ", "[1,", "\"a", "{\"query\": \"\\", "tr"})
    EXPECT_EQ(json_extent(beginning), JsonExtent::kBeginning) << beginning;
  for (const char* neither : {"{}x", "a", "]", "{\"a\"]", "{} {}", "{a"})
    EXPECT_EQ(json_extent(neither), JsonExtent::kNeither) << neither;
}

// ---- Shapes ----

TEST(RequestJson, SidesAsOtherRerankersWriteThem) {
  for (const char* text :
       {R"("a dog")", R"({"text": "a dog"})", R"({"text": ["a dog"]})", R"({"content": "a dog"})",
        R"({"content": [{"type": "text", "text": "a dog"}]})",
        R"([{"type": "text", "text": "a dog"}])", R"([{"text": "a dog", "type": "text"}])",
        R"({"text": "a cat", "text": "a dog"})"}) {
    const Content c = document(text);
    EXPECT_EQ(c.error, "") << text;
    EXPECT_THAT(c.texts, ElementsAre("a dog")) << text;
    EXPECT_TRUE(c.images.empty() && c.videos.empty()) << text;
  }
  for (const char* image :
       {R"({"image": "a.png"})", R"({"image": ["a.png"]})", R"({"image_url": "a.png"})",
        R"({"image_url": {"url": "a.png"}})", R"({"image": {"url": "a.png", "detail": "auto"}})",
        R"([{"type": "image_url", "image_url": {"url": "a.png"}}])",
        R"({"content": [{"type": "image", "image": "a.png"}]})"}) {
    const Content c = document(image);
    EXPECT_EQ(c.error, "") << image;
    ASSERT_EQ(c.images.size(), 1u) << image;
    EXPECT_EQ(c.images[0].path, "a.png") << image;
  }
  for (const char* video : {R"({"video_url": {"url": "a.mp4"}})",
                            R"([{"type": "video_url", "video_url": {"url": "a.mp4"}}])",
                            R"({"content": [{"type": "video", "video": ["a.mp4"]}]})"}) {
    const Content c = document(video);
    EXPECT_EQ(c.error, "") << video;
    ASSERT_EQ(c.videos.size(), 1u) << video;
    ASSERT_TRUE(c.videos[0].file) << video;
    EXPECT_EQ(c.videos[0].file->path, "a.mp4") << video;
  }
  const Content mixed = document(
      R"([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "a.png"}},
          {"type": "text", "text": "b"}])");
  EXPECT_THAT(mixed.texts, ElementsAre("a", "b"));
  EXPECT_EQ(mixed.images.size(), 1u);
  // One document may stand alone, as vLLM has it.
  for (const char* one : {R"("d")", R"({"content": [{"type": "text", "text": "d"}]})"}) {
    const auto parsed = parse_request(R"({"query": "q", "documents": )" + std::string(one) + "}");
    ASSERT_TRUE(parsed);
    ASSERT_EQ(parsed->request.documents.size(), 1u);
    EXPECT_THAT(parsed->request.documents[0].texts, ElementsAre("d"));
  }
}

TEST(RequestJson, ADocumentThatMakesNoSenseSaysWhy) {
  for (const auto& [side, message] : std::vector<std::pair<std::string, std::string>>{
           {"7", "the document must be a text, a list of parts or an object"},
           {"null", "got null"},
           {R"({"txt": "a"})", "has a key 'txt'; known are text, image, video"},
           {R"({"text": 3})", "text must be a string or a list of strings, got number"},
           {R"({"text": ["a", []]})", "got a list with array"},
           {R"({"image": 3})", "image must be a path or an object with a url, got number"},
           {R"({"image_url": {"href": "a"}})", "has a key 'href'; known are url and detail"},
           {R"({"image_url": {}})", "image_url has no url"},
           {R"({"image_url": {"url": 3}})", "image_url.url must be a string, got number"},
           {R"(["a"])", "a part of content must be an object with a type, got string"},
           {R"([{"text": "a"}])", "a part of content has no type"},
           {R"([{"type": 3, "text": "a"}])", "type must be a string, got number"},
           {R"([{"type": "audio", "audio": "a"}])", "has a key 'audio'"},
           {R"([{"type": "image_url", "text": "a"}])",
            "has the type 'image_url', and the key 'text'"},
           {R"([{"type": "text"}])", "has the type 'text', and nothing else"},
           {R"({"content": 3})", "content must be a string or a list of parts, got number"},
           {R"({"content": [{"type": "text", "content": "a"}]})", "has a key 'content'"},
           {R"({"\u001b]0;x\u0007": 1})", "has a key '?]0;x?'"}}) {
    const Content c = document(side);
    EXPECT_THAT(c.error, AllOf(StartsWith("the document"), HasSubstr(message))) << side;
    EXPECT_TRUE(c.texts.empty() && c.images.empty() && c.videos.empty()) << side;
  }
  // A name of 5 MB is not echoed whole.
  EXPECT_LT(document("{\"" + std::string(5'000'000, 'k') + "\": 1}").error.size(), 400u);
}

// ---- Keys of the request ----

TEST(RequestJson, KeysOfARequest) {
  const auto parsed = with(
      R"("instruct": "find", "sample_fps": 0.5, "min_pixels": 1024, "max_pixels": 4096,
         "max_tokens_per_doc": 5, "max_tokens_per_query": 0, "top_n": 1, "return_documents": true)");
  ASSERT_TRUE(parsed) << parsed.error().message();
  const Request& r = parsed->request;
  EXPECT_EQ(r.instruction, "find");
  EXPECT_EQ(r.sample_fps, 0.5);
  EXPECT_EQ(r.min_pixels, 1024);
  EXPECT_EQ(r.max_pixels, 4096);
  EXPECT_EQ(r.max_tokens_per_doc, 5);
  EXPECT_EQ(r.max_tokens_per_query, 0);
  EXPECT_EQ(r.top_n, 1);
  EXPECT_TRUE(r.return_documents);
  EXPECT_THAT(r.warnings, IsEmpty());
  for (const char* bad :
       {R"("top_n": -1)", R"("top_n": 1.5)", R"("top_n": "1")", R"("max_pixels": 0)",
        R"("max_tokens_per_doc": [1])", R"("sample_fps": 1e999)", R"("return_documents": 1)"}) {
    const auto refused = with(bad);
    ASSERT_FALSE(refused) << bad;
    const std::string key = std::string(bad).substr(1, std::string(bad).find(':') - 2);
    EXPECT_THAT(refused.error().message(), AllOf(HasSubstr(key), HasSubstr("got "))) << bad;
  }
}

TEST(RequestJson, KeysThatAreNotKnownAreNamed) {
  const auto parsed = with(R"("instrution": "x", "model": {"a": [1, "\ud83d"]})");
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_THAT(parsed->request.warnings,
              ElementsAre("the key 'instrution' is not known and has no effect",
                          "the key 'model' is not known and has no effect"));
  std::string many = R"("k": 1)";
  for (int i = 0; i < 1000; ++i) many += ", \"k" + std::to_string(i) + "\": 1";
  const auto limited = with(many);
  ASSERT_TRUE(limited);
  EXPECT_EQ(limited->request.warnings.size(), 9u);
  EXPECT_EQ(limited->request.warnings.back(), "993 more keys are not known and have no effect");
}

// ---- Many documents ----

TEST(RequestJson, TimeIsLinearInDocuments) {
  const auto request_of = [](int64_t n, const std::string& document) {
    std::string json = R"({"query": "q", "documents": [)" + document;
    for (int64_t i = 1; i < n; ++i) json += "," + document;
    return json + "]}";
  };
  const std::string most = request_of(kMaxDocuments, "{}");
  const auto start = std::chrono::steady_clock::now();
  const auto parsed = parse_request(most);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(std::ssize(parsed->request.documents), kMaxDocuments);
  EXPECT_LT(took.count(), 20);  // a tenth of a second; quadratic: hours
  EXPECT_THAT(refused(request_of(kMaxDocuments + 1, "1")),
              HasSubstr("more than 1000000 documents"));
}

// ---- Scored ----

Response score(Reranker& reranker, const std::string& json) {
  const auto request = request_from_json(json);
  EXPECT_TRUE(request) << request.error().message();
  auto response = reranker.score(*request);
  EXPECT_TRUE(response) << response.error().message();
  return *std::move(response);
}

TEST(RequestJson, HalfASurrogatePairLeavesTheOthersTheirScores) {
  Reranker reranker = open_or_die(demo_model());
  const Response response = score(
      reranker,
      R"({"query":{"text":"a cat"},"documents":[{"text":"ok \ud83d"},{"text":"\ud83d\ude00"},{"text":"fine"}]})");
  ASSERT_EQ(response.results.size(), 3u);
  EXPECT_EQ(response.results[0].status, DocumentStatus::kInvalid);
  EXPECT_THAT(response.results[0].message, HasSubstr("half a surrogate pair"));
  EXPECT_NEAR(response.results[1].log_odds, -0.815683663, 1e-5);
  EXPECT_NEAR(response.results[2].log_odds, -1.33509409, 1e-5);
  const Response alone =
      score(reranker,
            R"({"query":{"text":"a cat"},"documents":[{"text":"\ud83d\ude00"},{"text":"fine"}]})");
  EXPECT_EQ(alone.results[0].log_odds, response.results[1].log_odds);
  EXPECT_EQ(alone.results[1].log_odds, response.results[2].log_odds);
}

TEST(RequestJson, InstructAndTokensPerDocumentHaveTheirEffect) {
  Reranker reranker = open_or_die(demo_model());
  const std::string rest =
      R"("query":{"text":"a star"},"documents":[{"text":"A celestial body that shines at night."},
         "A sun."])";
  const auto log_odds = [&](const std::string& members) {
    return score(reranker, "{" + members + rest + "}").results[0].log_odds;
  };
  const std::string instruct = R"("instruct":"Retrieve pictures of stars only.",)";
  EXPECT_NEAR(log_odds(""), -0.86056906, 1e-5);
  EXPECT_NEAR(log_odds(instruct), -0.0757138878, 1e-5);
  const auto tokenizer = Tokenizer::open(demo_model() + "/tokenizer.json");
  ASSERT_TRUE(tokenizer);
  Encoder encoder(*tokenizer);
  const auto first_of = [&](const std::string& text, size_t tokens) {
    std::vector<int32_t> ids;
    encoder.encode(text, ids);
    EXPECT_GT(ids.size(), tokens);
    return tokenizer->decode(std::span(ids).first(tokens));
  };
  const Response cut = score(reranker, R"({"max_tokens_per_doc":5,)" + rest + "}");
  EXPECT_TRUE(cut.results[0].truncated);
  EXPECT_FALSE(cut.results[1].truncated);
  const Response same =
      score(reranker, R"({"query":{"text":"a star"},"documents":[")" +
                          first_of("A celestial body that shines at night.", 5) + R"("]})");
  EXPECT_EQ(cut.results[0].log_odds, same.results[0].log_odds);
  const std::string query = "a star that shines over the sea";
  const Response cut_query = score(
      reranker, R"({"max_tokens_per_query":3,"query":")" + query + R"(","documents":["A sun."]})");
  EXPECT_TRUE(cut_query.results[0].truncated);
  const Response short_query =
      score(reranker, R"({"query":")" + first_of(query, 3) + R"(","documents":["A sun."]})");
  EXPECT_EQ(cut_query.results[0].log_odds, short_query.results[0].log_odds);
}

TEST(RequestJson, AResponseFollowsItsRequest) {
  Reranker reranker = open_or_die(demo_model());
  const std::string json =
      R"({"query": "a star", "documents": ["chess", 7, "a star", {"image": "demo/none.png"}],
          "top_n": 1, "return_documents": true, "colour": "red"})";
  const auto request = request_from_json(json);
  ASSERT_TRUE(request);
  const auto response = reranker.score(*request);
  ASSERT_TRUE(response);
  EXPECT_EQ(response->results.size(), 4u);
  const auto shown =
      nlohmann::json::parse(response_json(*response, reranker, {}, {.request = &*request}));
  ASSERT_EQ(shown["results"].size(), 3u);  // the best, and what could not be scored
  EXPECT_EQ(shown["results"][0]["index"], 2);
  EXPECT_EQ(shown["results"][0]["document"]["text"], "a star");
  EXPECT_EQ(shown["results"][1]["index"], 1);
  EXPECT_EQ(shown["results"][2]["document"]["image"], "demo/none.png");
  EXPECT_THAT(shown["warnings"][0].get<std::string>(), HasSubstr("'colour'"));
  EXPECT_FALSE(nlohmann::json::parse(response_json(*response, reranker)).contains("warnings"));
}

TEST(RequestJson, ADocumentThatTheQueryLeavesNoRoomSaysSo) {
  Reranker reranker = open_or_die(demo_model(), {.max_length = 100});
  std::string query;
  for (int i = 0; i < 40; ++i) query += "find the star that shines ";
  const Response response =
      score(reranker, R"({"query": ")" + query +
                          R"(", "documents": ["a sun", "chess", {"text": ""}, "a sun"]})");
  const DocumentResult& first = response.results[0];
  EXPECT_EQ(first.status, DocumentStatus::kUnread);
  EXPECT_EQ(document_status_name(first.status), "unread");
  EXPECT_TRUE(first.scored() && first.truncated);
  EXPECT_THAT(first.message, AllOf(HasSubstr("the instruction and the query take 301 tokens"),
                                   HasSubstr("max_length is 100")));
  EXPECT_EQ(response.results[1].log_odds, first.log_odds);  // of nothing, both
  EXPECT_EQ(response.results[2].status, DocumentStatus::kEmpty);
  // With some of it left it is cut, and no more than that.
  const Response some =
      score(reranker, R"({"query": "a star", "documents": [")" + query + R"("]})");
  EXPECT_EQ(some.results[0].status, DocumentStatus::kOk);
  EXPECT_TRUE(some.results[0].truncated);
}

TEST(RequestJson, TextsHaveALimit) {
  Reranker reranker = open_or_die(demo_model(), {.max_text_bytes = 10});
  const Response response =
      score(reranker, R"({"query": "a star", "documents": ["a sun", "0123456789a"]})");
  EXPECT_EQ(response.results[0].status, DocumentStatus::kOk);
  EXPECT_EQ(response.results[1].status, DocumentStatus::kTooLong);
  EXPECT_THAT(response.results[1].message, HasSubstr("a text of 11 bytes, max_text_bytes is 10"));
  const Response query = score(reranker, R"({"query": "0123456789a", "documents": ["a sun"]})");
  EXPECT_EQ(query.results[0].status, DocumentStatus::kTooLong);
  EXPECT_THAT(query.results[0].message, StartsWith("query: "));
}

/// A document of a mutated request, still JSON.
std::string mutated(std::mt19937& random) {
  const auto below = [&](size_t n) { return random() % n; };
  const auto flipped = [&](std::string text) {  // whatever stays within the string's quotes
    for (size_t i = 1 + below(4); i > 0; --i) {
      const char c = static_cast<char>(random());
      if (c != '"' && c != '\\') text[below(text.size())] = c;
    }
    return text;
  };
  const std::vector<std::string> values = {
      "null",        "true",          "-7.5e2",      R"("x")",
      R"("\ud83d")", R"("\udc00")",   "[]",          "{}",
      "[[[3]]]",     R"({"url": 3})", R"(["a", 3])", R"([{"type": "text", "text": "a"}])",
      "\"\xff\""};
  const std::vector<std::string> keys = {"text", "image", "video",   "content", "image_url",
                                         "txt",  "type",  "\\ud83d", "\xff"};
  switch (below(4)) {
    case 0:
      return R"({"text": ")" + flipped("A planetarium in the north of the city.") + "\"}";
    case 1:
      return R"({"text": ")" + defects()[below(defects().size())].text + "\"}";
    case 2:
      return values[below(values.size())];
    default: {
      std::string out = "{";
      for (size_t i = 0; i <= below(3); ++i)
        out +=
            (i ? ", \"" : "\"") + keys[below(keys.size())] + "\": " + values[below(values.size())];
      return out + "}";
    }
  }
}

TEST(RequestJson, AMutatedDocumentCostsNoOther) {
  Reranker reranker = open_or_die(demo_model());
  const std::vector<std::string> others = {R"("a sun")", R"({"text": "The moon at night."})",
                                           R"({"text": ["two", " texts"]})"};
  std::vector<float> wanted;
  for (const std::string& other : others)
    wanted.push_back(score(reranker, R"({"query": "a star", "documents": [)" + other + "]}")
                         .results[0]
                         .log_odds);
  std::mt19937 random(15);
  std::vector<Request> requests;
  std::vector<size_t> places;
  for (int i = 0; i < 1000; ++i) {
    const size_t place = places.emplace_back(random() % 4);
    std::string json = R"({"query": "a star", "documents": [)";
    for (size_t d = 0; d < 4; ++d)
      json += (d ? "," : "") + (d == place ? mutated(random) : others[d - (d > place)]);
    auto parsed = request_from_json(json + "]}");
    ASSERT_TRUE(parsed) << json << ": " << parsed.error().message();
    requests.push_back(*std::move(parsed));
  }
  const auto responses = reranker.score(requests);
  ASSERT_TRUE(responses) << responses.error().message();
  int invalid = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    for (size_t d = 0; d < 4; ++d) {
      const DocumentResult& r = (*responses)[i].results[d];
      if (d == places[i]) {
        invalid += r.status == DocumentStatus::kInvalid;
        EXPECT_TRUE(r.status == DocumentStatus::kOk || !r.message.empty()) << i;
        continue;
      }
      EXPECT_EQ(r.status, DocumentStatus::kOk) << i << ": " << r.message;
      EXPECT_EQ(r.log_odds, wanted[d - (d > places[i])]) << i;
    }
  }
  EXPECT_GT(invalid, 500);
  EXPECT_LT(invalid, 1000);
}

}  // namespace
}  // namespace vlr
