# One command for each thing a person does here; each makes .venv by itself. `make` alone lists them.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$each && break; done)
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: help demo test test-integrations test-ui coverage test-launch wheel unit check format docs docs-serve bench chaos drills soak fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14

# Installed anew only where what is to be installed has changed. The sources themselves are linked, not copied.
.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "visutility needs python3 3.11 to 3.13 on the PATH" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev,docs]'
	@touch $@

.venv/.bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

demo: .venv/.installed ## a year of flights: drift found, retrained, tuned; ends with a table and a picture
	$(BIN)/visutility demo

# Of every suite, with what the processes that they start run.
coverage: .venv/.installed ## branch coverage of actors/, worker processes included; as long as `make test`
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

test: .venv/.installed ## every test: unit, contracts, cluster
	$(BIN)/python -m pytest

# torch is large; its CPU build: make test-integrations PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
test-integrations: .venv/.installed ## callbacks, sources and targets in the real tools: installs them (2 GB), three minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[integrations]'
	$(BIN)/python -m pytest tests/integrations

unit: .venv/.installed ## the tests without Ray, seconds
	$(BIN)/python -m pytest tests/unit tests/contracts

check: .venv/.installed ## format, lint, types, the layers: seconds; `make unit` runs the tests without Ray
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.installed ## the documentation as a site, in site/; what leads nowhere fails
	$(BIN)/python -m docs.build

docs-serve: .venv/.installed ## the documentation while you write it, at localhost:8000
	$(BIN)/python -m zensical serve

bench: .venv/.bench ## the benchmarks, beside what one would otherwise do
	$(BIN)/python -m tests.bench ingest
	$(BIN)/python -m tests.bench detection
	$(BIN)/python -m tests.bench tuning

fuzz: .venv/.installed ## whatever comes in is taken or refused with a reason: ten minutes by coverage
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds 600

wheel: .venv/.installed ## dist/visutility-<version>-py3-none-any.whl, for the nodes of a cluster
	rm -f dist/visutility-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps -w dist .

# What this machine lacks (root, sshd, rsync) is said, and counts as skipped: exit 77.
test-ui: .venv/.installed ## the pages in a real browser: needs Debian's chromium and npm, one minute
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright
	npm install --no-save --prefix .venv/axe axe-core@4
	VISUTILITY_AXE=.venv/axe/node_modules/axe-core/axe.min.js $(BIN)/python -m pytest tests/browser

test-launch: .venv/.installed ## cluster.yaml launched for real on pretend machines, from `ray up` to `ray down`: four minutes
	$(BIN)/python -m tests.launch.ray_up || test $$? -eq 77

chaos: .venv/.installed ## kill, freeze, cut off, compare: both stores, three seeds, a million events each; then the controls (40 minutes)
	for seed in 1 2 3; do $(BIN)/python -m tests.chaos --seed $$seed --seconds 165 --events 1100000 || exit 1; done
	for seed in 1 2 3; do $(BIN)/python -m tests.chaos --seed $$seed --seconds 330 --events 1100000 --storage postgresql || exit 1; done
	$(BIN)/python -m tests.chaos --control all
	$(BIN)/python -m tests.chaos --control all --storage postgresql
	$(BIN)/python -m tests.chaos --control none

drills: .venv/.installed ## overload and damage of the store; then each without its protection, which must be noticed
	$(BIN)/python -m tests.chaos --drill overload
	$(BIN)/python -m tests.chaos --drill overload --control all
	$(BIN)/python -m tests.chaos --drill damage
	$(BIN)/python -m tests.chaos --drill damage --control all

soak: .venv/.installed ## half an hour of load: memory, descriptors, threads and disk must stay flat
	$(BIN)/python -m tests.chaos --soak 30

clean: ## remove .venv and caches
	rm -rf .venv site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
