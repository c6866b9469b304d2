# `make` prints this help. Everything runs in .venv, which is made on first use and whenever the requirements change.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

# PyTorch's default build for Linux brings several GB of CUDA libraries. A machine without an NVIDIA driver takes the
# CPU build of the same version; override with `make install TORCH=torch==2.13.0`.
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
NEEDS_CPU_BUILD := $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && echo +cpu)
TORCH ?= torch==$(TORCH_VERSION)$(NEEDS_CPU_BUILD)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PY := "$(VENV)/bin/python"
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help install docs demo test test-all lint check bench bench-quick clean

help:  ## print this help
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## make .venv and install mmpt with its test tools

$(VENV)/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; name another one: make install PYTHON=python3.11" >&2; exit 2; }
	[ -x $(PY) ] || "$(PYTHON)" -m venv "$(VENV)"
	$(PY) -m pip install --quiet --retries 1 --no-deps $(if $(NEEDS_CPU_BUILD),--extra-index-url "$(TORCH_INDEX)") "$(TORCH)"
	$(PY) -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch "$@"

demo: install  ## train the default method on the bundled model and data
	$(PY) train.py task=rte method=multimask

test: install  ## the fast tests
	$(PYTEST) -m "not slow"

test-all: install  ## every test
	$(PYTEST)

lint: install  ## ruff, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

check: lint test  ## what a change must pass: lint, then the fast tests

docs: install  ## write docs/methods.md from the code
	$(PY) -m mmpt.methods > docs/methods.md

bench: install  ## every benchmark against peft, about an hour on 2 cores; writes benchmarks/results
	$(PY) -m benchmarks.step
	$(PY) -m benchmarks.epoch
	$(PY) -m benchmarks.sweep --examples 640 --validation 64
	$(PY) -m benchmarks.growth
	$(PY) -m benchmarks.overhead
	$(PY) -m benchmarks.operators
	$(PY) -m benchmarks.cache_dtype
	$(PY) -m benchmarks.plot

bench-quick: install  ## the main figures in minutes; the last line is one JSON object
	@$(PY) -m benchmarks.quick

clean:  ## remove .venv and tool caches; runs/ stays
	rm -rf "$(VENV)" .mypy_cache .ruff_cache .pytest_cache *.egg-info
