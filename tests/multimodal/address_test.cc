#include "multimodal/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace vlr::media {
namespace {

bool is_public(const std::string& text) {
  const bool v6 = text.find(':') != std::string::npos;
  std::array<uint8_t, 16> bytes{};
  EXPECT_EQ(inet_pton(v6 ? AF_INET6 : AF_INET, text.c_str(), bytes.data()), 1) << text;
  return is_public_address(std::span(bytes).first(v6 ? 16 : 4));
}

// First and last address of every block that is refused, and the neighbours that are not.
TEST(Address, Ipv4) {
  for (const char* refused :
       {"0.0.0.0",         "0.255.255.255",   "10.0.0.0",        "10.255.255.255",
        "100.64.0.0",      "100.100.100.200", "100.127.255.255", "127.0.0.0",
        "127.0.0.1",       "127.255.255.255", "169.254.0.0",     "169.254.169.254",
        "169.254.255.255", "172.16.0.0",      "172.31.255.255",  "192.0.0.0",
        "192.0.0.255",     "192.0.2.0",       "192.0.2.255",     "192.88.99.0",
        "192.88.99.255",   "192.168.0.0",     "192.168.255.255", "198.18.0.0",
        "198.19.255.255",  "198.51.100.0",    "198.51.100.255",  "203.0.113.0",
        "203.0.113.255",   "224.0.0.0",       "239.255.255.255", "240.0.0.0",
        "255.255.255.255"}) {
    EXPECT_FALSE(is_public(refused)) << refused;
  }
  for (const char* allowed :
       {"1.0.0.0",         "9.255.255.255",   "11.0.0.0",        "100.63.255.255", "100.128.0.0",
        "126.255.255.255", "128.0.0.0",       "169.253.255.255", "169.255.0.0",    "172.15.255.255",
        "172.32.0.0",      "191.255.255.255", "192.0.1.0",       "192.0.1.255",    "192.0.3.0",
        "192.88.98.255",   "192.88.100.0",    "192.167.255.255", "192.169.0.0",    "198.17.255.255",
        "198.20.0.0",      "198.51.99.255",   "198.51.101.0",    "203.0.112.255",  "203.0.114.0",
        "223.255.255.255", "8.8.8.8"}) {
    EXPECT_TRUE(is_public(allowed)) << allowed;
  }
}

TEST(Address, Ipv6) {
  for (const char* refused : {"::",
                              "::1",
                              "::8.8.8.8",          // IPv4-compatible, deprecated
                              "64:ff9b:1::1",       // NAT64 of one network
                              "64:ff9b:0:0:0:1::",  // beside NAT64
                              "100::1",             // discard
                              "1fff:ffff::",        // below 2000::/3
                              "2001::1",            // Teredo
                              "2001:2::1",          // benchmarks
                              "2001:20::1",         // ORCHID
                              "2001:1ff:ffff::",    // the last of 2001::/23
                              "2001:db8::",         // documentation
                              "2001:db8:ffff::1",
                              "2002:808:808::1",  // 6to4 of 8.8.8.8
                              "2002:7f00:1::1",   // 6to4 of 127.0.0.1
                              "3fff::1",          // documentation
                              "3fff:fff:ffff::1",
                              "4000::",   // above 2000::/3
                              "5f00::1",  // segment routing
                              "fc00::1",  // unique local
                              "fd00:ec2::254",
                              "fe80::1",  // link-local
                              "fec0::1",  // site-local, deprecated
                              "ff02::1",  // multicast
                              "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}) {
    EXPECT_FALSE(is_public(refused)) << refused;
  }
  for (const char* allowed :
       {"2000::1", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2001:4860:4860::8888",
        "2003::1", "2606:4700::1111", "3ffe:ffff::1", "3fff:1000::1"}) {
    EXPECT_TRUE(is_public(allowed)) << allowed;
  }
}

TEST(Address, Ipv4InsideIpv6) {
  for (const char* prefix : {"::ffff:", "64:ff9b::"}) {
    EXPECT_TRUE(is_public(prefix + std::string("8.8.8.8"))) << prefix;
    for (const char* v4 : {"127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "224.0.0.1"})
      EXPECT_FALSE(is_public(std::string(prefix) + v4)) << prefix << v4;
  }
}

TEST(Address, OtherLengthsAreNotPublic) {
  constexpr std::array<uint8_t, 17> kBytes = {0x20, 0x03};
  for (const size_t size : {0u, 3u, 5u, 15u, 17u})
    EXPECT_FALSE(is_public_address(std::span(kBytes).first(size))) << size;
  EXPECT_TRUE(is_public_address(std::span(kBytes).first(16)));
}

}  // namespace
}  // namespace vlr::media
