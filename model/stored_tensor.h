/// What is known of a tensor in a checkpoint's files: name, dtype, shape, and where its bytes are.
#ifndef VLR_MODEL_STORED_TENSOR_H_
#define VLR_MODEL_STORED_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/tensor.h"

namespace vlr {

/// Dtype and shape of a tensor in a file. A scalar has no axes; an axis may be 0; any rank.
struct StoredShape {
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;

  int64_t numel() const;
  int64_t bytes() const { return numel() * dtype_bytes(dtype); }
  bool operator==(const StoredShape&) const = default;
};

/// "bf16[12, 4096]", for messages.
std::string describe(const StoredShape& t);
/// "[12, 4096]".
std::string describe_shape(std::span<const int64_t> shape);

/// A tensor of a mapped file; without data where only shapes are known.
struct StoredTensor : StoredShape {
  const std::byte* data = nullptr;  ///< may be unaligned for its dtype: see aligned()
  int64_t file_offset = 0;          ///< of data, from the start of the file
  int file_idx = 0;                 ///< which file of Checkpoint::files(); 0 for a single file

  /// False for files whose writer did not pad: copy such data before reading elements.
  bool aligned() const;
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

/// The same with a name, of a tensor that is to be written.
struct NamedShape : StoredShape {
  std::string name;
};

}  // namespace vlr

#endif  // VLR_MODEL_STORED_TENSOR_H_
