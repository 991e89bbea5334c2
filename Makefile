# Two commands on a fresh machine: `make demo` and `make test`. Each makes what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint clean

demo: .venv/installed
	$(BIN)/fmcluster demo

test: .venv/installed-test
	$(BIN)/python -m pytest $(ARGS)

test-all: .venv/installed-test
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)

lint: .venv/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fmcluster needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into .venv; PyTorch is several GB, this takes some minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $@

.venv/installed-lint: .venv/installed-test
	$(BIN)/python -m pip install --editable '.[test,lint]'
	@touch $@
