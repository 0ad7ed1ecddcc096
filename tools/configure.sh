#!/usr/bin/env bash
# tools/configure.sh PRESET [CMAKE ARGUMENT...]: installs what is missing, then configures build/PRESET with
# what this machine has, and lab-gpu for its GPUs. demo.sh and test.sh start here.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: tools/configure.sh PRESET [CMAKE ARGUMENT...]}
shift
tools/install_deps.sh "$preset"

options=()
pkg-config --exists libavformat libavcodec libavutil libswscale || options+=(-DVLR_WITH_FFMPEG=OFF)
pkg-config --exists 'libcurl >= 7.85' || options+=(-DVLR_WITH_CURL=OFF)
pkg-config --exists libheif || options+=(-DVLR_WITH_HEIF=OFF)
pkg-config --exists stb || options+=(-DVLR_WITH_STB=OFF)
pkg-config --exists openblas || options+=(-DVLR_WITH_OPENBLAS=OFF)
if [[ $preset == lab-gpu ]]; then
  gpus=$(tools/gpus.sh)
  [[ -z $gpus ]] || options+=("-DCMAKE_CUDA_ARCHITECTURES=$gpus")
fi
if [[ $preset == @(cuda|gpu|lab-gpu)* ]] && ! command -v nvcc >/dev/null; then
  options+=(-DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc)
fi
cmake --preset "$preset" "${options[@]}" "$@"
