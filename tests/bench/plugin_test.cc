// Shared objects with implementations: one that is taken, and what is said of those that are not.
#include "bench/support/plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/support/all_ops.h"
#include "bench/support/lab.h"
#include "tests/support/temp_folder.h"

namespace vlr::bench {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void expect_refused(const std::string& path, const std::string& why) {
  const Status s = load_plugin(path, all_ops());
  EXPECT_EQ(s.code(), Code::kInvalidArgument);
  EXPECT_THAT(s.message(), AllOf(HasSubstr(path), HasSubstr(why)));
}

TEST(Plugin, SaysWhyOneIsNotTaken) {
  const testing::TempFolder folder;
  testing::write_file(folder / "text.so", "not a library");
  expect_refused(folder / "text.so", "file too short");
  expect_refused(folder / "absent.so", "No such file");
  expect_refused(VLR_PLUGIN_NO_ENTRY, "exports no function vlr_kernels");
  expect_refused(VLR_PLUGIN_OTHER_ABI, "was compiled for 0.0.1, this is " VLR_VERSION);
  expect_refused(VLR_PLUGIN_OTHER_HEADERS, "rmsnorm: some was compiled against other headers");
  expect_refused(VLR_PLUGIN_TAKEN, "there is an implementation 'reference' on cpu");
  for (const char* path :
       {VLR_PLUGIN_NAMELESS, VLR_PLUGIN_COMMA, VLR_PLUGIN_NO_TEXT, VLR_PLUGIN_LINES})
    expect_refused(path, "a name must be printable UTF-8 without a comma, got '");
  expect_refused(VLR_PLUGIN_NO_OP, "has no implementation of an op that is here");
}

/// In a process of its own where ctest runs it: what is loaded stays.
TEST(Plugin, IsCheckedAsTheOthersAre) {
  const std::vector<OpLab> ops = all_ops();
  ASSERT_TRUE(load_plugin(VLR_PLUGIN_MINE, ops).ok());
  expect_refused(VLR_PLUGIN_MINE, "there is an implementation 'mine' on cpu");
  const auto op = std::ranges::find(ops, "rmsnorm", &OpLab::name);
  auto machine = Machine::open("cpu", 2);
  ASSERT_TRUE(machine.ok());
  Placement warm;
  warm.warm = true;
  const auto checked = [&](const char* impl, const char* text, const char* dtype) {
    const auto shapes = parse_shapes(text, op->axes, *parse_dtype(dtype));
    auto subject = op->make(**machine, shapes->at(0), warm);
    return check(**subject, impl, 0);
  };
  const auto is_right = [](const Checked& c) { return !c.wrong() && c.bits.ok(); };
  EXPECT_TRUE(is_right(checked("mine", "rows=500,dim=64", "f32")));
  EXPECT_TRUE(is_right(checked("wrong_above_400", "rows=400,dim=64", "f32")));
  const Checked wrong = checked("wrong_above_400", "rows=401,dim=64", "f32");
  EXPECT_EQ(wrong.errors.wrong, 1);
  EXPECT_THAT(wrong.errors.worst_at, HasSubstr("[400, 0] = "));
  EXPECT_THAT(checked("mine", "rows=8,dim=64", "bf16").error,
              HasSubstr("does not take these arguments"));
}

}  // namespace
}  // namespace vlr::bench
