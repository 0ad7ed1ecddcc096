#!/usr/bin/env bash
# tools/test.sh [PRESET [CTEST ARGUMENT...]]: builds a preset (cpu, cpu-asan, cuda) and runs its tests.
# cpu, the default, also compiles the CUDA code where there is a toolkit: that needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-cpu}
[[ $# -eq 0 ]] || shift
tools/configure.sh "$preset"
cmake --build --preset "$preset" -j "$(nproc)"
if [[ $preset == cpu ]] && { command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; }; then
  tools/configure.sh cuda-compile
  cmake --build --preset cuda-compile -j "$(nproc)"
fi
ctest --preset "$preset" "$@"
