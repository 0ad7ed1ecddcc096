// Shapes as the command line has them.
#include "bench/support/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vlr::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<Axis> kAxes = {
    {"rows", 8, "", {}, true}, {"dim", 64}, {"prefix", 0}, {"mask", 0, "", {"causal", "full"}}};

std::vector<std::string> parsed(std::string_view text) {
  const auto shapes = parse_shapes(text, kAxes, DType::kF32);
  if (!shapes.ok()) return {shapes.error().message()};
  std::vector<std::string> out;
  for (const Shape& s : *shapes) out.push_back(s.axes_text());
  return out;
}

TEST(Shape, ParsesValuesRangesListsAndWords) {
  EXPECT_THAT(parsed(""), ElementsAre("rows=8,dim=64,mask=causal"));
  EXPECT_THAT(parsed("dim=5"), ElementsAre("rows=8,dim=5,mask=causal"));
  EXPECT_THAT(parsed("mask=full,rows=0"), ElementsAre("rows=0,dim=64,mask=full"));
  EXPECT_THAT(parsed("rows=100:450:*2,dim=1"),
              ElementsAre("rows=100,dim=1,mask=causal", "rows=200,dim=1,mask=causal",
                          "rows=400,dim=1,mask=causal"));
  EXPECT_THAT(parsed("rows=1:3:+1,dim=7:8:+1").size(), 6u);
  EXPECT_THAT(parsed("rows=7:7:*2,dim=1"), ElementsAre("rows=7,dim=1,mask=causal"));
  EXPECT_THAT(parsed("rows=16+300+77"), ElementsAre("rows=16+300+77,dim=64,mask=causal"));
  EXPECT_THAT(parsed("rows=1099511627776,dim=1"),
              ElementsAre("rows=1099511627776,dim=1,mask=causal"));
}

TEST(Shape, SaysWhatIsWrong) {
  const auto says = [](std::string_view text, std::string_view what) {
    const auto shapes = parse_shapes(text, kAxes, DType::kF32);
    ASSERT_FALSE(shapes.ok()) << text;
    EXPECT_EQ(shapes.error().code(), Code::kInvalidArgument);
    EXPECT_THAT(shapes.error().message(), HasSubstr(what)) << text;
  };
  says("rows", "a shape must be axis=value,axis=value, got 'rows'");
  says("rows=1,", "a shape must be axis=value,axis=value, got ''");
  says("row=1", "no axis 'row'; there are rows, dim, prefix, mask");
  for (const char* no :
       {"", "x", "-1", "1.5", "0x10", "1 ", "+", "1+", "1099511627777", "99999999999999999999"})
    says("rows=" + std::string(no), "rows must be a whole number, got '");
  for (const char* no :
       {"1:2", "1:2:3", "1:2:*", "1:4:*1", "1:4:+0", "4:1:+1", "0:4:*2", "1:2:+1:1"})
    says("rows=" + std::string(no), "rows must be a number, begin:end:*factor, begin:end:+step");
  says("mask=none", "mask must be one of causal, full, got 'none'");
  says("dim=4+5", "dim takes no list, got '4+5'");
  says("rows=4,dim=5,rows=6", "rows is there twice in 'rows=4,dim=5,rows=6'");
  says("mask=1", "mask must be one of causal, full, got '1'");
  says("mask=causal:full:+1", "mask must be a number");
  says("rows=1:1001:+1", "is more than 1000 shapes");
  says("rows=1:1099511627776:+1", "is more than 1000 shapes");
  says("rows=1:100:+1,dim=1:100:+1", "is more than 1000 shapes");
  EXPECT_EQ(parsed("rows=1:1000:+1").size(), 1000u);
}

/// What is left out is what an axis is if nothing is said.
TEST(Shape, ItsTextParsesBackToIt) {
  for (const char* text : {"rows=0", "dim=0,prefix=0", "prefix=3", "rows=0+0"}) {
    const Shape s = parse_shapes(text, kAxes, DType::kF32)->at(0);
    const Shape back = parse_shapes(s.axes_text(), kAxes, DType::kF32)->at(0);
    for (const Shape::Value& v : s.values()) EXPECT_EQ(back.list(v.axis.name), v.values) << text;
  }
}

TEST(Shape, LongListsAreCutWhereTheyAreOnlyRead) {
  const auto brief = [](std::string_view text) {
    return parse_shapes(text, kAxes, DType::kBF16)->at(0).name();
  };
  EXPECT_EQ(brief("rows=1+2+3+4,dim=2"), "bf16/rows=1+2+3+4,dim=2,mask=causal");
  EXPECT_EQ(brief("rows=1+2+3+4+5,dim=2"), "bf16/rows=1+2+3+4+... (5),dim=2,mask=causal");
  EXPECT_EQ(brief("rows=7+7+7,dim=2"), "bf16/rows=3x7,dim=2,mask=causal");
}

TEST(Shape, Dtypes) {
  EXPECT_EQ(*parse_dtype("bf16"), DType::kBF16);
  EXPECT_EQ(*parse_dtype("f16"), DType::kF16);
  EXPECT_EQ(*parse_dtype("f32"), DType::kF32);
  for (const char* no : {"", "F32", "f64", "i8"})
    EXPECT_EQ(parse_dtype(no).error().message(),
              "--dtype must be f32, bf16 or f16, got '" + std::string(no) + "'");
}

TEST(Shape, AxesThatAreNotThere) {
  Shape s(kAxes, DType::kF32);
  EXPECT_FALSE(s.set("columns", {1}).ok());
  EXPECT_THROW(s["columns"], std::invalid_argument);
  EXPECT_THROW(Shape(kAxes, DType::kF32, "", {{"columns", 1}}), std::invalid_argument);
}

}  // namespace
}  // namespace vlr::bench
