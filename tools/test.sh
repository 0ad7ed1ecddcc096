#!/usr/bin/env bash
# tools/test.sh [PRESET [CTEST ARGUMENT...]]: builds a preset (cpu, cpu-asan, cuda) and runs its tests.
# cpu, the default, also compiles the CUDA code where there is a toolkit, and simulates its memory: neither needs a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-cpu}
[[ $# -eq 0 ]] || shift
tools/configure.sh "$preset"
cmake --build --preset "$preset" -j "$(nproc)"
if [[ $preset == cpu ]] && { command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; }; then
  tools/configure.sh cuda-compile
  cmake --build --preset cuda-compile --target vlr_cli memory_contract_test -j "$(nproc)"
  ctest --preset cuda-compile
fi
ctest --preset "$preset" "$@"
