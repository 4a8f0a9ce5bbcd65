# Needs python3 (3.11 or later) and make; everything else goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
LOG := $(VENV)/install.log
install = $(BIN)/python -m pip --disable-pip-version-check install --editable $(1) >$(LOG) 2>&1 \
    || { cat $(LOG); exit 1; }
PYTEST_FLAGS ?=
DEMO_FLAGS ?=
SIM_FLAGS ?= --seeds 1000 --jobs 2
COMPILED ?=
COMPILED_DIR := $(VENV)/compiled

# Hundreds of processes are started; each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# With COMPILED=1 a copy of everything is used whose busiest modules are machine code.
ifeq ($(filter-out 0,$(COMPILED)),)
ready := $(VENV)/installed
ready_dev := $(VENV)/installed-dev
with :=
else
ready := $(COMPILED_DIR)/done
ready_dev := $(VENV)/installed-dev $(COMPILED_DIR)/done
with := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED_DIR):$(CURDIR)/benchmarks:$(CURDIR)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test sim lint format bench compiled docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  DEMO_FLAGS="--nodes 5 --port 0", PYTEST_FLAGS="-k partition" and'
	@echo '  SIM_FLAGS="--seeds 200 --nodes 5 --faults disk,crash" are passed on.'
	@echo '  COMPILED=1 has demo, test, sim and bench use compiled modules.'

demo: $(ready) ## Start a three-node cluster on this machine; Ctrl-C stops it
	@# Job control gives the demo the terminal: Ctrl-C stops it, and make sees a normal end.
	@if [ -t 0 ]; then set -m; fi; $(with) $(BIN)/raftcache demo $(DEMO_FLAGS)

test: $(ready_dev) ## Run the tests
	@$(with) $(BIN)/python -m pytest --numprocesses 2 $(PYTEST_FLAGS)

sim: $(ready) ## Simulate many clusters with faults, from many seeds
	@$(with) $(BIN)/python -m jepsen_like sim $(SIM_FLAGS)

lint: $(VENV)/installed-dev ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/installed-dev ## Put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(ready_dev) ## Measure speed and memory, and compare with what else is installed
	@set -e; for name in compare degradation http_speed restart memory cluster_memory failover \
	    hit_ratio; do \
	    echo "== benchmarks/$$name.py"; $(with) $(BIN)/python benchmarks/$$name.py; done

compiled: $(COMPILED_DIR)/done ## Compile the busiest modules, for COMPILED=1

docs: $(VENV)/installed ## Write the table of settings into docs/configuration.md
	@$(BIN)/python -m raftcache.config.reference

clean: ## Remove what make and the tools made
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian keeps venv in a package of its own, without which `python3 -m venv` fails halfway.
$(VENV)/bin/python:
	@echo 'Creating $(VENV) ...'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo 'raftcache needs Python 3.11 or later; set PYTHON=python3.x'; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	    rm -rf $(VENV); \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo 'Installing python3-venv ...'; \
	        apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
	            apt-get -qq -y install python3-venv >/dev/null && $(PYTHON) -m venv $(VENV); \
	    else \
	        echo 'python3 -m venv does not work here; install it first:'; \
	        echo '    sudo apt-get install python3-venv'; exit 1; \
	    fi; }

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing raftcache into $(VENV) ...'
	@$(call install,.)
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing raftcache and what its tests need into $(VENV) ...'
	@$(call install,'.[dev]')
	@touch $(VENV)/installed $@

# pip builds beside the sources: what an earlier build left there would get into this one.
$(COMPILED_DIR)/done: setup.py pyproject.toml $(shell find raftcache jepsen_like -name '*.py') \
    | $(VENV)/installed
	@echo 'Compiling into $(COMPILED_DIR) (about a minute) ...'
	@command -v cc >/dev/null && $(BIN)/python -c 'import os, sys, sysconfig; \
	    sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo 'Installing gcc and python3-dev ...'; \
	        apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
	            apt-get -qq -y install gcc libc6-dev python3-dev >/dev/null; \
	    else \
	        echo 'COMPILED=1 needs a C compiler and the headers of Python; install them first:'; \
	        echo '    sudo apt-get install gcc python3-dev'; exit 1; \
	    fi; }
	@rm -rf build $(COMPILED_DIR)
	@RAFTCACHE_COMPILE=1 $(BIN)/python -m pip --disable-pip-version-check install --no-deps \
	    --target $(COMPILED_DIR) . >$(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@rm -rf build
	@touch $@
