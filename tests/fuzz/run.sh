#!/usr/bin/env bash
# tests/fuzz/run.sh SECONDS [TARGET...]: each libFuzzer target of build/fuzz, or those named, for so many
# seconds, from its corpus and what goldens it can read. Builds nothing. A crash, a hang, a leak or too much
# memory fails it, and the input is kept in build/fuzz/findings. VLR_BUILD names another build folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [TARGET...]}
shift
build=${VLR_BUILD:-build/fuzz}
findings=$build/findings
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Longest input and, beside the corpus, where to start from.
declare -A longest=([image]=16384 [video]=65536 [tokenizer_json]=16384)
declare -A seeds=([config_json]=tests/golden/models [request_json]=tests/golden/requests [video]=tests/golden/video)

targets=("$@")
if [[ $# -eq 0 ]]; then
  mapfile -t targets < <(sed -n 's/^vlr_add_fuzzer(\([a-z_]*\) .*/\1/p' tests/fuzz/CMakeLists.txt)
fi
failed=()
mkdir -p "$findings"
for target in "${targets[@]}"; do
  mkdir -p "$work/new/$target"
  # shellcheck disable=SC2086 # there may be no seeds
  if TMPDIR=$work "$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 \
    -max_len="${longest[$target]:-4096}" -print_final_stats=1 -artifact_prefix="$findings/$target-" \
    "$work/new/$target" "tests/fuzz/corpus/$target" ${seeds[$target]:-} >"$work/log" 2>&1; then
    result=ok
  else
    result=FAILED
    failed+=("$target")
    grep -v '^#[0-9]' "$work/log" | tail -60
  fi
  printf '%-16s %-6s %9s executions, coverage %s\n' "$target" "$result" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")" \
    "$(sed -n 's/^#.* cov: \([0-9]*\) ft: \([0-9]*\).*/\1 edges, \2 features/p' "$work/log" | tail -1)"
done
[[ ${#failed[@]} -eq 0 ]] || { echo "inputs are in $findings: ${failed[*]}" >&2; exit 1; }
