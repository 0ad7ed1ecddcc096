#!/usr/bin/env bash
# tests/gpu/run.sh [BUILD [RECORD]]: runs every test that needs a GPU, and the memory contract's simulations, from a
# build folder with CUDA (build/cuda), and writes what came of it to a JSON file (tests/gpu/last_run.json).
#   VLR_COMMIT, VLR_SOURCES_SHA256: what the record names, for a copy of the sources without .git
# Ends with 1 if a test failed, or a program ended without saying what it ran.
set -euo pipefail
build=$(realpath "${1:-$(dirname "$0")/../../build/cuda}")
record=$(realpath -m "${2:-$(dirname "$0")/last_run.json}")
cd "$(dirname "$0")/../.."
export VLR_TEST_REQUIRE_CUDA=1 # a test that finds no GPU fails
export VLR_COMMIT=${VLR_COMMIT:-$(git rev-parse HEAD || echo unknown)}
export VLR_SOURCES_SHA256=${VLR_SOURCES_SHA256:-$(tests/gpu/sources_sha256.sh || echo unknown)}

kernels=$build/tests/kernels/kernels_test fill=$build/tests/kernels/synthetic_fill_test
engine=$build/tests/engine/cuda_engine_test contract=$build/tests/engine/memory_contract_test
# These read how much of the card is in use, so they have it to themselves.
measuring='Cuda.CapsAreKeptOrRefused:Cuda.RandomRequestsUnderRandomCaps'

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# start PROGRAM FILTER SHARDS: in the background. NAME.N.json is what gtest reports, NAME.N.log what was printed.
names=() processes=()
start() {
  local shard name
  for ((shard = 0; shard < $3; ++shard)); do
    name=$(basename "$1").${#names[@]}
    GTEST_TOTAL_SHARDS=$3 GTEST_SHARD_INDEX=$shard \
      "$1" --gtest_filter="$2" --gtest_output="json:$scratch/$name.json" >"$scratch/$name.log" 2>&1 &
    names+=("$name") processes+=($!)
  done
}
# For all that were started. How they ended is in their reports; one that crashed has none.
await() {
  local process
  for process in "${processes[@]}"; do wait "$process" || true; done
  processes=()
}

cores=$(nproc)
shards=$((cores < 6 ? 1 : cores > 24 ? 8 : cores / 3))
start "$kernels" '*Cuda*' "$shards"
start "$engine" "*Cuda*-$measuring" "$shards"
start "$contract" '-*Cuda*' "$shards" # on the CPU, with the CUDA kernels' word about their memory
start "$fill" '*Cuda*' 1
await
echo "tests beside each other: $SECONDS s"
start "$engine" "$measuring" 1
await
start "$contract" '*Cuda*' 1
await
echo "tests alone on the card: $SECONDS s"

VLR_GPU=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1)
export VLR_GPU
VLR_SECONDS=$SECONDS python3 - "$record" "$scratch" "${names[@]}" <<'PY'
import datetime, json, os, pathlib, sys

record, scratch = map(pathlib.Path, sys.argv[1:3])
programs, failures = {}, []
for name in sys.argv[3:]:
    program = name.split(".")[0]
    counts = programs.setdefault(program, {"run": 0, "failed": 0, "skipped": 0})
    wrong = []
    try:
        report = json.loads((scratch / (name + ".json")).read_text())
    except (OSError, ValueError):  # crashed, or could not start
        report = {"testsuites": []}
        wrong.append(f"{program}: {name} ended without a report")
    for suite in report["testsuites"]:
        for test in suite["testsuite"]:
            if test["status"] != "RUN":
                continue
            counts["run"] += 1
            counts["skipped"] += test["result"] == "SKIPPED"
            if "failures" in test:
                wrong.append(f"{program}: {test['classname']}.{test['name']}")
    counts["failed"] += len(wrong)
    failures += wrong
    if wrong:
        print(f"== {name}\n" + (scratch / (name + ".log")).read_text()[-20000:])
failures += [f"{program}: ran no test" for program, counts in programs.items() if not counts["run"]]
device, driver = os.environ["VLR_GPU"].rsplit(", ", 1)
result = {
    "commit": os.environ["VLR_COMMIT"],
    "sources_sha256": os.environ["VLR_SOURCES_SHA256"],
    "device": device,
    "driver": driver,
    "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    "seconds": int(os.environ["VLR_SECONDS"]),
    "programs": programs,
    "failures": failures,
}
text = json.dumps(result, indent=2) + "\n"
record.write_text(text)
print(text, end="")
sys.exit(1 if failures else 0)
PY
