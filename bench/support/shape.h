/// The shape that an op is tried at: numbers by name, as the command line has them.
#ifndef VLR_BENCH_SUPPORT_SHAPE_H_
#define VLR_BENCH_SUPPORT_SHAPE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr::bench {

/// One axis of an op's shapes: "rows", what it is if nothing is said, what it means. With `names`
/// its values are words, and numbers are places among them.
struct Axis {
  std::string name;
  int64_t value = 0;
  std::string what{};
  std::vector<std::string> names{};
  bool has_lists = false;  ///< takes 16+300+77: lengths of sequences
};

/// Values of an op's axes. An axis holds one value, or a list: lengths of sequences.
class Shape {
 public:
  Shape() = default;
  Shape(std::span<const Axis> axes, DType dtype);
  /// The axes named, the others as they are by default: {"dim", 4096}.
  Shape(std::span<const Axis> axes, DType dtype, std::string label,
        std::initializer_list<std::pair<std::string_view, int64_t>> values);

  int64_t operator[](std::string_view axis) const { return list(axis).at(0); }
  const std::vector<int64_t>& list(std::string_view axis) const;
  /// kInvalidArgument, with the axes that there are, for a name that is none.
  Status set(std::string_view axis, std::vector<int64_t> values);

  DType dtype = DType::kF32;  ///< of the activations
  std::string label;          ///< what a model calls it, "8b_qkv"; may be empty

  std::string dtype_and_label() const;  ///< "bf16/8b_qkv"
  /// "rows=8192,dim=4096": what parse_shapes() takes; without axes that are 0 by default, too. Long lists are cut
  /// where `brief`.
  std::string axes_text(bool brief = false) const;
  /// "bf16/8b_qkv/m=128,n=6144,k=4096"
  std::string name() const;

  struct Value {
    Axis axis;
    std::vector<int64_t> values;
  };
  const std::vector<Value>& values() const { return values_; }

 private:
  std::vector<Value> values_;
};

/// Shapes of "rows=128:8192:*2,dim=4096": a value, a range begin:end:*factor or begin:end:+step, or
/// a list 16+300+77. Every range multiplies their number, which is bounded.
Result<std::vector<Shape>> parse_shapes(std::string_view text, std::span<const Axis> axes,
                                        DType dtype);
/// "f32", "bf16" or "f16".
Result<DType> parse_dtype(std::string_view text);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_SHAPE_H_
