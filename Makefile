# Each target does its own set-up. Variables: PYTHON, PIP_ARGS (extra pip arguments), JOBS, and DATA and MINUTES for the demo.
PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
DATA ?=
MINUTES ?= 10

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := outputs/demo

.PHONY: help install demo demo-synthetic demo-data check test test-slow bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo                 synthetic pictures to a trained, measured model and an answer (under 4 minutes)"
	@echo "make demo DATA=folder     the same on a HAM10000 folder, MINUTES=$(MINUTES) of training"
	@echo "make test                 check, then every test that is not slow"
	@echo "make check                ruff and mypy"
	@echo "make test-slow            the slow tests"
	@echo "make bench                benchmarks"
	@echo "make clean                remove what make demo made (make clean VENV_TOO=1: the virtual environment as well)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: dermalyze needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[train,dev]'
	@touch $@

demo: $(if $(strip $(DATA)),demo-data,demo-synthetic)

demo-synthetic: $(INSTALLED)
	@rm -rf $(DEMO) $(DEMO)-data
	$(BIN)/dermalyze synth $(DEMO)-data --lesions 420 --seed 7 --size 96 --balance even
	$(BIN)/dermalyze run experiments/demo.yaml $(DEMO)
	$(BIN)/dermalyze predict $(DEMO) --part test --limit 1

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

bench: $(INSTALLED)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(DEMO) $(DEMO)-data outputs/demo-ham10000 $(if $(VENV_TOO),$(VENV))
