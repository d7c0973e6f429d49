# Needs make and Python 3.11 or newer, nothing else.
#   make setup PYTHON=python3.12    another Python
#   make test ARGS="-k crop"        more words for pytest; for demo: settings, e.g. ARGS="seed=1"
#   make test ARGS="-m slow"        the tests that take long

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUNS := $(or $(PAMFN_OUTPUT_DIR),runs)

# uv does not read pip's settings; a folder that does not exist is an error for it.
FIND_LINKS := $(if $(PIP_FIND_LINKS),$(wildcard $(PIP_FIND_LINKS)))

export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-video test faults check bench notebooks wandb-sync clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## make .venv and install everything; again only when pyproject.toml or constraints.txt changed

demo: setup ## train both stages on the embedded synthetic data set and score its test videos
	$(BIN)/python -m pamfn.train +experiment=demo $(ARGS)

demo-video: setup ## render synthetic videos, extract features, train on them and score the test videos
	$(BIN)/python -m pamfn.extract render=data "clips=[40,20,0]" videos=data/RENDERED/videos out=data/RENDERED/features
	$(BIN)/python -m pamfn.extract pack=data/RENDERED/features dataset=RENDERED data_dir=data
	$(BIN)/python -m pamfn.train +experiment=rendered paths.data_dir=data $(ARGS)

test: setup ## run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

faults: setup ## kill, interrupt and starve commands, and run them again, e.g. ARGS="kills disks"
	cd tests && ../$(BIN)/python -m faults $(ARGS)

check: setup ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: setup ## measure speed and memory against the plain reference, e.g. ARGS="--quick --only test,latency"
	$(BIN)/python -m benchmarks $(ARGS)

notebooks: setup ## execute the notebooks
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks $(ARGS)

wandb-sync: setup ## upload the W&B runs that were recorded offline
	@set -- "$(RUNS)"/*/*/wandb/offline-run-*; \
	if [ -e "$$1" ]; then $(BIN)/wandb sync "$$@"; else echo "no offline runs under $(RUNS)"; fi

clean: ## remove .venv and caches; runs and data stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pamfn needs Python 3.11 or newer, and $(PYTHON) is not: choose one, e.g. make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into $(VENV): half a minute, or several where torch's CUDA build has to be fetched"
	@$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -m pip install -q "uv>=0.13,<0.14"; then \
		$(if $(FIND_LINKS),UV_FIND_LINKS="$(FIND_LINKS)") \
		$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[dev]"; \
	else \
		echo "uv cannot be installed; going on with pip" >&2; \
		$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"; \
	fi
	@touch $@
