#!/bin/bash
# build.sh OUT SOURCE... : .cu files go through emu-cc first. REPO: the repository (/work/wt/attn).
set -e
here=$(dirname "$(readlink -f "$0")"); repo=${REPO:-/work/wt/attn}; out=$1; shift
flags="-std=c++20 -O2 -mavx2 -mfma -ffp-contract=off -pthread -Wall -Wno-unknown-pragmas -Wno-sign-compare $CXXFLAGS"
include="-I$here/include -I$here -I$repo -I$repo/include"
[ $here/emu.o -nt $here/emu.cc ] && [ $here/emu.o -nt $here/emu.h ] || nice g++ $flags -c $here/emu.cc -o $here/emu.o
objects=$here/emu.o
for s in "$@"; do
  case $s in
    *.cu) "$here/emu-cc" "$s" > "$out.$(basename "$s").cc"; objects="$objects $out.$(basename "$s").cc" ;;
    *) objects="$objects $s" ;;
  esac
done
nice g++ $flags $include $objects -o "$out"
