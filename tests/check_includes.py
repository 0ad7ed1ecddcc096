#!/usr/bin/env python3
"""Includes run one way: a folder includes itself and those below it. Prints what does not; exits with 1 then."""
import pathlib
import re
import subprocess
import sys

# From below. What stands in one entry knows nothing of its neighbours there.
LAYERS = [["include"], ["kernels"], ["model", "tokenizer", "multimodal"], ["engine/runtime", "engine/tasks"], ["engine/weights"],
          ["engine/passes"], ["engine/placement"], ["engine/scheduling"], ["engine/api"], ["bench/support"],
          ["tools", "tests", "bench"]]
# Tests and benches of the command's own files.
ALLOWED = {("tests", "tools"), ("tools", "bench/support")}


def folder_of(path):
    path = path.removeprefix("include/") if not path.startswith("include/vlr/") else path
    if path.startswith("vlr/") or path.startswith("include/"):
        return "include"
    for level, names in enumerate(LAYERS):
        for name in names:
            if path.startswith(name + "/") and not (name == "bench" and path.startswith("bench/support/")):
                return name
    return None


def level_of(name):
    return next(i for i, names in enumerate(LAYERS) if name in names)


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    files = subprocess.run(["git", "ls-files", "*.h", "*.cc", "*.cu", "*.cuh", "*.c"], cwd=root, check=True,
                           capture_output=True, text=True).stdout.split()
    wrong = 0
    for file in files:
        here = folder_of(file)
        for line in (root / file).read_text().splitlines():
            match = re.match(r'#include "([^"]+)"', line)
            there = folder_of(match.group(1)) if match else None
            if not here or not there or here == there or (here, there) in ALLOWED:
                continue
            if level_of(there) >= level_of(here):
                print(f"{file}: {here} includes {match.group(1)}")
                wrong += 1
    print(f"{len(files)} files, {wrong} includes against the direction")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
