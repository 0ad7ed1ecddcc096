#!/usr/bin/env bash
# tests/install/kernels.sh BUILD: installs a build folder, of the kernels alone or of all of vlr, into a fresh prefix,
# builds the example of docs/kernel-lab.md against it, and lets the lab check and time its kernel.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:?usage: tests/install/kernels.sh BUILD}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --install "$build" --prefix "$scratch/prefix" > "$scratch/install.txt"
tests/check_quotes.py
cmake -S docs/examples/second_rmsnorm -B "$scratch/kernel" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" \
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_EXPORT_COMPILE_COMMANDS=ON > "$scratch/kernel.txt"
cmake --build "$scratch/kernel"
grep -q -e '-ffp-contract=off .*second_rmsnorm.cc' "$scratch/kernel/compile_commands.json"
nm -D --defined-only "$scratch/kernel/second_rmsnorm.so" | cut -d' ' -f3- > "$scratch/kernel_symbols.txt"
[[ $(grep -v '^_Z' "$scratch/kernel_symbols.txt") == vlr_kernels ]]

lab=$scratch/prefix/bin/vlr
if [[ -x $lab ]]; then
  lab() { "$lab" lab "$1" rmsnorm "${@:2}"; }
else
  lab() { "$build/bench/rmsnorm_bench" "$@"; }
  echo "without its component: not found, and why"
  if cmake -S tests/install -B "$scratch/vlr" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" > "$scratch/vlr.txt" 2>&1; then
    echo "vlr was found where its kernels alone are installed" >&2
    exit 1
  fi
  tr -s ' \n' ' ' < "$scratch/vlr.txt" | grep -q "its kernels alone are installed here: COMPONENTS kernels"
fi
second=(--device cpu --load "$scratch/kernel/second_rmsnorm.so" --impl second)
lab check "${second[@]}" --soak 100
lab check "${second[@]}" --soak 100 --shape rows=33,dim=1:9:+1 rows=7,heads=3,dim=100 > "$scratch/small.txt"
lab time "${second[@]}" --label demo --settle 0.1 --seconds 0.1
