# tiltd: `make` prints what there is.  Everything happens in .venv; nothing outside this folder is changed,
# but for `make install`.  Paths are relative, so the checkout may stand in a folder with blanks in its name.

SHELL := /bin/bash
# The system's own where it is new enough: a hardened service cannot read a home, in which another may live, and
# distributions build it with a profile, which is a tenth of the CPU.
ifndef PYTHON
PYTHON := $(shell /usr/bin/python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
  2>/dev/null && echo /usr/bin/python3 || echo python3)
endif
PREFIX ?= /opt/tiltd
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PYTEST_ARGS ?= -n auto --dist worksteal

.DEFAULT_GOAL := help
# What was interrupted is begun again, not taken for done.
.DELETE_ON_ERROR:
.PHONY: help venv demo test check format docs bench dist install clean

help:
	@echo 'make demo      a synthetic microscope, tiltd, and tomograms, on this machine (under 3 minutes)'
	@echo 'make test      all tests, in parallel (PYTEST_ARGS="tests/core -x" for some of them)'
	@echo 'make check     lint, formatting, types and layers'
	@echo 'make format    rewrite the formatting that `make check` asks for'
	@echo 'make docs      draw again what the documentation draws from the code'
	@echo 'make bench     the figures of speed and memory that the project promises'
	@echo 'make dist      wheel and source distribution into dist/'
	@echo 'make install   tiltd into a folder of its own: PREFIX=$(PREFIX)'
	@echo 'make clean     remove .venv, caches and what was built'
	@echo 'The first of them makes .venv and installs into it (python3 >= 3.11 is needed). Then: $(BIN)/tiltd --help'

# What `make` cannot do without, each with the one sentence that helps.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "tiltd needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1)." \
	       "Say which one to use: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'Installing python3-venv, which Debian leaves out of python3 ...'; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >/dev/null </dev/null; \
	  fi; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# Two stamps: to run tiltd takes far fewer packages than to test it.
.venv/.runs: pyproject.toml .venv/bin/python
	@echo 'Installing tiltd into .venv ...'
	@$(PIP) install -e .
	@touch $@

.venv/.develops: pyproject.toml .venv/bin/python
	@echo 'Installing tiltd and its tests into .venv ...'
	@$(PIP) install -e '.[dev]'
	@touch .venv/.runs $@

venv: .venv/.develops

demo: .venv/.runs
	@$(BIN)/tiltd demo

test: .venv/.develops
	$(BIN)/python -P -m pytest $(PYTEST_ARGS)

check: .venv/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=tests/_path $(BIN)/lint-imports --no-logo

format: .venv/.develops
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.develops
	$(BIN)/python docs/draw_states.py
	$(BIN)/python docs/draw_layers.py
	$(BIN)/python docs/draw_flow.py
	$(BIN)/python docs/write_errors.py
	$(BIN)/python docs/write_metrics.py
	$(BIN)/python docs/write_directives.py
	$(BIN)/python deploy/grafana/write.py
	PYTHONPATH=tests/_path $(BIN)/python tests/policy/test_policy_docs.py

# Every file is a program that prints its figures and exits 1 if one is missed; all run, then the verdict.
bench: .venv/.develops
	@shopt -s nullglob; missed=; \
	for file in tests/benchmarks/[!_]*.py; do \
	  echo "== $$file"; $(BIN)/python "$$file" || missed="$$missed $$file"; \
	done; \
	[ -z "$$missed" ] || { echo "missed their figures:$$missed" >&2; exit 1; }

# What an earlier build left in build/ would come into the wheel.
dist: .venv/.develops
	rm -rf build
	$(BIN)/python -m build --outdir dist .

# A virtual environment at PREFIX with tiltd in it, as the unit in deploy/systemd expects.
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'tiltd needs Python 3.11 or newer.' >&2; exit 1; }
	$(PYTHON) -m venv '$(PREFIX)'
	@rm -rf build
	'$(PREFIX)/bin/python' -m pip --disable-pip-version-check -q install --upgrade .
	@rm -rf build tiltd.egg-info
	@rm -rf '$(PREFIX)/share/tiltd' && mkdir -p '$(PREFIX)/share/tiltd'
	@cp -R deploy/systemd deploy/prometheus deploy/grafana deploy/torque docs '$(PREFIX)/share/tiltd/'
	@sed -i 's#/opt/tiltd#$(PREFIX)#g' '$(PREFIX)'/share/tiltd/systemd/*.service
	@echo 'Installed, with units, rules, dashboards and pages in $(PREFIX)/share/tiltd.'
	@echo 'Next: $(PREFIX)/bin/tiltd init /etc/tiltd'

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
