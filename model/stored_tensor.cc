#include "model/stored_tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace vlr {

int64_t StoredShape::numel() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

std::string describe_shape(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string describe(const StoredShape& t) {
  return std::string(dtype_name(t.dtype)) + describe_shape(t.shape);
}

bool StoredTensor::aligned() const {
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(dtype_bytes(dtype)) == 0;
}

}  // namespace vlr
