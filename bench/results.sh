#!/usr/bin/env bash
# bench/results.sh BUILD OUT STEP...: the files h200_*.json of bench/results, from a build with CUDA and the lab.
#   ops       every op at the models' shapes, PyTorch in turns where it has the op
#   control   every op's first implementation against itself; a kernel that is 3 % slower; a verdict
#   company   attention between products, as in a model
#   models    the 8B's and the 2B's workloads
#   attention the 8B's workloads with each attention, twice in turns
#   quant     the 8B's in each precision, bf16 first and last
#   tuned, transformers   what PyTorch makes of the same workloads: bench/reference_gpu.py
# ops and control begin no further shape after OPS_BUDGET (540) and CONTROL_BUDGET (60) seconds. A step that fails costs
# no other.
set -uo pipefail
build=$(realpath "$1") out=$(realpath -m "$2")
shift 2
cd "$(dirname "$0")/.."
mkdir -p "$out"
export VLR_COMMIT=${VLR_COMMIT:-$(git rev-parse --short=12 HEAD)}
vlr=$build/tools/vlr
lab() { "$vlr" lab "$@"; }
# ends_with CODE COMMAND...: of a command that says its verdict by how it ends
ends_with() {
  local code=$1
  shift
  "$@"
  [[ $? == "$code" ]]
}
model() { "$vlr" bench --synthetic "$1" --commit "$VLR_COMMIT" --json "$out/h200_$2.json" "${@:3}"; }
reference() { bench/reference_gpu.py "$1" --commit "$VLR_COMMIT" --json "$out/h200_$2.json" "${@:3}"; }

ops() {
  lab time --rival 'bench/reference_gpu.py rival' --settle 0.3 --seconds 0.6 --sass --budget "${OPS_BUDGET:-540}" \
    --json "$out/h200_ops.json"
}
control() {
  local same=3 slower=4 code=0
  ends_with $same lab ab --settle 0.3 --seconds 0.5 --budget "${CONTROL_BUDGET:-60}" --json "$out/h200_aa.json" || code=1
  ends_with $slower lab ab attention --load "$build/tests/bench/slower.so" --impl flash_mma,flash_mma_slower \
    --shape q=2048,count=8 --json "$out/h200_slower.json" || code=1
  ends_with $same lab verdict --impl attention=flash_wgmma --against flash_wgmma --synthetic 8b \
    --shape q=512,count=32 q=2048,count=8 --json "$out/h200_verdict.json" --html "$out/h200_verdict.html" || code=1
  return $code
}
company() {
  lab time attention --impl flash_wgmma,flash_mma --shape q=512,count=32 q=8192,count=1 --company 0.9 \
    --json "$out/h200_company.json"
}
models() {
  model 8b 8b
  model 8b 8b_fast --fast
  model 2b 2b
}
attention() {
  local round impl
  for round in 1 2; do
    for impl in flash_wgmma flash_mma; do
      model 8b "attention_${impl}_$round" --impl "attention=$impl" --workload text100 --workload 1x8192 \
        --workload images8 --workload 1x32768
    done
  done
}
quant() {
  local mode of=(--workload 32x512 --workload 1x128)
  model 8b quant_bf16_1 "${of[@]}"
  for mode in nf4 int8 fp8 int8-weight llm-int8; do
    model 8b "quant_$mode" "${of[@]}" --quant "$mode" --host-embeddings
  done
  model 8b quant_bf16_2 "${of[@]}"
  model 8b quant_bf16_1k --workload 32x512 --batch-tokens 1024
  model 8b quant_nf4_1k --workload 32x512 --batch-tokens 1024 --quant nf4 --host-embeddings
}
tuned() { reference tuned tuned_8b --budget 170; }
transformers() {
  reference workloads transformers_8b --size 8b --budget 110
  reference workloads transformers_2b --size 2b --budget 50
}

failed=()
for step in "$@"; do
  start=$SECONDS
  "$step" || failed+=("$step")
  echo "== $step: $((SECONDS - start)) s"
done
echo "failed: ${failed[*]:-nothing}"
[[ ${#failed[@]} == 0 ]]
