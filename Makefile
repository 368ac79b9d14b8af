# Each target sets up what it needs in .venv, on a machine with Python >= 3.11 and pip.
PYTHON ?= python3
VENV   ?= .venv
# Tests wait more than they compute: two processes of them, each with whole files.
JOBS   ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# test-docker: the tests on another Python, in a container of its image.
PY           ?= 3.13
PYTHON_IMAGE ?= python:$(PY)-slim

.PHONY: demo test test-docker lint types layers bench clean

demo: $(STAMP)
	$(BIN)/genro-nats demo

test: $(STAMP)
	$(PYTEST) -n $(JOBS) --dist loadgroup $(TESTS)

test-docker:
	docker run --rm --init --volume "$(CURDIR):/src:ro" $(PYTHON_IMAGE) sh /src/tests/docker/suite -m "not docker" $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/genro-nats bench

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
