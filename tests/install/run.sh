#!/usr/bin/env bash
# tests/install/run.sh BUILD: installs the vlr of a build folder into a fresh prefix, builds the project beside this
# file against it and lets its programs score a pair.
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
