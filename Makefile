# make quickstart    environment, install, train on the built-in corpus, score it, translate: minutes on 2 cores
# make test          environment, install, lint, all tests but the slow ones
#
# PYTHON=python3.12  the interpreter for the environment, 3.11 to 3.13
# PIP_ARGS="..."     further arguments of pip, such as the index of a CPU or CUDA build of PyTorch
# TEST_WORKERS=4     processes that run tests

PYTHON ?= python3
PIP_ARGS ?=
TEST_WORKERS ?= 2

BIN := .venv/bin
INSTALLED := .venv/installed

# Nothing is asked from the Hub, and each test process computes on one thread.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
SINGLE := $(OFFLINE) OMP_NUM_THREADS=1

.PHONY: quickstart test test-slow lint clean

quickstart: $(INSTALLED)
	$(OFFLINE) PATH="$(CURDIR)/$(BIN):$$PATH" sh recipes/quickstart.sh

test: lint
	$(SINGLE) $(BIN)/python -m pytest -n $(TEST_WORKERS) -m "not slow"

test-slow: $(INSTALLED)
	$(SINGLE) $(BIN)/python -m pytest -n $(TEST_WORKERS) -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv; this takes some minutes."
	$(BIN)/python -m pip install --progress-bar off $(PIP_ARGS) --editable ".[dev]" --constraint constraints.txt
	@touch $(INSTALLED)

# Runs, predictions and the environment are left alone.
clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find hf_nmt recipes export tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
