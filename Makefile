# `make demo` and `make test` need python >= 3.11 with venv, make, a C compiler and a package index.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# One thread for each process: bits do not depend on the machine, and processes do not get in each other's way.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
CHECKPOINT ?= checkpoints/convergence_2d_wgan_gp
DEMO_DATA := recipes/data/convergence_2d_demo.yaml

.PHONY: install test test-slow demo lint clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "cosmozoo needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV): about two minutes the first time, most of them for torch."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "the venv module of $(PYTHON) is missing; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(MAKE) --no-print-directory quantimpy
	@touch $@

# The default build of quantimpy is made for NumPy 1 and fails at import; built against the installed NumPy it works.
.PHONY: quantimpy
quantimpy:
	@$(BIN)/python -c "import quantimpy.minkowski" 2>/dev/null || \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --force-reinstall \
		--no-build-isolation --no-deps --no-binary quantimpy quantimpy==0.2.6 || \
	echo "quantimpy was not built (is a C compiler installed?); only the comparisons with it are missing" >&2

test: install
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: install
	$(ONE_THREAD) $(BIN)/python -m pytest -m "slow and not gpu"

demo: install
	$(BIN)/cosmozoo simulate $(DEMO_DATA)
	$(BIN)/cosmozoo sample $(CHECKPOINT) --params Omega_m=0.3,sigma_8=0.8 -n 64 --seed 0 -o report/maps.h5 --overwrite
	$(BIN)/cosmozoo report $(CHECKPOINT) --data $(DEMO_DATA) -o report

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) .build .pytest_cache .ruff_cache *.egg-info
