# One target for each task; each creates .venv if needed. `make` alone lists them.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$each && break; done)
BIN := .venv/bin
# Two processes run files of tests side by side, each with a Ray of its own: most of a cluster test is a wait. Three Rays on two
# cores exceed deadlines that are Ray's own. WORKERS=0 runs all in one process: longer, and easier to debug.
WORKERS ?= 2
PYTEST := pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SHELL := /bin/bash

.PHONY: help demo test test-integrations test-targets test-ui test-notify test-prometheus coverage test-launch wheel unit check format docs docs-serve bench chaos drills soak fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 20

# Reinstalls only when the requirements have changed. The sources are linked, not copied.
.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "visutility needs python3 3.11 to 3.13 on the PATH" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev,docs]'
	@touch $@

.venv/.bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

demo: .venv/.installed ## replay a year of flights with drift, retrains and tuning; ends with a table and a picture
	$(BIN)/visutility demo

# Covers every suite, including the processes that the tests start.
coverage: .venv/.installed ## branch coverage of actors/, including worker processes; takes as long as `make test`
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m $(PYTEST)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

test: .venv/.installed ## every test: unit, contracts, cluster
	$(BIN)/python -m $(PYTEST)

# torch is large; its CPU build: make test-integrations PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# MLflow's server has a virtual environment of its own: nothing here imports it. Prometheus is Debian's; without it its test skips.
test-integrations: .venv/.installed ## callbacks, sources and the registry in the real tools: installs them (3 GB), eight minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[integrations]'
	test -x .venv-mlflow/bin/mlflow || { $(PYTHON) -m venv .venv-mlflow && .venv-mlflow/bin/pip install --quiet mlflow==3.17.2; }
	MLFLOW_PYTHON=$(CURDIR)/.venv-mlflow/bin/python $(BIN)/python -m pytest tests/integrations

# Each in a virtual environment of its own: their pins are not ours. PyJWT above 2.10 does not sign Airflow 3.1's tokens.
test-targets: .venv/.installed ## targets in a real Airflow and Prefect: installs both (1 GB), five minutes
	test -x .venv-airflow/bin/airflow || { $(PYTHON) -m venv .venv-airflow && .venv-airflow/bin/pip install --quiet apache-airflow==3.1.3 pyjwt==2.10.1; }
	test -x .venv-prefect/bin/prefect || { $(PYTHON) -m venv .venv-prefect && .venv-prefect/bin/pip install --quiet prefect==3.9.1; }
	AIRFLOW=$(CURDIR)/.venv-airflow/bin/airflow PREFECT=$(CURDIR)/.venv-prefect/bin/prefect $(BIN)/python -m pytest tests/integrations/test_real_targets.py

unit: .venv/.installed ## the tests without Ray: unit tests and contracts
	$(BIN)/python -m pytest tests/unit tests/contracts

check: .venv/.installed ## check format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed ## format the code, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.installed ## build the documentation into site/; a broken link fails
	$(BIN)/python -m docs.build

docs-serve: .venv/.installed ## serve the documentation at localhost:8000 while you write it
	$(BIN)/python -m zensical serve

bench: .venv/.bench ## the benchmarks, each with its alternatives in the same run
	$(BIN)/python -m tests.bench ingest
	$(BIN)/python -m tests.bench detection
	$(BIN)/python -m tests.bench tuning

fuzz: .venv/.installed ## fuzz every input format: ten minutes, guided by coverage
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds 600

wheel: .venv/.installed ## build dist/visutility-<version>-py3-none-any.whl, for the nodes of a cluster
	rm -f dist/visutility-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps -w dist .

# If this machine lacks root, sshd or rsync, the launch test says so and counts as skipped: exit 77.
test-ui: .venv/.installed ## test the page in a real browser and the API by its document: needs Debian's chromium and npm, four minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	npm install --no-save --prefix .venv/axe axe-core@4
	VISUTILITY_AXE=.venv/axe/node_modules/axe-core/axe.min.js $(BIN)/python -m pytest -p no:schemathesis tests/browser tests/api

test-notify: .venv/.installed ## notifications to a real Alertmanager and by SMTP, 200 kills: needs Debian's prometheus-alertmanager, three minutes
	$(BIN)/python -m pytest tests/notify
	$(BIN)/python -m tests.notify.drill --kills 200

test-prometheus: .venv/.installed ## alert rules by promtool, the dashboard's panels on a running system: needs Debian's prometheus, a minute
	@command -v promtool >/dev/null || { echo "promtool is missing: apt-get install prometheus" >&2; exit 1; }
	$(BIN)/python -m pytest tests/unit/test_alerts_and_dashboard.py tests/integrations/test_real_dashboard.py

test-launch: .venv/.installed ## launch cluster.yaml on simulated machines, from `ray up` to `ray down`: four minutes
	$(BIN)/python -m tests.launch.ray_up || test $$? -eq 77

chaos: .venv/.installed ## kill, freeze and disconnect processes: both stores, three seeds, a million events each; then the controls (40 minutes)
	for seed in 1 2 3; do $(BIN)/python -m tests.chaos --seed $$seed --seconds 165 --events 1100000 || exit 1; done
	for seed in 1 2 3; do $(BIN)/python -m tests.chaos --seed $$seed --seconds 330 --events 1100000 --storage postgresql || exit 1; done
	$(BIN)/python -m tests.chaos --control all
	$(BIN)/python -m tests.chaos --control all --storage postgresql
	$(BIN)/python -m tests.chaos --control none

drills: .venv/.installed ## overload the system and damage its store; then without each protection, which the drill must notice
	$(BIN)/python -m tests.chaos --drill overload
	$(BIN)/python -m tests.chaos --drill overload --control all
	$(BIN)/python -m tests.chaos --drill damage
	$(BIN)/python -m tests.chaos --drill damage --control all

soak: .venv/.installed ## half an hour of load: memory, descriptors, threads and disk must stay flat
	$(BIN)/python -m tests.chaos --soak 30

clean: ## remove .venv and caches
	rm -rf .venv site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
