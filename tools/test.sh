#!/usr/bin/env bash
# tools/test.sh [PRESET [CTEST ARGUMENT...]]: builds a preset (cpu, cpu-asan, cuda) and runs its tests. Without one it
# builds for this machine: with CUDA for its GPUs if it has any, whose tests tests/gpu/run.sh then runs; else cpu.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-}
[[ $# -eq 0 ]] || shift
gpus=
if [[ -z $preset ]]; then
  gpus=$(tools/gpus.sh)
  preset=${gpus:+gpu}
  preset=${preset:-cpu}
fi
tools/configure.sh "$preset" ${gpus:+"-DCMAKE_CUDA_ARCHITECTURES=$gpus"}
cmake --build --preset "$preset" -j "$(nproc)"
ctest --preset "$preset" "$@"
if [[ $preset == gpu ]]; then
  tests/gpu/run.sh build/gpu build/gpu/last_run.json
fi
