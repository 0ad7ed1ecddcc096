#include "kernels/core/format_bytes.h"

#include <gtest/gtest.h>

namespace vlr {
namespace {

TEST(FormatBytes, TwoDecimalsOfTheLargestUnit) {
  EXPECT_EQ(format_bytes(0), "0 bytes");
  EXPECT_EQ(format_bytes(1023), "1023 bytes");
  EXPECT_EQ(format_bytes(1024), "1.00 KiB");
  EXPECT_EQ(format_bytes(int64_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(format_bytes(int64_t{5000} << 40), "5000.00 TiB");
  EXPECT_EQ(format_bytes(-(int64_t{3} << 20)), "-3.00 MiB");
}

TEST(FormatBytes, UpIsNeverTooLittle) {
  EXPECT_EQ(format_bytes_up(1025), "1.01 KiB");
  EXPECT_EQ(format_bytes(1025), "1.00 KiB");
  EXPECT_EQ(format_bytes_up(int64_t{1} << 30), "1.00 GiB");
  EXPECT_EQ(format_bytes_up((int64_t{1} << 30) + 1), "1.01 GiB");
}

}  // namespace
}  // namespace vlr
