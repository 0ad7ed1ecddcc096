// embedding: a batch of text, and one of image documents.
#include "bench/support/op_bench.h"
#include "bench/support/shapes.h"
#include "kernels/embedding/embedding.h"

namespace vlr::bench {
namespace {
using ops::Embedding;

void add_case(Machine& machine, const Rows& s, int64_t vocab_size, bool images) {
  std::vector<int32_t> ids, rows = visual_rows(s.rows);
  if (!images) std::fill(rows.begin(), rows.end(), -1);
  std::mt19937 rng(1);
  for (int64_t t = 0; t < s.rows; ++t)
    ids.push_back(static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab_size)));
  const int64_t num_visual = *std::max_element(rows.begin(), rows.end()) + 1;
  add_benches<Embedding>(machine, s.name() + (images ? "/images" : "/text"), [=](Operands& o) {
    Embedding::Args a;
    a.ids = o.copy_of(ids, {s.rows});
    a.visual_row = o.copy_of(rows, {s.rows});
    a.table = o.random({vocab_size, s.dim}, weight_dtype(s.dtype));
    if (images) a.visual = o.random({num_visual, s.dim}, s.dtype);
    a.y = o.uninitialised({s.rows, s.dim}, s.dtype);
    Embedding::Args few = a;
    few.ids = last_rows(a.ids, 600);
    few.visual_row = last_rows(a.visual_row, 600);
    few.y = last_rows(a.y, 600);
    return Setup<Embedding>{a, few, few.y};
  });
}

void register_all(Machine& machine) {
  if (!machine.is_gpu()) return add_case(machine, {1000, 256, DType::kF32}, 16128, false);
  add_case(machine, {8192, k8b.hidden, DType::kBF16}, kVocabSize, false);
  add_case(machine, {8192, k8b.hidden, DType::kBF16}, kVocabSize, true);
  add_case(machine, {8192, k2b.hidden, DType::kBF16}, kVocabSize, false);
  add_case(machine, {8192, k8b.hidden, DType::kF16}, kVocabSize, false);
}

}  // namespace
}  // namespace vlr::bench

int main(int argc, char** argv) {
  return vlr::bench::run_benches(argc, argv, vlr::bench::register_all);
}
