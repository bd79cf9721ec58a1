# fastgate: what people type here. Every target makes the virtual environment it needs; a second run is fast.
#
#   make demo            install and run `fastgate demo`
#   make test            format, lint, types, import contracts, every test but Keycloak's, coverage
#   make again           the tests that failed last, with nothing beside them
#   make test-keycloak   the tutorial against a real Keycloak (Java 17+, Maven Central); says so where it cannot be had
#   make test-python     the unit tests on another Python (3.12 or 3.13) where there is one
#   make bench           every measurement of bench/README.md beside nginx, HAProxy and Apache (20 minutes);
#                        CASE="hit post", ROUNDS=5, SECONDS=2, OTHER=../checkout choose;
#                        without CASE also the quick steps of two hosts of two workers that break (7 minutes):
#                        CASE="cluster quick", CASE="cluster soak"
#   make fuzz            conversations that coverage leads to, on both lanes; SECONDS=60
#   make lock            what the container image installs, by version and hash: deploy/requirements*.txt
#   make format docs clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The newest that is 3.11 or later and really runs: a pyenv shim may exist for a version that is not activated.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(USABLE)' >/dev/null 2>&1 && { command -v $$python; break; }; done)
OTHER_PYTHON ?= $(shell for python in python3.13 python3.12 \
	$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[23]*/bin/python3 2>/dev/null | sort -rV); do \
	$$python -c '$(USABLE)' >/dev/null 2>&1 && { command -v $$python; break; }; done)

VENV := .venv
PY := $(VENV)/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
PYTEST := -m pytest -q

.PHONY: help demo test scripts unit branches again test-keycloak test-python bench fuzz format lock docs clean

help:
	@sed -n 's/^#   //p' Makefile

$(PY):
	@if [ -z "$(PYTHON)" ]; then
		echo "fastgate needs Python 3.11 or newer with venv (Debian: apt-get install python3 python3-venv)," \
			"or name one: make PYTHON=/path/to/python3" >&2
		exit 1
	fi
	echo "== $(VENV): $$($(PYTHON) --version) at $(PYTHON)"
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.run: pyproject.toml $(PY)
	@$(PY) $(PIP) -e . || {
		echo "the packages in pyproject.toml cannot be installed: is PyPI (or your mirror) reachable?" >&2; exit 1; }
	touch $@

$(VENV)/.test: pyproject.toml $(PY)
	@$(PY) $(PIP) -e '.[test]' || {
		echo "the packages in pyproject.toml cannot be installed: is PyPI (or your mirror) reachable?" >&2; exit 1; }
	touch $@ $(VENV)/.run

demo: $(VENV)/.run
	@$(VENV)/bin/fastgate demo

# The real parts first: what cannot be had is said before anything long begins.
test: $(VENV)/.test
	@$(PY) -m tests.support.prepare oidc-provider corpus checkers redis
	$(MAKE) scripts
	$(MAKE) unit

scripts: $(VENV)/.test
	@echo "== format"; $(VENV)/bin/ruff format --check .
	echo "== lint"; $(VENV)/bin/ruff check .
	echo "== types"; $(VENV)/bin/mypy
	echo "== import contracts"; $(VENV)/bin/lint-imports

unit: $(VENV)/.test
	@echo "== tests"
	FASTGATE_PARTS=required $(PY) $(PYTEST) -n 2 --dist loadfile -m "not keycloak" --cov --cov-report=term:skip-covered
	$(MAKE) branches

branches: $(VENV)/.test
	@echo "== every branch of policy/ and gate.py"
	$(VENV)/bin/coverage report --include='fastgate/policy/*,fastgate/gate.py' --skip-covered --show-missing --fail-under=100

# What failed last, with nothing beside it.
again: RUN ?= $(PY)
again:
	@FASTGATE_PARTS=required $(RUN) $(PYTEST) -m "not keycloak" --cov --cov-append --cov-report= \
		--last-failed --last-failed-no-failures=none

# Status 3 of `prepare`: Java or Maven Central cannot be had here; it has said so.
test-keycloak: $(VENV)/.test
	@status=0; $(PY) -m tests.support.prepare keycloak || status=$$?
	if [ $$status = 3 ]; then echo "SKIPPED: the tests against Keycloak"; exit 0; fi
	[ $$status = 0 ]
	FASTGATE_PARTS=required $(PY) $(PYTEST) -m keycloak tests/keycloak

test-python: $(VENV)/.test
	@ours=$$($(PY) -c 'import sys; print(*sys.version_info[:2])')
	if [ -z "$(OTHER_PYTHON)" ] || [ "$$($(OTHER_PYTHON) -c 'import sys; print(*sys.version_info[:2])')" = "$$ours" ]; then
		echo "SKIPPED: no other Python 3.12 or 3.13 here (make test-python OTHER_PYTHON=/path/to/python3)"; exit 0
	fi
	echo "== unit tests on $$($(OTHER_PYTHON) --version)"
	[ -x $(VENV)-other/bin/python ] || $(OTHER_PYTHON) -m venv $(VENV)-other
	$(VENV)-other/bin/python $(PIP) -e '.[test]'
	$(VENV)-other/bin/python $(PYTEST) -n 2 --dist loadfile -m "not keycloak" --ignore=tests/integration --ignore=tests/keycloak

$(VENV)/.bench: pyproject.toml $(PY)
	@$(PY) $(PIP) -e '.[bench]' || {
		echo "the packages in pyproject.toml cannot be installed: is PyPI (or your mirror) reachable?" >&2; exit 1; }
	touch $@ $(VENV)/.run

bench: $(VENV)/.bench
	@$(PY) -m bench $(CASE) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(foreach checkout,$(OTHER),--other $(checkout))
	$(if $(CASE),,$(PY) -m bench cluster quick)

fuzz: $(VENV)/.test
	@$(PY) $(PIP) -e '.[fuzz]'
	$(PY) -m tests.fuzz.lanes $(or $(SECONDS),60)

format: $(VENV)/.test
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

# UPGRADE=--upgrade takes newer versions; without it only what pyproject.toml asks for changes.
LOCK := pip compile --quiet --generate-hashes --no-header --python-version 3.13 --python-platform linux $(UPGRADE)
lock: $(PY)
	@$(PY) $(PIP) uv
	$(VENV)/bin/uv $(LOCK) pyproject.toml -o deploy/requirements.txt
	$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
		$(VENV)/bin/uv $(LOCK) - -o deploy/requirements-build.txt

docs: $(VENV)/.test
	@$(PY) -m fastgate.config.reference > deploy/configuration.md.new && mv deploy/configuration.md.new deploy/configuration.md

clean:
	@rm -rf $(VENV) $(VENV)-other build dist ./*.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	echo "kept: downloaded parts in $${XDG_CACHE_HOME:-$$HOME/.cache}/fastgate"
