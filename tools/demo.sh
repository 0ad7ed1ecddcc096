#!/usr/bin/env bash
# Builds the vlr command, with CUDA for the GPUs of this machine if it has any, and lets the small model in demo/model
# rank ten documents, text and pictures.
set -euo pipefail
cd "$(dirname "$0")/.."
gpus=$(tools/gpus.sh)
preset=${gpus:+gpu}
preset=${preset:-cpu}
tools/configure.sh "$preset" ${gpus:+"-DCMAKE_CUDA_ARCHITECTURES=$gpus"}
cmake --build "build/$preset" --target vlr_cli -j "$(nproc)"
"build/$preset/tools/vlr" rank -m demo/model -q "a shining star" demo/documents/*
