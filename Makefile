# `make demo` and `make test` need Python 3.11 or newer, pip and make; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

KILLS ?= 100
# of a machine with a card, which need not have this project's environment, nor a network
GPU_PYTHON ?= python3
GPU_PYTHON_VERSION ?= 3.12
GPU_OUT ?= runs/gpu
GPU_WHEELS ?= .wheels
# bytecode is kept, also where the environment says otherwise: the tests start hundreds of processes
TEST := PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all lint bench gpu gpu-wheels chaos docs wheel-check results clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(INSTALLED)

demo: $(INSTALLED)  ## run the study on the embedded digits; ends with the table of claims and the page's path
	$(BIN)/wobbliness study run digits --out runs/digits

test: $(INSTALLED)  ## the tests, a file at a time on each core; without those that repeat at length what others assert
	$(TEST) -m "not scale"

test-all: $(INSTALLED)  ## all tests
	$(TEST)

lint: $(INSTALLED)  ## format, lint, types, and the import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## speed beside the loops that others use, as ratios
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,bench]"
	$(BIN)/wobbliness bench

gpu:  ## on a machine with a CUDA card that may be taken away: stages of work, each leaves its records in GPU_OUT
	PYTHONPATH=src:$(GPU_WHEELS):$(PYTHONPATH) $(GPU_PYTHON) tools/gpu_stages.py $(GPU_OUT)

gpu-wheels:  ## what such a machine lacks beside PyTorch, ONNX Runtime and scikit-learn, unpacked into GPU_WHEELS to travel
	$(PYTHON) -m pip install --quiet --no-deps --only-binary=:all: --upgrade --target $(GPU_WHEELS) --implementation cp \
		--python-version $(GPU_PYTHON_VERSION) --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
		--platform manylinux2014_x86_64 cryptography cffi pycparser datasets dill multiprocess platformdirs xxhash

chaos: $(INSTALLED)  ## kills the digits study 100 times and compares its tables with those of an undisturbed run (an hour)
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/chaos.py --kills $(KILLS)

docs: $(INSTALLED)  ## the documentation site, in site/; any warning fails
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel-check: $(INSTALLED)  ## the wheel in an empty environment: the commands of the README and the tutorials run as printed
	$(BIN)/python tools/wheel_check.py

results: $(INSTALLED)  ## docs/results.md, its figures and the packed records, from the studies in runs/
	$(BIN)/wobbliness study report runs/fashion-mnist runs/cifar10 runs/cifar10-slim runs/digits runs/noises runs/noises-cifar10 --markdown docs/results.md
	$(BIN)/wobbliness study pack runs/fashion-mnist docs/results/fashion-mnist
	$(BIN)/wobbliness study pack runs/cifar10 docs/results/cifar10
	$(BIN)/wobbliness study pack runs/cifar10-slim docs/results/cifar10-slim
	$(BIN)/wobbliness study pack runs/digits docs/results/digits
	$(BIN)/wobbliness study pack runs/noises docs/results/noises
	$(BIN)/wobbliness study pack runs/noises-cifar10 docs/results/noises-cifar10

clean:
	rm -rf $(VENV)
