# `make demo` runs the main job, `make test` the tests, `make check` everything that must be green before a commit.
# Each makes its own virtual environment first where there is none yet.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test soak check format lint types architecture clean

demo: $(VENV)/.installed
	$(BIN)/vastus demo

# Three processes, a file of tests to each: much of the time is waiting for peers. One thread each, so that they share two cores.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -W error -n 3 --dist loadfile --no-loadscope-reorder

# Minutes of the same at length: before a release, and after a change of what they are about.
soak: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -W error -m soak

check: format lint types architecture test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

architecture: $(VENV)/.installed-dev
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@echo "Making the virtual environment $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing Vastus and what it runs on (about 2 GB; one or two minutes on a fast line)"
	$(PIP) install --progress-bar on -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what the checks need"
	$(PIP) install --progress-bar on -r requirements-dev.txt
	@touch $@
