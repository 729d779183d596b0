# make help        Everything is installed into .venv, once; after that no target but clean needs a network.

PYTHON ?= python3
BENCH ?= ../shared/bench
VENV := .venv
BIN := $(VENV)/bin
export QCOMPILE_BENCH ?= $(abspath $(BENCH))

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-bench bench bench-arm cuda-cases test-cuda bench-cuda arm-root shipped-log lint format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/installed-demo  ## build the example model for this machine: fp32 against int8, accuracy, size, latency
	@$(BIN)/python examples/demo.py

test: $(VENV)/installed-test  ## the tests that need nothing but the repository
	@$(BIN)/python -m pytest -q -n auto

test-all: $(VENV)/installed-test  ## the same and the slow ones
	@$(BIN)/python -m pytest -q -n auto -m "not bench"

test-bench: $(VENV)/installed-peers $(VENV)/installed-test  ## tests on real models, from ../shared/bench or BENCH=folder
	@$(BIN)/python -m pytest -q -m bench

bench: $(VENV)/installed-peers  ## every figure of the README, against ONNX Runtime and OpenVINO; ARGS="--help" for options
	@$(BIN)/python -m benchmarks.run $(ARGS)

bench-arm: $(VENV)/installed-arm  ## instructions that int8 models execute on ARM, counted under QEMU; ARGS="--help" for options
	@$(BIN)/python -m benchmarks.arm $(ARGS)

cuda-cases: $(VENV)/installed-cuda  ## artifacts for GPUs in out/cuda with the outputs they must give; ARGS="--help" for options
	@$(BIN)/python -m benchmarks.cuda.cases $(ARGS)

test-cuda: $(VENV)/installed-cuda  ## the same bits on this machine's GPU; without one says so
	-@$(BIN)/python -m benchmarks.cuda.cases --for-gpu $(ARGS)
	@$(BIN)/python -m benchmarks.cuda.check

bench-cuda: $(VENV)/installed-cuda  ## and times beside torch, TensorRT and ONNX Runtime, tiles beside the peak of int8 products
	-@$(BIN)/python -m benchmarks.cuda.cases --for-gpu $(ARGS)
	@$(BIN)/python -m benchmarks.cuda.check --bench

arm-root: $(VENV)/installed-demo  ## an arm64 Python with ONNX Runtime in build/ (190 MB), for bench-arm to compare with
	@$(BIN)/python -m benchmarks.arm.root

shipped-log: $(VENV)/installed-peers  ## measure the log of common shapes that comes with the package (some 20 minutes)
	@$(BIN)/python -m benchmarks.shipped_log $(ARGS)

lint: $(VENV)/installed-dev  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/installed-dev  ## put the code into the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove the virtual environment, caches and built artifacts
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml. The build backend is installed first, so that a changed pyproject.toml
# whose packages are all there installs without a network.
$(VENV)/installed-%: $(VENV)/created pyproject.toml
	@echo "installing qcompile[$*] into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -e '.[$*]'
	@touch $@

$(VENV)/created:
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'setuptools>=77'
	@touch $@
