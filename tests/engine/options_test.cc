// The table of options against the struct: every member is in it, and texts go in and out.
#include "engine/api/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "tests/support/option_values.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;

TEST(OptionTable, HasEveryMemberOfTheStruct) {
  const std::string header = testing::read_file(VLR_SOURCE_DIR "/include/vlr/reranker.h");
  const size_t begin = header.find("struct Options {"), end = header.find("\n};", begin);
  ASSERT_NE(begin, std::string::npos);
  const std::string body = header.substr(begin, end - begin);
  const std::regex member(
      R"(\n  (?:bool|int|int64_t|double|std::string|std::vector<std::string>|std::map<[^>]*>) (\w+)\s+?=)");
  std::set<std::string> members, rows;
  for (std::sregex_iterator it(body.begin(), body.end(), member), none; it != none; ++it)
    members.insert((*it)[1]);
  for (const std::string_view name : option_names()) rows.emplace(name);
  EXPECT_GT(members.size(), 40u);
  EXPECT_EQ(members, rows);
}

TEST(OptionTable, RowsAreComplete) {
  std::set<std::string_view> flags;
  for (const OptionInfo& info : option_table()) {
    EXPECT_EQ(find_option(info.name), &info);
    EXPECT_TRUE(flags.insert(info.flag).second) << info.flag;
    EXPECT_TRUE(info.flag.starts_with("--")) << info.name;
    EXPECT_NE(info.uses, 0u) << info.name;
    EXPECT_FALSE(info.doc.empty() || info.doc.ends_with('.')) << info.name;
    const auto* flag = std::get_if<bool Options::*>(&info.member);
    EXPECT_EQ(info.value.empty(), flag != nullptr) << info.name;
    // What is true by default has a flag that switches it off, and says so.
    EXPECT_EQ(!info.flag_doc.empty(), flag && Options().**flag) << info.name;
    EXPECT_TRUE(check_option(info, Options()).ok()) << info.name;
  }
  EXPECT_EQ(find_option("max_lenght"), nullptr);
}

TEST(OptionTable, EveryValueGoesInAndOutAsText) {
  for (const OptionInfo& info : option_table()) {
    Options options;
    const std::string before = format_option(info, options), text = testing::other_value(info.name);
    const Status set = set_option(options, info.name, text);
    ASSERT_TRUE(set.ok()) << set.message();
    EXPECT_EQ(*get_option(options, info.name), text) << info.name;
    EXPECT_NE(text, before) << info.name;
    ASSERT_TRUE(set_option(options, info.name, before).ok()) << info.name;
    EXPECT_EQ(*get_option(options, info.name), before) << info.name;
  }
}

TEST(OptionTable, SetsTheMembersOfTheStruct) {
  Options o;
  for (const auto& [name, text] :
       std::map<std::string, std::string>{{"max_length", " 77 "},
                                          {"fps", "0.25"},
                                          {"exact", "OFF"},
                                          {"exif", "yes"},
                                          {"gpu_memory", "1.5 GiB"},
                                          {"max_media_bytes", "20gb"},
                                          {"frame_factor", "64"},
                                          {"quant_rules", "vision=nf4, layers.0.=none"},
                                          {"impls", "linear=reference,attention=blocked"}})
    EXPECT_TRUE(set_option(o, name, text).ok()) << name;
  EXPECT_EQ(o.max_length, 77);
  EXPECT_EQ(o.fps, 0.25);
  EXPECT_FALSE(o.exact);
  EXPECT_TRUE(o.exif);
  EXPECT_EQ(o.gpu_memory, 3 * (int64_t{1} << 29));
  EXPECT_EQ(o.max_media_bytes, 20'000'000'000);
  EXPECT_EQ(o.frame_factor, 64);
  EXPECT_EQ(o.quant_rules, (std::vector<std::string>{"vision=nf4", "layers.0.=none"}));
  EXPECT_EQ(o.impls, (std::map<std::string, std::string>{{"linear", "reference"},
                                                         {"attention", "blocked"}}));
}

TEST(OptionTable, SaysWhatWasExpectedAndFound) {
  const std::map<std::string, std::map<std::string, std::string>> refused = {
      {"max_length",
       {{"0", "options: max_length must be at least 1, got 0"},
        {"many", "options: max_length must be a whole number, got 'many'"},
        {"1.5", "options: max_length must be a whole number, got '1.5'"},
        {"", "options: max_length must be a whole number, got ''"},
        {"99999999999999999999",
         "options: max_length must be a whole number, got "
         "'99999999999999999999'"}}},
      {"num_threads",
       {{"-1", "options: num_threads must be at least 0, got -1"},
        {"1025", "options: num_threads must be at most 1024, got 1025"},
        {"2147483647", "options: num_threads must be at most 1024, got 2147483647"}}},
      {"gpu_memory",
       {{"-1", "options: gpu_memory must be at least 0, got -1"},
        {"20 apples",
         "options: gpu_memory must be a number of bytes, as in 20GB or 1.5GiB, got "
         "'20 apples'"},
        {"9000000TiB",
         "options: gpu_memory must be a number of bytes, as in 20GB or 1.5GiB, got "
         "'9000000TiB'"}}},
      {"row_chunk", {{"65", "options: row_chunk must be a multiple of 64, got 65"}}},
      {"dtype", {{"f64", "options: dtype must be auto, f32, bf16 or f16, got 'f64'"}}},
      {"no_fuse",
       {{"qk,all", "options: no_fuse must be residual, qk, gelu or quantize, got 'all'"}}},
      {"video_sampling",
       {{"all", "options: video_sampling must be official or uniform+ends, got 'all'"}}},
      {"frame_factor", {{"48", "options: frame_factor must be 32 or 64, got 48"}}},
      {"fps",
       {{"0", "options: fps must be finite and above 0, got 0"},
        {"nan", "options: fps must be finite and above 0, got nan"},
        {"inf", "options: fps must be finite and above 0, got inf"}}},
      {"exact", {{"maybe", "options: exact must be true or false, got 'maybe'"}}},
      {"impls", {{"linear", "options: impls must be entries of the form op=name, got 'linear'"}}},
      {"preset", {{"ultra", "options: preset must be auto, high, mid or low, got 'ultra'"}}},
      {"max_lenght",
       {{"1", "options: there is no option 'max_lenght'; docs/options.md lists them"}}}};
  for (const auto& [name, cases] : refused) {
    for (const auto& [text, message] : cases) {
      Options options;
      const Status status = set_option(options, name, text);
      EXPECT_EQ(status.code(), Code::kInvalidArgument) << name;
      EXPECT_EQ(status.message(), message);
      if (const OptionInfo* info = find_option(name)) {
        EXPECT_EQ(format_option(*info, options), format_option(*info, {})) << "it was changed";
      }
    }
  }
  Options options;
  EXPECT_THAT(set_option(options, "quant", "nf5").message(),
              AllOf(HasSubstr("options: "), HasSubstr("got 'nf5'")));
  EXPECT_TRUE(set_option(options, "quant_rules", " text=nf4 ,, vision=none,, ").ok());
  EXPECT_EQ(*get_option(options, "quant_rules"), "text=nf4,vision=none");
  EXPECT_THAT(set_option(options, "quant_rules", "vision=nf4,vision").message(),
              HasSubstr("options: "));
}

TEST(OptionTable, TheStructIsCheckedTheSame) {
  EXPECT_TRUE(check_options({}).ok());
  EXPECT_EQ(check_options({.max_length = 0}).message(),
            "options: max_length must be at least 1, got 0");
  EXPECT_EQ(check_options({.vision_cache_bytes = -1}).message(),
            "options: vision_cache_bytes must be at least 0, got -1");
  EXPECT_EQ(check_options({.remote_timeout = 0}).message(),
            "options: remote_timeout must be finite and above 0, got 0");
}

TEST(OptionTable, SizesAreExact) {
  const OptionInfo& info = *find_option("gpu_memory");
  for (const auto& [bytes, text] : std::map<int64_t, std::string>{{0, "0"},
                                                                  {1, "1"},
                                                                  {1023, "1023"},
                                                                  {1024, "1KiB"},
                                                                  {1025, "1025"},
                                                                  {3 << 19, "1536KiB"},
                                                                  {int64_t{5} << 40, "5TiB"}}) {
    EXPECT_EQ(format_option(info, {.gpu_memory = bytes}), text);
    EXPECT_EQ(*parse_size(text), bytes);
  }
}

}  // namespace
}  // namespace vlr
