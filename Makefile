# Each target makes what it needs: `make test` is enough in a fresh clone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo demo-check test coverage test-redis test-uvloop test-eager \
	test-browser test-proxy fuzz soak soak-short format lint types docs \
	record screenshots bench bench-client bench-limits bench-tokens \
	bench-observability bench-instructions bench-compression clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-20s%s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Run the demo application; Ctrl-C stops it
	$(BIN)/python -m examples.demo $(ARGS)

demo-check: $(VENV)/.demo ## Run the scenarios of the demo and check them
	$(BIN)/python -m examples.demo --check

test: $(VENV)/.test ## Run the tests; ARGS="-k cors" goes on to pytest
	$(BIN)/python -m pytest $(ARGS)

coverage: $(VENV)/.test ## List the lines that the tests never reach; needs Redis
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered $(ARGS)

test-redis: $(VENV)/.test ## Run only the tests that need redis-server
	$(BIN)/python -m pytest -m redis $(ARGS)

test-uvloop: $(VENV)/.uvloop ## Run the tests on uvloop
	$(BIN)/python -m pytest -p tests.on_uvloop $(ARGS)

test-eager: $(VENV)/.test ## Run the tests in eager tasks; Python 3.12 or newer
	$(BIN)/python -m pytest -p tests.on_eager $(ARGS)

test-browser: $(VENV)/.browser ## Run the tests that need Chromium
	$(BIN)/python -m pytest tests/browser $(ARGS)

test-proxy: $(VENV)/.test ## Run the tests that need nginx
	$(BIN)/python -m pytest tests/proxy $(ARGS)

.PHONY: test-next test-aiohttp

# What aiohttp will be next, in an environment of its own.
NEXT := $(VENV)-next

test-next: $(VENV)/.package ## Run the tests on aiohttp's next pre-release, if any
	@set -e; next=$$($(BIN)/python tests/next_release.py); \
	if [ -z "$$next" ]; then \
		echo "aiohttp has no pre-release that is newer than its releases"; \
		exit; \
	fi; \
	test -x $(NEXT)/bin/python || $(PYTHON) -m venv $(NEXT); \
	$(NEXT)/bin/python -m pip install -q --upgrade 'pip>=25.1'; \
	$(NEXT)/bin/python -m pip install -q -e . --group test "aiohttp==$$next"; \
	echo "aiohttp $$next"; \
	$(NEXT)/bin/python -m pytest $(ARGS)

# aiohttp's own tests have plugins that those here cannot be beside.
OWN := $(VENV)-aiohttp

test-aiohttp: $(OWN)/.done ## Run aiohttp's own tests behind ours; ARGS="--all"
	$(OWN)/bin/python tests/aiohttp_own/run.py $(OWN)/source $(ARGS)

$(OWN)/.done: $(VENV)/.package
	test -x $(OWN)/bin/python || $(PYTHON) -m venv $(OWN)
	$(OWN)/bin/python -m pip install -q --upgrade 'pip>=25.1'
	$(OWN)/bin/python -m pip install -q -e . --group aiohttp-own \
		$$($(BIN)/python -m pip freeze | grep -E '^aiohttp==')
	@touch $@

fuzz: $(VENV)/.test ## Have 100,000 hostile requests with the documented stack
	FUZZ_REQUESTS=100000 $(BIN)/python -m pytest -s tests/test_hostile.py \
		-k fuzzed $(ARGS)

soak: $(VENV)/.test ## Load a server for a minute and look what is left
	$(BIN)/python -m pytest -s tests/soak $(ARGS)

soak-short: $(VENV)/.test ## The same in ten seconds
	SOAK_SECONDS=10 $(BIN)/python -m pytest -s tests/soak $(ARGS)

format: $(VENV)/.lint ## Mend the style of the code, as far as that can be done
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: $(VENV)/.lint ## Check the style of the code
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Pyright, which editors have inside, finds the packages by the first Python.
PYRIGHT := PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright

types: $(VENV)/.types ## Check the types, also as those see them who use them
	$(BIN)/mypy
	$(PYRIGHT)
	$(PYRIGHT) --verifytypes aiohttp_middlewares --ignoreexternal

docs: $(VENV)/.docs ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

screenshots: $(VENV)/.browser ## Take the pictures of the demo for the docs
	PYTHONPATH=. $(BIN)/python docs/record_demo.py $(ARGS)

# That these files show what the example does, the tests see to.
record: $(VENV)/.bench ## Record anew what how-to/observability shows
	$(BIN)/python docs/record_observability.py

# Upstream stands beside, in an environment of its own, with what others use.
UPSTREAM := $(VENV)-upstream

bench: $(VENV)/.bench $(UPSTREAM)/.done ## Measure it beside upstream's
	$(BIN)/python benchmarks $(ARGS) $(UPSTREAM)/bin/python

# The libraries that others use around requests, likewise.
PEERS := $(VENV)-peers

bench-client: $(PEERS)/.done ## Measure the client's beside what others use
	PYTHONPATH=. $(PEERS)/bin/python benchmarks/client.py $(ARGS)

bench-limits: $(PEERS)/.done ## Measure rate limits beside what others use
	PYTHONPATH=. $(PEERS)/bin/python benchmarks/rate_limit.py $(ARGS)

bench-observability: $(PEERS)/.done ## Measure logs, metrics and traces
	PYTHONPATH=. $(PEERS)/bin/python benchmarks/observability.py $(ARGS)
	PYTHONPATH=. $(PEERS)/bin/python benchmarks/metrics.py $(ARGS)
	PYTHONPATH=. $(PEERS)/bin/python benchmarks/tracing.py $(ARGS)

bench-tokens: $(VENV)/.bench ## Verify tokens beside joserfc and PyJWT
	$(BIN)/python -m benchmarks.tokens $(ARGS)

$(PEERS)/.done: $(VENV)/.bench
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --upgrade 'pip>=25.1'
	$(PEERS)/bin/python -m pip install -q --group bench \
		aiohttp-retry==2.9.1 tenacity==9.2.1 aiolimiter==1.3.0 \
		aiohttp-ratelimiter==4.1.3 aiohttp-prometheus-exporter \
		aiohttp-request-id-logging==1.0.0 \
		$$($(BIN)/python -m pip freeze | grep -E '^(aiohttp|multidict|yarl)==')
	@touch $@

bench-instructions: $(VENV)/.bench $(UPSTREAM)/.done ## Count instructions
	$(BIN)/python benchmarks --instructions $(UPSTREAM)/bin/python

bench-compression: $(VENV)/.bench ## Compress beside aiohttp and Starlette
	$(BIN)/python -m benchmarks.compression

$(UPSTREAM)/.done: $(VENV)/.bench
	test -x $(UPSTREAM)/bin/python || $(PYTHON) -m venv $(UPSTREAM)
	$(UPSTREAM)/bin/python -m pip install -q aiohttp-middlewares==3.0.0 \
		aiohttp-cors aiohttp-remotes \
		$$($(BIN)/python -m pip freeze | grep -E '^(aiohttp|multidict|yarl)==')
	@touch $@

clean: ## Remove all that the other targets made
	rm -rf $(VENV) $(UPSTREAM) $(PEERS) $(NEXT) $(OWN) docs/_build \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
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
