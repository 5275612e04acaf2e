# kleval: `make` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
# Samples per task and length in `make demo`: more is slower and gives narrower intervals.
LIMIT  ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

.PHONY: help demo test lint format clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

# The stamps make a second call instant; they go stale when what is installed would change.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "kleval needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing kleval into $(VENV) ..."
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the development tools into $(VENV) ..."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/installed ## install, run the long suite and the profiler on the nano models, write pages and tables below demo/
	$(BIN)/kleval run --model kimi-linear,mla --suite long --ctx 1k,2k --limit $(LIMIT) --out demo/run
	$(BIN)/kleval profile --ctx 8k --repeats 2 --out demo/profile
	@echo "quality: $(CURDIR)/demo/run/report.html      $(CURDIR)/demo/run/leaderboard.csv"
	@echo "cost:    $(CURDIR)/demo/profile/report.html  $(CURDIR)/demo/profile/profile.csv"

test: $(VENV)/installed-dev ## install and run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(VENV)/installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment, caches and the demo
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
