# `make demo` and `make test` work in a fresh clone: they set up $(VENV) first, once, and again whenever pyproject.toml
# or constraints.txt changes.
#
#   make demo    the whole chain on handwritten digits         (DEMO="--json FILE" passes options to it)
#   make test    the test suite, two tests at a time           (TESTS="..." passes options to pytest)
#   make coverage    which layers at which widths were simulated and equal, which bits toggled  -> build/coverage.txt, .json
#   make lint    ruff and mypy
#   make prove   formal proofs of the hardware's units         (PROOFS="--list" says which)
#   make clean   removes what was built, the virtual environment excepted

SHELL := /bin/sh
VENV ?= .venv
JOBS ?= 2
CXX ?= g++
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
APT := sudo apt install git make g++ perl python3-venv python3-dev

.DEFAULT_GOAL := help
.PHONY: help tools setup demo test coverage lint prove format clean

help:
	@sed -n 's/^#   //p' Makefile

demo: setup
	$(BIN)/bitswitch demo $(DEMO)

test: setup
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal $(TESTS)

coverage: setup
	$(BIN)/python -m sim_tests.coverage

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

prove: setup
	$(BIN)/python -m rtl.proofs --jobs $(JOBS) $(PROOFS)

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find hwsim rtl quant sim_tests tests notebooks benchmarks -name __pycache__ -type d -exec rm -rf {} +

setup: tools $(STAMP)

# Everything that pip cannot bring. One sentence for what is missing, and the line that brings it.
tools:
	@missing() { echo "bitswitch needs $$1, which is missing. On Debian or Ubuntu: $(APT)" >&2; exit 1; }; \
	command -v $(firstword $(CXX)) >/dev/null || missing "a C++ compiler ($(firstword $(CXX)))"; \
	command -v perl >/dev/null || missing "perl"; \
	if [ ! -x $(BIN)/python ]; then \
	    $(FIND_PYTHON); \
	    [ -n "$$python" ] || missing "Python 3.11 or later"; \
	    "$$python" -c 'import venv, ensurepip' 2>/dev/null || missing "the venv module of $$python"; \
	fi

# The first of these that is Python 3.11 or later; PYTHON=... names another.
FIND_PYTHON = python=; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        python=$$candidate; break; \
	    fi; \
	done

$(STAMP): pyproject.toml constraints.txt | tools
	@if [ ! -x $(BIN)/python ]; then \
	    $(FIND_PYTHON); echo "making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV); \
	fi
	@echo "installing into $(VENV), a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@$(BIN)/python -m find_libpython | grep -q . || { echo "bitswitch needs the shared library of Python, which is \
	missing. On Debian or Ubuntu: $(APT)" >&2; exit 1; }
	@touch $@
