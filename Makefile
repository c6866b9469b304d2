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
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help install install-all install-locked demo test test-all test-matrix test-engines lint check docs docs-site bench bench-quick lock audit sbom clean

help:  ## print this help
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-19s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## make .venv and install mmpt with its test tools

$(VENV)/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; name another one: make install PYTHON=python3.11" >&2; exit 2; }
	[ -x $(PY) ] || "$(PYTHON)" -m venv "$(VENV)"
	$(PY) -m pip install --quiet --retries 1 --no-deps $(if $(NEEDS_CPU_BUILD),--extra-index-url "$(TORCH_INDEX)") "$(TORCH)"
	$(PY) -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch "$@"

install-all: install  ## the same with every extra: sweeps, loggers, dashboard, text metrics, docs
	$(PY) -m pip install --quiet -c constraints.txt -e '.[all]'

# The CPU build of PyTorch comes from PyTorch's own index, whose hashes requirements.lock doesn't have: with it, PyTorch alone
# is installed without one, and what only the CUDA build needs is left out. TORCH=torch==VERSION takes the locked build.
LOCKED := $(if $(findstring +,$(TORCH)),awk '/^[a-z]/ { keep = !/^(torch|triton|nvidia-|cuda-)/ } keep',cat) requirements.lock
install-locked:  ## make .venv from requirements.lock: a package with another hash is refused
	[ -x $(PY) ] || "$(PYTHON)" -m venv "$(VENV)"
	$(if $(findstring +,$(TORCH)),$(PY) -m pip install --quiet --retries 1 --no-deps --extra-index-url "$(TORCH_INDEX)" "$(TORCH)")
	$(LOCKED) > "$(VENV)/locked.txt"
	$(PY) -m pip install --quiet --require-hashes --no-deps -r "$(VENV)/locked.txt"
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch "$(VENV)/.installed"

demo: install  ## train the default method on the bundled model and data
	$(PY) train.py task=rte method=multimask

test: install  ## the fast tests
	$(PYTEST) -m "not slow"

test-all: install  ## every test
	$(PYTEST)

test-matrix: install-all  ## the tests with other versions of everything, and as on other processors; hours, some 30 GB
	$(PY) -m tests.matrix versions
	$(PY) -m tests.matrix processors

test-engines: install  ## sweeps on a real Slurm, Ray and torchrun over several machines of namespaces; needs root, minutes
	$(PY) -m tests.engines

lint: install  ## ruff, formatting, types, and who may import whom
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	"$(VENV)/bin/lint-imports" --no-cache

check: lint test  ## what a change must pass: lint, then the fast tests

docs: install  ## write docs/methods.md from the code
	$(PY) -m tools.methods_page > docs/methods.md

docs-site: install-all  ## build the documentation's pages into site/
	$(PY) -m mkdocs build --strict

bench: install  ## every benchmark against peft, about an hour on 2 cores; writes benchmarks/results
	$(PY) -m benchmarks.step
	$(PY) -m benchmarks.epoch
	$(PY) -m benchmarks.sweep --examples 640 --validation 64
	$(PY) -m benchmarks.growth
	$(PY) -m benchmarks.causal
	$(PY) -m benchmarks.overhead
	$(PY) -m benchmarks.operators
	$(PY) -m benchmarks.cache_dtype
	$(PY) -m benchmarks.plot

bench-quick: install  ## the main figures in minutes; the last line is one JSON object
	@$(PY) -m benchmarks.quick

# Tools about packages, apart from .venv: what they need is no part of what is audited.
TOOLS := $(VENV)/tools
TOOL := "$(TOOLS)/bin/python" -m
$(TOOLS)/.installed: Makefile
	"$(PYTHON)" -m venv "$(TOOLS)"
	$(TOOL) pip install --quiet uv==0.13.9 pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch "$@"

lock: $(TOOLS)/.installed  ## write requirements.lock: every package, with its hashes for Linux and macOS
	$(TOOL) uv pip compile pyproject.toml --extra test -c constraints.txt --universal --python-version 3.11 \
	  --default-index https://pypi.org/simple --generate-hashes --no-annotate --quiet \
	  --custom-compile-command "make lock" -o requirements.lock

# --strict: a package that the service doesn't tell about is an error, and not a clean bill of health
audit: $(TOOLS)/.installed  ## look for known vulnerabilities of what requirements.lock names; needs pypi.org
	$(TOOL) pip_audit --disable-pip --require-hashes --strict --progress-spinner off -r requirements.lock

sbom: install $(TOOLS)/.installed  ## write sbom.json: what .venv holds, in CycloneDX's format
	$(TOOL) cyclonedx_py environment $(PY) --pyproject pyproject.toml --output-reproducible -o sbom.json

clean:  ## remove .venv and tool caches; runs/ stays
	rm -rf "$(VENV)" .venv-matrix .mypy_cache .ruff_cache .pytest_cache *.egg-info
