# Two commands matter:  make serve  and  make test.  Both install what is missing and do no work twice.
# Everything else is a thin name over a CMake preset; see HACKING.md.

BUILD := build/release
BINARY := $(BUILD)/pensieve
VENV := build/venv
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
# Where models speak: these run once more with the kernels of AVX2, which most machines have as their best.
MODEL_TESTS := tests/test_anthropic.py tests/test_openai.py tests/test_cli.py tests/test_concurrency.py
# Extra flags for the server: make serve ARGS="--port 9000 --model ~/models/x.gguf"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help serve test build unit-test e2e-test test-clients asan tsan test-arm cuda test-cuda mlx test-mlx check-macos fuzz bench clean setup setup-tests \
  quick format lint thread-safety

help:
	@echo "make serve            install what is missing, build, fetch the default models and serve them (ARGS=\"--port 9000\")"
	@echo "make test             build and run every test that this machine can run"
	@echo "make build            only the release binary, $(BINARY)"
	@echo "make asan | tsan      unit tests under AddressSanitizer+UBSan or ThreadSanitizer"
	@echo "make test-clients     install other vendors' clients and agents, and run their trials against a live server"
	@echo "make test-arm         cross-build for 64-bit Arm and run the unit tests of what computes under qemu-user"
	@echo "make cuda             the same binary with NVIDIA GPUs, build/cuda/pensieve (docs/cuda.md)"
	@echo "make test-cuda        unit tests of the operations on this machine's GPU"
	@echo "make mlx              the same binary with MLX, build/mlx/pensieve (on Apple Silicon make serve has it already)"
	@echo "make test-mlx         unit and end-to-end tests on MLX's device: the GPU of a Mac, elsewhere the processor"
	@echo "make quick            build, and the unit tests that need no model, in under a minute"
	@echo "make format | lint    put the sources into clang-format's shape; check that, and the sizes of functions and files"
	@echo "make thread-safety    clang checks which mutex guards what"
	@echo "make check-macos      compile every source for Apple Silicon on Linux, and link against its MLX"
	@echo "make fuzz             build the libFuzzer targets (clang) in build/fuzz"
	@echo "make bench            build and run the kernel benchmarks"
	@echo "make clean            remove build/"

setup:
	@tools/setup.sh build

setup-tests: setup
	@tools/setup.sh test
	@tools/setup_venv.sh $(VENV) tests/requirements.txt

# On Apple Silicon the binary has MLX, whose files come from PyPI.
HAS_APPLE_GPU := $(filter Darwin-arm64,$(shell uname -s)-$(shell uname -m))

$(BUILD)/build.ninja: | setup
	@$(if $(HAS_APPLE_GPU),MLX_ROOT="$$(tools/fetch_mlx.sh)") cmake --preset release $(if $(HAS_APPLE_GPU),-DPENSIEVE_MLX=ON)

build: setup $(BUILD)/build.ninja
	@cmake --build $(BUILD) --target pensieve -j $(JOBS)

serve: build
	@$(BINARY) serve $(ARGS)

test: setup-tests $(BUILD)/build.ninja
	@cmake --build $(BUILD) -j $(JOBS)
	@$(BINARY) pull
	@$(MAKE) --no-print-directory unit-test e2e-test

unit-test:
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

e2e-test:
	@PENSIEVE_BINARY=$(abspath $(BINARY)) $(VENV)/bin/python -m pytest -q tests
	@test "$$(uname -m)" != x86_64 || PENSIEVE_ISA=avx2 PENSIEVE_BINARY=$(abspath $(BINARY)) \
	  $(VENV)/bin/python -m pytest -q $(MODEL_TESTS)

# Other vendors' clients and agents against a live server.
test-clients: build
	@tools/setup.sh test
	@tools/setup_venv.sh build/venv_clients tests/requirements-clients.txt
	@$(BINARY) pull
	@PENSIEVE_BINARY=$(abspath $(BINARY)) build/venv_clients/bin/python -m pytest -q tests/clients

asan tsan: setup
	@cmake --preset $@ && cmake --build --preset $@ -j $(JOBS) && ctest --preset $@ -j $(JOBS)

test-arm: setup
	@tools/setup.sh arm
	@cmake --preset arm && cmake --build --preset arm -j $(JOBS) && ctest --preset arm -j $(JOBS)

# NVIDIA's compiler: on the path, where NVCC says, or where its packages put it.
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))

.PHONY: cuda-compiler
cuda-compiler: setup
	@test -n "$(NVCC)" || { echo "NVIDIA's CUDA toolkit (12.3 or newer) is not here: install it and put nvcc on the path, or name it with NVCC=/path/to/nvcc"; exit 1; }

cuda: cuda-compiler
	@CUDACXX="$(NVCC)" cmake --preset cuda && cmake --build --preset cuda --target pensieve -j $(JOBS)

test-cuda: cuda-compiler
	@CUDACXX="$(NVCC)" tools/test_cuda.sh

mlx: setup
	@MLX_ROOT="$$(tools/fetch_mlx.sh)" cmake --preset mlx && cmake --build --preset mlx --target pensieve -j $(JOBS)

test-mlx: setup-tests
	@MLX_ROOT="$$(tools/fetch_mlx.sh)" JOBS=$(JOBS) PYTHON="$(abspath $(VENV))/bin/python" tools/test_mlx.sh

# No models, and no test that only time makes long: for the loop of work.
quick: setup $(BUILD)/build.ninja
	@cmake --build $(BUILD) -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS) -E 'SmolLm2|RealModels|MiniLm|Cost\.|DownloadTest'

format lint: setup
	@tools/setup.sh lint
	@tools/lint.sh $(if $(filter format,$@),--fix)

# clang follows which mutex guards what (base/mutex.h).
thread-safety: setup
	@tools/setup.sh fuzz
	@cmake --preset thread-safety
	@cmake --build build/thread-safety --target pensieve_proto -j $(JOBS)
	@JOBS=$(JOBS) python3 tools/thread_safety.py build/thread-safety

check-macos: setup
	@JOBS=$(JOBS) tools/check_macos.sh

fuzz: setup
	@tools/setup.sh fuzz
	@cmake --preset fuzz && cmake --build --preset fuzz -j $(JOBS)

bench: setup
	@cmake --preset bench && cmake --build --preset bench -j $(JOBS) && build/bench/src/backend/backend_bench

clean:
	@rm -rf build
