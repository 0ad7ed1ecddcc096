// vlr lab from outside: exit codes, messages, the files that it writes and takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/tools/cli.h"

namespace vlr {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::read_file;
using ::testing::StartsWith;

const std::string kModel = VLR_SOURCE_DIR "/demo/model";

class CliLab : public CliFolder {
 protected:
  /// On one thread of the host.
  Ran lab(const std::string& command, Arguments arguments = {}) const {
    Arguments all = {"lab"};
    std::istringstream words(command);
    for (std::string word; words >> word;) all.push_back(word);
    all.insert(all.end(), {"--device", "cpu"});
    if (!command.starts_with("verdict")) all.insert(all.end(), {"--threads", "1"});
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run(all);
  }
  Ran timed(const std::string& command, Arguments arguments = {}) const {
    arguments.insert(arguments.end(), {"--settle", "0.05", "--seconds", "0.1"});
    return lab(command, std::move(arguments));
  }
  json json_of(const char* name) const { return json::parse(read_file(folder_ / name)); }

  static std::set<std::string> keys_of(const json& object) {
    std::set<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.insert(key);
    return keys;
  }
  static bool has(const json& object, const std::vector<const char*>& keys) {
    return std::ranges::all_of(keys, [&](const char* key) {
      EXPECT_TRUE(object.contains(key)) << key << " in " << object.dump();
      return object.contains(key);
    });
  }
};

TEST_F(CliLab, ListsOpsAxesImplementationsAndShapes) {
  const Ran all = lab("list"), one = lab("list rmsnorm");
  EXPECT_EQ(all.code, 0) << all.err;
  for (const char* part : {"\nattention\n", "\nlinear\n", "\nswiglu\n"})
    EXPECT_THAT(all.out, HasSubstr(part));
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_THAT(one.out, AllOf(StartsWith("rmsnorm\n  axis rows = "), HasSubstr("\n  cpu simd\n"),
                             HasSubstr("\n  cpu reference\n"),
                             HasSubstr("\n  shape f32/2b --shape rows=512,dim=2048\n"),
                             Not(HasSubstr("linear"))));
  EXPECT_EQ(one.err, "");
  for (const char* asked : {"--shape rows=5,dim=8", "--label no_such_label"})
    EXPECT_THAT(lab("list rmsnorm " + std::string(asked)).out, Not(HasSubstr("/2b ")));
  EXPECT_THAT(lab("list rmsnorm --label demo").out,
              AllOf(HasSubstr("shape f32/demo "), Not(HasSubstr("/2b "))));
  EXPECT_THAT(lab("list rmsnorm --shape rows=5:6:+1,dim=8").out,
              HasSubstr("  shape f32 --shape rows=5,dim=8\n  shape f32 --shape rows=6,dim=8\n"));
  const Ran mine = lab("list rmsnorm", {"--load", VLR_PLUGIN_MINE});
  EXPECT_THAT(mine.out, HasSubstr("\n  cpu mine\n  cpu wrong_above_400\n"));
}

TEST_F(CliLab, UsageErrorsEndWithTwoAndSayWhy) {
  const auto says = [&](const Arguments& arguments, const char* why) {
    Arguments all = {"lab"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Ran ran = run(all);
    EXPECT_EQ(ran.code, 2) << ::testing::PrintToString(arguments);
    EXPECT_EQ(ran.out, "") << ::testing::PrintToString(arguments);
    EXPECT_THAT(ran.err, HasSubstr(why)) << ::testing::PrintToString(arguments);
  };
  says({}, "A subcommand is required");
  says({"guess"}, "A subcommand is required");
  for (const char* command : {"list", "check", "time", "ab"}) {
    const std::string c = command;
    says({c, "rms_norm"}, "there is no op 'rms_norm'; `list` has them");
    says({c, "rmsnorm", "--device", "tpu"}, "--device must be cpu, cuda or cuda:N, got tpu");
    says({c, "rmsnorm", "--device", "cudax"}, "--device must be cpu, cuda or cuda:N, got cudax");
    says({c, "--shape", "rows=8"}, "--shape is one op's: name the op");
    says({c, "rmsnorm", "--load", "absent.so"}, "absent.so");
    says({c, "rmsnorm", "--no-such-option"}, "--no-such-option");
    says({c, "rmsnorm", "--device", "cpu", "--dtype", "f64"},
         "--dtype must be f32, bf16 or f16, got 'f64'");
    says({c, "rmsnorm", "--device", "cpu", "--label", "70b"}, "none of its shapes is asked for");
    says({c, "rmsnorm", "--device", "cpu", "--shapes", "absent.json"},
         "absent.json: expected an array of shapes");
    if (c == "list") continue;
    says({c, "rmsnorm", "--device", "cpu", "--impl", "fast"},
         "rmsnorm: no implementation 'fast' on cpu; there are reference, simd");
    says({c, "--device", "cpu", "--impl", "fast"}, "no implementation 'fast' on cpu; there are ");
    for (const auto& [shape, why] :
         {std::pair{"columns=8", "no axis 'columns'; there are rows, heads, dim"},
          {"rows", "a shape must be axis=value,axis=value, got 'rows'"},
          {"rows=many", "rows must be a whole number, got 'many'"},
          {"rows=8:4:*2", "rows must be a number, begin:end:*factor"},
          {"rows=8,dim=0", "rmsnorm: dim must be at least 1"}})
      says({c, "rmsnorm", "--device", "cpu", "--shape", shape}, why);
    says({c, "attention", "--device", "cpu", "--shape", "prefix_of=5"},
         "attention: prefix_of counts from 0");
  }
  says({"ab", "rmsnorm", "--device", "cpu", "--impl", "simd,reference,simd"}, "ab wants two");
  says({"verdict"}, "--impl");
  says({"verdict", "--impl", "rmsnorm"}, "--impl must be op=implementation, got rmsnorm");
  says({"verdict", "--impl", "rms_norm=simd"}, "there is no op 'rms_norm'");
  says({"verdict", "--impl", "rmsnorm=fast", "--device", "cpu"}, "no implementation 'fast' on cpu");
  says({"verdict", "--impl", "rmsnorm=simd", "--against", "fast", "--device", "cpu"},
       "no implementation 'fast' on cpu");
  says({"verdict", "--impl", "rmsnorm=simd", "--device", "cpu", "--shape", "columns=1"},
       "no axis 'columns'");
  says({"report"}, "required");
}

/// What contradicts another option, or acts on nothing, is not taken in silence.
TEST_F(CliLab, OptionsThatContradictEachOther) {
  const auto says = [&](const std::string& command, const Arguments& why) {
    const Ran ran = lab(command);
    EXPECT_EQ(ran.code, 2) << command << "\n" << ran.out;
    EXPECT_EQ(ran.out, "") << command;
    for (const std::string& part : why) EXPECT_THAT(ran.err, HasSubstr(part)) << command;
  };
  for (const std::string c : {"list", "check", "time", "ab", "verdict"}) {
    const std::string op = c == "verdict" ? " --impl rmsnorm=simd" : " rmsnorm";
    says(c + op + " --shape rows=8 --label demo", {"--shape", " excludes ", "--label"});
    if (c == "verdict") continue;
    says(c + op + " --shapes s.json --label demo", {"--shapes", " excludes ", "--label"});
    says(c + op + " --shapes s.json --dtype f32", {"--shapes", " excludes ", "--dtype"});
  }
  says("list rmsnorm --impl simd", {"--impl"});
  says("list rmsnorm --budget 1", {"--budget"});
  for (const std::string c : {"time rmsnorm", "ab rmsnorm"}) {
    says(c + " --warm --cold", {"--cold", " excludes ", "--warm"});
    says(c + " --warm --warm-operand weight", {"--warm-operand", " excludes ", "--warm"});
    says(c + " --company 0.9", {"--company wants a GPU, and this runs on cpu"});
    says(c + " --sass", {"--sass wants a GPU, and this runs on cpu"});
  }
  for (const char* of_times : {"--settle 1", "--seconds 1", "--precision 1", "--margin 1",
                               "--company 0.9", "--sass", "--json t.json"})
    says("time rmsnorm --profile " + std::string(of_times), {"--profile", " excludes "});
  says("verdict --impl rmsnorm=simd --synthetic a -m " + kModel,
       {"--synthetic", " excludes ", "--model"});
  says("verdict --impl rmsnorm=simd --synthetic a", {"--synthetic wants a GPU"});
  says("verdict --impl rmsnorm=simd --synthetic 70b", {"--synthetic: 70b not in {2b,8b,a,b}"});
  says("verdict --impl rmsnorm=simd --workload 1x128", {"--workload wants a model"});
}

TEST_F(CliLab, FilesOfShapesThatAreNone) {
  for (const char* text : {"{}", "[1]", R"([{"op": "rmsnorm"}])", "[", "",
                           R"([{"op": "rmsnorm", "dtype": "f32", "shape": "columns=1"}])",
                           R"([{"op": "rmsnorm", "dtype": 3, "shape": "rows=1"}])"}) {
    testing::write_file(folder_ / "shapes.json", text);
    const Ran ran = lab("check rmsnorm --shapes shapes.json");
    EXPECT_EQ(ran.code, 2) << text << ran.out;
    EXPECT_NE(ran.err, "") << text;
  }
}

TEST_F(CliLab, CheckHoldsAgainstTheReference) {
  const Ran right =
      lab("check rmsnorm --shape rows=33,dim=64 --impl simd,reference --soak 50 --json c.json");
  EXPECT_EQ(right.code, 0) << right.err;
  EXPECT_THAT(right.out, AllOf(StartsWith("rmsnorm f32/rows=33,dim=64\n  simd "),
                               HasSubstr(" 0 of 2112 elements wrong; worst "),
                               HasSubstr("bits alone and in batches: same")));
  const json all = json_of("c.json");
  EXPECT_TRUE(has(all["context"], {"date", "commit", "cpu", "threads"}));
  ASSERT_EQ(all["rows"].size(), 2u);
  const json& row = all["rows"][0];
  EXPECT_EQ(row["op"], "rmsnorm");
  EXPECT_EQ(row["impl"], "simd");
  EXPECT_EQ(row["shape"], "rows=33,dim=64");
  EXPECT_EQ(row["bits"], "same");
  EXPECT_TRUE(has(row["errors"], {"elements", "wrong", "worst_tolerances", "max_abs", "p999_abs",
                                  "rms", "reference_rms", "ulps", "worst_at"}));
  EXPECT_EQ(row["errors"]["elements"], 33 * 64);
  EXPECT_EQ(row["errors"]["wrong"], 0);
}

TEST_F(CliLab, CheckOfAPluginThatIsWrongEndsWithOne) {
  const Arguments load = {"--load", VLR_PLUGIN_MINE};
  EXPECT_EQ(lab("check rmsnorm --shape rows=500,dim=64 --impl mine", load).code, 0);
  EXPECT_EQ(lab("check rmsnorm --shape rows=400,dim=64 --impl wrong_above_400", load).code, 0);
  const Ran wrong =
      lab("check rmsnorm --shape rows=500,dim=64 --impl mine,wrong_above_400 --json c.json", load);
  EXPECT_EQ(wrong.code, 1);
  EXPECT_THAT(wrong.out, AllOf(HasSubstr("mine               0 of 32000 elements wrong"),
                               HasSubstr("wrong_above_400    1 of 32000 elements wrong"),
                               HasSubstr("worst: [400, 0] = ")));
  const json rows = json_of("c.json")["rows"];
  EXPECT_EQ(rows[0]["errors"]["wrong"], 0);
  EXPECT_EQ(rows[1]["errors"]["wrong"], 1);
  EXPECT_EQ(rows[1]["bits"], "different");
  const Ran refused = lab("check rmsnorm --shape rows=8,heads=2,dim=64 --impl mine", load);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.out, HasSubstr("FAILED: rmsnorm: 'mine' on cpu does not take these"));
  const Ran twice = lab("check rmsnorm", {"--load", VLR_PLUGIN_MINE, VLR_PLUGIN_MINE});
  EXPECT_EQ(twice.code, 2);
  EXPECT_THAT(twice.err, HasSubstr("there is an implementation 'mine' on cpu"));
}

TEST_F(CliLab, OfSeveralOpsThoseThatHaveTheImplementation) {
  const Ran ran = lab("check --impl openblas,simd --label no_such_label");
  EXPECT_NE(ran.code, -1);  // every op is asked, none has such a shape
  EXPECT_EQ(ran.out, "");
}

TEST_F(CliLab, TimeWritesEverything) {
  const Ran ran = timed("time rmsnorm --shape rows=64:128:*2,dim=256 --impl simd,reference",
                        {"--json", "t.json", "--commit", "abc", "--cold"});
  ASSERT_EQ(ran.code, 0) << ran.err << ran.out;
  EXPECT_THAT(ran.out,
              AllOf(StartsWith("rmsnorm f32/rows=64,dim=256\n  simd "),
                    HasSubstr("\nrmsnorm f32/rows=128,dim=256\n"),
                    HasSubstr("  control: simd against itself "), HasSubstr("roof f32: ")));
  const json all = json_of("t.json");
  EXPECT_TRUE(has(all["context"], {"date", "commit", "cpu", "threads", "settle_seconds",
                                   "sample_seconds", "data"}));
  EXPECT_EQ(all["context"]["commit"], "abc");
  EXPECT_EQ(all["context"]["data"], "normal");
  EXPECT_EQ(all["context"]["settle_seconds"], 0.05);
  ASSERT_GE(all["roofs"].size(), 2u);
  for (const json& roof : all["roofs"]) {
    EXPECT_TRUE(has(roof, {"name", "unit", "before", "after", "best", "uncertainty_pct"}));
    EXPECT_GT(roof["after"], 0);
  }
  ASSERT_EQ(all["rows"].size(), 4u);
  for (const json& row : all["rows"]) {
    ASSERT_TRUE(
        has(row, {"op", "impl", "shape", "label", "dtype", "name", "us", "burst_us", "flops",
                  "bytes", "tflops", "gbytes_per_s", "roof", "roof_pct", "itself"}));
    for (const char* interval : {"us", "itself"}) {
      ASSERT_EQ(row[interval].size(), 3u);
      EXPECT_LE(row[interval][1], row[interval][0]);
      EXPECT_GE(row[interval][2], row[interval][0]);
      EXPECT_GT(row[interval][0], 0);
    }
    EXPECT_EQ(row["dtype"], "f32");
    EXPECT_EQ(row["op"], "rmsnorm");
  }
  EXPECT_FALSE(all["rows"][0].contains("ratio"));
  EXPECT_TRUE(has(all["rows"][1], {"ratio", "verdict", "control"}));
  EXPECT_EQ(all["rows"][2]["shape"], "rows=128,dim=256");

  // The file is what a report is made of.
  const Ran report = run({"lab", "report", "t.json", "--out", "r.html"});
  EXPECT_EQ(report.code, 0) << report.err;
  const std::string html = read_file(folder_ / "r.html");
  EXPECT_THAT(html, AllOf(StartsWith("<!DOCTYPE html>"), HasSubstr("rmsnorm"),
                          HasSubstr("reference"), HasSubstr("</html>")));
  for (const char* empty : {"{}", R"({"rows":null})", R"({"rows":[]})"}) {
    std::ofstream(folder_ / "empty.json") << empty;
    EXPECT_EQ(run({"lab", "report", "empty.json", "--out", "e.html"}).code, 1) << empty;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "e.html")) << empty;
  }
  const Ran none = run({"lab", "report", "absent.json", "--out", "r.html"});
  EXPECT_EQ(none.code, 1);
  EXPECT_THAT(none.err, HasSubstr("absent.json"));
}

TEST_F(CliLab, WarmOperandsAreNamed) {
  const Ran ran = timed("time rmsnorm --shape rows=8,dim=64 --impl simd --warm-operand weight");
  EXPECT_EQ(ran.code, 0) << ran.err << ran.out;
  const Ran other = timed("time rmsnorm --shape rows=8,dim=64 --warm-operand weigth");
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("--warm-operand must be an input: weight, x; got 'weigth'"));
  const Ran all = timed("time --warm-operand weight");
  EXPECT_EQ(all.code, 2);
  EXPECT_THAT(all.err, HasSubstr("--warm-operand is one op's: name the op"));
}

TEST_F(CliLab, AbEndsWithItsVerdict) {
  // Others use the machine, too: once it may be undecided.
  const auto ab = [&](const std::string& impls) {
    const std::string command = "ab rmsnorm --shape rows=64,dim=1024 --json ab.json --impl ";
    Ran ran = timed(command + impls);
    for (int i = 0; i < 3 && ran.code == 5; ++i) ran = timed(command + impls);
    return ran;
  };
  const Ran slower = ab("simd,reference");
  EXPECT_EQ(slower.code, 4) << slower.out << slower.err;
  EXPECT_THAT(slower.out, HasSubstr("] SLOWER\n"));
  const json rows = json_of("ab.json")["rows"];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1]["verdict"], "SLOWER");
  EXPECT_GT(rows[1]["ratio"][1], 1.01);
  const Ran faster = ab("reference,simd");
  EXPECT_EQ(faster.code, 0) << faster.out;
  EXPECT_THAT(faster.out, HasSubstr("] FASTER\n"));
  // Nor is it the same in every minute.
  Ran itself;
  for (int i = 0; i == 0 || (i < 4 && itself.code != 3 && itself.code != 5); ++i)
    itself = timed("ab rmsnorm --shape rows=64,dim=1024 --impl simd");
  EXPECT_TRUE(itself.code == 3 || itself.code == 5) << itself.code << itself.out;
}

TEST_F(CliLab, AbOfWhatIsWrongEndsWithOne) {
  const Ran ran = timed("ab rmsnorm --shape rows=401,dim=64 --impl simd,wrong_above_400",
                        {"--load", VLR_PLUGIN_MINE});
  EXPECT_EQ(ran.code, 1) << ran.out;
  EXPECT_THAT(ran.out, HasSubstr("wrong_above_400    FAILED: wrong_above_400 differs from the "
                                 "reference in 1 of 1024 elements: [400, 0] = "));
}

TEST_F(CliLab, ShapesThatAModelRanAreTimed) {
  const Ran profile =
      run({"profile", "-m", kModel, "--threads", "2", "-r", VLR_SOURCE_DIR "/demo/request.json",
           "--no-peaks", "--shapes", "s.json"});
  ASSERT_EQ(profile.code, 0) << profile.err;
  const json shapes = json_of("s.json");
  std::set<std::string> ops;
  for (const json& s : shapes) {
    ASSERT_TRUE(has(s, {"op", "dtype", "shape", "impl", "count"}));
    ops.insert(s["op"].get<std::string>());
  }
  EXPECT_TRUE(ops.contains("linear") && ops.contains("attention") && ops.contains("rmsnorm"));
  // Every one of them is a shape of its op.
  for (const std::string& op : ops) {
    const Ran ran = lab("list " + op + " --shapes s.json");
    EXPECT_EQ(ran.code, 0) << op << ran.err;
  }
  const Ran checked = lab("check score_head --shapes s.json");
  EXPECT_EQ(checked.code, 0) << checked.err;
  EXPECT_THAT(checked.out, StartsWith("score_head f32/"));
  const Ran ran = timed("time score_head --shapes s.json", {"--json", "t.json"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  const json rows = json_of("t.json")["rows"];
  ASSERT_FALSE(rows.empty());
  EXPECT_TRUE(std::ranges::any_of(shapes, [&](const json& s) {
    return s["op"] == "score_head" && s["shape"] == rows[0]["shape"];
  }));
}

TEST_F(CliLab, VerdictRefusesWhatIsWrongWithoutAModel) {
  const Ran ran =
      timed("verdict --impl rmsnorm=wrong_above_400 --label demo --soak 20",
            {"--load", VLR_PLUGIN_MINE, "-m", kModel, "--json", "v.json", "--html", "v.html"});
  EXPECT_EQ(ran.code, 1) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("rmsnorm=wrong_above_400: REFUSED\n"),
                             HasSubstr("refused: f32/rows=500,"),
                             HasSubstr(" elements are wrong: [400, 0] = ")));
  const json v = json_of("v.json");
  EXPECT_EQ(v["verdict"], "REFUSED");
  EXPECT_EQ(v["op"], "rmsnorm");
  EXPECT_EQ(v["candidate"], "wrong_above_400");
  EXPECT_FALSE(v["refused"].empty());
  EXPECT_FALSE(v["checks"].empty());
  EXPECT_FALSE(v.contains("workloads"));
  EXPECT_FALSE(v.contains("eval"));
  EXPECT_THAT(read_file(folder_ / "v.html"),
              AllOf(StartsWith("<!DOCTYPE html>"), HasSubstr("REFUSED")));
}

TEST_F(CliLab, VerdictSoaksAtEveryShape) {
  const Arguments load = {"--load", VLR_PLUGIN_MINE};
  const std::string command =
      "verdict --impl rmsnorm=races_above_30 --shape rows=8:32:+24,dim=64 --soak ";
  const Ran ran = timed(command + "200", load);
  EXPECT_EQ(ran.code, 1) << ran.out << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("refused: f32/rows=32,dim=64: races_above_30: launch "),
                             HasSubstr(" of 100 has other bits than the first")));
  EXPECT_THAT(timed(command + "0", load).out, Not(HasSubstr("other bits than the first")));
}

TEST_F(CliLab, VerdictRunsTheModelAndItsAnswers) {
  std::ifstream passages(VLR_SOURCE_DIR "/demo/eval/passages.jsonl");
  std::string first, second;
  std::getline(passages, first);
  std::getline(passages, second);
  testing::write_file(folder_ / "eval.jsonl", first + "\n" + second + "\n");
  const Ran ran = timed(
      "verdict --impl rmsnorm=reference --against simd --shape rows=64,dim=1024 --soak 20 "
      "--workload 1x128 --eval eval.jsonl --json v.json --html v.html",
      {"-m", kModel});
  EXPECT_TRUE(ran.code == 4 || ran.code == 5) << ran.code << ran.out << ran.err;
  const std::string word = ran.code == 4 ? "SLOWER" : "UNDECIDED";  // where others use the machine
  EXPECT_THAT(ran.out, HasSubstr("rmsnorm=reference: " + word + "\n"));
  const json v = json_of("v.json");
  EXPECT_EQ(v["verdict"], word);
  EXPECT_EQ(v["baseline"], "simd");
  EXPECT_TRUE(v["refused"].empty()) << v["refused"].dump();
  ASSERT_EQ(v["workloads"].size(), 1u);
  const json& w = v["workloads"][0];
  EXPECT_GT(w["ran"]["reference"], 0);
  EXPECT_EQ(w["ran"].size(), 1u) << w["ran"].dump();
  EXPECT_TRUE(has(w, {"name", "baseline_ms", "candidate_ms", "ratio", "control", "verdict", "runs",
                      "max_distance", "same_bits_each_run"}));
  ASSERT_EQ(w["control"].size(), 3u);
  EXPECT_LE(w["control"][1], w["control"][0]);
  EXPECT_GE(w["control"][2], w["control"][0]);
  EXPECT_NE(w["control"][1], w["control"][2]);
  EXPECT_THAT(ran.out, HasSubstr(", control ["));
  ASSERT_EQ(v["eval"].size(), 1u);
  EXPECT_GT(v["eval"][0]["pairs"], 1);
  EXPECT_LT(v["eval"][0]["max_distance"], 1e-2);
  EXPECT_EQ(v["eval"][0]["order_changes"], 0);
  EXPECT_EQ(v["batches"]["pairs"], v["eval"][0]["pairs"]);
  EXPECT_EQ(v["batches"]["different"], 0);
  EXPECT_THAT(read_file(folder_ / "v.html"),
              AllOf(StartsWith("<!DOCTYPE html>"), HasSubstr(word), HasSubstr("</html>")));
}

/// Right at the shapes that are asked for, and the same bits alone and in batches.
TEST_F(CliLab, VerdictRefusesWhatMovesScores) {
  const auto verdict = [&](const std::string& impl, const Arguments& more = {}) {
    Arguments all = {"--load", VLR_PLUGIN_MINE, "-m", kModel, "--json", "v.json"};
    all.insert(all.end(), more.begin(), more.end());
    return timed(
        "verdict --shape rows=64,dim=1024 --workload 1x128 --soak 2 --impl rmsnorm=" + impl, all);
  };
  const Ran ran = verdict("off_at_256");
  EXPECT_EQ(ran.code, 1) << ran.out << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("refused: 1x128: a score moved by 0."),
                             HasSubstr(" of their RMS, and 0.001 is allowed"),
                             HasSubstr("rmsnorm=off_at_256: REFUSED\n")));
  const json v = json_of("v.json");
  EXPECT_EQ(v["verdict"], "REFUSED");
  EXPECT_EQ(v["refused"].size(), 1u) << v["refused"].dump();
  EXPECT_EQ(v["checks"][0]["errors"]["wrong"], 0);
  EXPECT_GT(v["moved"]["share"], 0.001);
  EXPECT_EQ(v["moved"]["most"], 0.001);
  const Ran allowed = verdict("off_at_256", {"--moved", "1"});
  EXPECT_NE(allowed.code, 1) << allowed.out << allowed.err;
  const Ran fails = verdict("fails_with_heads");
  EXPECT_EQ(fails.code, 1) << fails.out << fails.err;
  EXPECT_THAT(fails.out, AllOf(HasSubstr("refused: 1x128: "), HasSubstr("heads are too much\n"),
                               HasSubstr("rmsnorm=fails_with_heads: REFUSED\n")));
}

/// What was found before is written.
TEST_F(CliLab, VerdictWithoutItsModelIsNotFinished) {
  for (const Arguments& model :
       {Arguments{"-m", "no_such_model"}, {"-m", kModel, "--eval", "absent.jsonl"}}) {
    Arguments all = {"--json", "v.json", "--html", "v.html"};
    all.insert(all.end(), model.begin(), model.end());
    const Ran ran =
        timed("verdict --impl rmsnorm=simd --shape rows=8,dim=64 --workload 1x128 --soak 2", all);
    EXPECT_EQ(ran.code, 6) << ran.err;
    EXPECT_THAT(ran.out, HasSubstr("rmsnorm=simd: UNFINISHED\n"));
    EXPECT_THAT(ran.err, HasSubstr(model.back()));
    const json v = json_of("v.json");
    EXPECT_EQ(v["verdict"], "UNFINISHED");
    EXPECT_THAT(v["error"], HasSubstr(model.back()));
    EXPECT_TRUE(v["refused"].empty());
    EXPECT_EQ(v["checks"].size(), 1u);
    EXPECT_EQ(v["rows"].size(), 2u);
    EXPECT_FALSE(v["roofs"].empty());
    EXPECT_EQ(v.contains("workloads"), model.size() > 2);
    EXPECT_THAT(read_file(folder_ / "v.html"),
                AllOf(HasSubstr("UNFINISHED"), HasSubstr(model.back())));
  }
}

TEST_F(CliLab, VerdictTellsBeforeWhereItCannotWrite) {
  for (const char* to : {"--json", "--html"}) {
    const Ran ran = timed("verdict --impl rmsnorm=simd --shape rows=8,dim=64", {to, "no/such/v"});
    EXPECT_EQ(ran.code, 2);
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr("no/such/v: cannot be written"));
  }
}

}  // namespace
}  // namespace vlr
