# Two commands on a fresh machine: `make demo` and `make test`. Each makes what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-all lint docs pictures clean

demo: .venv/installed
	$(BIN)/fmcluster demo

# two processes of one thread each: two threads of one test seldom keep two cores busy
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: .venv/installed-test
	$(PYTEST) $(ARGS)

test-slow: .venv/installed-test
	$(PYTEST) -m "(slow or browser) and not gpu" $(ARGS)

test-all: .venv/installed-test
	$(PYTEST) -m "not gpu" $(ARGS)

lint: .venv/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed-docs demo/run.zarr
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir demo/site

demo/run.zarr:
	$(MAKE) demo

pictures: demo
	$(BIN)/fmcluster plot demo/run.zarr channel_evolution --layer layer2 --channels 75,33,79,122 --dpi 90 -o docs/images/evolution.png
	$(BIN)/fmcluster plot demo/run.zarr flow --layer layer4 --dpi 90 -o docs/images/flow.png

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

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --editable '.[docs]'
	@touch $@

.venv/installed-lint: .venv/installed-test
	$(BIN)/python -m pip install --editable '.[test,lint]'
	@touch $@
