#include "engine/runtime/hash.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <charconv>

namespace vlr {

struct Hasher::State {
  alignas(64) XXH3_state_t xxh;
};

std::string Hash128::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

std::optional<Hash128> Hash128::from_hex(std::string_view text) {
  if (text.size() != 32) return {};
  Hash128 out;
  const auto parse = [&](std::string_view digits, uint64_t& to) {
    const char* end = digits.data() + digits.size();
    const auto result = std::from_chars(digits.data(), end, to, 16);
    return result.ec == std::errc() && result.ptr == end;
  };
  if (!parse(text.substr(0, 16), out.high) || !parse(text.substr(16), out.low)) return {};
  return out;
}

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Hasher::~Hasher() = default;

Hasher& Hasher::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size());
  return *this;
}

Hash128 Hasher::digest() const {
  const XXH128_hash_t h = XXH3_128bits_digest(&state_->xxh);
  return {.high = h.high64, .low = h.low64};
}

}  // namespace vlr
