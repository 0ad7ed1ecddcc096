#!/usr/bin/env bash
# tests/tools/limits.sh VLR: the command where hardly a process may be started: it scores with fewer threads or ends with
# an error, and never by a signal. Root has no such limit, so it becomes nobody; who can do neither, skips (77).
set -euo pipefail
cd "$(dirname "$0")/../.."
vlr=${1:?usage: tests/tools/limits.sh VLR}
export OPENBLAS_NUM_THREADS=1  # OpenBLAS ends a process whose threads it cannot start

as_user=()
if [[ $(id -u) == 0 ]]; then
  if ! setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null; then
    echo "skipped: root, without setpriv"
    exit 77
  fi
  as_user=(setpriv --reuid 65534 --regid 65534 --clear-groups)
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
cp "$vlr" "$scratch/vlr"
mkdir "$scratch/model"
cp demo/model/*.json demo/model/*.safetensors "$scratch/model"
echo '{"query": {"text": "a star"}, "documents": [{"text": "a sun"}]}' > "$scratch/request.json"
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
