#include "engine/runtime/weight_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;
using testing::TempFolder;

NamedShape named(std::string name, DType dtype, std::vector<int64_t> shape) {
  return {{dtype, std::move(shape)}, std::move(name)};
}

/// Element i of a 16-bit tensor is 256 * the first letter of its name + i.
Status fill_u16(const NamedShape& t, int64_t begin, std::span<std::byte> out) {
  for (size_t i = 0; i < out.size() / 2; ++i) {
    const auto v = static_cast<uint16_t>(256 * t.name[0] + begin / 2 + static_cast<int64_t>(i));
    std::memcpy(out.data() + 2 * i, &v, 2);
  }
  return {};
}

uint16_t at(char letter, int i) { return static_cast<uint16_t>(256 * letter + i); }

class WeightStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(
        write_safetensors(folder_ / "model.safetensors",
                          {named("q", DType::kBF16, {4, 3}), named("k", DType::kBF16, {2, 3}),
                           named("h", DType::kF16, {2, 3}), named("i", DType::kI32, {2, 3}),
                           named("p", DType::kBF16, {2, 3, 2, 1, 5})},
                          fill_u16)
            .ok());
  }
  Result<WeightStore> load(const WeightPlan& plan) {
    auto checkpoint = Checkpoint::open(folder_.path());
    if (!checkpoint) return checkpoint.error();
    return WeightStore::load(std::move(*checkpoint), plan);
  }
  std::string error(WeightSpec spec) {
    const auto store = load({std::move(spec)});
    EXPECT_FALSE(store);
    code_ = store.error().code();
    return store.error().message();
  }
  TempFolder folder_;
  Code code_{};
};

TEST_F(WeightStoreTest, ViewsWhatIsStoredInOnePiece) {
  const auto store = load({{"whole", {4, 3}, {{"q", {4, 3}, 0, 4}}},
                           {"rows", {2, 3}, {{"q", {4, 3}, 1, 2}}},
                           {"flat", {2, 30}, {{"p", {2, 3, 2, 1, 5}, 0, 2}}},
                           {"half", {2, 3}, {{"h", {2, 3}, 0, 2}}}});
  ASSERT_TRUE(store) << store.error().message();
  const ConstTensor whole = *store->get("whole");
  EXPECT_EQ(describe(whole), "bf16[4, 3]");
  EXPECT_TRUE(whole.contiguous());
  for (int i = 0; i < 12; ++i) EXPECT_EQ(whole.as<uint16_t>()[i], at('q', i));
  const ConstTensor rows = *store->get("rows");
  EXPECT_EQ(rows.data, whole.row<uint16_t>(1));
  EXPECT_EQ(describe(rows), "bf16[2, 3]");
  const ConstTensor flat = *store->get("flat");
  EXPECT_EQ(describe(flat), "bf16[2, 30]");
  EXPECT_EQ(flat.row<uint16_t>(1)[29], at('p', 59));
  EXPECT_EQ(describe(*store->get("half")), "f16[2, 3]");
  EXPECT_EQ(store->bytes_owned(), 0);
  EXPECT_EQ(store->bytes_mapped(), 24 + 12 + 120 + 12);
}

TEST_F(WeightStoreTest, PutsPartsTogether) {
  const auto store = load({{"qk", {6, 3}, {{"q", {4, 3}, 0, 4}, {"k", {2, 3}, 0, 2}}},
                           {"yes_no", {2, 3}, {{"q", {4, 3}, 3, 1}, {"q", {4, 3}, 0, 1}}}});
  ASSERT_TRUE(store) << store.error().message();
  const ConstTensor qk = *store->get("qk");
  for (int i = 0; i < 12; ++i) EXPECT_EQ(qk.as<uint16_t>()[i], at('q', i));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(qk.row<uint16_t>(4)[i], at('k', i));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(qk.data) % 64, 0u);
  const ConstTensor yes_no = *store->get("yes_no");
  EXPECT_EQ(yes_no.row<uint16_t>(0)[0], at('q', 9));
  EXPECT_EQ(yes_no.row<uint16_t>(1)[2], at('q', 2));
  EXPECT_EQ(store->bytes_owned(), 36 + 12);
  EXPECT_EQ(store->bytes_mapped(), 0);
}

TEST_F(WeightStoreTest, ViewsSurviveAMove) {
  auto store = load({{"qk", {6, 3}, {{"q", {4, 3}, 0, 4}, {"k", {2, 3}, 0, 2}}},
                     {"q", {4, 3}, {{"q", {4, 3}, 0, 4}}}});
  ASSERT_TRUE(store);
  const ConstTensor copy = *store->get("qk"), view = *store->get("q");
  const WeightStore moved = std::move(*store);
  EXPECT_EQ(copy.row<uint16_t>(5)[2], at('k', 5));
  EXPECT_EQ(view.row<uint16_t>(3)[2], at('q', 11));
}

TEST_F(WeightStoreTest, CopiesUnalignedData) {
  // Two files that differ in one byte of padding: in one of them the data are on an odd address.
  int copied = 0;
  for (const std::string padding : {"", " "}) {
    const std::string header =
        R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})" + padding;
    const uint64_t length = header.size();
    const std::string data = "\x01\x02\x03\x04";
    testing::write_file(folder_ / "model.safetensors",
                        std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
    const auto store = load({{"a", {2}, {{"a", {2}, 0, 2}}}});
    ASSERT_TRUE(store) << store.error().message();
    const ConstTensor a = *store->get("a");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data) % 2, 0u);
    EXPECT_EQ(a.as<uint16_t>()[0], 0x0201);
    EXPECT_EQ(a.as<uint16_t>()[1], 0x0403);
    copied += store->bytes_owned() == 4;
  }
  EXPECT_EQ(copied, 1);
}

TEST_F(WeightStoreTest, SaysWhatIsWrong) {
  EXPECT_EQ(error({"w", {4, 3}, {{"none", {4, 3}, 0, 4}}}), "w: the checkpoint has no none");
  EXPECT_EQ(code_, Code::kNotFound);
  EXPECT_EQ(error({"w", {4, 2}, {{"q", {4, 2}, 0, 4}}}), "w: q must be [4, 2], got [4, 3]");
  EXPECT_EQ(code_, Code::kInvalidArgument);
  EXPECT_EQ(error({"w", {2, 3}, {{"i", {2, 3}, 0, 2}}}), "w: i must be bf16, f16 or f32, got i32");
  EXPECT_EQ(code_, Code::kInvalidArgument);
  EXPECT_EQ(error({"w", {6, 3}, {{"q", {4, 3}, 0, 4}, {"h", {2, 3}, 0, 2}}}),
            "w: h must be bf16 as the rows before it, got f16");
  EXPECT_EQ(error({"w", {2, 3}, {{"q", {4, 3}, 3, 2}}}),
            "w: q has 4 rows, cannot take 2 from row 3");
  EXPECT_EQ(code_, Code::kInvalidArgument);
  EXPECT_EQ(error({"w", {1, 3}, {{"q", {4, 3}, -1, 1}}}),
            "w: q has 4 rows, cannot take 1 from row -1");
  EXPECT_EQ(error({"w", {5, 3}, {{"q", {4, 3}, 0, 4}}}),
            "w: [5, 3] has 15 elements, its parts have 12");
  EXPECT_EQ(code_, Code::kInternal);
  const WeightSpec q{"q", {4, 3}, {{"q", {4, 3}, 0, 4}}};
  EXPECT_THAT(load({q, q}).error().message(), HasSubstr("twice"));
  EXPECT_EQ(load({q})->get("k").error().message(), "the weight store has no k");
  EXPECT_EQ(load({q})->get("k").error().code(), Code::kNotFound);
}

TEST_F(WeightStoreTest, CopyWantsTheExactSize) {
  const auto checkpoint = Checkpoint::open(folder_.path());
  ASSERT_TRUE(checkpoint);
  const WeightSpec qk{"qk", {6, 3}, {{"q", {4, 3}, 0, 4}, {"k", {2, 3}, 0, 2}}};
  std::vector<std::byte> out(37);
  EXPECT_TRUE(copy_weight(qk, *checkpoint, std::span(out).first(36)).ok());
  EXPECT_EQ(copy_weight(qk, *checkpoint, std::span(out).first(35)).code(), Code::kInternal);
  EXPECT_EQ(copy_weight(qk, *checkpoint, out).code(), Code::kInternal);
}

}  // namespace
}  // namespace vlr
