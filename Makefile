# Two commands do all the set-up: `make benchmark` and `make test`. Both need Python 3.11 or newer, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: benchmark test browser time-once lint types docs wheel clean

benchmark: $(INSTALLED)  ## train and score all models on the embedded sample; ends by naming the page of it
	$(BIN)/recvae benchmark --report runs/report

test: $(INSTALLED)  ## the whole test suite
	$(BIN)/python -m pytest

browser: $(INSTALLED)  ## that page in a real browser, where Chromium is installed (part of `make test` as well)
	$(BIN)/python -m pytest -n 0 -m browser -rs

time-once: $(INSTALLED)  ## what `pytest benchmarks` times, on small data and untimed: that it runs
	$(BIN)/python -m pytest benchmarks -n 0 -q -k "small or gpu" --benchmark-disable

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED) $(VENV)/.docs  ## the guide as a site, in build/site; whatever is wrong in it is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) dist runs build .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recvae needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmark,report,dev]'
	touch $@

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
