// linear_w8a8 at the layers of the 8B, on a GPU: i8 through mma_s8; f8e4m3 through cuBLASLt with
// the scales as vectors, with scalars, and widened to 16 bits. What bf16 takes is in linear_bench.

#include <algorithm>
#include <cmath>
#include <random>

#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/linear_w8a8/linear_w8a8.h"
#include "kernels/quant/eight_bit.h"

namespace vlr::bench {
namespace {
using ops::LinearW8A8;

struct Layer {
  const char* what;
  int64_t n, k;
  bool residual = false;
};
constexpr Layer k8bLayers[] = {{"8b_qkv", 6144, 4096},
                               {"8b_o", 4096, 4096},
                               {"8b_gate_up", 24576, 4096},
                               {"8b_down", 4096, 12288}};
constexpr Layer kFused[] = {{"8b_o_residual", 4096, 4096, true},
                            {"8b_down_residual", 4096, 12288, true}};

/// Normal values repeat with a period that no shape shares.
template <class T, class Make>
std::vector<T> repeated(int64_t count, uint32_t seed, Make make) {
  constexpr size_t kPeriod = 9973;
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<T> out(static_cast<size_t>(count));
  for (size_t i = 0; i < std::min(kPeriod, out.size()); ++i) out[i] = make(normal(rng));
  for (size_t i = kPeriod; i < out.size(); i += kPeriod)
    std::copy_n(out.begin(), std::min(kPeriod, out.size() - i),
                out.begin() + static_cast<ptrdiff_t>(i));
  return out;
}

struct Quantized {
  ConstTensor codes, scales;
};

/// [rows, cols]: code times scale of size about 1, the largest code at four times that.
Quantized quantized(Operands& o, int64_t rows, int64_t cols, DType dtype, uint32_t seed) {
  const float size = largest_code(dtype) / 4;
  const auto code = [=](float v) {
    return dtype == DType::kI8 ? static_cast<uint8_t>(to_int8(v, size)) : f32_to_e4m3(v * size);
  };
  const auto scale = [=](float v) { return std::exp2(v / 4) / size; };
  return {o.copy_of(repeated<uint8_t>(rows * cols, seed, code), {rows, cols}, dtype),
          o.copy_of(repeated<float>(rows, seed + 1, scale), {rows}, DType::kF32)};
}

void add_case(Machine& machine, const Layer& l, int64_t m, DType codes) {
  const std::string shape = std::string(dtype_name(codes)) + "/" + l.what + "/" +
                            std::to_string(m) + "x" + std::to_string(l.n) + "x" +
                            std::to_string(l.k);
  const auto make = [=](Operands& o) {
    const Quantized x = quantized(o, m, l.k, codes, 1), w = quantized(o, l.n, l.k, codes, 3);
    LinearW8A8::Args a;
    a.x = x.codes, a.x_scale = x.scales;
    a.w = w.codes, a.w_scale = w.scales;
    if (l.residual) a.residual = o.random({m, l.n}, DType::kBF16);
    a.y = o.uninitialised({m, l.n}, DType::kBF16);
    // The reference takes the last rows and the last columns.
    const int64_t columns = std::min<int64_t>(l.n, 300);
    const auto corner = [&](const auto& t) {
      return t.defined() ? last_rows(t, 2).slice(1, l.n - columns, columns) : t;
    };
    LinearW8A8::Args few = a;
    few.x = last_rows(a.x, 2);
    few.x_scale = last_rows(a.x_scale, 2);
    few.w = last_rows(a.w, columns);
    few.w_scale = last_rows(a.w_scale, columns);
    few.residual = corner(a.residual);
    few.y = corner(a.y);
    return Setup<LinearW8A8>{a, few, few.y};
  };
  add_benches<LinearW8A8>(machine, shape, make, {.time_reference = false});
}

void register_all(Machine& machine) {
  if (!machine.is_gpu()) return;
  for (const DType codes : {DType::kI8, DType::kF8E4M3}) {
    for (const int64_t m : {128, 1024, 8192, 16384}) {
      for (const Layer& l : k8bLayers) add_case(machine, l, m, codes);
    }
    for (const Layer& l : kFused) add_case(machine, l, 8192, codes);
  }
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
