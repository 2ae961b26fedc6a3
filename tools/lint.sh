#!/usr/bin/env bash
# The checks of shape that cost seconds: clang-format, sizes of functions and files. lint.sh [--fix]
set -euo pipefail
cd "$(dirname "$0")/.."
format=$(command -v clang-format-14 || command -v clang-format || true)
if [ -z "$format" ]; then
  echo "lint: clang-format is not here; tools/setup.sh lint installs it" >&2
  exit 1
fi
mapfile -t sources < <(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')
if [ "${1:-}" = --fix ]; then
  printf '%s\0' "${sources[@]}" | xargs -0 -P "$(getconf _NPROCESSORS_ONLN)" -n 40 "$format" -i
  exit
fi
printf '%s\0' "${sources[@]}" | xargs -0 -P "$(getconf _NPROCESSORS_ONLN)" -n 40 "$format" --dry-run -Werror ||
  { echo "lint: make format puts this right" >&2; exit 1; }
python3 tools/check_sizes.py "${sources[@]}"
