// The device's synthetic weights against the host's, bit by bit.
#include "kernels/cuda/synthetic_fill.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/core/load.h"
#include "model/synthetic.h"
#include "tests/support/op_tester.h"

namespace vlr {
namespace {

struct Case {
  const char* name;
  std::vector<int64_t> shape;
  int64_t begin, count;  // elements of the tensor
};

const Case kCases[] = {
    {"model.language_model.layers.3.mlp.down_proj.weight", {300, 12288}, 12288 * 7, 12288 * 200},
    {"model.visual.blocks.0.mlp.linear_fc2.weight", {1152, 4304}, 4304 * 3 + 5, 4304 * 11 + 3},
    {"model.language_model.embed_tokens.weight", {151936, 64}, 64 * 151930, 64 * 6},
    {"model.visual.blocks.0.norm1.weight", {1152}, 0, 1152},
    {"model.visual.blocks.0.norm1.bias", {1152}, 1, 6},
    {"model.visual.pos_embed.weight", {2304, 1152}, 0, 1},
};

/// What the host makes, bf16.
std::vector<uint16_t> expected(const Case& c) {
  NamedShape tensor;
  tensor.dtype = DType::kBF16;
  tensor.shape = c.shape;
  tensor.name = c.name;
  std::vector<uint16_t> out(static_cast<size_t>(c.count));
  fill_synthetic(tensor, c.begin, out);
  return out;
}

uint64_t base_at(const SyntheticTensor& t, int64_t begin) {
  return t.base + static_cast<uint64_t>(begin);
}

TEST(CudaSyntheticFill, HasTheBitsOfTheHost) {
  if (Status s = test::synchronize(Device::kCuda); !s.ok()) GTEST_SKIP() << s.message();
  for (const Case& c : kCases) {
    for (const int64_t offset : {0, 1, 7}) {  // of the first element from a 16-byte boundary
      SCOPED_TRACE(c.name + (" +" + std::to_string(offset)));
      const std::vector<uint16_t> want = expected(c);
      test::Operand out({c.count + 16}, DType::kBF16, false);
      out.fill(1234);
      const std::vector<std::byte> before = out.bytes();
      const SyntheticTensor t = synthetic_tensor(c.name, c.shape);
      auto* data = out.view().as<uint16_t>() + offset;
      ASSERT_TRUE(
          cuda::fill_synthetic(data, c.count, base_at(t, c.begin), t.shift, t.table(), nullptr)
              .ok());
      ASSERT_TRUE(test::synchronize(Device::kCuda).ok());
      EXPECT_EQ(std::memcmp(data, want.data(), want.size() * 2), 0);
      const std::vector<std::byte> after = out.bytes();
      const auto same = [&](int64_t first, int64_t count) {
        return std::memcmp(before.data() + first * 2, after.data() + first * 2,
                           static_cast<size_t>(count) * 2) == 0;
      };
      EXPECT_TRUE(same(0, offset) && same(offset + c.count, 16 - offset)) << "wrote too much";
    }
  }
}

TEST(CudaSyntheticFill, F16HoldsTheSameNumbers) {
  if (Status s = test::synchronize(Device::kCuda); !s.ok()) GTEST_SKIP() << s.message();
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const std::vector<uint16_t> want = expected(c);
    test::Operand out({c.count}, DType::kF16, false);
    const SyntheticTensor t = synthetic_tensor(c.name, c.shape, DType::kF16);
    ASSERT_TRUE(cuda::fill_synthetic(out.view().as<uint16_t>(), c.count, base_at(t, c.begin),
                                     t.shift, t.table(), nullptr)
                    .ok());
    ASSERT_TRUE(test::synchronize(Device::kCuda).ok());
    int64_t different = 0;
    for (int64_t i = 0; i < c.count; ++i)
      different += load_f32(out.view(), i) != bf16_to_f32(want[static_cast<size_t>(i)]);
    EXPECT_EQ(different, 0);
  }
}

TEST(CudaSyntheticFill, RefusesATableOfAnotherSize) {
  const uint16_t values[4] = {};
  const Status s = cuda::fill_synthetic(nullptr, 8, 0, 57, values, nullptr);
  EXPECT_EQ(s.code(), Code::kInternal);
}

}  // namespace
}  // namespace vlr
