# Every target makes the virtual environment it needs; nothing has to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PARALLEL := --numprocesses=$(WORKERS) --dist=loadscope --no-loadscope-reorder

.PHONY: demo test coverage check bench docs format clean

demo: $(VENV)/.installed
	$(BIN)/medsegdiff demo

test: $(VENV)/.installed-dev
	$(BIN)/pytest $(PARALLEL)

coverage: $(VENV)/.installed-dev
	$(BIN)/pytest $(PARALLEL) --cov --cov-report=term

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pydoclint -q src
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/isic2016.py

docs: $(VENV)/.installed
	$(BIN)/python docs/models.py
	$(BIN)/python docs/house.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .coverage build
