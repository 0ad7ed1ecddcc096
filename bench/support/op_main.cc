// One op's program. VLR_OP_LAB is the function that describes the op.
#include "bench/support/lab.h"

namespace vlr::bench {
OpLab VLR_OP_LAB();
}

int main(int argc, char** argv) {
  return vlr::bench::lab_main(argc, argv, {vlr::bench::VLR_OP_LAB()});
}
