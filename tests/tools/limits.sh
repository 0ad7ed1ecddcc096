#!/usr/bin/env bash
# tests/tools/limits.sh VLR: the command where there is hardly any memory, or hardly a process may be started: it scores,
# with fewer threads perhaps, or ends with an error, and never by a signal. Root has no limit of processes, so it becomes
# nobody; who can do neither, skips (77).
set -euo pipefail
cd "$(dirname "$0")/../.."
vlr=${1:?usage: tests/tools/limits.sh VLR}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
echo '{"query": {"text": "a star"}, "documents": [{"text": "a sun"}]}' > "$scratch/request.json"

# Address space, from what the program itself takes to what it needs, in KB; libraries that do not fit are the loader's
# error (127). Sanitizers need more of it than there is.
with_memory() { (ulimit -v "$1"; shift; exec timeout 60 "$@") > "$scratch/out.txt" 2> "$scratch/err.txt"; }
xz -dc tests/golden/tokenizer/qwen3_tokenizer.json.xz > "$scratch/tokenizer.json"
"$vlr" checkpoint make a --out "$scratch/large" --tokenizer "$scratch/tokenizer.json" > /dev/null
if with_memory 4000000 "$vlr" --version; then
  least=100000
  until with_memory "$least" "$vlr" --version; do least=$((least + 4000)); done
  served=0 refused=0
  for model in demo/model "$scratch/large"; do
    for ((memory = least; memory < least + 240000; memory += 16000)); do
      code=0
      with_memory "$memory" "$vlr" score -m "$model" --device cpu -r "$scratch/request.json" --threads 2 || code=$?
      case $code in
        0) grep -q '"status"' "$scratch/out.txt"; served=$((served + 1)) ;;
        1) grep -q '^vlr: ' "$scratch/err.txt"; refused=$((refused + 1)) ;;
        *) echo "$memory KB of address space for $model: exit $code"; cat "$scratch/err.txt"; exit 1 ;;
      esac
    done
  done
  echo "from $least KB of address space on: $served served, $refused refused"
  [[ $served -gt 0 && $refused -gt 0 ]]
else
  echo "no limits of address space: $vlr does not run under one"
fi

as_user=()
if [[ $(id -u) == 0 ]]; then
  if ! setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null; then
    echo "skipped: root, without setpriv"
    exit 77
  fi
  as_user=(setpriv --reuid 65534 --regid 65534 --clear-groups)
fi
cp "$vlr" "$scratch/vlr"
mkdir "$scratch/model"
cp demo/model/*.json demo/model/*.safetensors "$scratch/model"
chmod -R a+rX "$scratch"
if ! "${as_user[@]}" "$scratch/vlr" --version > /dev/null; then
  echo "skipped: $scratch/vlr cannot be run by another user"
  exit 77
fi
short=0
for processes in 2 3 5 8 12 20 40; do
  code=0
  # exec: no shell waits beside it, which would count.
  "${as_user[@]}" bash -c "ulimit -u $processes; exec $scratch/vlr score -m $scratch/model --device cpu \
    -r $scratch/request.json --threads 64" > "$scratch/out.txt" 2> "$scratch/err.txt" || code=$?
  echo "$processes processes: exit $code, $(head -c 200 "$scratch/err.txt" | tr '\n' ' ')"
  case $code in
    0) grep -q '"log_odds"' "$scratch/out.txt" ;;
    1) grep -q '^vlr: ' "$scratch/err.txt" ;;
    *) exit 1 ;;
  esac
  if grep -q "threads instead of 64: " "$scratch/err.txt"; then short=1; fi
done
# With room for some of them the work is done.
[[ $code == 0 ]]
if [[ $short == 0 ]]; then
  echo "skipped: this user has no limit"
  exit 77
fi
