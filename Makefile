# Costapp's verbs. `make help` explains them. Only Python 3.11+, its venv module and make are needed.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run demo setup setup-dev setup-test test lint format bench bench-anomaly clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Options of run and demo: make run ARGS='--port 8010 --home DIR'; see docs/quickstart.md."

run: setup ## start everything: http://localhost:8000/
	@exec $(BIN)/python -m costapp.runtime $(ARGS)

demo: setup ## start everything with a believable company in it, and live traffic
	@exec $(BIN)/python -m costapp.runtime --demo $(ARGS)

setup:
	@$(PYTHON) costapp/runtime/install.py $(VENV) requirements.txt constraints.txt

setup-dev:
	@$(PYTHON) costapp/runtime/install.py $(VENV) requirements-dev.txt constraints.txt

setup-test: setup-dev
	@$(BIN)/python -m tests.browser_setup

test: setup-test ## all tests, on a database and a browser of their own; ARGS='tests/core -k money' chooses
	@$(BIN)/python -m pytest $(ARGS)

lint: setup-dev ## style, types, templates, missing migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/djhtml --check --tabwidth 2 templates
	$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

format: setup-dev ## rewrite code and templates in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/djhtml --tabwidth 2 templates

bench: setup-dev ## measure ingest, pipeline, storage, memory and pages (takes minutes)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-anomaly: setup-dev ## score anomaly detection and causes on the development data, next to baselines (a minute or two)
	@$(BIN)/python -m benchmarks.anomaly $(ARGS)

clean: ## remove the virtual environment and caches; data is kept
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis static
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
