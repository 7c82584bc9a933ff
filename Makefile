# ElectroRed. `make` alone lists what there is.
# Needs make and a Python >= 3.11; everything else comes into .venv, from requirements.lock.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
# Pinned like everything else; it installs the rest by hash.
UV := uv==0.13.9
# The first of these that is new enough; another one by `make up PYTHON=/path/to/python3`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# Handed to the command that is run: make up ARGS="--port-offset 100", make test ARGS="-k oracle".
ARGS ?=

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## "; print "make TARGET [ARGS=\"...\"]\n" } \
	  /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: up
up: $(VENV)/.installed ## Start the whole platform and show it; Ctrl-C stops it
	@$(BIN)/electrored up $(ARGS)

# The whole platform has the machine to itself: two of them end hardly sooner (646 s instead of about 750), and each
# waits three times as long for the other's starts. The other tests mostly wait, so four workers share it (three where
# soak tests keep it busy), each with servers of its own. Status 5: ARGS chose no test of a part; above 1 otherwise:
# interrupted, or never begun.
TEST_PARTS = "tests/e2e tests/integration/deployment" \
  "--ignore tests/e2e --ignore tests/integration/deployment -n $(2) --dist loadfile"
RUN_PARTS = failed=0; for part in $(TEST_PARTS); do \
	  $(BIN)/pytest $$part -m $(1) --durations=25 $(ARGS); status=$$?; \
	  case $$status in \
	    0 | 5) ;; \
	    1) failed=1 ;; \
	    *) exit $$status ;; \
	  esac; \
	done; exit $$failed
.PHONY: test
test: $(VENV)/.installed ## Run the tests, on a real Kafka, registry and PostgreSQL: each promise at least once
	@$(call RUN_PARTS,"not soak",4)

.PHONY: test-soak
test-soak: $(VENV)/.installed ## Run what takes long: volume, kills at every step, every alert, the deployment
	@$(call RUN_PARTS,"soak",3)

.PHONY: test-all
test-all: test test-soak ## Both

.PHONY: test-unit
test-unit: $(VENV)/.installed ## Run the tests that start nothing
	@$(BIN)/pytest tests/unit $(wildcard tests/pipelines) $(ARGS)

.PHONY: check
check: $(VENV)/.installed ## Lint, format, types, imports between rooms, Dagster's definitions, container files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile deploy/kafka.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.override.yml \
	  deploy/compose.managed.yml
	@mkdir -p $(VENV)/dagster-home
	DAGSTER_HOME=$(CURDIR)/$(VENV)/dagster-home VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg check defs

.PHONY: bench
bench: $(VENV)/.installed ## Measure, and print each figure beside its target
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: install
install: $(VENV)/.installed ## Make .venv with everything in it; the other targets do this by themselves

LOCK = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --custom-compile-command "make lock" -q
.PHONY: lock
lock: $(BIN)/uv ## Resolve the Python libraries anew into requirements.lock, and what the image needs of them
	$(LOCK) --extra embedded --group dev pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock pyproject.toml -o requirements.image.lock

.PHONY: lock-java
lock-java: $(VENV)/.installed ## Resolve the files of Kafka, Kafka Streams and the registry anew into stack/*.lock
	$(BIN)/python -m stack.lock

.PHONY: clean
clean: ## Remove .venv and caches; the platform's state stays (`electrored reset` removes that)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Bytecode is compiled while installing: a first start that imports from source takes twice as long.
$(VENV)/.installed: requirements.lock pyproject.toml $(BIN)/uv
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/uv: Makefile
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found: install one, or name it with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment: on Debian, apt install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install -q --disable-pip-version-check "$(UV)"
	@touch $@
