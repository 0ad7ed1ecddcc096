#!/usr/bin/env bash
# tools/install_deps.sh [PRESET]: installs with apt what the build needs and the machine lacks: Debian 12, Ubuntu 24.04
# (with universe). The presets lab and lab-gpu need less than the others.
# Without root or sudo it prints the command to run and ends with 1. Says nothing, and needs no network,
# when everything is there.
set -euo pipefail

commands=(c++:g++ cmake:cmake ninja:ninja-build pkg-config:pkg-config xz:xz-utils)
libraries=(libfmt-dev nlohmann-json3-dev libutf8proc-dev libhwy-dev libxxhash-dev libjpeg-dev libpng-dev libwebp-dev
           libcli11-dev libgtest-dev libgmock-dev libpcre2-dev)
# More picture formats, media by URL. The build goes on without them.
optional=(libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libcurl4-openssl-dev libheif-dev
          libstb-dev)
if [[ ${1:-} == lab* ]]; then
  commands=(c++:g++ cmake:cmake ninja:ninja-build pkg-config:pkg-config)
  libraries=(libfmt-dev nlohmann-json3-dev libhwy-dev libgtest-dev libgmock-dev libcli11-dev)
  optional=()
fi

missing_of() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

command -v dpkg-query >/dev/null || { echo "install_deps: no dpkg here; see cmake/dependencies.cmake" >&2; exit 1; }
missing=()
for pair in "${commands[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
mapfile -t -O "${#missing[@]}" missing < <(missing_of "${libraries[@]}")
mapfile -t extra < <(missing_of "${optional[@]}")
[[ ${#missing[@]} -eq 0 && ${#extra[@]} -eq 0 ]] && exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  as_root=(sudo)
  if ! command -v sudo >/dev/null || ! { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
    [[ ${#missing[@]} -gt 0 ]] || exit 0  # only optional ones
    echo "install_deps: packages are missing; as root, run:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]} ${extra[*]}" >&2
    exit 1
  fi
fi
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

echo "install_deps: installing ${missing[*]} ${extra[*]}" >&2
"${as_root[@]}" apt-get update -q || echo "install_deps: apt-get update failed; trying with the lists at hand" >&2
if [[ ${#missing[@]} -gt 0 ]]; then
  install "${missing[@]}"
fi
if [[ ${#extra[@]} -gt 0 ]] && ! install "${extra[@]}"; then
  echo "install_deps: going on without ${extra[*]}" >&2
fi
