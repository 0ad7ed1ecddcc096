#include "bench/support/kernel_cost.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace vlr::bench {
namespace {

TEST(KernelCost, CountsInstructionsOfAListing) {
  const SassCounts c = count_instructions(R"(
	code for sm_90a
		Function : _Z6kernelPf
	.headerflags	@"EF_CUDA_TEXT_MODE_INDEP EF_CUDA_SM90 HGMMA"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                          /* 0x00000a00ff017b82 */
                                                                                   /* 0x000fe20000000800 */
        /*0010*/              @!P0 BRA 0x210 ;                                     /* 0x0000000000000947 */
        /*0020*/                   WARPGROUP.ARRIVE ;                              /* 0x0000000000007945 */
        /*0030*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], !UPT ;  /* 0x01e0000004187df0 */
        /*0040*/             @P1   QGMMA.64x64x32.F32.E4M3.E4M3 R24, R4, gdesc[UR8] ;
        /*0050*/                   IGMMA.64x8x32.S8.S8 R24, gdesc[UR4] ;
        /*0060*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0070*/        @!PT       IMMA.16832.S8.S8 R4, R8.ROW, R12.COL, R4 ;
        /*0080*/                   MUFU.EX2 R5, R5 ;
        /*0090*/               @P2 MUFU.RSQ R6, R6 ;
        /*00a0*/                   LDL.128 R8, [R1+0x10] ;
        /*00b0*/          @!UP0    STL [R1+0x4], R2 ;
        /*00c0*/                   STL.64 [R1], R2 ;
        /*00d0*/                   LDG.E R2, desc[UR4][R2.64] ;  // not LDL
        /*10e0*/                   EXIT ;
        /*ffff0*/                  IGMMA.64x8x32.S8.S8 R24, gdesc[UR4] ;
        /*10ffe0*/            @P1  MUFU.EX2 R5, R5 ;
        // LDL R1, [R2] in a comment, /* STL */ too
)");
  EXPECT_EQ(c.all, 17);
  EXPECT_EQ(c.wgmma, 4);
  EXPECT_EQ(c.mma, 2);
  EXPECT_EQ(c.mufu, 3);
  EXPECT_EQ(c.local_loads, 1);
  EXPECT_EQ(c.local_stores, 2);
}

TEST(KernelCost, CountsNothingWhereThereIsNothing) {
  EXPECT_EQ(count_instructions("").all, 0);
  EXPECT_EQ(count_instructions("cuobjdump info: no kernels\n/*0010*/\n/*0020*/ @P0\n").all, 0);
}

TEST(KernelCost, AFileWithoutTheKernelIsAnErrorNotZero) {
  EXPECT_FALSE(count_sass("/nonexistent", "_Z6kernelPf", "sm_90a").ok());
}

TEST(KernelCost, AsksForThisProgramByItsPath) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("tools" + std::to_string(getpid()));
  fs::create_directory(folder);
  // Has the kernel in any file but itself and its shell.
  std::ofstream(folder / "cuobjdump") << R"(#!/bin/sh
[ "$1" = --version ] && echo 1 && exit
[ "$6" = /proc/self/exe ] || echo "        /*0000*/  MUFU.EX2 R5, R5 ;"
)";
  fs::permissions(folder / "cuobjdump", fs::perms::owner_all);
  const std::string path = getenv("PATH");
  setenv("PATH", (folder.string() + ":" + path).c_str(), 1);
  const auto counts = count_sass("/proc/self/exe", "_Z6kernelPf", "sm_90a");
  setenv("PATH", path.c_str(), 1);
  fs::remove_all(folder);
  ASSERT_TRUE(counts.ok()) << counts.error().message();
  EXPECT_EQ(counts->mufu, 1);
}

}  // namespace
}  // namespace vlr::bench
