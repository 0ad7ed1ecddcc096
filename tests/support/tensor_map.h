/// The tensors of a safetensors file in memory, to be changed and written back.
#ifndef VLR_TESTS_SUPPORT_TENSOR_MAP_H_
#define VLR_TESTS_SUPPORT_TENSOR_MAP_H_

#include <cstddef>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/safetensors.h"

namespace vlr::testing {

struct HeldTensor : StoredShape {
  std::vector<std::byte> data;

  /// Element i, of a type with the dtype's size.
  template <class T>
  T get(size_t i) const {
    T v;
    std::memcpy(&v, data.data() + i * sizeof(T), sizeof(T));
    return v;
  }
  template <class T>
  void set(size_t i, T v) {
    std::memcpy(data.data() + i * sizeof(T), &v, sizeof(T));
  }
};

/// By name.
class TensorMap {
 public:
  TensorMap() = default;
  explicit TensorMap(const std::string& path) {
    auto file = SafetensorsFile::open(path);
    if (!file) throw std::runtime_error(file.error().message());
    for (const auto& [name, t] : file->tensors())
      tensors_[name] = {{t.dtype, t.shape}, {t.data, t.data + t.bytes()}};
  }

  HeldTensor& operator[](const std::string& name) {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) throw std::runtime_error("no tensor " + name);
    return it->second;
  }
  void add(const std::string& name, HeldTensor tensor) { tensors_[name] = std::move(tensor); }
  void erase(const std::string& name) {
    if (tensors_.erase(name) == 0) throw std::runtime_error("no tensor " + name);
  }
  void erase_ending(std::string_view suffix) {
    std::erase_if(tensors_, [&](const auto& entry) { return entry.first.ends_with(suffix); });
  }
  auto begin() { return tensors_.begin(); }
  auto end() { return tensors_.end(); }

  /// As a checkpoint shows them; valid as long as nothing is changed.
  StoredTensors view() const {
    StoredTensors out;
    for (const auto& [name, t] : tensors_) {
      StoredTensor& view = out[name];
      static_cast<StoredShape&>(view) = t;
      view.data = t.data.data();
    }
    return out;
  }

  void write(const std::string& path) const {
    std::vector<NamedShape> shapes;
    for (const auto& [name, t] : tensors_) shapes.push_back({t, name});
    const Status status = write_safetensors(
        path, shapes, [&](const NamedShape& t, int64_t begin, std::span<std::byte> out) -> Status {
          std::memcpy(out.data(), tensors_.at(t.name).data.data() + begin, out.size());
          return {};
        });
    if (!status.ok()) throw std::runtime_error(status.message());
  }

 private:
  std::map<std::string, HeldTensor> tensors_;
};

}  // namespace vlr::testing

#endif  // VLR_TESTS_SUPPORT_TENSOR_MAP_H_
