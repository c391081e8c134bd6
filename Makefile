# Each target sets itself up. Variables: PYTHON, PIP_ARGS (extra pip arguments), JOBS, and DATA and MINUTES for the demo.
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
# The bytes of one image that the network has not seen.
IMAGE := import sys; from dermalyze import Run; from dermalyze.data.splitting import read_part; \
	from dermalyze.data.store import ImageStore; run = Run.open(sys.argv[1]); \
	path = read_part(run, 'test')['path'].iloc[0]; sys.stdout.buffer.write(ImageStore.open(run.config().data).read(path))

.PHONY: help install reference browser demo demo-synthetic demo-data check test test-random test-slow test-kill fuzz bench images clean
.DEFAULT_GOAL := help

help:
	@echo "make demo                 train and evaluate a model on synthetic images, and predict one (under 4 minutes)"
	@echo "make demo DATA=folder     the same on a HAM10000 folder, with MINUTES=$(MINUTES) of training"
	@echo "make test                 run check, then every test that is not slow"
	@echo "make check                run ruff and mypy"
	@echo "make reference            write docs/reference/cli.md and the stub of the public names from the table of commands"
	@echo "make browser              install Debian's Chromium for the tests of the web page, if it is missing"
	@echo "make test-random          run the property tests with new random examples"
	@echo "make test-slow            run the slow tests"
	@echo "make test-kill            kill 500 trainings with SIGKILL and resume them; count those lost or different"
	@echo "make fuzz                 send 10,000 damaged uploads to a server process (make fuzz UPLOADS=1000: fewer)"
	@echo "make bench                run the benchmarks"
	@echo "make images               make the image of the README again"
	@echo "make clean                remove the output of make demo (make clean VENV_TOO=1: also the virtual environment)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: dermalyze needs Python 3.11 or newer; specify one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[train,dev]'
	@touch $@

demo: $(if $(strip $(DATA)),demo-data,demo-synthetic)

demo-synthetic: $(INSTALLED)
	@rm -rf $(DEMO) $(DEMO)-data
	$(BIN)/dermalyze synth $(DEMO)-data --lesions 1000 --seed 7 --size 96 --balance even
	$(BIN)/dermalyze run experiments/demo.yaml $(DEMO)
	@$(BIN)/python -c "$(IMAGE)" $(DEMO) | $(BIN)/dermalyze predict $(DEMO) -

demo-data: $(INSTALLED)
	@echo "About $(MINUTES) minutes of training on two free cores, and two more to decode, audit, export and evaluate; MINUTES=n sets another budget."
	@echo "If it is interrupted, the same command resumes."
	$(BIN)/dermalyze run experiments/demo-ham10000.yaml $(DEMO)-$(MINUTES)min --set data.path="$(DATA)" train.epochs=$$((8 * $(MINUTES)))
	@$(BIN)/python -c "$(IMAGE)" $(DEMO)-$(MINUTES)min | $(BIN)/dermalyze predict $(DEMO)-$(MINUTES)min -

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reference: $(INSTALLED)
	$(BIN)/python docs/generate.py

# Debian's Chromium, for the tests of the web page. Where it cannot be installed they are skipped, with the reason.
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

images: $(INSTALLED)
	@rm -rf outputs/images
	$(BIN)/dermalyze synth outputs/images --lesions 70 --seed 7 --balance even
	$(BIN)/python -c "from pathlib import Path; from dermalyze.data.synthetic.synth import contact_sheet; \
		contact_sheet(Path('outputs/images'), columns=8).convert('RGB').save('docs/images/contact_sheet.jpg', quality=82)"

clean:
	rm -rf $(DEMO) $(DEMO)-data $(DEMO)-*min $(if $(VENV_TOO),$(VENV))
