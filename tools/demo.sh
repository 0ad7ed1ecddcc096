#!/usr/bin/env bash
# Builds the vlr command and lets the small model in demo/model rank ten documents, text and pictures.
# With a CUDA toolkit the CUDA backend is compiled in.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=cpu
if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
  preset=cuda-compile
fi
tools/configure.sh "$preset"
cmake --build "build/$preset" --target vlr_cli -j "$(nproc)"
"build/$preset/tools/vlr" rank -m demo/model -q "a shining star" demo/documents/*
