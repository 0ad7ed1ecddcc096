#!/usr/bin/env bash
# Prints what CMAKE_CUDA_ARCHITECTURES has to be for the GPUs of this machine (90a-real), nothing where there is none
# that vlr runs on or no CUDA toolkit; on stderr, in a line, which of these it is. demo.sh and test.sh compile for that.
set -euo pipefail
say() { echo "vlr is compiled $*" >&2; }

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
# As "9.0", a line each.
capabilities=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -E '^[0-9]+\.[0-9]+$' |
  sort -u || true)
architectures=()
for capability in $capabilities; do
  number=${capability/./}
  [[ $number -ge 80 ]] || continue
  [[ $number -eq 90 ]] && number=90a
  architectures+=("$number-real")
done

if [[ ${#architectures[@]} -eq 0 ]]; then
  say "without CUDA: no GPU of compute capability 8.0 or above is here"
elif [[ ! -x $nvcc ]]; then
  say "without CUDA: there is a GPU, but no nvcc on the PATH or in /usr/local/cuda"
else
  known=$("$nvcc" --list-gpu-arch)
  for architecture in "${architectures[@]}"; do
    number=${architecture%%[a-]*}
    if ! grep -qx "compute_$number" <<<"$known"; then
      # The driver compiles the portable path for a GPU that is newer than the toolkit.
      say "with CUDA: $nvcc does not know compute capability $number; for 8.0, as PTX too"
      echo "80"
      exit
    fi
  done
  say "for the GPUs of this machine: ${architectures[*]}"
  (IFS=';' && echo "${architectures[*]}")
fi
