PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# `make test test-all COVERAGE=--cov` measures the coverage of both together and fails under 95 %.
COVERAGE ?=

# Two processes that take file after file, in the order of tests/conftest.py.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-all test-faults test-wheel check docs tables clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/nas run --data digits --device host --latency 0.15ms --time 3min --baseline resnet8 --out runs/demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) $(COVERAGE)

test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow and not faults' $(TWO) \
		$(if $(COVERAGE),$(COVERAGE) --cov-append --cov-fail-under=95) tests

test-faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults $(TWO) tests/faults

test-wheel: $(READY)
	tests/wheel.sh

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/api_pages.py site/api

tables: $(READY)
	$(BIN)/python tests/benchmarks/tables.py

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
