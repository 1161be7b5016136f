# SPDX-License-Identifier: MIT
# `make up` and `make test` need nothing but Python 3.11 or later; they make what they need.
# All paths are relative, so that a folder with spaces in its name works.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

# More arguments: make up ARGS="--duration 30s", make test ARGS="tests/bus -k chunk"
ARGS ?=

.PHONY: help up test lint format docs bench clean

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

up: .venv/.installed ## See this machine's metrics: sampled, archived, shown (Ctrl-C ends it)
	@$(PYTHON) -m agents.cli up $(ARGS)

test: .venv/.installed-dev ## Run all tests, on servers of their own
	@.ci/server rabbitmq postgresql sshd node-exporter chromium
	@$(PYTHON) -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

lint: .venv/.installed-dev ## ruff, mypy --strict, import-linter; is the README's table up to date
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) .ci/docs.py --check

format: .venv/.installed-dev ## Format the code
	$(PYTHON) -m ruff check --fix --select I .
	$(PYTHON) -m ruff format .

docs: .venv/.installed-dev ## Make the README's table of all metrics from the code
	$(PYTHON) .ci/docs.py

bench: .venv/.installed-dev ## Measure: points per second, CPU time per point, per family and of the whole
	@.ci/server rabbitmq postgresql sshd node-exporter
	$(PYTHON) tests/bench/throughput.py $(ARGS)
	$(PYTHON) tests/bench/families.py
	$(PYTHON) tests/bench/archive.py
	$(PYTHON) -m tests.bench.history

clean: ## Remove everything that was made here
	rm -rf .venv dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml
	@.ci/venv
	@echo "installing hostbus into .venv (once)"
	@$(PYTHON) -m pip install --quiet --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "installing the tools for development into .venv (once)"
	@$(PYTHON) -m pip install --quiet --upgrade 'pip>=25.1'
	@$(PYTHON) -m pip install --quiet --group dev
	@touch $@
