# Every target makes the virtual environment it needs; nothing has to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PARALLEL := --numprocesses=$(WORKERS) --dist=loadscope --no-loadscope-reorder
INPUTS ?= 10000
KILLS ?= 40
SEED ?= $(shell date +%Y%m%d)

.PHONY: demo test coverage fuzz check bench docs format clean

demo: $(VENV)/.installed
	$(BIN)/medsegdiff demo

test: $(VENV)/.installed-dev
	$(BIN)/pytest $(PARALLEL)

coverage: $(VENV)/.installed-dev
	$(BIN)/pytest $(PARALLEL) --cov --cov-report=term

fuzz: $(VENV)/.installed-dev
	nice -n 5 $(BIN)/pytest tests/fuzz --verbose --fuzz-inputs=$(INPUTS) --fuzz-kills=$(KILLS) --fuzz-seed=$(SEED)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pydoclint -q src
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/isic2016.py

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/models.py
	$(BIN)/python docs/house.py
	$(BIN)/sphinx-build -E -W --keep-going --quiet -b html docs build/docs
	@echo build/docs/index.html

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml models/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable . --editable models
	touch $@

$(VENV)/.installed-dev: pyproject.toml models/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]" --editable models
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml models/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[docs]" --editable models
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo docs/api docs/auto_gallery .pytest_cache .mypy_cache .ruff_cache .coverage build
