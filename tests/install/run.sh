#!/usr/bin/env bash
# tests/install/run.sh BUILD: installs the vlr of a build folder into a fresh prefix, builds the project beside this
# file against it and lets its programs score a pair. Of a shared vlr it also looks at what the library exports and at
# who may load it.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:?usage: tests/install/run.sh BUILD}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --install "$build" --prefix "$scratch/prefix"
cmake -S tests/install -B "$scratch/build" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_BUILD_TYPE=Release
cmake --build "$scratch/build"

# What the reference gives for this pair: document 4 in demo/expected.json.
expected=7.361416
pair=(demo/model "a shining star" demo/documents/star.png)
for program in score_cc score_c; do
  log_odds=$("$scratch/build/$program" "${pair[@]}")
  echo "$program: $log_odds, expected $expected"
  awk -v a="$log_odds" -v b=$expected 'BEGIN { d = a - b; exit !(d * d < 1e-6) }'
done
if "$scratch/build/score_cc" no/such/model "${pair[@]:1}"; then
  echo "score_cc: opened a model that is not there" >&2
  exit 1
fi
"$scratch/prefix/bin/vlr" --version

library=$(find "$scratch/prefix" -name 'libvlr.so.*.*.*')
if [[ -z $library ]]; then exit 0; fi

echo "exported symbols: as in tests/install/exported_symbols.txt"
nm -D --defined-only -C "$library" | cut -d' ' -f3- | LC_ALL=C sort -u > "$scratch/exported.txt"
diff tests/install/exported_symbols.txt "$scratch/exported.txt"

# A program that was linked with version 0.1 runs with that version only.
cc=${CC:-cc}
folder=$(dirname "$library")
mkdir "$scratch/old"
"$cc" -shared -fPIC -Wl,-soname,libvlr.so.0 tests/install/old_stub.c -o "$scratch/old/libvlr.so.0"
"$cc" tests/install/old_program.c "$scratch/old/libvlr.so.0" -o "$scratch/old/program"
[[ $(LD_LIBRARY_PATH="$scratch/old" "$scratch/old/program") == auto ]]
if LD_LIBRARY_PATH="$folder" "$scratch/old/program" 2> "$scratch/refusal.txt"; then
  echo "a program of version 0.1 was started with $library" >&2
  exit 1
fi
cat "$scratch/refusal.txt"
grep -q "error while loading shared libraries: libvlr.so.0:" "$scratch/refusal.txt"
[[ $(readelf -d "$library" | sed -n 's/.*soname: \[\(.*\)\]/\1/p') == libvlr.so.0.2 ]]
