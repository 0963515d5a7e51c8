# Everything but test-gpu and bench runs in .venv, which is made on first use.
PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready
PYTEST := $(VENV)/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu lint bench

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Check, explain and run a pattern, start to end
	@$(VENV)/bin/weft demo

test: $(READY) ## The whole suite on the CPU
	$(PYTEST) -n 2 --timeout 300 -m "not gpu"

test-gpu: ## The tests that need a GPU, in the current environment
	python3 -m pytest -m gpu

lint: $(READY) ## Style, formatting, types, and the rules of tests/lint_sizes.py
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/python tests/lint_sizes.py

bench: ## Time the forward kernels, in the current environment
	python3 benchmarks/forward.py

# constraints.txt pins every version; a bare `torch` would fetch gigabytes of CUDA build.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "weft needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@
