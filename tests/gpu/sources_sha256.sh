#!/usr/bin/env bash
# Prints the SHA-256 of what a run on a GPU depends on: path and content of the tracked files below.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C
git rev-parse --git-dir >/dev/null
git ls-files -z -- kernels engine model include multimodal tokenizer tests/{engine,kernels,support,golden} |
  sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1
