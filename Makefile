# make reproduce [PROFILE=smoke] [SLICES=folder]   data -> training -> tables -> book; two runs, the headline's
# make grid [SCOPE=rows]                           the same with every run of a scope: headline, rows or all
# make test                                        every test, and every committed notebook
# make test-fast                                   those tests that train nothing and open no browser
# make book | docs-serve | dist | lint | clean
#
# Both take, besides: RUNS="names of runs", RESULTS=folder of the records, JOBS=trainings at a time.
# Each can be interrupted: the same command goes on where it stopped, and tries failed runs again.

PROFILE ?= smoke
PROFILES := smoke cpu paper cpu-long cpu-30 cpu-256
SLICES  ?=
PYTHON  ?= python3
SHELL   := bash

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BUILD := _build/$(PROFILE)
# Records of your slices stand beside the committed ones, and never in their place.
RESULTS ?= $(if $(SLICES),results/local,results)
INDEX := $(CURDIR)/$(BUILD)/_build/html/index.html
# Absolute for the Snakefile and its jobs; left as typed where there is no such folder.
DATA := $(if $(SLICES),$(or $(shell CDPATH= cd -- "$(SLICES)" 2>/dev/null && pwd),$(SLICES)))
# The headline on new patients, fold 0: its second stage brings its first along.
RUNS ?= $(if $(SCOPE),,table2-infection-patient-fold0)

# The notebooks' kernel is this environment's Python, whatever kernels the user has installed.
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PYTHONUNBUFFERED := 1
# As many threads as cores this process may use, not as the machine has.
OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
export OMP_NUM_THREADS
# Trainings at a time: one on a GPU, else as many as there are cores; the Snakefile shares the cores out.
JOBS ?= $(if $(filter GPU,$(shell nvidia-smi -L 2>/dev/null)),1,$(OMP_NUM_THREADS))

.PHONY: help reproduce grid inputs book docs-serve dist test test-fast lint clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

# ---- environment -------------------------------------------------------------------------------

$(STAMP): requirements.lock pyproject.toml
	@echo "== environment: $(VENV)"
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or later, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) -V 2>&1) is too old; Python 3.11 or later is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps -e .
	@touch $@

# ---- reproduce ---------------------------------------------------------------------------------

reproduce: inputs $(STAMP)
	@$(PY) -m snakemake --profile workflow/local --cores $(OMP_NUM_THREADS) --resources gpu=$(JOBS) \
	  --config profile=$(PROFILE) slices="$(DATA)" results="$(RESULTS)" scope=$(or $(SCOPE),rows) runs="$(RUNS)"
	@echo "$(INDEX)"

grid: SCOPE ?= rows
grid: RUNS :=
grid: reproduce

# What needs no environment is checked before one is installed.
inputs:
ifeq ($(filter $(PROFILES),$(PROFILE)),)
	@echo "error: unknown profile '$(PROFILE)'; expected one of: $(PROFILES)" >&2; exit 1
endif
ifneq ($(PROFILE),smoke)
	@test -n "$(SLICES)" || { echo "error: profile $(PROFILE) needs a slice store: make reproduce PROFILE=$(PROFILE) SLICES=folder (book/reproduce.md says how to make one)" >&2; exit 1; }
endif
ifneq ($(SLICES),)
	@test -f "$(DATA)/slices.csv" || { echo "error: $(SLICES): no slices.csv there; expected a slice store (book/reproduce.md says how to make one)" >&2; exit 1; }
endif

# ---- the rest ----------------------------------------------------------------------------------

# The book of the committed notebooks; REPOSITORY=OWNER/NAME adds buttons for Colab and Binder.
book: $(STAMP)
	@$(PY) book/build.py --out _build/committed $(if $(REPOSITORY),--repository $(REPOSITORY)) $(if $(BRANCH),--branch $(BRANCH))

# The same on this machine, built again when a page or a record changes; PORT=8001 where 8000 is taken.
docs-serve: SOURCES := $(PY) book/build.py --out _build/served --sources
docs-serve: $(STAMP)
	@$(SOURCES)
	@PYTHONPATH=book $(PY) -m sphinx_autobuild -q --port $(or $(PORT),8000) --pre-build "$(SOURCES)" \
	  --ignore _build --ignore "*/__pycache__/*" $(addprefix --watch ,book notebooks results chslib _toc.yml _config.yml) \
	  _build/served/src _build/served/html

# What a release consists of, in _build/dist; TAG=v0.1.0 refuses one that the version or the changelog does not name.
dist: $(STAMP)
	@$(PY) workflow/release.py --out _build/dist $(if $(TAG),--tag $(TAG))

# By file, in the order of tests/conftest.py: the longest first.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(OMP_NUM_THREADS) --dist loadfile --no-loadscope-reorder
test: $(STAMP)
	$(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=600 tests notebooks

test-fast: $(STAMP)
	$(PYTEST) -m "not slow" tests

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict chslib
	$(PY) -m mypy replication

# Leaves the environment, and the weights and records of every profile but smoke.
clean:
	rm -rf _build .snakemake data/phantom runs/smoke results/smoke .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
