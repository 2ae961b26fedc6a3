#!/usr/bin/env bash
# Builds the layers up to the backends with CUDA and runs the tests of their operations on this machine's GPU, then once
# more under compute-sanitizer where it is installed. Says so and succeeds where there is no GPU: then it only compiles.
#   test_cuda.sh [compile]     compile: no more than that, for Hopper alone
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
build=build/cuda-part
architectures=${CUDA_ARCHITECTURES:-90a-real}
cmake -G Ninja -B "$build" -DCMAKE_BUILD_TYPE=Release -DPENSIEVE_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$architectures" \
  -DPENSIEVE_FOLDERS="base;tensor;backend" >"$build.log" || { cat "$build.log"; exit 1; }
if [ "${1:-}" = compile ]; then
  cmake --build "$build" --target pensieve_backend
  echo "The CUDA backend compiles."
  exit 0
fi
cmake --build "$build" --target backend_test
test_binary=$build/src/backend/backend_test
if [ -z "$("$test_binary" --gtest_list_tests | grep cuda_ || true)" ]; then
  echo "This machine has no NVIDIA GPU that can be used: the tests on it are skipped."
  exit 0
fi
"$test_binary" --gtest_brief=1 --gtest_filter='*cuda*'
if command -v compute-sanitizer >/dev/null 2>&1; then
  for tool in memcheck racecheck initcheck synccheck; do
    echo "compute-sanitizer $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$test_binary" --gtest_brief=1 \
      --gtest_filter='*cuda*:-*LongContext*:*EveryForm*:*CoarseRowsAreNear*'
  done
fi
