#!/usr/bin/env bash
# tests/install/run.sh BUILD: installs the vlr of a build folder into a fresh prefix, builds the project beside this
# file against it, with CMake, with CMake 3.22 and with pkg-config, and lets its programs score a pair. It looks at what
# the library exports, at who may load a shared one, at what becomes of a static one whose dependencies are missing, and
# at how vlr is compiled inside another project.
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
check_scores() {  # FOLDER PROGRAM...
  local folder=$1 log_odds
  shift
  for program in "$@"; do
    log_odds=$("$folder/$program" "${pair[@]}")
    echo "$program: $log_odds, expected $expected"
    awk -v a="$log_odds" -v b=$expected 'BEGIN { d = a - b; exit !(d * d < 1e-6) }'
  done
}
check_scores "$scratch/build" score_cc score_c
if "$scratch/build/score_cc" no/such/model "${pair[@]:1}"; then
  echo "score_cc: opened a model that is not there" >&2
  exit 1
fi
"$scratch/prefix/bin/vlr" --version

find "$scratch/prefix" -name LICENSE | grep -q .

echo "with pkg-config"
cc=${CC:-cc}
libdir=$(dirname "$(find "$scratch/prefix" -name 'libvlr.*' | head -1)")
export PKG_CONFIG_PATH="$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
mkdir "$scratch/pc"
read -ra flags <<< "$(pkg-config --cflags --libs vlr)"
"$cc" tests/install/score.c "${flags[@]}" "-Wl,-rpath,$libdir" -o "$scratch/pc/score_c"
check_scores "$scratch/pc" score_c
[[ $(pkg-config --modversion vlr) == "$("$scratch/pc/../prefix/bin/vlr" --version)" ]]

# The oldest CMake of a user's: Ubuntu 22.04's. Where it is not to be had, the test says so.
old_cmake=$build/cmake-3.22/bin/cmake
if [[ ! -x $old_cmake ]]; then
  python3 -m venv "$build/cmake-3.22" && timeout 120 "$build/cmake-3.22/bin/pip" install -q 'cmake==3.22.*' || true
fi > "$scratch/pip.txt" 2>&1
if [[ -x $old_cmake ]]; then
  echo "with $("$old_cmake" --version | head -1)"
  "$old_cmake" -S tests/install -B "$scratch/old-build" -DCMAKE_PREFIX_PATH="$scratch/prefix" > "$scratch/old.txt"
  "$old_cmake" --build "$scratch/old-build" --target score_c >> "$scratch/old.txt"
  check_scores "$scratch/old-build" score_c
else
  echo "SKIPPED: CMake 3.22: $(tail -1 "$scratch/pip.txt")"
fi

echo "inside a project without a build type"
cmake -S tests/install/subproject -B "$scratch/subproject" -G Ninja > "$scratch/subproject.txt"
grep -q "there is no CMAKE_BUILD_TYPE" "$scratch/subproject.txt"
commands=$scratch/subproject/compile_commands.json
grep -q linear_blocked.cc "$commands"
if grep '"command"' "$commands" | grep -v -e ' -O3 ' -e vlr_verify_; then echo "compiled without -O3" >&2; exit 1; fi
if grep -q -e -Werror "$commands"; then echo "compiled with -Werror" >&2; exit 1; fi
if grep -q '^XZ:' "$scratch/subproject/CMakeCache.txt"; then echo "looked for xz" >&2; exit 1; fi

if [[ -f $libdir/libvlr.a ]]; then
  echo "in a plugin: nothing of vlr's is exported again"
  "${CXX:-c++}" -std=c++20 -shared -fPIC tests/install/score.cc "${flags[@]}" -o "$scratch/plugin.so"
  # Weak ones are inline functions that the plugin itself compiled.
  if nm -D --defined-only -C "$scratch/plugin.so" | grep -E ' [A-TX-Z] (vlr_|vlr::)'; then exit 1; fi
  echo "without what it stands on: not found"
  mkdir "$scratch/nothing"
  env -u PKG_CONFIG_PATH PKG_CONFIG_LIBDIR="$scratch/nothing" cmake -S tests/install/missing -B "$scratch/missing" \
    -DCMAKE_PREFIX_PATH="$scratch/prefix" > "$scratch/missing.txt"
  if cmake -S tests/install/missing -B "$scratch/there" -DCMAKE_PREFIX_PATH="$scratch/prefix" > "$scratch/there.txt" 2>&1; then
    echo "not found with what it stands on either" >&2
    exit 1
  fi
  grep -q "vlr was found without what it stands on" "$scratch/there.txt"
fi

library=$(find "$scratch/prefix" -name 'libvlr.so.*.*.*')
if [[ -z $library ]]; then exit 0; fi

echo "exported symbols: as in tests/install/exported_symbols.txt"
nm -D --defined-only -C "$library" | cut -d' ' -f3- | LC_ALL=C sort -u > "$scratch/exported.txt"
diff tests/install/exported_symbols.txt "$scratch/exported.txt"

# A program that was linked with version 0.1 runs with that version only.
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
