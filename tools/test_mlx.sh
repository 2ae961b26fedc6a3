#!/usr/bin/env bash
# Builds with MLX (MLX_ROOT: what fetch_mlx.sh prints) and runs, on MLX's device: the tests of every operation, of every
# tiny model, and the end-to-end tests over tiny models. On a Mac the device is the GPU, elsewhere the processor.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${MLX_ROOT:?the folder of MLX that tools/fetch_mlx.sh prints}"
build=${BUILD:-build/mlx}
mkdir -p build
cmake --preset mlx -B "$build" -DMLX_ROOT="$MLX_ROOT" >build/mlx.log || { cat build/mlx.log; exit 1; }
cmake --build "$build" -j "${JOBS:-2}" --target pensieve backend_test model_test
operations=$build/src/backend/backend_test
if [ -z "$("$operations" --gtest_list_tests | grep mlx_ || true)" ]; then
  echo "MLX was built in, but offers no device here: nothing was tested."
  exit 1
fi
"$operations" --gtest_brief=1 --gtest_filter='*mlx_*:Mlx*'
export PENSIEVE_TEST_DEVICE=mlx
"$build/src/model/model_test" --gtest_brief=1 --gtest_filter='TinyModels.*:Decoders.*:Longrope.*:EmbeddingGemma.*:Embedders.*'
PENSIEVE_BINARY="$PWD/$build/pensieve" "${PYTHON:-build/venv/bin/python}" -m pytest -q tests/test_models.py
