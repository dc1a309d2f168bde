# Two commands for a newcomer: `make demo` and `make test`. Plain `make` makes .venv with boqsa and all its tools.
# Another torch build: install it into .venv first, as pytorch.org's selector prints; make keeps what satisfies the pins.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BOQSA_RUNS ?= $(HOME)/boqsa-runs

SOAK_MINUTES ?= 30

.PHONY: all demo test test-full soak lint docs dist lower-bounds clean

all: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "boqsa needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) --version); try: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint,reproduce,docs]'
	touch $@

demo: $(STAMP)
	$(BIN)/boqsa demo --out boqsa-demo

# One torch thread a worker: two workers with two threads each would fight for two cores.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not full' $(ARGS)

test-full: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# Kills, full disks and damaged checkpoints at random, against an unbroken run.
soak: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --minutes $(SOAK_MINUTES) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Into build/site; a broken link or page ends it. Not with --quiet: what is not said is not counted by --strict either.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/properdocs build --strict --config-file mkdocs.yml

# sdist and wheel of the version that the git tag says, checked, installed apart from this checkout, and used there.
dist: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[release]'
	rm -rf dist
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	PYTHON=$(BIN)/python .ci/try-package

# The tests with the lowest version of every direct dependency that pyproject.toml allows. torch stays at its pin.
LOWEST := build/lowest
lower-bounds:
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lower_bounds.py > $(LOWEST)/constraints.txt
	grep '^torch==' constraints.txt >> $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable '.[test]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 -m 'not full' $(ARGS)

clean:
	rm -rf $(VENV) boqsa-demo dist .pytest_cache .mypy_cache .ruff_cache build src/*.egg-info
