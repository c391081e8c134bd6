# Each target does its own set-up. Variables: PYTHON, PIP_ARGS (extra pip arguments), JOBS, and DATA and MINUTES for the demo.
PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
DATA ?=
MINUTES ?= 10
UPLOADS ?= 10000

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := outputs/demo
# The bytes of one picture that the network has not seen.
PICTURE := import sys; from dermalyze import Run; from dermalyze.data.splitting import read_part; \
	from dermalyze.data.store import ImageStore; run = Run.open(sys.argv[1]); \
	path = read_part(run, 'test')['path'].iloc[0]; sys.stdout.buffer.write(ImageStore.open(run.config().data).read(path))

.PHONY: help install reference browser demo demo-synthetic demo-data check test test-random test-slow test-kill fuzz bench pictures clean
.DEFAULT_GOAL := help

help:
	@echo "make demo                 synthetic pictures to a trained, measured model and an answer (under 4 minutes)"
	@echo "make demo DATA=folder     the same on a HAM10000 folder, MINUTES=$(MINUTES) of training"
	@echo "make test                 check, then every test that is not slow"
	@echo "make check                ruff and mypy"
	@echo "make reference            write docs/reference/cli.md and the stub of the public names again, from the table of commands"
	@echo "make browser              Debian's Chromium for the tests of the web page, where there is none and it may be installed"
	@echo "make test-random          the property tests with new random examples"
	@echo "make test-slow            the slow tests"
	@echo "make test-kill            500 trainings killed with SIGKILL and continued: how many were lost, how many differed"
	@echo "make fuzz                 10,000 damaged uploads against a server process (make fuzz UPLOADS=1000: fewer)"
	@echo "make bench                benchmarks"
	@echo "make pictures             the picture of the README again"
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
	$(BIN)/dermalyze synth $(DEMO)-data --lesions 1000 --seed 7 --size 96 --balance even
	$(BIN)/dermalyze run experiments/demo.yaml $(DEMO)
	@$(BIN)/python -c "$(PICTURE)" $(DEMO) | $(BIN)/dermalyze predict $(DEMO) -

demo-data: $(INSTALLED)
	@echo "About $(MINUTES) minutes of training on two free cores, and two more to decode, audit, export and measure; MINUTES=n is another budget."
	@echo "Stopped, the same command goes on where it was."
	$(BIN)/dermalyze run experiments/demo-ham10000.yaml $(DEMO)-$(MINUTES)min --set data.path="$(DATA)" train.epochs=$$((8 * $(MINUTES)))
	@$(BIN)/python -c "$(PICTURE)" $(DEMO)-$(MINUTES)min | $(BIN)/dermalyze predict $(DEMO)-$(MINUTES)min -

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reference: $(INSTALLED)
	$(BIN)/python docs/generate.py

# Debian's Chromium, for the tests of the web page. Where it is not and cannot be installed they are skipped, and say why.
browser:
	@found() { for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null 2>&1 && return 0; done; return 1; }; \
	if ! found && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then \
		echo "Installing Debian's chromium for the tests of the web page"; \
		timeout 120 apt-get update > /dev/null 2>&1; \
		DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install --yes --no-install-recommends chromium fonts-dejavu-core > /dev/null 2>&1; \
	fi; \
	found || echo "No Chromium, and it cannot be installed here (as root: apt-get install chromium): the tests of the web page are skipped"

test: check browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile

test-random: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile --hypothesis-profile=default $$(grep -rl "^from hypothesis" tests --include='test_*.py')

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

test-kill: $(INSTALLED)
	$(BIN)/python tests/support/kill.py --kills 500

fuzz: $(INSTALLED)
	@test -d $(DEMO)/export || { echo "error: no $(DEMO)/export; run: make demo" >&2; exit 2; }
	$(BIN)/python tests/support/fuzz.py $(DEMO)/export --uploads $(UPLOADS)

bench: $(INSTALLED)
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

pictures: $(INSTALLED)
	@rm -rf outputs/pictures
	$(BIN)/dermalyze synth outputs/pictures --lesions 70 --seed 7 --balance even
	$(BIN)/python -c "from pathlib import Path; from dermalyze.data.synthetic.synth import contact_sheet; \
		contact_sheet(Path('outputs/pictures'), columns=8).convert('RGB').save('docs/images/contact_sheet.jpg', quality=82)"

clean:
	rm -rf $(DEMO) $(DEMO)-data $(DEMO)-*min $(if $(VENV_TOO),$(VENV))
