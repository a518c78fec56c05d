# Everything a user or a contributor runs. `make` lists it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := .demo
JOBS ?= 2
TESTS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo corpus rule-speed ledger-speed test test-services prove check lint format lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Make the environment from the lock

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP) ## Scan real C and Python (psutil, examples/), write evidence, verify it
	@PATH="$(abspath $(BIN)):$$PATH" sh demo/run.sh $(DEMO)

test: $(STAMP) ## Run the tests; TESTS=name runs those whose name holds it, and stops at the first failure
ifeq ($(TESTS),)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup --cov --cov-report=term tests
else
	$(BIN)/python -m pytest -q -x -k "$(TESTS)" tests
endif

corpus: $(STAMP) ## Measure the Power of Ten rules on labelled cases (fetches the pinned packages, some minutes)
	@for name in $$($(BIN)/python -c 'import json; print(*json.load(open("demo/sources.json")))'); do \
		$(BIN)/python demo/fetch_source.py demo/sources.json "$$name" $(DEMO)/sources || exit 1; done
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.corpus.evaluate --packages $(DEMO)/sources

test-services: $(STAMP) ## Run the tests that need system packages (none do so far)
	@echo "no test needs a service or a system package so far"

rule-speed: $(STAMP) ## Measure how fast the rules read, beside what only parses (after `make demo` or `make corpus`)
	$(BIN)/python -m benchmarks.rule_speed $(DEMO)/sources

ledger-speed: $(STAMP) ## Measure the ledger beside bare fdatasync and sha256; RECORDS=1000000 for the full size
	$(BIN)/python -m benchmarks.ledger --records $(or $(RECORDS),100000)

prove: $(STAMP) ## Run the full counts of tampered evidence, killed runs and mutated files (an hour or so)
	$(BIN)/python -m tests.prove

check: $(STAMP) ## What CI runs before the tests: style, types, directions of imports, our own scan
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/detector-pool scan detectors compliance flows deployments --fail-on error --require-complete --output .demo-own-scan.txt \
		|| { cat .demo-own-scan.txt; rm -f .demo-own-scan.txt; exit 1; }
	@tail -3 .demo-own-scan.txt && rm -f .demo-own-scan.txt

lint: $(STAMP) ## Style only
	$(BIN)/ruff check .

format: $(STAMP) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Resolve requirements.txt anew (needs uv on the PATH)
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --no-strip-extras --extra dev --constraint constraints.txt --output-file requirements.txt pyproject.toml

clean: ## Remove the environment and what the demo left
	rm -rf $(VENV) $(DEMO)
