/// 128-bit names for content: XXH3, which runs at the speed of memory. Two contents that differ by
/// accident get different names; against somebody who crafts a collision it is no protection.
#ifndef VLR_ENGINE_RUNTIME_HASH_H_
#define VLR_ENGINE_RUNTIME_HASH_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace vlr {

struct Hash128 {
  uint64_t high = 0, low = 0;
  auto operator<=>(const Hash128&) const = default;
  std::string hex() const;  ///< 32 digits
  static std::optional<Hash128> from_hex(std::string_view text);
};

/// Of all bytes that were added, in order: where one piece ends does not count.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& add(std::span<const std::byte> bytes);
  Hasher& add(std::string_view text) { return add(std::as_bytes(std::span(text))); }
  /// A number, or a few, as they lie in memory.
  template <class T>
  requires std::is_arithmetic_v<T> Hasher& add(T value) {
    return add(std::as_bytes(std::span(&value, 1)));
  }
  Hash128 digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_HASH_H_
