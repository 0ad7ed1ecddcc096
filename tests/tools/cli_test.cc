// The vlr command from outside: what it takes, what it prints where, and with which exit code it
// ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>

#include "engine/runtime/safetensors.h"
#include "tests/support/temp_folder.h"
#include "tests/tools/cli.h"
#include "vlr/version.h"

namespace vlr {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::read_file;
using ::testing::StartsWith;
using testing::write_file;

const std::string kModel = VLR_SOURCE_DIR "/demo/model";
const std::string kDemo = VLR_SOURCE_DIR "/demo";
const std::string kRequest = VLR_SOURCE_DIR "/demo/request.json";
constexpr const char* kOneText =
    R"({"query": {"text": "a star"}, "documents": [{"text": "a sun"}]})";

class Cli : public CliFolder {
 protected:
  /// Adds --threads 2: the tests run side by side.
  Ran scoring(std::string_view subcommand, const Arguments& arguments, std::string_view input = "",
              const std::string& streams = "") const {
    Arguments all;
    std::istringstream words{std::string(subcommand)};  // "cache add" are two
    for (std::string word; words >> word;) all.push_back(word);
    for (const char* a : {"-m", kModel.c_str(), "--threads", "2"}) all.emplace_back(a);
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run(all, input, streams);
  }

  /// Nothing on stdout, the reason on stderr.
  static void expect_unusable(const Ran& ran, const std::string& reason) {
    EXPECT_EQ(ran.code, 1) << ran.err;
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, AllOf(StartsWith("vlr: "), HasSubstr(reason)));
  }
};
using CliScore = Cli;
using CliCache = Cli;
using CliRank = Cli;
using CliEval = Cli;
using CliInspect = Cli;
using CliPlan = Cli;
using CliCheckpoint = Cli;
using CliQuantize = Cli;
using CliBench = Cli;
using CliProfile = Cli;

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

TEST_F(Cli, UsageErrorsEndWithTwo) {
  for (const Arguments& wrong : std::vector<Arguments>{{},
                                                       {"rnak"},
                                                       {"score"},
                                                       {"score", "-m", kModel, "--threads", "many"},
                                                       {"score", "-m", kModel, "--no-such-option"},
                                                       {"eval", "-m", kModel},
                                                       {"inspect", "-m", kModel, "--graph", "png"},
                                                       {"checkpoint"},
                                                       {"quantize", "-m", kModel},
                                                       {"bench"},
                                                       {"bench", "-m", kModel, "--synthetic", "2b"},
                                                       {"profile", "-m", kModel}}) {
    const Ran ran = run(wrong);
    EXPECT_EQ(ran.code, 2) << ::testing::PrintToString(wrong);
    EXPECT_EQ(ran.out, "") << ::testing::PrintToString(wrong);
    EXPECT_NE(ran.err, "") << ::testing::PrintToString(wrong);
  }
}

TEST_F(Cli, OutputThatCannotBeWrittenIsAnError) {
  write_file(folder_ / "request.json", kOneText);
  write_file(folder_ / "lines.jsonl", std::string(kOneText) + "\n" + kOneText + "\n");
  write_file(folder_ / "eval.jsonl",
             R"({"query": {"text": "a"}, "documents": [{"text": "b"}], "relevant": 0})");
  const std::vector<Arguments> commands = {
      {"score", "-m", kModel, "--threads", "2", "-r", "request.json"},
      {"score", "-m", kModel, "--threads", "2", "-r", "lines.jsonl"},
      {"rank", "-m", kModel, "--threads", "2", "-q", "a", "--text", "b"},
      {"eval", "-m", kModel, "--threads", "2", "eval.jsonl"},
      {"plan", "-m", kModel},
      {"inspect", "-m", kModel},
      {"options"},
      {"--help"},
      {"score", "--help"},
      {"--version"}};
  for (const Arguments& command : commands) {
    const Ran full = run(command, "", ">/dev/full");
    EXPECT_EQ(full.code, 1) << command[0];
    EXPECT_EQ(full.err, "vlr: standard output: No space left on device\n") << command[0];
    const Ran closed = run(command, "", ">&-");
    EXPECT_EQ(closed.code, 1) << command[0];
    EXPECT_EQ(closed.err, "vlr: standard output: Bad file descriptor\n") << command[0];
  }
}

TEST_F(Cli, NobodyListensToStandardError) {
  for (const char* streams : {"2>&-", "2>/dev/full"}) {
    EXPECT_EQ(scoring("score", {"-r", "no/such.json"}, "", streams).code, 1) << streams;
    const Ran log = scoring("rank", {"-q", "a star", "--text", "a sun"}, "", streams);
    EXPECT_EQ(log.code, 0) << streams;
    EXPECT_EQ(run({"rnak"}, "", streams).code, 2);
  }
  // A file that is opened does not get the number of a stream that is closed.
  EXPECT_EQ(run({"plan", "-m", kModel, "--svg", "plan.svg"}, "", ">&- 2>&- <&-").code, 1);
  EXPECT_THAT(read_file(folder_ / "plan.svg"), StartsWith("<svg"));
}

TEST_F(Cli, FilesThatCannotBeWrittenAreErrors) {
  write_file(folder_ / "eval.jsonl",
             R"({"query": {"text": "a"}, "documents": [{"text": "b"}], "relevant": 0})");
  write_file(folder_ / "request.json", kOneText);
  const std::string dump = "layers.0.mlp.residual";
  const auto written_to = [&](const std::string& to) {
    return std::vector<Ran>{
        scoring("eval", {"eval.jsonl", "--json", to}), scoring("plan", {"--svg", to}),
        scoring("profile", {"-r", "request.json", "--trace", to}),
        scoring("score", {"-r", "request.json", "--dump", dump, "--dump-to", to})};
  };
  for (const Ran& ran : written_to("/dev/full")) {
    EXPECT_EQ(ran.code, 1) << ran.out;
    EXPECT_THAT(ran.err, AllOf(HasSubstr("/dev/full"), HasSubstr("No space left on device")));
  }
  for (const Ran& ran : written_to("no/such/file")) EXPECT_EQ(ran.code, 1) << ran.out;
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  // A link stays one.
  std::filesystem::create_symlink("target", folder_ / "link");
  for (const Ran& ran : written_to("link")) EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_TRUE(std::filesystem::is_symlink(folder_ / "link"));
  EXPECT_TRUE(SafetensorsFile::open(folder_ / "target"));
}

TEST_F(Cli, HelpAndVersion) {
  for (const char* name :
       {"rank", "score", "eval", "plan", "bench", "profile", "inspect", "checkpoint", "quantize"}) {
    EXPECT_THAT(run({"--help"}).out, HasSubstr(name));
    const Ran ran = run({name, "--help"});
    EXPECT_EQ(ran.code, 0);
    EXPECT_THAT(ran.out, HasSubstr("Usage: vlr " + std::string(name)));
  }
  EXPECT_EQ(run({"--version"}).out, VLR_VERSION "\n");
}

TEST_F(Cli, HelpShowsTheOptionsThatACommandUses) {
  const std::string score = run({"score", "--help"}).out, bench = run({"bench", "--help"}).out;
  for (const char* group : {"\nModel:\n", "\nMemory:\n", "\nMedia:\n", "\nExperiments:\n"})
    EXPECT_THAT(score, HasSubstr(group));
  EXPECT_THAT(score, AllOf(HasSubstr("--max-media-bytes SIZE=1GiB"),
                           HasSubstr("Smallest size of an image in pixels, after resizing")));
  EXPECT_THAT(bench, AllOf(HasSubstr("\nMemory:\n"), Not(HasSubstr("\nMedia:\n")),
                           Not(HasSubstr("--vision-cache")), HasSubstr("--read-path NAME")));
  for (const std::string& help : {score, bench}) {
    EXPECT_TRUE(std::none_of(help.begin(), help.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 && c != '\n';
    }));
  }
  // Taken all the same.
  EXPECT_EQ(run({"plan", "-m", kModel, "--fps", "2", "--allow-special"}).code, 0);
}

TEST_F(Cli, TheOptionsPageIsTheTable) {
  EXPECT_EQ(run({"options"}).out, read_file(VLR_SOURCE_DIR "/docs/options.md"))
      << "write it anew: vlr options > docs/options.md";
}

TEST_F(CliScore, FileAndStandardInputGiveWhatTheReferenceGave) {
  const Ran file = scoring("score", {"--request", kRequest});
  ASSERT_EQ(file.code, 0) << file.err;
  const Ran input = scoring("score", {"--media-root", kDemo}, read_file(kRequest));
  ASSERT_EQ(input.code, 0) << input.err;
  const json out = json::parse(file.out),
             expected = json::parse(read_file(kDemo + "/expected.json"));
  EXPECT_EQ(out["results"], json::parse(input.out)["results"]);
  EXPECT_EQ(out["device"], "cpu");
  EXPECT_EQ(out["dtype"], "f32");
  EXPECT_EQ(out["quant"], "none");
  ASSERT_EQ(out["results"].size(), 10u);
  for (size_t i = 0; i < 10; ++i) {
    const json& r = out["results"][i];
    EXPECT_EQ(r["index"], i);
    EXPECT_EQ(r["status"], "ok");
    EXPECT_EQ(r["truncated"], false);
    const auto log_odds = r["log_odds"].get<double>();
    EXPECT_NEAR(log_odds, expected["log_odds"][i].get<double>(), 2e-3);
    EXPECT_NEAR(r["score"].get<double>(), 1 / (1 + std::exp(-log_odds)), 1e-6);
  }
  EXPECT_GT(out["usage"]["shared_prefix_tokens"], 0);
  EXPECT_GT(out["usage"]["image_tokens"], 0);
  EXPECT_GT(out["usage"]["seconds"]["total"], 0);
}

TEST_F(CliScore, OptionsThatMustNotChangeAScore) {
  const json plain = json::parse(scoring("score", {"-r", kRequest}).out)["results"];
  const Ran alone = run({"score", "-m", kModel, "-r", kRequest, "--no-share-prefix",
                         "--batch-tokens", "1", "--threads", "1"});
  ASSERT_EQ(alone.code, 0) << alone.err;
  EXPECT_EQ(json::parse(alone.out)["results"], plain);
  EXPECT_EQ(json::parse(alone.out)["usage"]["shared_prefix_tokens"], 0);
}

TEST_F(CliScore, ImplementationsByName) {
  const json plain = json::parse(scoring("score", {}, kOneText).out)["results"][0];
  const Ran ran =
      scoring("score", {"--impl", "linear=reference", "--impl", "attention=reference"}, kOneText);
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json reference = json::parse(ran.out)["results"][0];
  EXPECT_NEAR(reference["log_odds"].get<double>(), plain["log_odds"].get<double>(), 1e-4);
  EXPECT_NE(reference["log_odds"], plain["log_odds"]);  // f64 sums round differently
  expect_unusable(scoring("score", {"--impl", "linear"}, kOneText), "op=name");
}

TEST_F(CliScore, JsonLinesWithABadLine) {
  const std::string other =
      R"({"query": {"text": "a game"}, "documents": [{"text": "chess"}, {"txt": "chess"}]})";
  const json first = json::parse(scoring("score", {}, kOneText).out)["results"];
  const json third = json::parse(scoring("score", {}, other).out)["results"];
  for (const std::string bad : {R"({"query": )", R"({"query": {"text": "no documents"}})"}) {
    const Ran ran =
        scoring("score", {}, std::string(kOneText) + "\n" + bad + "\n\n" + other + "\n");
    ASSERT_EQ(ran.code, 0) << ran.err;
    const std::vector<std::string> lines = lines_of(ran.out);
    ASSERT_EQ(lines.size(), 3u);
    EXPECT_EQ(json::parse(lines[0])["results"], first);
    EXPECT_NE(json::parse(lines[1])["error"].get<std::string>(), "");
    EXPECT_EQ(json::parse(lines[2])["results"], third);
    // It may as well be the first one.
    const std::vector<std::string> moved =
        lines_of(scoring("score", {}, bad + "\n" + kOneText + "\n").out);
    ASSERT_EQ(moved.size(), 2u);
    EXPECT_TRUE(json::parse(moved[0]).contains("error"));
    EXPECT_EQ(json::parse(moved[1])["results"], first);
  }
}

TEST_F(CliScore, OneLineOfStandardInputIsALine) {
  const Ran line = scoring("score", {}, std::string(kOneText) + "\n");
  ASSERT_EQ(line.code, 0) << line.err;
  ASSERT_EQ(lines_of(line.out).size(), 1u);
  EXPECT_FALSE(json::parse(line.out).contains("usage"));
  // A file with one line is one request.
  write_file(folder_ / "one.json", std::string(kOneText) + "\n");
  const Ran file = scoring("score", {"-r", "one.json"});
  EXPECT_GT(lines_of(file.out).size(), 1u);
  EXPECT_EQ(json::parse(file.out)["results"], json::parse(line.out)["results"]);
}

TEST_F(CliScore, ANulIsAnErrorOfItsLine) {
  const std::string nul(1, '\0'), good = std::string(kOneText) + "\n";
  for (const std::string& bad : {nul + "\n", std::string(kOneText) + nul + "\n"}) {
    const Ran ran = scoring("score", {}, good + bad + good + good);
    ASSERT_EQ(ran.code, 0) << ran.err;
    const std::vector<std::string> lines = lines_of(ran.out);
    ASSERT_EQ(lines.size(), 4u);
    EXPECT_THAT(json::parse(lines[1])["error"].get<std::string>(), HasSubstr("not JSON"));
    EXPECT_EQ(lines[2], lines[0]);
    EXPECT_EQ(lines[3], lines[0]);
  }
}

TEST_F(CliScore, AnswersALineWhoseWriterWaitsForIt) {
  const std::string script =
      "import subprocess, sys\n"
      "p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
      "for line in open('lines', 'rb'):\n"
      "    p.stdin.write(line)\n"
      "    p.stdin.flush()\n"
      "    sys.stdout.write(p.stdout.readline().decode())\n"
      "p.stdin.close()\n"
      "sys.stdout.write(p.stdout.read().decode())\n"
      "sys.exit(p.wait())\n";
  write_file(folder_ / "wait.py", script);
  write_file(folder_ / "lines", "no json\n" + std::string(kOneText) + "\n" + kOneText + "\n");
  const int status = std::system(("cd '" + folder_.path() + "' && timeout 100 python3 wait.py '" +
                                  VLR_CLI + "' score -m '" + kModel + "' --threads 2 >stdout")
                                     .c_str());
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const std::vector<std::string> lines = lines_of(read_file(folder_ / "stdout"));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_TRUE(json::parse(lines[0]).contains("error"));
  EXPECT_TRUE(json::parse(lines[1]).contains("results"));
  EXPECT_EQ(lines[2], lines[1]);
}

TEST_F(CliScore, SignalsLetTheLineEnd) {
  std::string lines;
  for (int i = 0; i < 20'000; ++i) lines += std::string(kOneText) + "\n";
  write_file(folder_ / "lines", lines);
  for (const auto& [name, code] : {std::pair("INT", 130), {"TERM", 143}}) {
    const std::string command = "cd '" + folder_.path() + "' && timeout --preserve-status -s " +
                                name + " 4 '" + VLR_CLI + "' score -m '" + kModel +
                                "' --threads 1 --at-once 16 -r lines >stdout";
    EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), code);
    const std::string out = read_file(folder_ / "stdout");
    EXPECT_TRUE(out.ends_with('\n'));
    const std::vector<std::string> whole = lines_of(out);
    EXPECT_GT(whole.size(), 16u);
    for (const std::string& line : whole) EXPECT_EQ(line, whole[0]);
  }
}

TEST_F(CliScore, KeysThatAreNotKnownAreNamed) {
  const Ran ran =
      scoring("score", {}, R"({"query": "a star", "documents": ["a sun"], "color": 1})");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("vlr: the key 'color' is not known"));
  EXPECT_THAT(json::parse(ran.out)["warnings"][0].get<std::string>(), HasSubstr("'color'"));
}

TEST_F(Cli, NoEscapeSequenceReachesATerminal) {
  const std::string esc = "\x1b]0;owned\x07\x1b[31m", c1 = "\xc2\x9b"
                                                           "31m";
  for (const std::string& name : {esc, c1}) {
    std::filesystem::create_symlink(kModel, folder_ / ("model" + name.substr(0, 2)));
    for (const Ran& ran :
         {scoring("score", {"-r", name}), run({"score", "-m", name}, kOneText),
          run({"rank", "-m", "model" + name.substr(0, 2), "-q", "a", "--text", "b"}),
          scoring("score", {"--sampling", name}), scoring("score", {"--fps", name}),
          run({"cache", "show", "--vision-cache", name}),
          scoring("quantize", {"--out", name.substr(2), "--quant", "nf4", "--no-probe"}),
          scoring("rank", {"-q", name, "--text", name}),
          scoring("rank", {"-q", "a", "-"}, "{\"" + name + "\": 1}\n" + name),
          scoring("eval", {name})}) {
      for (const std::string& text : {ran.out, ran.err}) {
        EXPECT_EQ(text.find('\x1b'), std::string::npos);
        EXPECT_EQ(text.find('\x07'), std::string::npos);
        EXPECT_EQ(text.find("\xc2\x9b"), std::string::npos);
      }
    }
  }
}

TEST_F(CliScore, NumbersAreDecimalAndWithinTheirBounds) {
  for (const Arguments& wrong : std::vector<Arguments>{{"--max-length", "99999999999999999999"},
                                                       {"--max-length", "0x10"},
                                                       {"--max-length", "1e3"},
                                                       {"--max-frames", "99999999999999999999"},
                                                       {"--remote-timeout", "nan?"},
                                                       {"--at-once", "99999999999999999999"},
                                                       {"--at-once", "0"}}) {
    const Ran ran = scoring("score", wrong, kOneText);
    EXPECT_EQ(ran.code, 2) << wrong[0] << " " << wrong[1];
    EXPECT_THAT(ran.err, AllOf(HasSubstr("must be a"), HasSubstr("got '" + wrong[1] + "'")));
  }
  EXPECT_EQ(scoring("score", {"--max-length", "0800"}, kOneText).code, 0);
}

TEST_F(CliScore, AFileLimitIsAnErrorOfItsWrite) {
  write_file(folder_ / "request.json", kOneText);
  const auto limited = [&](const std::string& blocks, const std::string& arguments) {
    const std::string command = "cd '" + folder_.path() + "' && ulimit -f " + blocks +
                                " && exec '" + VLR_CLI "' " + arguments + " -m '" + kModel +
                                "' --threads 1 > out 2> err";
    const int status = std::system(("bash -c \"" + command + "\"").c_str());
    EXPECT_TRUE(WIFEXITED(status)) << arguments;
    return WEXITSTATUS(status);
  };
  EXPECT_EQ(limited("1", "plan --svg o.svg"), 1);
  EXPECT_THAT(read_file(folder_ / "err"), HasSubstr("o.svg: cannot write: File too large"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "o.svg"));
  EXPECT_EQ(limited("100", "quantize --out q --quant nf4"), 1);
  EXPECT_THAT(read_file(folder_ / "err"), HasSubstr("File too large"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "q/config.json"));
}

TEST_F(CliScore, APipeThatDoesNotBlockIsWaitedFor) {
  // What reads and writes it gets EAGAIN until somebody sets its flag back.
  const std::string script =
      "import os, subprocess, sys, time\n"
      "line = b'{\\x22query\\x22: \\x22a\\x22, \\x22documents\\x22: [\\x22x\\x22]}\\n'\n"
      "r, w = os.pipe(); os.set_blocking(r, False)\n"
      "p = subprocess.Popen([sys.argv[1], 'score', '-m', sys.argv[2], '--threads', '1', '-r', '-'],"
      " stdin=r, stdout=open('out', 'wb'))\n"
      "time.sleep(0.5); os.write(w, line); time.sleep(0.3); os.write(w, line); os.close(w)\n"
      "sys.exit(p.wait())\n";
  write_file(folder_ / "pipe.py", script);
  const std::string command =
      "cd '" + folder_.path() + "' && python3 pipe.py '" VLR_CLI "' '" + kModel + "' 2> err";
  if (std::system("python3 -c '' 2> /dev/null") != 0) GTEST_SKIP() << "no python3";
  EXPECT_EQ(std::system(command.c_str()), 0) << read_file(folder_ / "err");
  EXPECT_EQ(lines_of(read_file(folder_ / "out")).size(), 2u);
}

TEST_F(CliScore, OneBadDocumentCostsOneDocument) {
  const Ran ran = scoring(
      "score", {},
      R"({"query": {"text": "a star"}, "documents": [{"image": "none.png"}, {"text": "a sun"}, {}, 7]})");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json results = json::parse(ran.out)["results"];
  ASSERT_EQ(results.size(), 4u);
  EXPECT_EQ(results[0]["status"], "bad_media");
  EXPECT_THAT(results[0]["message"].get<std::string>(), HasSubstr("none.png"));
  EXPECT_FALSE(results[0].contains("log_odds"));
  EXPECT_EQ(results[1]["log_odds"],
            json::parse(scoring("score", {}, kOneText).out)["results"][0]["log_odds"]);
  EXPECT_EQ(results[2]["status"], "empty");
  EXPECT_TRUE(results[2].contains("log_odds"));
  EXPECT_EQ(results[3]["status"], "invalid");
}

TEST_F(CliScore, UnusableRequestsPrintNothingAndEndWithOne) {
  expect_unusable(scoring("score", {"-r", "missing.json"}), "missing.json");
  expect_unusable(scoring("score", {}), "standard input: not JSON");
  expect_unusable(scoring("score", {}, "[]"), "must be an object");
  expect_unusable(scoring("score", {}, R"({"query": {"text": "x"}})"), "documents");
  expect_unusable(scoring("score", {}, R"({"documents": []})"), "no query");
  expect_unusable(
      scoring("score", {}, "{\"query\": {},\n \"documents\": [\n  {\"text\": \"x\"}\n }"),
      "not JSON");
  expect_unusable(scoring("score", {}, "{\"query\": 1}\n{\"query\": 2}\n"), "line 1");
  expect_unusable(run({"score", "-m", folder_.path()}, kOneText), "config.json");
  expect_unusable(scoring("score", {"--device", "abacus"}, kOneText), "abacus");
  expect_unusable(scoring("score", {"--max-length", "0"}, kOneText), "max_length");
}

TEST_F(CliScore, ExplainShowsThePairAsTheModelSeesIt) {
  const Ran ran = scoring("score", {"-r", kRequest, "--explain"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json results = json::parse(ran.out)["results"];
  ASSERT_EQ(results.size(), 10u);
  for (const json& r : results) {
    const json& x = r["explain"];
    EXPECT_THAT(x["prompt"].get<std::string>(),
                AllOf(StartsWith("<|im_start|>system\n"),
                      HasSubstr("<Query>:a shining star\n<Document>:")));
    EXPECT_EQ(x["token_ids"].size(), r["num_tokens"]);
    ASSERT_EQ(x["position_ids"].size(), 3u);
    for (const json& axis : x["position_ids"]) EXPECT_EQ(axis.size(), r["num_tokens"]);
    EXPECT_EQ(x["num_tokens_before_truncation"], r["num_tokens"]);
    EXPECT_EQ(x["prefix_tokens"], results[0]["explain"]["prefix_tokens"]);
    EXPECT_EQ(x["video_grid_thw"], json::array());
  }
  EXPECT_EQ(results[0]["explain"]["image_grid_thw"], json::array());
  EXPECT_EQ(results[4]["explain"]["image_grid_thw"].size(), 1u);  // documents/star.png
}

TEST_F(CliScore, DumpKeepsValues) {
  const Ran ran = scoring("score", {"-r", kRequest, "--dump", "/log_odds", "--dump",
                                    "layers.0.mlp.residual", "--dump-to", "kept.safetensors"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const auto file = SafetensorsFile::open(folder_ / "kept.safetensors");
  ASSERT_TRUE(file) << file.error().message();
  const StoredTensors& kept = file->tensors();
  ASSERT_EQ(kept.size(), 3u);  // the prefix pass has no log-odds
  EXPECT_EQ(describe(static_cast<const StoredShape&>(kept.at("text.0/log_odds"))), "f32[10]");
  EXPECT_EQ(kept.at("prefix.0/layers.0.mlp.residual").shape[1], 256);
  EXPECT_EQ(kept.at("text.0/layers.0.mlp.residual").shape[1], 256);
  std::vector<float> dumped(10), printed;
  std::memcpy(dumped.data(), kept.at("text.0/log_odds").data, 40);
  const json out = json::parse(ran.out);
  for (const json& r : out["results"]) printed.push_back(r["log_odds"].get<float>());
  EXPECT_THAT(dumped,
              ::testing::UnorderedElementsAreArray(printed));  // a batch is sorted by length

  ASSERT_EQ(scoring("score", {"--dump", "log_odds", "--dump-to", "lines.safetensors"},
                    std::string(kOneText) + "\n" + kOneText)
                .code,
            0);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "lines.safetensors"));
  expect_unusable(scoring("score", {"--dump", "no such value"}, kOneText), "--dump");
}

TEST_F(CliScore, TimesGoToStandardError) {
  const Ran ran = scoring("score", {"--times"}, kOneText);
  EXPECT_EQ(json::parse(ran.out)["results"].size(), 1u);
  EXPECT_THAT(ran.err,
              AllOf(HasSubstr("text linear"), HasSubstr("text attention"), HasSubstr("ms")));
}

/// The lines of a ranking that hold a document, best first.
std::vector<std::string> rows_of(const std::string& table) {
  std::vector<std::string> out;
  for (const std::string& line : lines_of(table)) {
    if (line.find("█") != std::string::npos || line.find("·") != std::string::npos)
      out.push_back(line);
  }
  return out;
}

TEST_F(CliRank, PrintsARequestBestFirst) {
  const Ran ran = scoring("rank", {"--request", kRequest});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("query: a shining star\n"));
  const json request = json::parse(read_file(kRequest)),
             expected = json::parse(read_file(kDemo + "/expected.json"));
  const std::vector<std::string> rows = rows_of(ran.out);
  ASSERT_EQ(rows.size(), 10u);
  for (size_t i = 0; i < 10; ++i) {
    const json& document = request["documents"][expected["order"][i].get<size_t>()];
    const auto shown = document.value("text", document.value("image", "")).substr(0, 40);
    EXPECT_THAT(rows[i],
                AllOf(StartsWith((i < 9 ? "  " : " ") + std::to_string(i + 1)), HasSubstr(shown)));
  }
  EXPECT_EQ(scoring("rank", {"--request", "-", "--media-root", kDemo}, read_file(kRequest)).code,
            0);
  const std::vector<std::string> top =
      rows_of(scoring("rank", {"--request", kRequest, "--top", "3"}).out);
  ASSERT_EQ(top.size(), 3u);
  EXPECT_EQ(top[2], rows[2]);
}

TEST_F(CliRank, FilesTextsAndLines) {
  write_file(folder_ / "moon.txt", "The moon at night.\n");
  std::filesystem::copy(kDemo + "/documents/star.png", folder_ / "star.png");
  // What follows the value of --text is a file again.
  const Ran files =
      scoring("rank", {"-q", "a star", "--text", "a star in the sky", "star.png", "moon.txt"});
  ASSERT_EQ(files.code, 0) << files.err;
  EXPECT_EQ(rows_of(files.out).size(), 3u);
  EXPECT_THAT(files.out, AllOf(HasSubstr("a star in the sky\n"), HasSubstr("star.png\n"),
                               HasSubstr("moon.txt: The moon at night.\n")));
  const Ran scored = scoring(
      "score", {}, R"({"query": {"text": "a star"}, "documents": [{"image": "star.png"}]})");
  EXPECT_THAT(files.out, HasSubstr(json::parse(scored.out)["results"][0]["num_tokens"].dump() +
                                   "  star.png\n"));

  const Ran lines =
      scoring("rank", {"-q", "a star", "-"},
              "{\"text\": \"a star in the sky\"}\n\n{\"txt\": 1}\n{\"text\":\n{}, {}\n");
  ASSERT_EQ(lines.code, 0) << lines.err;
  EXPECT_EQ(rows_of(lines.out).size(), 1u);
  EXPECT_THAT(lines.out, AllOf(HasSubstr("invalid"), HasSubstr("key 'txt'"),
                               HasSubstr("line 4 of standard input: not JSON"),
                               HasSubstr("line 5 of standard input: not JSON")));
  EXPECT_THAT(lines.out, AllOf(HasSubstr("  a star in the sky\n"), HasSubstr("  {}, {}\n"),
                               Not(HasSubstr("(nothing)"))));
  const Ran images = scoring("rank", {"--query-image", "star.png", "moon.txt"});
  ASSERT_EQ(images.code, 0) << images.err;
  EXPECT_EQ(rows_of(images.out).size(), 1u);
}

TEST_F(CliRank, ABadDocumentIsShownLast) {
  write_file(folder_ / "broken.png", "not a picture");
  const Ran ran = scoring("rank", {"-q", "a star", "broken.png", "--text", "a sun"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_LT(ran.out.find("a sun"), ran.out.find("bad_media"));
  EXPECT_LT(ran.out.find("bad_media"), ran.out.find("broken.png"));
}

TEST_F(CliRank, AByteOrderMarkIsNoText) {
  write_file(folder_ / "marked.txt",
             "\xef\xbb\xbf"
             "a sun\n");
  write_file(folder_ / "plain.txt", "a sun\n");
  const Ran ran = scoring("rank", {"-q", "a star", "marked.txt", "plain.txt"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  std::vector<std::string> log_odds;
  for (const std::string& line : lines_of(ran.out)) {
    std::istringstream words(line);
    std::string rank, bar, score, value;
    if (line.find(".txt") != line.npos && words >> rank >> bar >> score >> value)
      log_odds.push_back(value);
  }
  ASSERT_EQ(log_odds.size(), 2u) << ran.out;
  EXPECT_EQ(log_odds[0], log_odds[1]);
}

TEST_F(CliRank, TopOfTheRequestOrOfTheOption) {
  write_file(folder_ / "top.json",
             R"({"query": "a", "documents": ["xx", "yy", "zz"], "top_n": 1})");
  const auto shown = [&](const Arguments& more) {
    Arguments all = {"--request", "top.json"};
    all.insert(all.end(), more.begin(), more.end());
    const Ran ran = scoring("rank", all);
    EXPECT_EQ(ran.code, 0) << ran.err;
    const std::vector<std::string> lines = lines_of(ran.out);
    return std::ranges::count_if(lines, [](const std::string& line) {
      return line.ends_with(" xx") || line.ends_with(" yy") || line.ends_with(" zz");
    });
  };
  EXPECT_EQ(shown({}), 1);
  EXPECT_EQ(shown({"--top", "2"}), 2);
  EXPECT_EQ(scoring("rank", {"--request", "top.json", "--top", "-1"}).code, 2);
}

TEST_F(CliRank, TextFilesAreConfinedAsMediaAre) {
  std::filesystem::create_directory(folder_ / "in");
  write_file(folder_ / "in/a.txt", "a sun");
  write_file(folder_ / "secret.txt", "hunter2");
  const Ran never =
      scoring("rank", {"-q", "a", "--local-files", "never", "--text", "t", "in/a.txt"});
  EXPECT_EQ(never.code, 0) << never.err;
  EXPECT_THAT(never.out, HasSubstr("files of this machine are not allowed"));
  const Ran below = scoring("rank", {"-q", "a", "--local-files", "below_media_root", "--media-root",
                                     "in", "in/a.txt", "secret.txt"});
  EXPECT_EQ(below.code, 0) << below.err;
  EXPECT_THAT(below.out, AllOf(HasSubstr("a sun"), Not(HasSubstr("hunter2"))));
}

TEST_F(CliRank, TextThatIsNotUtf8IsInvalid) {
  const Ran ran = scoring("rank", {"-q", "a", "--text", "\xc0\x80", "--text", "b"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("invalid"),
                             HasSubstr("a text has bytes that are not UTF-8, the first at 0")));
  expect_unusable(scoring("rank", {"-q", "a\xff", "--text", "b"}),
                  "query: a text has bytes that are not UTF-8, the first at 1");
}

TEST_F(CliRank, SaysWhatIsMissing) {
  expect_unusable(scoring("rank", {"-q", "a star", "missing.png"}), "missing.png: no such file");
  expect_unusable(scoring("rank", {"--text", "a star"}), "no query");
  expect_unusable(scoring("rank", {"-q", "a star"}), "nothing to rank");
  expect_unusable(scoring("rank", {"--request", "-"}, std::string(kOneText) + "\n" + kOneText),
                  "several requests");
}

TEST_F(CliRank, TellsFilesByTheirFirstBytes) {
  std::filesystem::copy(kDemo + "/documents/star.png", folder_ / "star");
  // A video by its first bytes (EBML), which has nothing behind them.
  write_file(folder_ / "clip", std::string("\x1a\x45\xdf\xa3\x80", 5) + std::string(100, '\0'));
  write_file(folder_ / "song.mp4", "la la la");
  const Ran ran = scoring("rank", {"-q", "a star", "star", "clip", "song.mp4"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(rows_of(ran.out).size(), 1u);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("  star\n"), HasSubstr("clip: "), HasSubstr("song.mp4: ")));
}

// What is no picture, no video and no UTF-8 text is named, and costs itself.
TEST_F(CliRank, RefusesOtherFilesByName) {
  using namespace std::string_literals;
  write_file(folder_ / "plain.txt", "a star");
  write_file(folder_ / "latin1.txt",
             "Sternstra\xdf"
             "e");
  write_file(folder_ / "noise", "\x8f\x01\xc3\x07\xfa\0\x11"s);
  write_file(folder_ / "a.pdf", "%PDF-1.7\n1 0 obj");
  write_file(folder_ / "pointer.png", "version https://git-lfs.github.com/spec/v1\noid sha256:0");
  write_file(folder_ / "page.jpg", "<!DOCTYPE html><title>404</title>");
  write_file(folder_ / "cut.heic",
             "\0\0\0\x18"
             "ftypheic\0\0\0\0mif1heic"s);
  const Ran ran = scoring("rank", {"-q", "a star", "latin1.txt", "noise", "a.pdf", "pointer.png",
                                   "page.jpg", "cut.heic", "plain.txt"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(rows_of(ran.out).size(), 1u);
  EXPECT_THAT(
      ran.out,
      AllOf(HasSubstr("plain.txt: a star"),
            HasSubstr("latin1.txt: text that is not UTF-8 (Latin-1, perhaps); expected"),
            HasSubstr("noise: bytes of no kind that vlr knows; expected"),
            HasSubstr("a.pdf: a PDF; expected a picture, a video or UTF-8 text"),
            HasSubstr("pointer.png: a git-lfs pointer"),
            HasSubstr("page.jpg: not an image: an HTML page"), HasSubstr("cut.heic: heic: ")));
}

TEST_F(CliCache, FilledShownUsedAndCleared) {
  const std::string star = kDemo + "/documents/star.png", moon = kDemo + "/documents/moon.png";
  const Ran add = scoring("cache add", {"--vision-cache", "kept", star, moon, "missing.png"});
  EXPECT_EQ(add.code, 1) << add.err;
  EXPECT_THAT(add.out, HasSubstr("2 added, 0 were there, 1 could not be used"));
  EXPECT_THAT(add.err, HasSubstr("missing.png: no such file"));
  const Ran again = scoring("cache add", {"--vision-cache", "kept", star});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("0 added, 1 were there, 0 could not be used"));
  const Ran show = run({"cache", "show", "--vision-cache", "kept"});
  EXPECT_EQ(show.code, 0) << show.err;
  EXPECT_THAT(show.out, ::testing::ContainsRegex("[0-9a-f]{32} +2 +2 "));

  const std::string request = R"({"query": {"text": "a star"}, "documents": [{"image": ")" + star +
                              R"("}, {"image": ")" + moon + R"("}]})";
  const json without = json::parse(scoring("score", {}, request).out);
  const json with = json::parse(scoring("score", {"--vision-cache", "kept"}, request).out);
  EXPECT_EQ(with["results"], without["results"]);
  EXPECT_EQ(without["usage"]["decoded_media"], 2);
  EXPECT_EQ(with["usage"]["decoded_media"], 0);
  EXPECT_EQ(with["usage"]["vision_batches"], 0);
  EXPECT_EQ(with["usage"]["vision_cache_hits"], 2);

  EXPECT_EQ(run({"cache", "clear", "--vision-cache", "kept"}).code, 0);
  expect_unusable(run({"cache", "show", "--vision-cache", "kept"}), "kept: no vision cache in it");
  expect_unusable(scoring("cache add", {star}), "--vision-cache");
  EXPECT_EQ(scoring("cache add", {"--vision-cache", "kept", "missing.png"}).code, 1);
}

TEST_F(CliEval, ReportsQualityAndDistance) {
  const std::vector<std::string> lines = lines_of(read_file(kDemo + "/eval/passages.jsonl"));
  write_file(folder_ / "few.jsonl", lines[0] + "\n" + lines[1] + "\n");
  // Two documents whose expected log-odds are off by 1 and whose order is wrong; one that cannot be
  // read.
  const json scored = json::parse(
      scoring("score", {},
              R"({"query": {"text": "q"}, "documents": [{"text": "a"}, {"text": "b"}]})")
          .out)["results"];
  const double a = scored[0]["log_odds"].get<double>(), b = scored[1]["log_odds"].get<double>();
  const json wrong = {{"query", {{"text", "q"}}},
                      {"documents", {{{"text", "a"}}, {{"text", "b"}}, {{"image", "none.png"}}}},
                      {"relevant", a > b ? 1 : 0},
                      {"log_odds", {b, a, 0}}};
  write_file(folder_ / "wrong.jsonl", wrong.dump());
  const Ran ran = scoring("eval", {"few.jsonl", "wrong.jsonl", "--json", "table.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("few.jsonl"), HasSubstr("wrong.jsonl"), HasSubstr("\nall")));
  EXPECT_THAT(ran.err, HasSubstr("wrong.jsonl: request 0, document 2: "));
  const json table = json::parse(read_file(folder_ / "table.json"));
  ASSERT_EQ(table["files"].size(), 3u);
  const json& few = table["files"][0];
  EXPECT_EQ(few["requests"], 2);
  EXPECT_EQ(few["pairs"], 20);
  EXPECT_EQ(few["failed"], 0);
  EXPECT_LT(few["max_distance"], 2e-3);
  EXPECT_GT(few["max_distance"], 0);  // f32 and six decimals
  EXPECT_EQ(few["top1_changes"], 0);
  EXPECT_GT(few["pairs_per_second"], 0);
  const json& other = table["files"][1];
  EXPECT_EQ(other["failed"], 1);
  EXPECT_NEAR(other["max_distance"].get<double>(), std::fabs(a - b), 1e-6);
  EXPECT_EQ(other["top1"], 0);
  EXPECT_EQ(other["mrr"], 0.5);
  EXPECT_NEAR(other["ndcg"].get<double>(), 1 / std::log2(3), 1e-9);
  EXPECT_EQ(other["top1_changes"], 1);
  EXPECT_EQ(table["files"][2]["pairs"], 23);
}

TEST_F(CliEval, WhatAFileSaysNothingOfIsNotZero) {
  write_file(folder_ / "e.jsonl", "{\"query\": \"a\", \"documents\": [\"x\"]}\n");
  const Ran ran = scoring("eval", {"e.jsonl", "--json", "table.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, Not(HasSubstr("0.0000")));
  const json row = json::parse(read_file(folder_ / "table.json"))["files"][0];
  for (const char* key :
       {"top1", "mrr", "ndcg", "max_distance", "mean_distance", "top1_changes", "order_changes"})
    EXPECT_TRUE(row[key].is_null()) << key;
}

TEST_F(CliEval, PicturesAreInTheFoldersMedia) {
  const std::string line = lines_of(read_file(kDemo + "/eval/shapes.jsonl"))[0];
  write_file(folder_ / "shapes.jsonl", line);
  const auto failed = [&](const Arguments& arguments) {
    EXPECT_EQ(scoring("eval", arguments).code, 0);
    return json::parse(read_file(folder_ / "table.json"))["files"][0]["failed"];
  };
  EXPECT_EQ(failed({"shapes.jsonl", "--json", "table.json"}), 6);
  EXPECT_EQ(failed({"shapes.jsonl", "--json", "table.json", "--media-root", kDemo + "/eval/media"}),
            0);
  std::filesystem::copy(kDemo + "/eval/media", folder_ / "media");
  EXPECT_EQ(failed({"shapes.jsonl", "--json", "table.json"}), 0);
}

TEST_F(CliEval, ReadsEverythingBeforeItStarts) {
  expect_unusable(scoring("eval", {kDemo + "/eval/passages.jsonl", "missing.jsonl"}),
                  "missing.jsonl");
  write_file(folder_ / "bad.jsonl", std::string(kOneText) + "\n{\"query\": 1}\n");
  expect_unusable(scoring("eval", {"bad.jsonl"}), "bad.jsonl: request 1");
}

TEST_F(CliBench, TimesAWorkloadAndItsOps) {
  const Ran ran = scoring("bench", {"--device", "cpu", "--workload", "1x128", "--repeat", "2",
                                    "--commit", "abc", "--json", "bench.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("1x128: 1 pairs, 128 tokens"), HasSubstr("attention")));
  const json out = json::parse(read_file(folder_ / "bench.json"));
  const json& context = out["context"];
  EXPECT_EQ(context["commit"], "abc");
  EXPECT_EQ(context["device"], "cpu");
  EXPECT_EQ(context["mode"], "exact");
  EXPECT_EQ(context["dtype"], "f32");
  EXPECT_GT(std::stod(context["peak_gflops"].get<std::string>()), 0);
  ASSERT_EQ(out["benchmarks"].size(), 1u);
  const json& row = out["benchmarks"][0];
  EXPECT_EQ(row["name"], "workload/vlr/f32/model/1x128");
  EXPECT_EQ(row["run_type"], "iteration");
  EXPECT_EQ(row["iterations"], 2);
  EXPECT_EQ(row["time_unit"], "ms");
  EXPECT_EQ(row["pairs"], 1);
  EXPECT_EQ(row["tokens"], 128);
  EXPECT_EQ(row["same_bits"], true);
  EXPECT_EQ(row["finite"], true);
  const auto ms = row["real_time"].get<double>();
  EXPECT_GT(ms, 0);
  EXPECT_LE(row["min_ms"], ms);
  EXPECT_GE(row["max_ms"], ms);
  EXPECT_NEAR(row["tokens/s"].get<double>(), 128e3 / ms, 1e-3);
  EXPECT_NEAR(row["pairs/s"].get<double>(), 1e3 / ms, 1e-6);
  EXPECT_GT(row["TFLOP/s"], 0);
  EXPECT_GT(row["peak_pct"], 0);
  EXPECT_GT(row["memory_bytes"]["arena"], 0);
  double us = 0, share = 0;
  std::set<std::string> ops;
  for (const json& op : row["ops"]) {
    us += op["us"].get<double>();
    share += op["share_pct"].get<double>();
    ops.insert(op["op"]);
  }
  EXPECT_NEAR(us, 1e3 * row["nodes_ms"].get<double>(), 1);
  EXPECT_NEAR(share, 100, 1e-6);
  EXPECT_TRUE(ops.contains("linear"));
  EXPECT_TRUE(ops.contains("score_head"));
}

TEST_F(CliBench, SaysWhatIsWrong) {
  const Ran unknown = scoring("bench", {"--workload", "text7"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, AllOf(HasSubstr("text7"), HasSubstr("text100"), HasSubstr("1x128"),
                                 HasSubstr("images8")));
  expect_unusable(run({"bench", "--synthetic", "2b", "--device", "cpu"}), "--synthetic");
  expect_unusable(run({"bench", "-m", folder_.path()}), "config.json");
  expect_unusable(scoring("bench", {"--no-peaks", "--impl", "lineal=reference"}), "lineal");
}

TEST_F(CliProfile, TracesEveryNode) {
  const Ran ran = scoring(
      "profile", {"--device", "cpu", "-r", kRequest, "--trace", "trace.json", "--no-peaks"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("10 documents, 10 scored"), HasSubstr("vision.1"),
                             HasSubstr("text.1"), HasSubstr("layers.*.mlp.down_proj"),
                             HasSubstr("at the peak of scoring"), HasSubstr("\n  arena "),
                             HasSubstr("\n  weights, mapped from the checkpoint "),
                             HasSubstr("\n  layers.0-5, each "), HasSubstr("\n  embed_tokens ")));
  const json trace = json::parse(read_file(folder_ / "trace.json"));
  double nodes = 0, runs = 0, end = 0;
  std::set<std::string> passes, counters;
  for (const json& e : trace["traceEvents"]) {
    if (e["ph"] == "C") {
      counters.insert(e["name"]);
      for (const json& value : e["args"]) EXPECT_GE(value, 0);
    }
    if (e["ph"] != "X") continue;
    const auto ts = e["ts"].get<double>(), dur = e["dur"].get<double>();
    EXPECT_GE(dur, 0);
    if (e["cat"] != "run") {
      nodes += dur;
      EXPECT_GE(ts, end - 1) << e;  // one after the other
      end = ts + dur;
      continue;
    }
    runs += dur;
    const auto name = e["name"].get<std::string>();
    passes.insert(name.substr(0, name.find('.')));
    EXPECT_GE(ts, 0);
  }
  EXPECT_EQ(passes, (std::set<std::string>{"prefix", "text", "vision"}));
  EXPECT_EQ(counters.size(), 3u);
  EXPECT_NEAR(nodes, runs, 1);
  const json& seconds = trace["otherData"]["seconds"];
  const double both = 1e6 * (seconds["vision"].get<double>() + seconds["text"].get<double>());
  EXPECT_LE(nodes, both);
  EXPECT_GT(nodes, both / 2);
}

TEST_F(CliInspect, TensorsAsTextAndAsJson) {
  const Ran brief = run({"inspect", "-m", kModel});
  ASSERT_EQ(brief.code, 0) << brief.err;
  EXPECT_THAT(brief.out,
              AllOf(HasSubstr("6 layers, hidden 256"), HasSubstr("DeepStack after blocks 1, 2, 3"),
                    Not(HasSubstr("missing"))));
  const json all = json::parse(run({"inspect", "-m", kModel, "--json"}).out);
  EXPECT_THAT(brief.out, HasSubstr(std::to_string(all["tensors"].size()) + " tensors"));
  for (const char* list : {"missing", "wrong_shape", "ambiguous", "unexpected"})
    EXPECT_THAT(all[list], IsEmpty());
  const std::string text = run({"inspect", "-m", kModel, "--tensors"}).out;
  int64_t bytes = 0;
  for (const json& t : all["tensors"]) {
    EXPECT_THAT(text, HasSubstr(t["name"].get<std::string>() + " "));
    bytes += t["bytes"].get<int64_t>();
  }
  EXPECT_EQ(all["bytes"], bytes);
  EXPECT_EQ(all["parameters"], bytes / 2);  // bf16
  expect_unusable(run({"inspect", "-m", folder_.path()}), "config.json");
}

TEST_F(CliInspect, GraphsOfEveryPass) {
  const std::map<std::string, std::string> last_node = {{"score", "score_head"},
                                                        {"prefix", "layers.5.store_prefix"},
                                                        {"vision", "merger.linear_fc2"}};
  for (const auto& [pass, node] : last_node) {
    SCOPED_TRACE(pass);
    const auto graph = [&, pass = pass](const char* form) {
      const Ran ran = run({"inspect", "-m", kModel, "--pass", pass, "--graph", form});
      EXPECT_EQ(ran.code, 0) << ran.err;
      return ran.out;
    };
    const json g = json::parse(graph("json"));
    EXPECT_EQ(g["nodes"].back()["name"], node);
    const std::vector<std::string> text = lines_of(graph("text"));
    EXPECT_EQ(text.size(), g["nodes"].size());
    EXPECT_THAT(text.back(), StartsWith(node + " "));
    EXPECT_THAT(graph("dot"), AllOf(StartsWith("digraph"), HasSubstr(node)));
  }
}

/// "name   12.34 MiB" -> 12.34; nothing where a line ends otherwise.
std::optional<double> mebibytes_at_end(const std::string& line) {
  static const std::map<std::string, double> kUnits = {
      {"bytes", 0x1p-20}, {"KiB", 0x1p-10}, {"MiB", 1}, {"GiB", 1024}};
  const size_t space = line.rfind(' ');
  const auto unit = kUnits.find(line.substr(std::min(space + 1, line.size())));
  if (space == line.npos || unit == kUnits.end()) return {};
  return std::stod(line.substr(line.find_last_of(' ', space - 1) + 1)) * unit->second;
}

TEST_F(CliPlan, PartsAddUp) {
  const Ran ran = run({"plan", "-m", kModel, "--images", "1", "--patches", "64"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  double sum = 0, total = 0;
  for (const std::string& line : lines_of(ran.out)) {
    if (const auto mib = mebibytes_at_end(line)) (line.starts_with("total") ? total : sum) += *mib;
  }
  EXPECT_GT(total, 25);  // the weights
  EXPECT_NEAR(sum, total, 0.05);
  EXPECT_THAT(ran.out, HasSubstr("vision features"));
  expect_unusable(run({"plan", "-m", kModel, "--documents", "0"}),
                  "workload: documents must be 1 to 16777216, got 0");
  // Sums of these would leave 64 bits.
  expect_unusable(run({"plan", "-m", kModel, "--tokens", "9223372036854775807", "--images", "3"}),
                  "workload: tokens_per_document must be 1 to 1073741824, got 9223372036854775807");
}

TEST_F(CliPlan, Json) {
  const Arguments arguments = {"plan", "-m", kModel, "--device", "cpu", "--images", "1"};
  const Ran table = run(arguments);
  Arguments more = arguments;
  more.insert(more.end(), {"--json", "--preset", "low"});
  const Ran ran = run(more);
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json plan = json::parse(ran.out);
  int64_t sum = 0;
  for (const json& part : plan["parts"]) {
    EXPECT_THAT(table.out, HasSubstr(part["name"].get<std::string>()));
    sum += part["bytes"].get<int64_t>();
  }
  EXPECT_EQ(plan["total"], sum);
  EXPECT_THAT(plan["preset"].get<std::string>(), StartsWith("preset low"));
  EXPECT_TRUE(plan["host_parts"].is_array());
  expect_unusable(run({"plan", "-m", kModel, "--preset", "lower"}), "got 'lower'");
}

TEST_F(CliPlan, PicturesOfBothPasses) {
  ASSERT_EQ(run({"plan", "-m", kModel, "--svg", "text.only.svg"}).code, 0);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "text.only-vision.svg"));
  const Ran ran =
      run({"plan", "-m", kModel, "--images", "1", "--patches", "64", "--svg", "arena.svg"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(read_file(folder_ / "arena.svg"),
              AllOf(StartsWith("<svg"), HasSubstr("layers.0.mlp.gate_up_proj")));
  EXPECT_THAT(read_file(folder_ / "arena-vision.svg"),
              AllOf(StartsWith("<svg"), HasSubstr("vision tower")));
  expect_unusable(run({"plan", "-m", kModel, "--svg", "no/such/folder.svg"}), "no/such/folder.svg");
}

TEST_F(CliCheckpoint, MadeAndUsed) {
  const Ran made =
      run({"checkpoint", "make", "a", "--out", "a", "--tokenizer", kModel + "/tokenizer.json"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_EQ(made.out, "");
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors.index.json"}) {
    EXPECT_TRUE(std::filesystem::exists(folder_ / ("a/" + std::string(name)))) << name;
  }
  const Ran inspected = run({"inspect", "-m", "a"});
  EXPECT_EQ(inspected.code, 0) << inspected.out;
  const Ran ran = run({"score", "-m", "a", "--threads", "2"}, kOneText);
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(json::parse(ran.out)["model"], "a");
  EXPECT_EQ(json::parse(ran.out)["results"][0]["status"], "ok");
  expect_unusable(run({"checkpoint", "make", "9b", "--out", "9b"}), "9b");

  std::filesystem::remove(folder_ / "a/model.safetensors.index.json");
  expect_unusable(run({"score", "-m", "a"}, kOneText), "safetensors");
}

TEST_F(CliQuantize, WritesAFolderThatOpensAsItWasQuantised) {
  const Ran ran = scoring("quantize", {"--out", "q", "--quant", "nf4"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  const std::vector<std::string> lines = lines_of(ran.out);
  ASSERT_EQ(lines.size(), 3u + 8);  // four queries, two documents each
  EXPECT_THAT(lines[0], StartsWith("q: written in "));
  EXPECT_THAT(lines[1], StartsWith("its checks pass"));
  for (size_t i = 2; i + 1 < lines.size(); ++i) {
    std::istringstream in(lines[i]);
    double before = 0, decoded = 0, after = 0;
    in >> before >> decoded >> after;
    EXPECT_NEAR(before, after, 2) << lines[i];
    EXPECT_NEAR(decoded, after, 0.01) << lines[i];
  }
  EXPECT_THAT(lines.back(), HasSubstr(" from the model as it is, on average"));
  for (const char* name : {"tokenizer.json", "preprocessor_config.json", "model.safetensors"})
    EXPECT_TRUE(std::filesystem::exists(folder_ / ("q/" + std::string(name)))) << name;
  const json q = json::parse(read_file(folder_ / "q/config.json"))["quantization_config"];
  EXPECT_EQ(q["quant_method"], "bitsandbytes");
  EXPECT_EQ(q["bnb_4bit_quant_type"], "nf4");
  EXPECT_EQ(q["vlr"]["rules"], json({"text=nf4"}));
  EXPECT_EQ(q["vlr"]["probe_decoded"].size(), 8u);

  const json ahead = json::parse(run({"score", "-m", "q", "--threads", "2"}, kOneText).out),
             on_load = json::parse(scoring("score", {"--quant", "nf4"}, kOneText).out);
  EXPECT_EQ(ahead["quant"], "nf4");
  EXPECT_EQ(ahead["results"], on_load["results"]);
  EXPECT_EQ(
      json::parse(run({"score", "-m", "q", "--quant-rule", "vision=int8"}, kOneText).out)["quant"],
      "mixed");

  expect_unusable(run({"score", "-m", "q", "--quant", "int8"}, kOneText),
                  "is stored in nf4 and cannot be opened as int8");
  expect_unusable(run({"quantize", "-m", "q", "--out", "r", "--quant", "int8"}),
                  "is in nf4 already; quantise the original");
}

TEST_F(CliQuantize, RulesAndWhatIsLeftOut) {
  const Ran unprobed =
      scoring("quantize", {"--out", "q", "--quant", "int8", "--quant-rule", "layers.0.=none",
                           "--quant-rule", "vision=fp8", "--no-probe"});
  ASSERT_EQ(unprobed.code, 0) << unprobed.err;
  EXPECT_THAT(unprobed.out, HasSubstr("opened as mixed: its checks pass"));
  const json q = json::parse(read_file(folder_ / "q/config.json"))["quantization_config"];
  EXPECT_EQ(q["vlr"]["rules"], json({"text=int8", "layers.0.=none", "vision=fp8"}));
  EXPECT_FALSE(q["vlr"].contains("probe_decoded"));
  const Ran unverified =
      scoring("quantize", {"--out", "q", "--quant", "fp8", "--no-probe", "--no-verify"});
  ASSERT_EQ(unverified.code, 0) << unverified.err;
  EXPECT_EQ(lines_of(unverified.out).size(), 1u);
  EXPECT_EQ(json::parse(run({"score", "-m", "q"}, kOneText).out)["quant"], "fp8");
}

TEST_F(CliQuantize, SaysWhatIsWrong) {
  expect_unusable(scoring("quantize", {"--out", "q"}), "the rules choose no linear layer");
  expect_unusable(scoring("quantize", {"--out", "q", "--quant", "fp5"}), "got 'fp5'");
  expect_unusable(scoring("quantize", {"--out", kModel, "--quant", "nf4"}),
                  "must be another folder");
  expect_unusable(run({"quantize", "-m", folder_.path(), "--out", "q", "--quant", "nf4"}),
                  "config.json");
  expect_unusable(
      scoring("quantize", {"--out", "q", "--quant", "nf4", "--quant-rule", "q_proj=none"}),
      "parts of one weight need one quantisation");
  expect_unusable(
      scoring("quantize", {"--out", "q", "--quant", "nf4", "--quant-rule", "layers.6.=int8"}),
      "rule 'layers.6.=int8': no linear layer of this model matches");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "q"));  // none of these began to write
}

TEST_F(CliInspect, FormatsOfAQuantisedCheckpoint) {
  const json dense = json::parse(run({"inspect", "-m", kModel, "--json"}).out);
  ASSERT_EQ(scoring("quantize", {"--out", "q", "--quant", "nf4", "--quant-rule", "down_proj=int8",
                                 "--no-probe", "--no-verify"})
                .code,
            0);
  const Ran brief = run({"inspect", "-m", "q", "--tensors"});
  ASSERT_EQ(brief.code, 0) << brief.err;
  EXPECT_THAT(brief.out,
              AllOf(HasSubstr("\nnf4     36 weights, "), HasSubstr("\nint8    6 weights, "),
                    HasSubstr("\ndense   "), HasSubstr("u8[65536, 1]: nf4[512, 256]\n"),
                    Not(HasSubstr("unexpected")), Not(HasSubstr("wrong shape"))));
  const json out = json::parse(run({"inspect", "-m", "q", "--json"}).out);
  EXPECT_EQ(out["parameters"], dense["parameters"]);
  EXPECT_EQ(dense["formats"]["dense"]["bytes"], dense["bytes"]);
  for (const char* list : {"missing", "wrong_shape", "ambiguous", "unexpected"})
    EXPECT_THAT(out[list], IsEmpty());
  int64_t weights = 0, parameters = 0, bytes = 0;
  for (const json& format : out["formats"]) {
    weights += format["weights"].get<int64_t>();
    parameters += format["parameters"].get<int64_t>();
    bytes += format["bytes"].get<int64_t>();
  }
  EXPECT_EQ(weights, std::ssize(dense["tensors"]));
  EXPECT_EQ(parameters, out["parameters"]);
  EXPECT_EQ(bytes, out["bytes"]);
  std::map<std::string, json> shapes;
  for (const json& t : dense["tensors"]) shapes[t["name"]] = t["shape"];
  for (const json& t : out["tensors"]) {
    const std::string name = t["name"];
    EXPECT_EQ(t.contains("format"), shapes.contains(name)) << name;
    if (!t.contains("format")) continue;
    EXPECT_EQ(t["shape"], shapes[name]) << name;
    const bool linear = name.find("_proj.weight") != name.npos;
    EXPECT_EQ(t["format"], !linear                               ? "dense"
                           : name.find("down_proj") == name.npos ? "nf4"
                                                                 : "int8")
        << name;
  }
}

TEST_F(CliPlan, QuantisedWeightsAreSmaller) {
  const auto weights = [&](const Arguments& arguments) {
    Arguments all = {"plan", "--device", "cpu"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Ran ran = run(all);
    EXPECT_EQ(ran.code, 0) << ran.err;
    double mebibytes = 0;
    for (const std::string& line : lines_of(ran.out)) {
      if (line.starts_with("weights")) mebibytes += mebibytes_at_end(line).value_or(0);
    }
    return mebibytes;
  };
  const double plain = weights({"-m", kModel}), int8 = weights({"-m", kModel, "--quant", "int8"}),
               nf4 = weights({"-m", kModel, "--quant", "nf4"});
  // 5.9 M parameters: 2 bytes each, 1, and a little more than half a byte.
  constexpr double kMebi = 5.9e6 / (1 << 20);
  EXPECT_NEAR(plain - int8, kMebi, 0.15);
  EXPECT_NEAR(int8 - nf4, kMebi / 2, 0.25);
  ASSERT_EQ(scoring("quantize", {"--out", "q", "--quant", "nf4", "--no-probe", "--no-verify"}).code,
            0);
  EXPECT_EQ(weights({"-m", "q"}), nf4);
  EXPECT_EQ(weights({"-m", "q", "--quant-rule", "vision=nf4"}),
            weights({"-m", kModel, "--quant", "nf4", "--quant-rule", "vision=nf4"}));
  expect_unusable(run({"plan", "-m", kModel, "--quant", "nf5"}), "got 'nf5'");
}

}  // namespace
}  // namespace vlr
