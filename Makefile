# `make demo` and `make test` are all that a fresh machine needs. pip is asked as your environment has it set up:
# PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS and its configuration files count here too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Where a form of the demo has its clips, cache and runs; each form has a folder of its own.
demo: DEMO_HOME ?= fsmm-demo
demo-full: DEMO_HOME ?= fsmm-demo-full
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo demo-full test test-fast browser bench campaign lint types docs format install install-demo clean

# what the demo and your own videos need
install-demo: $(VENV)/.installed-demo
# everything: also the encoders of model hubs, and what tests, checks and the documentation need
install: $(VENV)/.installed

$(VENV)/.installed-demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "fsmm needs Python 3.10 or newer; set PYTHON=python3.11, say.")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing; install it first (Debian: apt-get install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing fsmm and its libraries into $(VENV): some minutes, and 1.6 GB of disk (with PyTorch for CPU; several GB more with CUDA)."
	$(PIP_INSTALL) -e ".[extract,report]"
	@touch $@

$(VENV)/.installed: $(VENV)/.installed-demo
	@echo "Installing the further encoders and the tools of tests and documentation into $(VENV)."
	$(PIP_INSTALL) -e ".[extract,report,encoders,hub,tune,ray,examples,dev,docs]"
	@touch $@

demo: install-demo
	@$(BIN)/python scripts/demo.py --form small --home $(DEMO_HOME)

demo-full: install-demo
	@$(BIN)/python scripts/demo.py --form full --home $(DEMO_HOME)

test: install browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal tests

test-fast: install browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow and not network" tests

# Debian's browser, where the tests of a report's page may install it; elsewhere they are skipped with the reason.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "Installing Chromium for the tests of reports." \
	  && { timeout 120 apt-get update && timeout 240 apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1; } \
	  || echo "There is no Chromium, and it cannot be installed here: the tests of a report's page are skipped."

bench: install
	$(BIN)/python -m benchmarks

# faults against sweeps and extractions: kills, full disks, mistakes, damage; a fixed small sample is among the tests
campaign: install
	$(BIN)/python scripts/campaigns/sweep.py
	$(BIN)/python scripts/campaigns/extraction.py
	FSMM_CAMPAIGN=1 $(BIN)/python -m pytest -q tests/e2e/test_worked_example.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

# mypy wants the package under its own name, whatever this folder is called
types: install
	@mkdir -p $(VENV)/typed && ln -sfn $(CURDIR) $(VENV)/typed/fsmm
	cd $(VENV)/typed && ../bin/mypy --config-file fsmm/pyproject.toml -m fsmm -m fsmm.__main__ -m fsmm.cli \
	  -p fsmm.machine -p fsmm.cache -p fsmm.episodes -p fsmm.heads -p fsmm.runs -p fsmm.studies -p fsmm.commands \
	  -p fsmm.extract -p fsmm.benchmarks

# the site lies in build/site; every warning is an error
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis fsmm-demo fsmm-demo-full
