# Two commands do all the set-up: `make benchmark` and `make test`. Both need Python 3.11 or newer, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.dev

.PHONY: benchmark test browser time-once lint types docs wheel clean

benchmark: $(INSTALLED)  ## train and score all models on the embedded sample; ends by naming the page of it
	$(BIN)/recvae benchmark --report runs/report

test: $(DEV)  ## the whole test suite; many tests start processes, which need not compile the package again
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

browser: $(DEV)  ## that page in a real browser, where Chromium is installed (part of `make test` as well)
	$(BIN)/python -m pytest -n 0 -m browser -rs

time-once: $(DEV)  ## what `pytest benchmarks` times, on small data and untimed: that it runs
	$(BIN)/python -m pytest benchmarks -n 0 -q -k "small or gpu" --benchmark-disable

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

docs: $(DEV) $(VENV)/.docs  ## the guide as a site, in build/site; whatever is wrong in it is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(DEV)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) dist runs build .mypy_cache .pytest_cache .ruff_cache

# what `make benchmark` needs. Only the modules that it loads are compiled, by the import at the end: all of them would
# take longer than the benchmark, and 200 MB. An environment in which Python writes no bytecode, as in many containers,
# would compile torch again in each command
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recvae needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[benchmark,report]'
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import altair, implicit, jinja2, recvae.benchmark.run, vl_convert'
	touch $@

# what the tests and the other checks need as well
$(DEV): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
