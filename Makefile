# Each target does its own set-up in .venv; a second run reuses what is there.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint type docs format bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## create .venv with the package and its development tools

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "ContextZoo needs Python 3.11 or newer; set PYTHON=python3.x"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install ## fit a head without and one with context, draw what they see; find nuclei (3 min)
	$(BIN)/contextzoo demo

test: install ## the tests
	$(BIN)/python -m pytest -n 2

test-slow: install ## the tests, slow ones included
	$(BIN)/python -m pytest -n 2 -m "slow or not slow"

lint: install ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install ## mypy, strict
	$(BIN)/mypy

docs: install ## the site, in build/site, and the tutorials run as they are written
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python -m pytest -n 2 -m slow tests/test_docs.py

format: install ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## every block against the plain form of its paper
	$(BIN)/contextzoo bench blocks --reference --threads 1

clean: ## remove the environment and caches, keep runs and downloads
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
