# make reproduce [PROFILE=smoke] [SLICES=folder] [RESULTS=folder]   data -> training -> tables -> book
# make test                                        unit tests, then every committed notebook
# make book | lint | clean
#
# Each step can be interrupted: the same command goes on where it stopped.

PROFILE ?= smoke
SLICES  ?=
PYTHON  ?= python3
SHELL   := bash

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BUILD := _build/$(PROFILE)
# Your records on real slices stand beside the committed ones, and never in their place.
RESULTS ?= $(if $(filter smoke,$(PROFILE)),results,results/local)
RECORDS := $(abspath $(RESULTS))
# Absolute, since the notebooks run in notebooks/; left as typed where there is no such folder.
DATA   := $(or $(shell CDPATH= cd -- "$(SLICES)" 2>/dev/null && pwd),$(SLICES))
LUNGS     := table2-lungs-patient-fold0
INFECTION := table2-infection-patient-fold0
ifeq ($(SLICES),)
  DATA := $(if $(filter smoke,$(PROFILE)),$(CURDIR)/data/phantom/slices)
endif

PAPERMILL := $(PY) -m papermill --cwd notebooks --log-output --no-progress-bar --kernel python3

# The notebooks' kernel is this environment's Python, whatever kernels the user has installed.
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PYTHONUNBUFFERED := 1
# As many threads as cores this process may use, not as the machine has.
OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
export OMP_NUM_THREADS

.PHONY: help reproduce inputs data train pages book test lint clean
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

reproduce: inputs $(STAMP) data train pages
	@echo "== book"
	@$(PY) book/build.py --executed $(BUILD)/notebooks --out $(BUILD)

# What needs no environment is checked before one is installed.
inputs:
ifeq ($(filter smoke cpu paper,$(PROFILE)),)
	@echo "error: unknown profile '$(PROFILE)'; expected smoke, cpu or paper" >&2; exit 1
endif
ifneq ($(PROFILE),smoke)
	@test -n "$(SLICES)" || { echo "error: profile $(PROFILE) needs a slice store: make reproduce PROFILE=$(PROFILE) SLICES=folder (README.md says how to make one)" >&2; exit 1; }
endif
ifneq ($(SLICES),)
	@test -f "$(DATA)/slices.csv" || { echo "error: $(SLICES): no slices.csv there; expected a slice store (README.md says how to make one)" >&2; exit 1; }
endif

data: inputs $(STAMP)
	@echo "== data"
ifeq ($(SLICES),)
	@$(PY) -m chslib.data phantom data/phantom/volumes
	@$(PY) -m chslib.data fuse data/phantom/volumes data/phantom/slices
endif
	@$(PY) -m chslib.experiments check --profile $(PROFILE) --slices "$(DATA)"

train: data
	@mkdir -p $(BUILD)/notebooks
	@echo "== training, stage 1 of 2: $(LUNGS)"
	@$(PAPERMILL) notebooks/05_training.ipynb $(BUILD)/notebooks/05_training_lungs.ipynb -p run $(LUNGS) -p profile $(PROFILE) -p slices "$(DATA)" -p results "$(RECORDS)"
	@echo "== training, stage 2 of 2: $(INFECTION)"
	@$(PAPERMILL) notebooks/05_training.ipynb $(BUILD)/notebooks/05_training.ipynb -p run $(INFECTION) -p profile $(PROFILE) -p slices "$(DATA)" -p results "$(RECORDS)"

pages: train
	@echo "== notebooks"
	@$(PAPERMILL) notebooks/04_network.ipynb $(BUILD)/notebooks/04_network.ipynb
	@$(PAPERMILL) notebooks/06_table2.ipynb $(BUILD)/notebooks/06_table2.ipynb -p profile $(PROFILE) -p results "$(RECORDS)"

# ---- the rest ----------------------------------------------------------------------------------

# The book of the committed notebooks.
book: $(STAMP)
	@$(PY) book/build.py --out _build/committed

test: $(STAMP)
	$(PY) -m pytest
	$(PY) -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 notebooks

lint: $(STAMP)
	$(PY) -m ruff check .

# Leaves the environment, and the weights and records of every profile but smoke.
clean:
	rm -rf _build data/phantom runs/smoke results/smoke .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
