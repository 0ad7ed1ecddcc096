// Every op's description for the lab.
#include <gtest/gtest.h>

#include <set>

#include "bench/support/all_ops.h"
#include "bench/support/lab.h"

namespace vlr::bench {
namespace {

const std::vector<OpLab>& ops() {
  static const std::vector<OpLab> all = all_ops();
  return all;
}

Machine& machine() {
  static const std::unique_ptr<Machine> one = std::move(Machine::open("cpu", 2)).value();
  return *one;
}

Placement warm() {
  Placement place;
  place.warm = true;
  return place;
}

/// A model's shape on the host, of few rows, and of not much of anything else.
Shape small(const OpLab& op, Shape s, int64_t first) {
  const std::vector<Shape::Value> values = s.values();
  for (const Shape::Value& v : values) {
    std::vector<int64_t> list = v.values;
    // Of sequences, their keys, and rows that are picked; of columns.
    const int64_t most = v.axis.name == "count"                              ? 3
                         : v.axis.name == "prefix" || op.name == "attention" ? 128
                                                                             : 256;
    for (int64_t& n : list) n = std::min(n, most);
    if (!s.set(v.axis.name, std::move(list)).ok()) ADD_FAILURE();
  }
  if (!s.set(op.axes[0].name, {first}).ok()) ADD_FAILURE();
  s.label = "";
  return s;
}

TEST(Ops, ShapesOfModelsParseBackToThemselves) {
  for (const OpLab& op : ops()) {
    for (const Device device : {Device::kCpu, Device::kCuda}) {
      EXPECT_FALSE(op.shapes(device).empty()) << op.name;
      for (const Shape& s : op.shapes(device)) {
        const auto parsed = parse_shapes(s.axes_text(), op.axes, s.dtype);
        ASSERT_TRUE(parsed.ok()) << op.name << " " << s.axes_text();
        ASSERT_EQ(parsed->size(), 1u) << op.name << " " << s.axes_text();
        EXPECT_EQ(parsed->at(0).axes_text(), s.axes_text()) << op.name;
        for (const Shape::Value& v : s.values())
          EXPECT_EQ(parsed->at(0).list(v.axis.name), v.values) << op.name << " " << s.axes_text();
        EXPECT_FALSE(s.label.empty()) << op.name << " " << s.axes_text();
      }
    }
  }
}

TEST(Ops, EachHasAReferenceOnTheHost) {
  std::set<std::string> names;
  for (const OpLab& op : ops()) {
    EXPECT_TRUE(names.insert(op.name).second) << op.name;
    const auto impls = op.implementations();
    EXPECT_TRUE(std::ranges::any_of(impls, [](const auto& impl) {
      return impl.name == "reference" && impl.device == Device::kCpu;
    })) << op.name;
  }
}

/// The lab on what there is: right, and bits that do not depend on the batch.
TEST(Ops, ImplementationsOfTheHostPassTheCheck) {
  for (const OpLab& op : ops()) {
    std::set<std::string> seen, ran;
    for (const int64_t first : {5, 33}) {
      for (const Shape& model : op.shapes(Device::kCpu)) {
        const Shape s = small(op, model, first);
        if (!seen.insert(s.name()).second) continue;
        const auto subject = op.make(machine(), s, warm());
        if (!subject.ok()) {
          EXPECT_EQ(subject.error().code(), Code::kInvalidArgument) << subject.error().message();
          continue;
        }
        for (const std::string& impl : (*subject)->takers()) {
          const Checked c = check(**subject, impl, 3);
          EXPECT_FALSE(c.wrong()) << op.name << "/" << impl << " " << s.name() << ": " << c.error
                                  << c.errors.worst_at << c.bits.message();
          ran.insert(impl);
        }
      }
    }
    EXPECT_TRUE(ran.contains("reference")) << op.name;
    for (const auto& impl : op.implementations()) {
      if (impl.device != Device::kCpu) continue;
      EXPECT_TRUE(ran.contains(impl.name)) << op.name << "/" << impl.name;
    }
  }
}

/// A shape from the command line may be anything: it is taken, or refused with words.
TEST(Ops, NoShapeIsTooOdd) {
  for (const OpLab& op : ops()) {
    for (const Axis& axis : op.axes) {
      for (const int64_t value : {int64_t{0}, int64_t{1}, int64_t{3}}) {
        if (!axis.names.empty() && value >= static_cast<int64_t>(axis.names.size())) continue;
        Shape s = small(op, op.shapes(Device::kCpu).back(), 5);
        ASSERT_TRUE(s.set(axis.name, {value}).ok());
        const auto subject = op.make(machine(), s, warm());
        if (!subject.ok()) {
          EXPECT_EQ(subject.error().code(), Code::kInvalidArgument)
              << op.name << " " << s.name() << ": " << subject.error().message();
          EXPECT_NE(subject.error().message(), "");
          continue;
        }
        const Checked c = check(**subject, "reference", 0);
        EXPECT_FALSE(c.wrong()) << op.name << " " << s.name() << ": " << c.error
                                << c.errors.worst_at << c.bits.message();
      }
    }
  }
}

}  // namespace
}  // namespace vlr::bench
