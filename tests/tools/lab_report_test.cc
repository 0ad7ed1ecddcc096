// The lab's pages: well-formed, escaped, self-contained, and whole whatever a result lacks.
#include "tools/lab_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace vlr::tools {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::Not;

/// Empty, or the first place where elements are not closed as they were opened.
std::string unclosed(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = 0; (at = html.find('<', at)) != std::string::npos;) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return "no '>' behind " + html.substr(at, 40);
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos) return "'<' in <" + tag + ">";
    if (std::ranges::count(tag, '"') % 2 != 0) return "a quote is open in <" + tag + ">";
    at = end;
    if (tag.starts_with('!') || tag.ends_with('/')) continue;
    if (!tag.starts_with('/')) {
      open.push_back(tag.substr(0, tag.find(' ')));
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return "<" + tag + "> in <" + (open.empty() ? "" : open.back()) + ">";
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is open at the end";
}

TEST(LabReport, UnclosedFindsWhatIsNotClosed) {
  EXPECT_EQ(unclosed("<!DOCTYPE html><p class=\"a\">x<br/></p>"), "");
  EXPECT_NE(unclosed("<p><b></p></b>"), "");
  EXPECT_NE(unclosed("<p>"), "");
  EXPECT_NE(unclosed("<p title=\"x>\"></p>"), "");
}

void expect_sound(const std::string& html) {
  EXPECT_EQ(unclosed(html), "");
  for (const char* foreign : {"http", "<script", "<link", "<img", "@import", "url(", "src=", "nan"})
    EXPECT_THAT(html, Not(HasSubstr(foreign)));
}

Json row(const std::string& op, const std::string& impl, double us) {
  return {{"op", op},
          {"impl", impl},
          {"shape", "rows=512,dim=2048"},
          {"label", "2b"},
          {"dtype", "bf16"},
          {"name", "bf16/2b/rows=512,dim=2048"},
          {"us", {us, 0.99 * us, 1.01 * us}},
          {"flops", 4e6},
          {"bytes", 8e6},
          {"tflops", 4 / us},
          {"gbytes_per_s", 8e3 / us},
          {"roof", "memory"},
          {"roof_pct", 50.0},
          {"itself", {1.02, 1.01, 1.03}},
          {"ratio", {0.93, 0.92, 0.94}},
          {"control", {1.001, 0.999, 1.002}},
          {"verdict", "FASTER"},
          {"kernels",
           {{{"name", "kernel<int&>"},
             {"registers", 64},
             {"local_bytes", 16},
             {"occupancy", 0.5},
             {"sass", {{"wgmma", 8}, {"mma", 0}}}}}}};
}

Json result(const std::string& date, double us) {
  return {{"context", {{"date", date}, {"commit", "0123456789ab"}, {"gpu", "a card"}}},
          {"roofs",
           {{{"name", "bf16"}, {"unit", "FLOP/s"}, {"before", 7e14}, {"best", 7e14}},
            {{"name", "memory"},
             {"unit", "B/s"},
             {"before", 4e12},
             {"after", 4.1e12},
             {"best", 4.1e12},
             {"uncertainty_pct", 1.2}}}},
          {"rows", {row("rmsnorm", "simple", us), row("rmsnorm", "vector", us / 2)}},
          {"model",
           {{{"name", "workload/text100"},
             {"real_time", 208.0},
             {"time_unit", "ms"},
             {"ops", {{{"op", "linear"}, {"us", 900.0}}, {{"op", "rmsnorm"}, {"us", 100.0}}}}}}}};
}

TEST(LabReport, HasItsSectionsInOrder) {
  const std::string html = html_report(result("2026-01-02", 10), {});
  expect_sound(html);
  size_t at = 0;
  for (const char* part : {"a card", "0123456789ab", "Roofs", "±1.2 %", "Rooflines", "rmsnorm",
                           "10.00", "FASTER", "wgmma 8", "Where a forward pass", "208 ms", "90.0 %",
                           "History", "only one result", "Noise", "largest 2.00 %"}) {
    at = html.find(part, at);
    ASSERT_NE(at, std::string::npos) << part;
  }
}

TEST(LabReport, TextIsEscaped) {
  const std::string evil = "<script>alert('1')</script>\"&";
  Json r = result("2026-01-02", 10);
  r["context"]["gpu"] = evil;
  for (const char* key : {"op", "impl", "shape", "label", "dtype", "name", "roof", "verdict"})
    r["rows"][1][key] = evil;
  r["rows"][0]["error"] = evil;
  r["rows"][1]["kernels"][0]["name"] = evil;
  r["roofs"][0]["name"] = evil;
  r["model"][0]["ops"][0]["op"] = evil;
  const HistoryEntry entry{"a.json", r};
  r["context"]["date"] = evil;
  const std::string html = html_report(r, {&entry, 1});
  expect_sound(html);
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));

  const std::string verdict = html_verdict({{"op", evil},
                                            {"candidate", evil},
                                            {"verdict", evil},
                                            {"refused", {evil}},
                                            {"checks", {{{"shape", evil}, {"bits", evil}}}},
                                            {"rows", r["rows"]},
                                            {"workloads", {{{"name", evil}, {"ran", {{evil, 1}}}}}},
                                            {"eval", {{{"file", evil}}}}});
  expect_sound(verdict);
}

TEST(LabReport, FailedRowsSaySo) {
  Json r = result("2026-01-02", 10);
  r["rows"][1] = {{"op", "rmsnorm"},
                  {"impl", "vector"},
                  {"name", "bf16/2b/rows=512,dim=2048"},
                  {"error", "element 7 is wrong"}};
  const std::string html = html_report(r, {});
  expect_sound(html);
  EXPECT_THAT(html, HasSubstr("Rows: 2. Ops: 1. FAILED: 1."));
  EXPECT_THAT(html, HasSubstr("<strong>FAILED</strong> element 7 is wrong"));
  EXPECT_THAT(html_report(result("2026-01-02", 10), {}), HasSubstr("FAILED: none."));
}

TEST(LabReport, HistoryIsOfTheSameDeviceInOrderOfDate) {
  Json other = result("2026-01-01", 99);
  other["context"]["gpu"] = "another card";
  const Json now = result("2026-01-03", 8);
  const std::vector<HistoryEntry> history = {
      {"b.json", now}, {"c.json", result("2026-01-02", 10)}, {"d.json", other}};
  const std::string html = html_report(now, history);  // which is in the history as well
  expect_sound(html);
  EXPECT_THAT(html, HasSubstr("2 results of this device"));
  EXPECT_THAT(html, HasSubstr("-20.0 %"));
}

TEST(LabReport, NothingIsMissed) {
  for (const Json& empty : {Json(), Json::object(), Json::array(), Json("text"), Json(1),
                            Json{{"context", 1},
                                 {"roofs", "x"},
                                 {"rows", {1, "x", Json(), Json::object()}},
                                 {"model", {1, {{"ops", {2}}}}},
                                 {"checks", {Json::object(), 3}},
                                 {"refused", 4},
                                 {"workloads", {5}},
                                 {"eval", "y"},
                                 {"batches", {6}}}}) {
    expect_sound(html_report(empty, {}));
    expect_sound(html_verdict(empty));
  }
  // Every member of a row left out, null or of another kind.
  const Json whole = result("2026-01-02", 10);
  for (const auto& [key, value] : whole["rows"][0].items()) {
    for (const Json& instead : {Json(), Json("text"), Json(-1), Json{1}, Json::object()}) {
      Json r = whole;
      r["rows"][0][key] = instead;
      expect_sound(html_report(r, {}));
      r["rows"][0].erase(key);
      expect_sound(html_report(r, {}));
    }
  }
}

TEST(LabVerdict, SaysWhatItRestsOn) {
  const Json verdict = {
      {"op", "linear"},
      {"candidate", "wgmma"},
      {"baseline", "cublaslt"},
      {"verdict", "SLOWER"},
      {"refused", {"bits differ"}},
      {"checks",
       {{{"shape", "m=1"},
         {"bits", "different"},
         {"errors", {{"elements", 1000}, {"wrong", 3}, {"ulps", {990, 6, 1, 0, 3}}}}},
        {{"shape", "m=2"}, {"error", "does not take it"}}}},
      {"rows", {row("linear", "cublaslt", 10), row("linear", "wgmma", 11)}},
      {"workloads",
       {{{"name", "1x128"},
         {"baseline_ms", 5.0},
         {"candidate_ms", 5.5},
         {"ratio", {1.1, 1.09, 1.11}},
         {"control", {1.0, 0.9876, 1.0123}},
         {"verdict", "SLOWER"},
         {"ran", {{"linear/wgmma", 145}, {"attention/flash", 36}}}}}},
      {"eval", {{{"file", "emoji.jsonl"}, {"pairs", 160}, {"order_changes", 2}}}},
      {"batches", {{"pairs", 640}, {"different", 0}}},
      {"moved", {{"max_distance", 1.0}, {"share", 0.125}, {"most", 0.1}}}};
  const std::string html = html_verdict(verdict);
  expect_sound(html);
  for (const char* part :
       {"SLOWER", "REFUSED", "bits differ", "up to 4: 0", "more than 4: 3", "does not take it",
        "1.1000", "145", "emoji.jsonl", "0 of 640", "0.9876 to 1.0123", "0.125, 0.100 is allowed"})
    EXPECT_THAT(html, HasSubstr(part));
  EXPECT_THAT(html, Not(HasSubstr("not finished")));
}

TEST(LabVerdict, SaysWhyItIsNotFinished) {
  const std::string html = html_verdict({{"op", "linear"},
                                         {"candidate", "wgmma"},
                                         {"verdict", "UNFINISHED"},
                                         {"error", "no <model>"}});
  expect_sound(html);
  for (const char* part : {"UNFINISHED", "It is not finished because", "no &lt;model&gt;"})
    EXPECT_THAT(html, HasSubstr(part));
  EXPECT_THAT(html, Not(HasSubstr("REFUSED")));
}

TEST(LabHistory, IsEveryResultOfAFolder) {
  const std::filesystem::path folder = ::testing::TempDir() + "/lab_history";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "more.json");
  const auto write = [&](const char* name, const std::string& all) {
    std::ofstream(folder / name) << all;
  };
  write("b.json", R"({"context": {}, "rows": []})");
  write("a.json", R"({"context": {"gpu": "x"}, "rows": [1]})");
  write("other.json", R"({"context": {}, "benchmarks": []})");
  write("broken.json", "{");
  write("note.txt", R"({"context": {}, "rows": []})");
  const auto history = read_history(folder.string());
  ASSERT_TRUE(history.ok()) << history.error().message();
  ASSERT_EQ(history->size(), 2u);
  EXPECT_EQ((*history)[0].file, "a.json");
  EXPECT_EQ((*history)[1].file, "b.json");
  EXPECT_EQ(read_history((folder / "none").string()).error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace vlr::tools
