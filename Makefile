# Two commands do all set-up: `make demo` and `make test`. Each makes .venv if it is missing.
PYTHON ?= python3
RESULTS ?= results
BIN := .venv/bin
SMOKE := results/smoke
SINCE ?= HEAD
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
ON_ALL_CORES := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help install demo report performance scaling test test-all test-changed mutants check format smoke
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed  ## make .venv and install routerbench with its development tools

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable '.[dev]'
	@touch $@

demo: install  ## six routers, the dense twin and two controls on real images, three seeds, then the board
	$(BIN)/routerbench train -m +sweep=demo runtime.results=$(RESULTS); \
	status=$$?; $(BIN)/routerbench report --results $(RESULTS) && exit $$status

report: install  ## the report of results/pocket, also pasted into README.md and docs/report.md
	$(BIN)/routerbench report --results results/pocket --paste README.md
	$(BIN)/routerbench report --results results/pocket --claims --paste docs/report.md

performance: install  ## the measurements of results/performance, also pasted and drawn for docs/performance*.md
	$(BIN)/routerbench bench --from results/performance/bench.json \
		--references results/performance/references.csv --paste docs/performance.md --plot docs/performance.png
	$(BIN)/routerbench bench --from results/performance/h100.json --paste docs/performance-h100.md

scaling: install  ## the tables of docs/scaling.md
	$(BIN)/routerbench costs --gpus 64 --paste docs/scaling.md model=vit_base data.image_size=224 \
		router=token_choice placement=every_2 num_experts=32 batch_size=4096 precision=bf16

test: install  ## the tests of what matters, a file at a time on each of up to eight cores
	$(PYTEST) $(ON_ALL_CORES) -m "not slow"

test-all: install  ## all tests: also the long forms, the failures of machines, every cell and picture
	$(PYTEST) $(ON_ALL_CORES)

test-changed: install  ## those that a change can break, the nearest first, for a minute (SINCE=HEAD)
	$(PYTEST) -m "not slow" --changed-since $(SINCE)

mutants: install  ## plant small bugs one at a time, and say which of them no cheap test catches
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

check: install  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

format: install  ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke: install  ## the demo on a small data set for one epoch, through to the board
	rm -rf $(SMOKE)
	$(BIN)/routerbench train -m +sweep=demo seed=0,1 data=digits augment=none epochs=1 \
		runtime.results=$(SMOKE) runtime.wandb=disabled
	$(BIN)/routerbench report --results $(SMOKE)
