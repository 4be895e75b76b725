# Every target works as the first command in a fresh clone. PYTHON names the interpreter that makes
# the environment; pip is configured by its own files and PIP_* variables.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-from
JOBS   ?= 2

.PHONY: dev demo test check bench docs deep clean

dev: $(STAMP)

# The stamp is a copy of the pyproject.toml last installed: a changed date alone installs nothing.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	cmp -s pyproject.toml $@ || $(BIN)/python -m pip install --quiet --editable '.[dev]'
	cp pyproject.toml $@

demo: $(STAMP)
	$(BIN)/diffc demo

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -n $(JOBS)

deep: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --deep

# The peers live in an environment of their own; tables and figures go to bench-output.
bench:
	$(PYTHON) benchmarks/setup.py
	.venv-bench/bin/python -m benchmarks run \
	    --markdown bench-output/programs.md --json bench-output/programs.json
	.venv-bench/bin/python -m benchmarks contractions \
	    --markdown bench-output/contractions.md --json bench-output/contractions.json

docs: $(STAMP)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .venv-bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
