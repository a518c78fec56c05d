# Everything a user or a contributor runs. `make` lists it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := .demo
JOBS ?= 2
# What our own code must reach by its own rules. The aim is 95: too few assertions (rule 5) are what is missing.
SCORE := 93
TESTS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo corpus rule-speed incremental test test-services prove check lint format lock clean differential reduce-speed rule-growth benchmark pool-overhead report-speed monitor-cost balance simulate ledger-speed audit-overhead evidence-cost hook-speed docs

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
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m "not system" --cov --cov-report=term tests
else
	$(BIN)/python -m pytest -q -x -k "$(TESTS)" tests
endif

corpus: $(STAMP) ## Measure the Power of Ten rules on labelled cases (fetches the pinned packages, some minutes)
	@for name in $$($(BIN)/python -c 'import json; print(*json.load(open("demo/sources.json")))'); do \
		$(BIN)/python demo/fetch_source.py demo/sources.json "$$name" $(DEMO)/sources || exit 1; done
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.corpus.evaluate --packages $(DEMO)/sources

test-services: $(STAMP) ## Run the tests that need system packages (gcc, cppcheck, openssl, semgrep, postgresql, nginx, Redis, promtool, Chromium: installed where missing)
	@sh tests/system_packages.sh
	@mkdir -p .screenshots
	SCREENSHOTS=.screenshots $(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m system tests

rule-speed: $(STAMP) ## Measure how fast the rules read, beside what only parses (after `make demo` or `make corpus`)
	$(BIN)/python -m benchmarks.rule_speed $(DEMO)/sources

incremental: $(STAMP) ## Show by counts what an edited unit and an edited header of libsodium run again (after `make corpus`)
	$(BIN)/python -m benchmarks.incremental $(DEMO)/sources/pynacl-1.6.2 \
		src/libsodium/src/libsodium/crypto_hash/sha256/cp/hash_sha256_cp.c src/libsodium/src/libsodium/include/sodium/private/common.h

differential: $(STAMP) ## Hold the rules of C beside clang-tidy, cppcheck and gcc, which must be on the PATH (after `make corpus`, some minutes)
	$(BIN)/python -m benchmarks.differential $(DEMO)/sources/*/ --define PSUTIL_LINUX=1 --define PSUTIL_POSIX=1 \
		--define PSUTIL_VERSION=722 --define SIZEOF_INT=4 --define SIZEOF_PID_T=4

reduce-speed: $(STAMP) ## Measure the rules over the whole tree on the facts of 5,000 C files
	$(BIN)/python -m benchmarks.reduce $(DEMO)/sources

rule-growth: $(STAMP) ## Measure how the time of the C rules grows with the size of one file, by shape
	$(BIN)/python -m benchmarks.rule_growth $(wildcard $(DEMO)/sources/uvloop-*/uvloop/loop.c $(DEMO)/sources/zstandard-*/zstd/zstd.c)

benchmark: $(STAMP) ## Measure every figure that is aimed at, in some minutes; FULL=--full within an hour
	$(BIN)/detector-pool benchmark $(or $(FULL),--quick)

pool-overhead: $(STAMP) ## Measure what the pool costs against bare processes; FULL=--full for the long counts
	$(BIN)/python -m benchmarks.pool_overhead $(wildcard $(DEMO)/sources) $(FULL)

balance: $(STAMP) ## Measure what learnt plans and work stealing bring, on real runs (after `make demo` or `make corpus`)
	$(BIN)/python -m benchmarks.balance plans $(DEMO)/sources/psutil-7.2.2
	$(BIN)/python -m benchmarks.balance recorded --pairs 8
	$(BIN)/python -m benchmarks.balance stealing

report-speed: $(STAMP) ## Measure how long the report of 50,000 findings takes to open in Chromium
	$(BIN)/python -m benchmarks.report_page

monitor-cost: $(STAMP) ## Measure what the live compliance monitor costs the pool that it watches
	$(BIN)/python -m benchmarks.monitor_cost

hook-speed: $(STAMP) ## Measure a commit of one changed file with our pre-commit hook, beside ruff's own (fetches packages, some minutes at first)
	$(BIN)/python -m benchmarks.hook_speed $(DEMO)/hook-speed

simulate: $(STAMP) ## Simulate the planner on 1,000 workers and 1,000,000 units; prints the table, draws docs/simulation.svg
	$(BIN)/python -m benchmarks.simulation --full --curve docs/simulation.svg

ledger-speed: $(STAMP) ## Measure the ledger beside bare fdatasync and sha256; RECORDS=1000000 for the full size
	$(BIN)/python -m benchmarks.ledger --records $(or $(RECORDS),100000)

audit-overhead: $(STAMP) ## Measure what audit_mode with its ledger costs a pool, on and off by turns; PAIRS=n
	$(BIN)/python -m benchmarks.audit_overhead --pairs $(or $(PAIRS),10)

evidence-cost: $(STAMP) ## Measure what coverage, canaries and audit cost a scan of pynacl, on and off by turns (after `make corpus`, an hour)
	$(BIN)/python -m benchmarks.evidence_cost $(DEMO)/sources/pynacl-1.6.2

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
	$(BIN)/detector-pool comply detectors compliance flows deployments --no-controls --fail-under $(SCORE)

docs: $(STAMP) ## Build the documentation's site; begin with site/index.html
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html docs site

lint: $(STAMP) ## Style only
	$(BIN)/ruff check .

format: $(STAMP) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Resolve requirements.txt anew (needs uv on the PATH)
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --no-strip-extras --extra dev --constraint constraints.txt --output-file requirements.txt pyproject.toml
	awk '/^[^ ]/ { printf "%s", plain; plain = ""; extra = /\[/ } { print } extra { sub(/\[[^]]*\]/, ""); plain = plain $$0 "\n" } \
		END { printf "%s", plain }' requirements.txt > .requirements.draft
	mv .requirements.draft requirements.txt

clean: ## Remove the environment and what the demo left
	rm -rf $(VENV) $(DEMO) site
