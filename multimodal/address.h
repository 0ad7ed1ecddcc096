/// Which IP addresses belong to hosts of the public Internet.
#ifndef VLR_MULTIMODAL_ADDRESS_H_
#define VLR_MULTIMODAL_ADDRESS_H_

#include <cstdint>
#include <span>

namespace vlr::media {

/// Whether an address, 4 bytes of IPv4 or 16 of IPv6 in network order, is a public host's: not
/// loopback, private, link-local, multicast, for documentation, for tests, reserved, or another
/// address in a translation whose target cannot be seen. The IANA special-purpose address
/// registries (RFC 6890, RFC 8190), without their exceptions for anycast services. An IPv4-mapped
/// or NAT64 address is what its IPv4 address is.
bool is_public_address(std::span<const uint8_t> address);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_ADDRESS_H_
