#include "engine/weights/weight_store.h"
#include "engine/weights/device_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/uio.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/load.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using ::testing::AllOf;
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
  Result<WeightStore> load(WeightPlan plan) {
    auto checkpoint = Checkpoint::open(folder_.path());
    if (!checkpoint) return checkpoint.error();
    for (WeightSpec& spec : plan) {
      for (WeightPart& part : spec.parts) {
        const StoredTensor* const stored = checkpoint->find(part.source);
        part.aligned = !stored || stored->aligned();
      }
    }
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

TEST_F(WeightStoreTest, AFileThatChangedIsNoModel) {
  const std::string file = folder_ / "model.safetensors";
  auto checkpoint = Checkpoint::open(folder_.path());
  ASSERT_TRUE(checkpoint);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const auto store =
      WeightStore::load(std::move(*checkpoint), {{"q", {4, 3}, {{"q", {4, 3}, 0, 4}}}});
  EXPECT_EQ(store.error().code(), Code::kDataLoss);
  EXPECT_THAT(store.error().message(), HasSubstr(file + ": changed since its header was read"));
}

/// A checkpoint whose tensors are larger than what is read at a time, smaller than a page and
/// between; in two files, one of which has elements on odd addresses.
class DeviceWeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::mt19937_64 random(3);
    const auto fill = [&](const NamedShape& t, int64_t, std::span<std::byte> out) {
      for (size_t i = 0; i < out.size(); i += 2) {
        const float v = static_cast<float>(random() % 4001) * 0x1p-5f - 60.0f;
        const auto bits = t.dtype == DType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
        if (t.dtype == DType::kF32) {
          std::memcpy(out.data() + i, &v, 4);
          i += 2;
        } else {
          std::memcpy(out.data() + i, &bits, 2);
        }
      }
      return Status();
    };
    const std::vector<NamedShape> aligned = {
        named("large", DType::kBF16, {3001, 3100}), named("single", DType::kF32, {1500, 1777}),
        named("half", DType::kF16, {33, 7}), named("norm.0", DType::kBF16, {5}),
        named("norm.1", DType::kBF16, {2047})};
    const std::vector<NamedShape> odd = {named("odd", DType::kBF16, {2500, 2001}),
                                         named("tiny", DType::kBF16, {3})};
    ASSERT_TRUE(write_safetensors(folder_ / shard_file_name(0, 2), aligned, fill).ok());
    ASSERT_TRUE(write_safetensors(folder_ / "odd", odd, fill).ok());
    // One more blank at the header's end.
    std::string bytes = testing::read_file(folder_ / "odd");
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    bytes.insert(8 + length, 1, ' ');
    ++length;
    std::memcpy(bytes.data(), &length, 8);
    testing::write_file(folder_ / shard_file_name(1, 2), bytes);
    std::string index;
    for (const NamedShape& t : aligned)
      index += "\"" + t.name + "\":\"" + shard_file_name(0, 2) + "\",";
    index += "\"odd\":\"" + shard_file_name(1, 2) + "\",\"tiny\":\"" + shard_file_name(1, 2) + "\"";
    testing::write_file(folder_ / "model.safetensors.index.json",
                        "{\"weight_map\":{" + index + "}}");

    plan_ = {{"large", {3001, 3100}, {{"large", {3001, 3100}, 0, 3001}}},
             {"norm.0", {5}, {{"norm.0", {5}, 0, 5}}},
             {"norm.1", {2047}, {{"norm.1", {2047}, 0, 2047}}},
             {"rows", {7, 3100}, {{"large", {3001, 3100}, 2999, 2}, {"large", {3001, 3100}, 1, 5}}},
             {"odd", {2499, 2001}, {{"odd", {2500, 2001}, 1, 2499}}},
             {"tiny", {3}, {{"tiny", {3}, 0, 3}}},
             {"single", {1500, 1777}, {{"single", {1500, 1777}, 0, 1500}}},
             {"half", {33, 7}, {{"half", {33, 7}, 0, 33}}}};
    device_ = std::move(OpenDevice::open({}, true, threads_, choices_)).value();
  }

  /// Element after element, as the contract says.
  static std::vector<std::byte> expected(const WeightSpec& spec, const Checkpoint& checkpoint,
                                         DType dtype) {
    std::vector<std::byte> out;
    for (const WeightPart& part : spec.parts) {
      const StoredTensor& t = *checkpoint.find(part.source);
      const int64_t row = t.numel() / part.shape[0];
      for (int64_t i = part.first_row * row; i < (part.first_row + part.num_rows) * row; ++i) {
        std::byte in[4], to[4];
        std::memcpy(in, t.data + i * dtype_bytes(t.dtype),
                    static_cast<size_t>(dtype_bytes(t.dtype)));
        if (t.dtype == dtype) {
          std::memcpy(to, in, 4);
        } else {
          store_f32(Tensor(to, dtype, {1}), 0, load_f32(ConstTensor(in, t.dtype, {1}), 0));
        }
        out.insert(out.end(), to, to + dtype_bytes(dtype));
      }
    }
    return out;
  }

  TempFolder folder_;
  WeightPlan plan_;
  ThreadPool threads_{2};
  const ImplChoices choices_;
  std::unique_ptr<OpenDevice> device_;
};

TEST_F(DeviceWeightsTest, EveryWayBringsTheSameBits) {
  const auto checkpoint = Checkpoint::open(folder_.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  // On the device, in memory of the host, and there in groups.
  plan_[3].place = WeightPlace::kHost;
  std::map<DType, std::map<std::string, std::vector<std::byte>>> want;
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const WeightSpec& spec : plan_)
      want[dtype][spec.name] = expected(spec, *checkpoint, dtype);
  }
  for (const bool in_host : {false, true}) {
    for (size_t i = 0; in_host && i < plan_.size(); i += 2) {
      plan_[i].place = i % 4 ? WeightPlace::kHost : WeightPlace::kStreamed;
      if (i % 4 == 0) plan_[i].group = i < 4 ? "first" : "second";
    }
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
      for (const ReadPath path : {ReadPath::kAuto, ReadPath::kPageCache, ReadPath::kDirect}) {
        for (const int num_threads : {1, 16}) {
          WeightLoading loading{.read = {.path = path, .num_threads = num_threads}};
          std::vector<int64_t> reports;
          loading.on_progress = [&](int64_t done, int64_t total) {
            EXPECT_LE(done, total);
            reports.push_back(done);
          };
          const auto w = DeviceWeights::load(*checkpoint, plan_, dtype, *device_, &loading);
          ASSERT_TRUE(w) << w.error().message();
          int64_t read = 0;
          for (const WeightSpec& spec : plan_) {
            const ConstTensor t = *w->get(spec.name);
            const auto* data = static_cast<const std::byte*>(t.data);
            if (const int g = w->group_of(spec.name); g >= 0) {
              const DeviceWeights::Group& group = w->groups()[static_cast<size_t>(g)];
              data = group.host + (data - w->slot(group.slot));
            }
            const std::vector<std::byte>& bytes = want[dtype][spec.name];
            ASSERT_EQ(std::ssize(bytes), t.bytes());
            ASSERT_EQ(std::memcmp(data, bytes.data(), bytes.size()), 0) << spec.name;
            for (const WeightPart& p : spec.parts) {
              const StoredTensor& stored = *checkpoint->find(p.source);
              read += stored.bytes() / p.shape[0] * p.num_rows;
            }
          }
          EXPECT_EQ(loading.stats.bytes, read);  // nothing else, and nothing twice
          EXPECT_GT(loading.stats.seconds, 0);
          ASSERT_FALSE(reports.empty());
          EXPECT_EQ(reports.back(), read);
        }
      }
    }
  }
}

TEST_F(DeviceWeightsTest, AValueThatF16CannotHoldNamesItsWeight) {
  const float values[] = {1, 65519, -70000, 2};
  ASSERT_TRUE(write_safetensors(folder_ / "model.safetensors", {named("big", DType::kF32, {4})},
                                [&](const NamedShape&, int64_t, std::span<std::byte> out) {
                                  std::memcpy(out.data(), values, 16);
                                  return Status();
                                })
                  .ok());
  std::filesystem::remove(folder_ / "model.safetensors.index.json");
  const auto checkpoint = Checkpoint::open(folder_.path());
  const auto w =
      DeviceWeights::load(*checkpoint, {{"w", {4}, {{"big", {4}, 0, 4}}}}, DType::kF16, *device_);
  EXPECT_EQ(w.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(w.error().message(), "w: a value is beyond 65504, the largest of f16");
}

TEST_F(DeviceWeightsTest, AShardThatIsTruncatedBeforeIsNamed) {
  for (const bool quantised : {false, true}) {
    WeightPlan plan = plan_;
    if (quantised) {
      plan = {{"large", {3001, 3100}, {{"large", {3001, 3100}, 0, 3001}}, WeightFormat::kInt8}};
    }
    const auto checkpoint = Checkpoint::open(folder_.path());
    ASSERT_TRUE(checkpoint);
    const std::string file = folder_ / shard_file_name(0, 2);
    const auto size = std::filesystem::file_size(file);
    const std::string content = testing::read_file(file);
    std::filesystem::resize_file(file, size / 2);
    const auto w = DeviceWeights::load(*checkpoint, plan, DType::kBF16, *device_);
    EXPECT_EQ(w.error().code(), Code::kDataLoss);
    EXPECT_THAT(w.error().message(),
                AllOf(HasSubstr(file), HasSubstr("expected " + std::to_string(size) + " bytes"),
                      HasSubstr("got " + std::to_string(size / 2) + " bytes")));
    testing::write_file(file, content);
  }
}

/// What another process does to a file in the middle of a load.
struct Meanwhile {
  std::string file;
  bool truncate = false;
  std::atomic<int> reads_before{0};
} meanwhile;
ssize_t read_meanwhile(int fd, void* to, size_t bytes, off_t offset, int flags) {
  if (meanwhile.reads_before-- == 0) {
    if (meanwhile.truncate) {
      std::filesystem::resize_file(meanwhile.file, 5'000'000);
    } else {
      std::filesystem::last_write_time(
          meanwhile.file, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(9));
    }
  }
  const iovec buffer{to, bytes};
  return ::preadv2(fd, &buffer, 1, offset, flags);
}

TEST_F(DeviceWeightsTest, AShardThatChangesMeanwhileIsNamed) {
  for (const WeightFormat format : {WeightFormat::kDense, WeightFormat::kInt8}) {
    for (const bool truncate : {false, true}) {
      const auto checkpoint = Checkpoint::open(folder_.path());
      ASSERT_TRUE(checkpoint);
      WeightSpec spec{"large", {3001, 3100}, {{"large", {3001, 3100}, 0, 3001}}, format};
      meanwhile.file = folder_ / shard_file_name(0, 2);
      meanwhile.truncate = truncate;
      meanwhile.reads_before = 2;
      WeightLoading loading{.read = {.num_threads = 1, .read = read_meanwhile}};
      const std::string content = testing::read_file(meanwhile.file);
      const auto w = DeviceWeights::load(*checkpoint, {spec}, DType::kBF16, *device_, &loading);
      EXPECT_EQ(w.error().code(), Code::kDataLoss);
      EXPECT_THAT(w.error().message(),
                  AllOf(HasSubstr(meanwhile.file),
                        HasSubstr(truncate ? "the file has 5000000 bytes now" : "changed since")));
      testing::write_file(meanwhile.file, content);
    }
  }
}

ssize_t read_slowly(int fd, void* to, size_t bytes, off_t offset, int flags) {
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  const iovec buffer{to, bytes};
  return ::preadv2(fd, &buffer, 1, offset, flags);
}

TEST_F(DeviceWeightsTest, ProgressMayThrow) {
  const auto checkpoint = Checkpoint::open(folder_.path());
  WeightLoading loading{.read = {.num_threads = 2, .read = read_slowly}};
  loading.on_progress = [](int64_t done, int64_t total) {
    throw std::runtime_error(done < total ? "early" : "late");
  };
  try {
    (void)DeviceWeights::load(*checkpoint, plan_, DType::kBF16, *device_, &loading);
    ADD_FAILURE();
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "early");
  }
}

}  // namespace
}  // namespace vlr
