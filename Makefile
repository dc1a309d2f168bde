# Two commands for a newcomer: `make demo` and `make test`. Plain `make` makes .venv with boqsa and all its tools.
# Another torch build: install it into .venv first, as pytorch.org's selector prints; make keeps what satisfies the pins.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BOQSA_RUNS ?= $(HOME)/boqsa-runs

SOAK_MINUTES ?= 30

.PHONY: all demo test test-full soak lint docs clean

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

# Into build/site; a broken link or page ends it.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/properdocs build --strict --quiet --config-file mkdocs.yml

clean:
	rm -rf $(VENV) boqsa-demo .pytest_cache .mypy_cache .ruff_cache build src/*.egg-info
