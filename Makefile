# Each target makes what it needs: `make test` is enough in a fresh clone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo demo-check test lint types docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s%s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

demo: $(VENV)/.package ## Run the demo application; Ctrl-C stops it
	$(BIN)/python -m examples.demo $(ARGS)

demo-check: $(VENV)/.package ## Run the scenarios of the demo and check them
	$(BIN)/python -m examples.demo --check

test: $(VENV)/.test ## Run the tests; ARGS="-k cors" goes on to pytest
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.lint ## Check the style of the code
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.types ## Check the types
	$(BIN)/mypy

docs: $(VENV)/.docs ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

clean: ## Remove all that the other targets made
	rm -rf $(VENV) docs/_build .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment. It is made anew only by `make clean`; what is in it
# follows pyproject.toml, one stamp for each dependency group. `pip install
# --group` came with pip 25.1.
$(VENV)/.package: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.%: $(VENV)/.package
	$(BIN)/python -m pip install -q --group $*
	@touch $@
