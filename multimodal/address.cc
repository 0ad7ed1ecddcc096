#include "multimodal/address.h"

#include <algorithm>
#include <array>

namespace vlr::media {
namespace {

/// Addresses whose first `bits` bits are those of `start`.
struct Block {
  std::array<uint8_t, 16> start;
  int bits;

  bool contains(std::span<const uint8_t> address) const {
    const auto whole = static_cast<size_t>(bits / 8);
    if (!std::equal(start.begin(), start.begin() + bits / 8, address.begin())) return false;
    const int rest = bits % 8;
    return rest == 0 || (start[whole] ^ address[whole]) >> (8 - rest) == 0;
  }
};

// https://www.iana.org/assignments/iana-ipv4-special-registry and the multicast and future-use
// blocks of https://www.iana.org/assignments/ipv4-address-space.
constexpr Block kSpecialIpv4[] = {
    {{0}, 8},              // this network (RFC 791)
    {{10}, 8},             // private (RFC 1918)
    {{100, 64}, 10},       // shared, behind a carrier's NAT (RFC 6598)
    {{127}, 8},            // loopback (RFC 1122)
    {{169, 254}, 16},      // link-local (RFC 3927)
    {{172, 16}, 12},       // private (RFC 1918)
    {{192, 0, 0}, 24},     // protocol assignments (RFC 6890)
    {{192, 0, 2}, 24},     // documentation (RFC 5737)
    {{192, 88, 99}, 24},   // 6to4 relays, deprecated (RFC 7526)
    {{192, 168}, 16},      // private (RFC 1918)
    {{198, 18}, 15},       // benchmarks (RFC 2544)
    {{198, 51, 100}, 24},  // documentation (RFC 5737)
    {{203, 0, 113}, 24},   // documentation (RFC 5737)
    {{224}, 4},            // multicast (RFC 5771)
    {{240}, 4},            // reserved (RFC 1112), and the broadcast address (RFC 919)
};

// IANA has given out unicast addresses in this block alone
// (https://www.iana.org/assignments/ipv6-address-space): loopback, unique-local, link-local,
// multicast and the rest lie outside.
constexpr Block kGlobalIpv6 = {{0x20}, 3};
// https://www.iana.org/assignments/iana-ipv6-special-registry, inside of it.
constexpr Block kSpecialIpv6[] = {
    {{0x20, 0x01}, 23},  // protocol assignments (RFC 2928), Teredo (RFC 4380) among them
    {{0x20, 0x01, 0x0d, 0xb8}, 32},  // documentation (RFC 3849)
    {{0x20, 0x02}, 16},              // 6to4, to any IPv4 address (RFC 3056)
    {{0x3f, 0xff}, 20},              // documentation (RFC 9637)
};

// The last 4 bytes are an IPv4 address.
constexpr Block kIpv4Inside[] = {
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96},  // mapped (RFC 4291)
    {{0, 0x64, 0xff, 0x9b}, 96},                       // NAT64 (RFC 6052)
};

}  // namespace

bool is_public_address(std::span<const uint8_t> address) {
  const auto contains = [&](const Block& b) { return b.contains(address); };
  if (address.size() == 4) return std::ranges::none_of(kSpecialIpv4, contains);
  if (address.size() != 16) return false;
  if (std::ranges::any_of(kIpv4Inside, contains)) return is_public_address(address.last(4));
  return contains(kGlobalIpv6) && std::ranges::none_of(kSpecialIpv6, contains);
}

}  // namespace vlr::media
