#!/usr/bin/env bash
# Gets MLX's library and headers from PyPI, checks their checksum, and prints the folder to give as MLX_ROOT.
#   fetch_mlx.sh [PLATFORM]     this machine's by default; macosx_14_0_arm64 for make check-macos
# Apple's wheels for macOS 26 hold kernels for newer GPUs that those for macOS 14 lack. Other packages of MLX have none.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.32.4
fail() { printf '%s\n' "$*" >&2; exit 1; }

own_platform() {
  case "$(uname -s)-$(uname -m)" in
    Darwin-arm64)
      if [ "$(sw_vers -productVersion | cut -d. -f1)" -ge 26 ]; then echo macosx_26_0_arm64; else echo macosx_14_0_arm64; fi ;;
    Linux-x86_64) echo manylinux_2_35_x86_64 ;;
    Linux-aarch64) echo manylinux_2_35_aarch64 ;;
    *) fail "MLX has no package for $(uname -s) on $(uname -m)" ;;
  esac
}

platform=${1:-$(own_platform)}
case $platform in
  macosx_26_0_arm64) package=mlx-metal sum=514df92d41a286895d2564b4b18f4da45096bd7a4a0c47e1042f345ad5a7f936 ;;
  macosx_14_0_arm64) package=mlx-metal sum=8019b2db622599267d66cc168b2f0dbf5af929790a6c3b3913e00eabc42a7947 ;;
  manylinux_2_35_x86_64) package=mlx-cpu sum=0e0a24fa2ce8b6b94d2e6a90604e8813aa8e29fcb918bb2aa01cfb6d133d8cee ;;
  manylinux_2_35_aarch64) package=mlx-cpu sum=1289e85e64af1fd16380bf331438bfe4afe875d27afc3e0bcf35f427c488fadd ;;
  *) fail "fetch_mlx.sh knows no package of MLX for $platform" ;;
esac

target=build/mlx-$version-$platform
if [ ! -f "$target/complete" ]; then
  pip=(python3 -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    python3 -m venv build/pip >&2 || fail "MLX comes through pip: install Python 3 with pip or venv"
    pip=(build/pip/bin/python -m pip)
  fi
  echo "Fetching MLX $version for $platform" >&2
  rm -rf "$target"
  mkdir -p "$target"
  printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$sum" >"$target/requirement.txt"
  # pip refuses a file whose checksum is another.
  "${pip[@]}" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
    --platform "$platform" --require-hashes --requirement "$target/requirement.txt" --dest "$target" >&2 ||
    fail "MLX could not be fetched from PyPI: is the network there?"
  (cd "$target" && python3 -m zipfile -e ./*.whl . && rm ./*.whl)
  touch "$target/complete"
fi
echo "$PWD/$target/mlx"
