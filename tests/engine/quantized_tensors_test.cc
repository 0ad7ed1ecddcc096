// Weights as bitsandbytes writes them, as vlr does, and as neither does. tests/golden/quant is by
// bitsandbytes itself: tests/fixtures/make_quant_fixtures.py.
#include "engine/weights/quantized_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "engine/weights/weight_store.h"
#include "kernels/core/load.h"
#include "kernels/dequantize/dequantize.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quant/four_bit.h"
#include "tests/support/tensor_map.h"

namespace vlr {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HeldTensor;
using ::testing::StartsWith;
using testing::TensorMap;

const std::string kWide = "wide.weight";
constexpr const char* kState = ".quant_state.bitsandbytes__nf4";

struct Layer {
  const char* name;
  int64_t rows, cols;
  int64_t numel() const { return rows * cols; }
  std::string weight() const { return std::string(name) + ".weight"; }
};
constexpr Layer kLayers[] = {
    {"wide", 96, 256}, {"straddling", 40, 72}, {"narrow", 7, 64}, {"tail", 3, 50}};

TensorMap fixture(const std::string& name) {
  return TensorMap(VLR_SOURCE_DIR "/tests/golden/quant/" + name + ".safetensors");
}

ThreadPool& threads() {
  static ThreadPool pool(2);
  return pool;
}

QuantizedTensor read(const TensorMap& tensors, const std::string& name) {
  auto t = read_quantized(tensors.view(), name, threads());
  EXPECT_TRUE(t) << t.error().message();
  return t ? *std::move(t) : QuantizedTensor{};
}

/// Why it is not read.
Status refusal(const TensorMap& tensors, const std::string& name) {
  const auto t = read_quantized(tensors.view(), name, threads());
  return t ? Status() : t.error();
}

/// The weight that a model gets from these parts, as numbers of `dtype`.
std::vector<std::byte> values_of(std::vector<QuantizedTensor> parts, DType dtype) {
  std::vector<int64_t> values;
  bool nested = true;
  for (const QuantizedTensor& p : parts) {
    values.push_back(p.rows * p.cols);
    nested = nested && p.nested_scales;
  }
  auto joined = join(std::move(parts));
  EXPECT_TRUE(joined) << joined.error().message();
  if (!joined) return {};
  const FormatInfo& format = format_info(joined->format);
  std::vector<FormatPart> of_parts;
  for (const int64_t v : values) of_parts.push_back({.values = v, .nested_scales = nested});
  std::vector<ConstTensor> beside;
  for (const Sidecar& s : format.sidecars(joined->rows, joined->cols, of_parts))
    beside.push_back(contiguous_view(joined->beside[beside.size()].data(), s.dtype, s.shape));
  const QuantizedWeight w =
      quantized_weight(joined->format,
                       ConstTensor(joined->codes.data(), format.code_dtype,
                                   {joined->rows, joined->cols / format.values_per_code}),
                       beside);
  std::vector<std::byte> out(static_cast<size_t>(w.rows * w.cols * dtype_bytes(dtype)));
  Context ctx;
  ctx.threads = &threads();
  const Status status =
      ops::run<ops::Dequantize>({.w = w, .y = Tensor(out.data(), dtype, {w.rows, w.cols})}, ctx);
  EXPECT_TRUE(status.ok()) << status.message();
  return out;
}

/// A weight of normal numbers.
std::vector<float> random_weight(int64_t rows, int64_t cols, unsigned seed = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> v(static_cast<size_t>(rows * cols));
  std::generate(v.begin(), v.end(), [&] { return normal(rng); });
  return v;
}
QuantizedTensor quantized(int64_t rows, int64_t cols, WeightFormat format, unsigned seed = 1) {
  const std::vector<float> v = random_weight(rows, cols, seed);
  return *quantize_weight(ConstTensor(v.data(), DType::kF32, {rows, cols}), format, threads());
}

/// As a file of vlr has it.
TensorMap written(const std::string& name, const QuantizedTensor& t) {
  TensorMap out;
  for (WrittenTensor& w : tensors_to_write(name, t, DType::kBF16))
    out.add(w.shape.name, {w.shape, std::move(w.bytes)});
  return out;
}

TEST(Bitsandbytes, Nf4IsReadBitForBit) {
  TensorMap file = fixture("nf4"), values = fixture("values");
  for (const Layer& layer : kLayers) {
    SCOPED_TRACE(layer.name);
    const auto stored = stored_weight(file.view(), layer.weight());
    ASSERT_TRUE(stored) << stored.error().message();
    EXPECT_EQ(stored->format, WeightFormat::kNf4);
    EXPECT_EQ(stored->shape, (std::vector<int64_t>{layer.rows, layer.cols}));
    const QuantizedTensor t = read(file, layer.weight());
    EXPECT_EQ(t.codes, file[layer.weight()].data);
    EXPECT_TRUE(t.fingerprint.empty());
    EXPECT_TRUE(values_of({t}, DType::kF32) == values[layer.name + std::string(".nf4.f32")].data);
    EXPECT_TRUE(values_of({t}, DType::kBF16) == values[layer.name + std::string(".nf4.bf16")].data);
  }
}

TEST(Bitsandbytes, Int8IsReadWithinARounding) {
  TensorMap file = fixture("int8"), values = fixture("values");
  for (const Layer& layer : kLayers) {
    SCOPED_TRACE(layer.name);
    const QuantizedTensor t = read(file, layer.weight());
    EXPECT_EQ(t.format, WeightFormat::kInt8);
    EXPECT_EQ(t.codes, file[layer.weight()].data);
    const std::vector<std::byte> got = values_of({t}, DType::kF32);
    const HeldTensor& want = values[layer.name + std::string(".int8.f32")];
    ASSERT_EQ(got.size(), want.data.size());
    // vlr rounds absmax / 127, then the product; bitsandbytes code * absmax, then that / 127.
    for (size_t i = 0; i < got.size() / 4; ++i) {
      float v;
      std::memcpy(&v, got.data() + 4 * i, 4);
      EXPECT_NEAR(v, want.get<float>(i), std::fabs(v) * 0x1p-22f) << i;
    }
  }
}

TEST(Bitsandbytes, Nf4IsWrittenByteForByte) {
  TensorMap original = fixture("original"), file = fixture("nf4");
  for (const Layer& layer : kLayers) {
    const ConstTensor dense(original[layer.weight()].data.data(), DType::kBF16,
                            {layer.rows, layer.cols});
    TensorMap own = written(layer.weight(), *quantize_weight(dense, WeightFormat::kNf4, threads()));
    for (const char* suffix : {"", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
      const std::string name = layer.weight() + suffix;
      EXPECT_EQ(describe(own[name]), describe(file[name]));
      EXPECT_TRUE(own[name].data == file[name].data) << name;
    }
    EXPECT_EQ(read(own, layer.weight()).offset, read(file, layer.weight()).offset);
    // On a CPU bitsandbytes rounds absmax to 16 bits before it looks for the nearest entry of the
    // map, so that the next one may win where it is half way between two.
    const HeldTensor &ours = own[layer.weight() + ".absmax"],
                     &theirs = file[layer.weight() + ".absmax"];
    ASSERT_EQ(describe(ours), describe(theirs));
    int64_t different = 0;
    for (size_t b = 0; b < ours.data.size(); ++b) {
      const int distance = ours.get<uint8_t>(b) - theirs.get<uint8_t>(b);
      EXPECT_LE(std::abs(distance), 1) << layer.name << ", block " << b;
      different += distance != 0;
    }
    EXPECT_LE(different, ours.numel() / 20) << layer.name;
  }
}

TEST(Bitsandbytes, Int8IsWrittenByteForByteButForTies) {
  TensorMap original = fixture("original"), file = fixture("int8");
  for (const Layer& layer : kLayers) {
    const HeldTensor& weight = original[layer.weight()];
    const ConstTensor dense(weight.data.data(), DType::kBF16, {layer.rows, layer.cols});
    TensorMap own =
        written(layer.weight(), *quantize_weight(dense, WeightFormat::kInt8, threads()));
    for (const std::string suffix : {".SCB", ".weight_format"}) {
      const std::string name = layer.name + suffix;
      EXPECT_EQ(describe(own[name]), describe(file[name]));
      EXPECT_TRUE(own[name].data == file[name].data) << name;
    }
    // A value of half its row's absmax is 63.5 of 127: bitsandbytes multiplies it by 127 times the
    // reciprocal of absmax, vlr by 127 / absmax, which may differ in the last bit.
    const HeldTensor &ours = own[layer.weight()], &theirs = file[layer.weight()];
    ASSERT_EQ(describe(ours), describe(theirs));
    for (size_t i = 0; i < ours.data.size(); ++i) {
      const int distance = ours.get<int8_t>(i) - theirs.get<int8_t>(i);
      if (distance == 0) continue;
      EXPECT_EQ(std::abs(distance), 1) << layer.name << " " << i;
      const auto row = i / static_cast<size_t>(layer.cols);
      EXPECT_EQ(2 * std::fabs(load_f32(dense, static_cast<int64_t>(i))),
                file[layer.name + std::string(".SCB")].get<float>(row))
          << layer.name << " " << i;
    }
  }
}

TEST(QuantizedTensors, WhatIsWrittenIsRead) {
  for (const FormatInfo& info : quantized_formats()) {
    SCOPED_TRACE(info.name);
    const WeightFormat format = info.format;
    const QuantizedTensor t = quantized(70, 66, format);
    const TensorMap file = written("m.weight", t);
    const QuantizedTensor got = read(file, "m.weight");
    EXPECT_EQ(got.format, format);
    EXPECT_EQ(got.rows, 70);
    EXPECT_EQ(got.cols, 66);
    EXPECT_EQ(got.codes, t.codes);
    EXPECT_EQ(got.byte_scales, t.byte_scales);
    EXPECT_EQ(got.scales, t.scales);
    EXPECT_EQ(got.map, t.map);
    EXPECT_EQ(got.offset, t.offset);
    EXPECT_EQ(got.fingerprint, t.fingerprint);
    const StoredTensors view = file.view();
    for (const auto& [name, tensor] : view)
      EXPECT_EQ(belongs_to_quantized(view, name), name != "m.weight") << name;
  }
}

TEST(QuantizedTensors, FingerprintsAreProductsWithTheProbeVector) {
  const std::vector<float> v = random_weight(3, 100);
  const QuantizedTensor t =
      *quantize_weight(ConstTensor(v.data(), DType::kF32, {3, 100}), WeightFormat::kFp8, threads());
  int64_t plus = 0;
  for (int64_t k = 0; k < 100; ++k) {
    EXPECT_EQ(std::fabs(probe_sign(k)), 1);
    plus += probe_sign(k) > 0;
  }
  EXPECT_NEAR(static_cast<double>(plus), 50, 15);
  for (size_t r = 0; r < 3; ++r) {
    double sum = 0;
    for (size_t k = 0; k < 100; ++k)
      sum += static_cast<double>(v[100 * r + k] * probe_sign(static_cast<int64_t>(k)));
    EXPECT_EQ(t.fingerprint[r], static_cast<float>(sum));
  }
}

TEST(QuantizedTensors, CodesHideNothing) {
  for (const FormatInfo& info : quantized_formats()) {
    for (const float wrong : {NAN, -INFINITY}) {
      std::vector<float> v = random_weight(3, 100);
      v[150] = wrong;
      const auto t =
          quantize_weight(ConstTensor(v.data(), DType::kF32, {3, 100}), info.format, threads());
      EXPECT_EQ(t.error().code(), Code::kInvalidArgument);
      EXPECT_EQ(t.error().message(), "row 1 has a value that is not finite");
    }
  }
}

TEST(JoinedParts, HaveTheValuesOfTheParts) {
  // 128, 32 and 32 blocks of 64: a scale for every 32 blocks. 90 values are no block.
  for (const FormatInfo& info : quantized_formats()) {
    SCOPED_TRACE(info.name);
    const WeightFormat format = info.format;
    const std::vector<QuantizedTensor> parts = {quantized(64, 128, format, 1),
                                                quantized(16, 128, format, 2),
                                                quantized(16, 128, format, 3)};
    std::vector<std::byte> want;
    for (const QuantizedTensor& part : parts) {
      const std::vector<std::byte> values = values_of({part}, DType::kF32);
      want.insert(want.end(), values.begin(), values.end());
    }
    EXPECT_TRUE(values_of(parts, DType::kF32) == want);
    const auto joined = join(parts);
    EXPECT_EQ(joined->fingerprint.size(), 96u);
    EXPECT_EQ(joined->beside[1].size(), is_four_bit(format) ? 2u * 6 * sizeof(float) : 0u);
    std::vector<QuantizedTensor> without = parts;
    without[1].fingerprint.clear();
    EXPECT_TRUE(join(without)->fingerprint.empty());
  }
  EXPECT_EQ(four_bit_group_blocks(std::vector<int64_t>{8192, 2048, 2048}), 32);
  EXPECT_EQ(four_bit_group_blocks(std::vector<int64_t>{90}), 256);
  EXPECT_EQ(four_bit_group_blocks(std::vector<int64_t>{64, 90}), 1);
}

TEST(JoinedParts, NeedToFit) {
  constexpr WeightFormat kNf4 = WeightFormat::kNf4, kInt8 = WeightFormat::kInt8;
  const auto error = [](std::vector<QuantizedTensor> parts) {
    return join(std::move(parts)).error().message();
  };
  EXPECT_EQ(error({quantized(2, 64, kNf4), quantized(2, 64, kInt8)}),
            "parts of one weight are nf4 with 64 columns and int8 with 64");
  EXPECT_EQ(error({quantized(2, 64, kInt8), quantized(2, 66, kInt8)}),
            "parts of one weight are int8 with 64 columns and int8 with 66");
  EXPECT_EQ(error({quantized(3, 30, kNf4), quantized(2, 30, kNf4)}),
            "a part of 90 values in nf4 ends within a block of 64");
  QuantizedTensor other = quantized(2, 64, kNf4);
  other.map[3] = -0.9f;
  EXPECT_EQ(error({quantized(2, 64, kNf4), other}),
            "parts of one weight have nested maps of their own");
}

/// A way to damage a weight, and what its refusal says.
struct Corruption {
  const char* name;
  std::function<void(TensorMap&)> corrupt;
  std::string message;
};

void expect_refused(const TensorMap& good, const std::string& weight,
                    const std::vector<Corruption>& corruptions) {
  for (const Corruption& c : corruptions) {
    TensorMap bad = good;
    c.corrupt(bad);
    EXPECT_THAT(refusal(bad, weight).message(), AllOf(StartsWith("wide"), HasSubstr(c.message)))
        << c.name;
  }
}

/// Replaces a text in quant_state.
auto state_with(std::string from, std::string to) {
  return [from = std::move(from), to = std::move(to)](TensorMap& t) {
    const bool nf4 = t.view().contains(kWide + kState);
    HeldTensor& state = t[kWide + (nf4 ? kState : ".quant_state.bitsandbytes__fp4")];
    std::string text(reinterpret_cast<const char*>(state.data.data()), state.data.size());
    ASSERT_NE(text.find(from), text.npos) << text;
    text.replace(text.find(from), from.size(), to);
    state.shape = {std::ssize(text)};
    const auto bytes = std::as_bytes(std::span(text));
    state.data.assign(bytes.begin(), bytes.end());
  };
}
auto without(std::string name) {
  return [name = std::move(name)](TensorMap& t) { t.erase(name); };
}
template <class T>
auto value(std::string name, size_t i, T v) {
  return [=](TensorMap& t) { t[name].set(i, v); };
}
auto shorter(std::string name) {
  return [name = std::move(name)](TensorMap& t) {
    HeldTensor& tensor = t[name];
    const size_t row = tensor.data.size() / static_cast<size_t>(tensor.shape[0]);
    tensor.shape[0] -= 1;
    tensor.data.resize(tensor.data.size() - row);
  };
}

auto zeros(std::string name, DType dtype, int64_t count) {
  return [=](TensorMap& t) {
    HeldTensor& tensor = t[name];
    tensor.dtype = dtype;
    tensor.shape = {count};
    tensor.data.assign(static_cast<size_t>(tensor.bytes()), std::byte{0});
  };
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Corrupted, ForeignNf4) {
  expect_refused(
      fixture("nf4"), kWide,
      {
          {"infinite scale", value(kWide + ".nested_absmax", 1, kInfinity),
           "scale 1 is inf, expected 0 to 10000"},
          {"huge scale", value(kWide + ".nested_absmax", 0, 1e6f), "scale 0 is 1000000"},
          {"negative scale", value(kWide + ".nested_absmax", 0, -1.0f), "scale 0 is -1"},
          {"NaN as scale", value(kWide + ".nested_absmax", 0, std::nanf("")), "scale 0 is nan"},
          {"fp4's codebook", value(kWide + ".quant_map", 1, 0.0052083f),
           "its codebook is not nf4's: code 1 is 0.0052083, expected -0.6961928"},
          {"NaN in the codebook", value(kWide + ".quant_map", 0, std::nanf("")),
           "its codebook is not nf4's"},
          {"nested map out of order", value(kWide + ".nested_quant_map", 9, 0.5f),
           "its nested map is not ascending within [-1, 1]"},
          {"fewer codes", shorter(kWide),
           "12288 bytes for a weight [96, 256] in nf4, got u8[12287, 1]"},
          {"fewer absmax", shorter(kWide + ".absmax"), "expected 384 values of u8, got u8[383]"},
          {"fewer scales", shorter(kWide + ".nested_absmax"),
           "expected 2 values of f32, got f32[1]"},
          {"a short codebook", shorter(kWide + ".quant_map"),
           "expected 16 values of f32, got f32[15]"},
          {"a short map", shorter(kWide + ".nested_quant_map"),
           "expected 256 values of f32, got f32[255]"},
          {"absmax in f32", zeros(kWide + ".absmax", DType::kF32, 384),
           "expected 384 values of u8, got f32[384]"},
          {"no absmax", without(kWide + ".absmax"), ".absmax: the checkpoint has none"},
          {"no codebook", without(kWide + ".quant_map"), ".quant_map: the checkpoint has none"},
          {"no state", without(kWide + kState),
           "has an absmax and no quant_state.bitsandbytes__nf4 or quant_state.bitsandbytes__fp4"},
          {"fp4's state",
           [](TensorMap& t) {
             t.add(kWide + ".quant_state.bitsandbytes__fp4", t[kWide + kState]);
             t.erase(kWide + kState);
           },
           "its codebook is not fp4's: code 0 is -1, expected 0"},
          {"two states",
           [](TensorMap& t) { t.add(kWide + ".quant_state.bitsandbytes__fp4", t[kWide + kState]); },
           "has a quant_state.bitsandbytes__nf4 and a quant_state.bitsandbytes__fp4"},
      });
}

TEST(Corrupted, CodesAreTheQuantisersBusiness) {
  // Ranges with a margin, other roundings, rows that were left alone: what a row's or a block's
  // largest code is says nothing of damage.
  for (const std::byte code : {std::byte{0x77}, std::byte{0xff}, std::byte{0x68}}) {
    TensorMap nf4 = fixture("nf4");
    std::ranges::fill(nf4[kWide].data, code);
    EXPECT_EQ(refusal(nf4, kWide).message(), "");
  }
  TensorMap int8 = fixture("int8");
  int8[kWide].set(1000, int8_t{-128});
  for (size_t i = 0; i < 256; ++i) int8[kWide].set(3 * 256 + i, int8_t{5});
  EXPECT_EQ(refusal(int8, kWide).message(), "");
}

TEST(Corrupted, CodesThatAreNoNumbers) {
  TensorMap fp8 = written(kWide, quantized(96, 256, WeightFormat::kFp8));
  fp8.erase("wide.weight_checksum");
  expect_refused(
      fp8, kWide,
      {{"NaN", value(kWide, 300, uint8_t{0x7f}), "row 1 has a code that is not a number"},
       {"-NaN", value(kWide, 0, uint8_t{0xff}), "row 0 has a code that is not a number"}});
}

/// What compressed-tensors and bitsandbytes read from their own files, in the dtype of the scales
/// (tests/fixtures/make_published_fixtures.py).
TEST(Published, LayoutsAreReadBitForBit) {
  TensorMap file = fixture("published"), values = fixture("published_values");
  for (const auto& [format, name] :
       std::vector<std::pair<WeightFormat, std::string>>{{WeightFormat::kFp8, "fp8_channel_bf16"},
                                                         {WeightFormat::kFp8, "fp8_channel_f16"},
                                                         {WeightFormat::kFp8, "fp8_channel_f32"},
                                                         {WeightFormat::kFp8, "fp8_tensor_bf16"},
                                                         {WeightFormat::kFp8, "fp8_margin"},
                                                         {WeightFormat::kInt8, "int8_channel_bf16"},
                                                         {WeightFormat::kInt8, "int8_channel_f32"},
                                                         {WeightFormat::kInt8, "int8_tensor_f32"},
                                                         {WeightFormat::kInt8, "int8_margin"},
                                                         {WeightFormat::kNf4, "nf4_single"},
                                                         {WeightFormat::kFp4, "fp4_single"}}) {
    SCOPED_TRACE(name);
    const std::string weight = name + ".weight";
    const auto stored = stored_weight(file.view(), weight);
    ASSERT_TRUE(stored) << stored.error().message();
    EXPECT_EQ(stored->format, format);
    EXPECT_EQ(stored->shape, (std::vector<int64_t>{24, 128}));
    EXPECT_EQ(stored->nested_scales, !name.ends_with("4_single"));
    const HeldTensor& want = values[name + ".value"];
    EXPECT_TRUE(values_of({read(file, weight)}, want.dtype) == want.data);
    for (const auto& [tensor, held] : file) {
      if (!tensor.starts_with(name + ".") || tensor == weight) continue;
      EXPECT_TRUE(belongs_to_quantized(file.view(), tensor)) << tensor;
    }
  }
}

TEST(Published, PartsOfOneWeightMayHaveNestedScalesOrNot) {
  TensorMap file = fixture("published");
  const QuantizedTensor single = read(file, "nf4_single.weight"),
                        nested = quantized(24, 128, WeightFormat::kNf4);
  std::vector<std::byte> want = values_of({single}, DType::kF32);
  const std::vector<std::byte> more = values_of({nested}, DType::kF32);
  want.insert(want.end(), more.begin(), more.end());
  EXPECT_TRUE(values_of({single, nested}, DType::kF32) == want);
}

TEST(Published, ScalesOfBlocksAndZeroPointsAreRefusedByName) {
  TensorMap file = fixture("published");
  const auto says = [&](const std::function<void(TensorMap&)>& change) {
    TensorMap t = file;
    change(t);
    return refusal(t, "fp8_channel_f32.weight").message();
  };
  const auto scales = [](std::vector<int64_t> shape) {
    HeldTensor t{{DType::kF32, std::move(shape)}, {}};
    t.data.resize(static_cast<size_t>(t.bytes()));
    return t;
  };
  EXPECT_EQ(
      says([&](TensorMap& t) {
        t.add("fp8_channel_f32.weight_scale", scales({3, 2}));
      }),
      "fp8_channel_f32.weight_scale: expected [24, 1] or [1], a scale a row or one of all, got "
      "f32[3, 2]: scales of blocks are not read");
  EXPECT_THAT(says([&](TensorMap& t) {
                t.add("fp8_channel_f32.weight_scale_inv", scales({1, 1}));
              }),
              HasSubstr("weight_scale_inv: f32[1, 1], scales of blocks, are not read"));
  EXPECT_THAT(says([&](TensorMap& t) {
                t.add("fp8_channel_f32.weight_zero_point", scales({24, 1}));
              }),
              HasSubstr("weight_zero_point: codes with a zero point of their own are not read"));
  EXPECT_EQ(says([&](TensorMap& t) { t.erase("fp8_channel_f32.weight_scale"); }),
            "fp8_channel_f32.weight_scale: the checkpoint has none");
}

TEST(Corrupted, StateOfForeignNf4) {
  expect_refused(
      fixture("nf4"), kWide,
      {
          {"no JSON", state_with("{", ""), "not JSON"},
          {"nothing", zeros(kWide + kState, DType::kU8, 0), "not JSON"},
          {"no object",
           [](TensorMap& t) {
             zeros(kWide + kState, DType::kU8, 1)(t);
             t[kWide + kState].set(0, '7');
           },
           "expected a JSON object"},
          {"floats", zeros(kWide + kState, DType::kF32, 4), "expected bytes, got f32[4]"},
          {"blocks of 128", state_with("\"blocksize\": 64", "\"blocksize\": 128"),
           "blocksize must be 64, got 128"},
          {"a text",
           state_with("\"blocksize\": 64",
                      "\"blocksize\": \"" + std::string(158, 'x') + "\u00e9\""),
           "blocksize must be 64, got \"" + std::string(158, 'x') + "..."},
          {"no blocksize", state_with("\"blocksize\": 64, ", ""), "blocksize must be 64, got none"},
          {"nested blocks", state_with("_blocksize\": 256", "_blocksize\": 64"),
           "nested_blocksize must be 256, got 64"},
          {"no offset", state_with("nested_offset", "nested"),
           "nested_offset must be a number, got none"},
          {"offset", state_with("nested_offset\": ", "nested_offset\": 1e9, \"x\": "),
           "nested_offset must be a finite number of moderate size"},
          {"infinite offset", state_with("nested_offset\": ", "nested_offset\": 1e99999, \"x\": "),
           "not JSON"},
          {"text", state_with("nested_offset\": ", "nested_offset\": \"a\", \"x\": "),
           "nested_offset must be a number, got \"a\""},
          {"shape of one", state_with("[96, 256]", "[24576]"), "shape must be [N, K], got [24576]"},
          {"odd columns", state_with("[96, 256]", "[8192, 3]"), "with an even K"},
          {"negative", state_with("[96, 256]", "[-96, -256]"), "with an even K"},
          {"fractions", state_with("[96, 256]", "[96.0, 256]"), "with an even K"},
          {"huge", state_with("[96, 256]", "[18446744073709551615, 4611686018427387904]"),
           "with an even K"},
          {"another shape", state_with("[96, 256]", "[96, 258]"),
           "12384 bytes for a weight [96, 258] in nf4, got u8[12288, 1]"},
      });
}

TEST(Corrupted, ForeignInt8) {
  expect_refused(
      fixture("int8"), kWide,
      {
          {"infinite scale", value("wide.SCB", 7, kInfinity),
           "scale 7 is inf, expected 0 to 10000"},
          {"negative scale", value("wide.SCB", 7, -1.0f), "scale 7 is -1"},
          {"fewer scales", shorter("wide.SCB"), "expected 96 values of f32, got f32[95]"},
          {"no scales", without("wide.SCB"), "wide.SCB: the checkpoint has none"},
          {"tiles of an old bitsandbytes", value("wide.weight_format", 0, uint8_t{2}),
           "wide.weight_format: expected 0, row-major codes, got 2"},
      });
}

TEST(Corrupted, ForeignMxfp4) {
  TensorMap foreign = written(kWide, quantized(96, 256, WeightFormat::kMxfp4));
  foreign.erase("wide.weight_checksum");
  EXPECT_TRUE(refusal(foreign, kWide).ok());
  expect_refused(foreign, kWide,
                 {
                     {"a scale that is NaN", value("wide.weight_scale", 7, uint8_t{255}),
                      "scale 7 is nan, expected 0 to 10000"},
                     {"huge scale", value("wide.weight_scale", 0, uint8_t{141}),
                      "scale 0 is 16384, expected 0 to 10000"},
                     {"fewer scales", shorter("wide.weight_scale"),
                      "weight_scale: expected 768 values of u8, got u8[95, 8]"},
                     {"scales in f32", zeros("wide.weight_scale", DType::kF32, 768),
                      "weight_scale: expected 768 values of u8, got f32[768]"},
                     {"no scales", without("wide.weight_scale"), "wide.weight is not quantised"},
                 });
}

TEST(Corrupted, OwnFilesHaveChecksums) {
  for (const FormatInfo& info : quantized_formats()) {
    SCOPED_TRACE(info.name);
    const WeightFormat format = info.format;
    const TensorMap good = written(kWide, quantized(96, 256, format));
    const std::string scales = is_four_bit(format)             ? kWide + ".nested_absmax"
                               : format == WeightFormat::kInt8 ? "wide.SCB"
                                                               : "wide.weight_scale";
    const auto one_bit = [&](const std::string& name) {
      return [=](TensorMap& t) { t[name].data[1] ^= std::byte{1}; };
    };
    std::vector<Corruption> corruptions = {
        {"a code", one_bit(kWide), "its bytes have the checksum "},
        {"a scale", one_bit(scales), "its bytes have the checksum "},
        {"an infinite scale", value(scales, 0, kInfinity), "its bytes have the checksum "},
        {"the checksum", one_bit("wide.weight_checksum"), "its bytes have the checksum "},
        {"a short checksum", shorter("wide.weight_checksum"),
         "weight_checksum: expected 8 values of u8, got u8[7]"},
        {"a checksum of another dtype", zeros("wide.weight_checksum", DType::kU64, 1),
         "weight_checksum: expected 8 values of u8, got u64[1]"},
        {"a short fingerprint", shorter("wide.weight_fingerprint"),
         "weight_fingerprint: expected 96 values of f32, got f32[95]"},
        {"a fingerprint of another dtype",
         [](TensorMap& t) { t["wide.weight_fingerprint"].dtype = DType::kI32; },
         "weight_fingerprint: expected 96 values of f32, got i32[96]"}};
    if (is_four_bit(format)) {
      corruptions.push_back(
          {"an absmax code", one_bit(kWide + ".absmax"), "its bytes have the checksum "});
      corruptions.push_back({"the nested map", value(kWide + ".nested_quant_map", 128, 1e-9f),
                             "its bytes have the checksum "});
      corruptions.push_back({"the offset", state_with("nested_offset\":0.0", "nested_offset\":0.1"),
                             "its bytes have the checksum "});
    }
    expect_refused(good, kWide, corruptions);
  }
}

}  // namespace
}  // namespace vlr
