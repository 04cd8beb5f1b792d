# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where the demo's clips, cache and runs lie, each form apart; DEMO=small makes the short form.
DEMO ?= full
DEMO_HOME ?= $(if $(filter small,$(DEMO)),fsmm-demo-small,fsmm-demo)
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test test-fast bench lint types docs format install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "fsmm needs Python 3.10 or newer; set PYTHON=python3.11, say.")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing; install it first (Debian: apt-get install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[extract,report,dev,docs]"
	@touch $@

demo: install
	@$(BIN)/python scripts/demo.py --form $(DEMO) --home $(DEMO_HOME)

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal tests

test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow and not network" tests

bench: install
	$(BIN)/python -m benchmarks

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
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis $(DEMO_HOME) fsmm-demo fsmm-demo-small
