# Two commands on a fresh machine: `make demo` and `make test`. Each makes what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-all gpu bench zoo soak lint docs pictures clean

demo: .venv/installed
	$(BIN)/fmcluster demo

# two processes of one thread each: two threads of one test seldom keep two cores busy
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --durations 15

test: .venv/installed-test
	$(PYTEST) $(ARGS)

# these often wait for processes of their own, browsers and servers
test-slow: .venv/installed-test
	$(PYTEST) --numprocesses 3 -m "(slow or browser) and not gpu" $(ARGS)

test-all: .venv/installed-test
	$(PYTEST) -m "not gpu" $(ARGS)

# all that needs a CUDA device; GPU_PYTHON=python3 where a Python with the package and what it needs is there already
GPU_PYTHON ?= $(BIN)/python
GPU_RESULTS ?= benchmarks/results
GPU_CAPTURE := $(GPU_PYTHON) benchmarks/capture.py --rounds 3 --output $(GPU_RESULTS) \
  --only fmcluster "dict of clones" "clones + np.save"

gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),.venv/installed-test)
	TRITON_INTERPRET=0 $(GPU_PYTHON) -m pytest -m gpu --numprocesses 8 --dist worksteal $(ARGS) \
	  tests/capture tests/analysis/components
	$(GPU_PYTHON) benchmarks/kernel.py --output $(GPU_RESULTS)
	$(GPU_CAPTURE) --images 96 --batch-size 96
	$(GPU_CAPTURE) --max-size 14
	$(GPU_PYTHON) benchmarks/training.py --rounds 3 --output $(GPU_RESULTS)

# the benchmarks one after the other, and the page of their results; ARGS=--quick to try them out
bench: .venv/installed-test demo/run.zarr
	$(BIN)/python benchmarks/bench.py $(ARGS)

# every model of torchvision that fits in memory, and the table of docs/models.md
zoo: .venv/installed-test
	FMCLUSTER_ZOO=all FMCLUSTER_ZOO_TABLE=docs/models.md $(PYTEST) -m slow tests/zoo --numprocesses 1 $(ARGS)

# thousand rounds of each kind of fault, spread over what it can meet (ROUNDS=100 for fewer; about an hour of two free
# cores), and the table of docs/reliability.md, of a soak that went to its end
ROUNDS ?= 1000
soak: .venv/installed-test
	FMCLUSTER_SOAK=$(ROUNDS) FMCLUSTER_SOAK_TABLE=docs/reliability.md $(PYTEST) -m "slow or not slow" tests/faults $(ARGS)

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

# Python compiles what is imported, when it is: pip would compile ten times as many files, a minute long
PIP_INSTALL := $(BIN)/python -m pip install $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

# with the newest pip: that of Python 3.11 takes a minute longer to choose among versions
define NEW_ENVIRONMENT
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "fmcluster needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
@echo "Installing into .venv; PyTorch is several GB, this takes some minutes the first time."
$(PYTHON) -m venv --upgrade-deps .venv
endef

.venv/installed: pyproject.toml
	$(NEW_ENVIRONMENT)
	$(PIP_INSTALL) --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

.venv/installed-docs: .venv/installed
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

.venv/installed-lint: .venv/installed-test
	$(PIP_INSTALL) --editable '.[test,lint]'
	@touch $@

# for every target, at once: each call of pip resolves all anew
.venv/installed-all: pyproject.toml
	$(NEW_ENVIRONMENT)
	$(PIP_INSTALL) --editable '.[test,lint,docs]'
	@touch .venv/installed .venv/installed-test .venv/installed-docs .venv/installed-lint $@
