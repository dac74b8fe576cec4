# Deepnight on one machine. `make help` lists the targets.
#
# Variables
#   PYTHON       the Python (3.11 or newer) that .venv is made from
#   TORCH        cpu or cuda; default: cuda where `nvidia-smi` lists a GPU, else cpu (no CUDA library is downloaded)
#   TORCH_INDEX  index of torch's CPU builds when pip's own configuration finds none
#   ARGS         more arguments, e.g. make test ARGS="-k coalescer -x"
#   DEEPNIGHT_*  settings of the service (docs/operations.md), e.g. DEEPNIGHT_PORT=8001 DEEPNIGHT_HOME=/var/tmp/dn make serve

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && exit; done; echo python3)
BIN := .venv/bin
BOOTSTRAP = @$(PYTHON) scripts/bootstrap.py --torch "$(TORCH)"
export TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help serve install dev test fuzz chaos failover bench audit sbom lint format lock models-table clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

serve: install  ## install what is missing and run the service; Ctrl-C stops it
	@exec $(BIN)/python -m workers.leash $$PPID $(BIN)/deepnight serve $(ARGS)

install:  ## the virtual environment .venv with what requirements.lock pins
	$(BOOTSTRAP)

dev:  ## the same plus what tests and checks need
	$(BOOTSTRAP) --dev

test: dev  ## every test: unit, contract, end to end over the real stack
	@$(BIN)/python -m pytest $(ARGS)

fuzz: dev  ## thousands of generated requests to every route; prints what each answered
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-150} $(BIN)/python -m pytest tests/fuzz -p no:warnings $(ARGS)

failover: dev  ## nodes of a Ray cluster and masters of Redis that are killed under load and running jobs; some minutes
	@$(BIN)/python -m pytest tests -m failover $(ARGS)

chaos: dev  ## what the service survives: kill -9 of every part under load, and other faults; hours without ARGS
	@$(BIN)/python -m tests.resilience $(ARGS)

bench: dev  ## run the benchmarks and write their tables into README.md
	@$(BIN)/python -m tests.benchmarks --write $(ARGS)

audit: dev  ## ask vulnerability services about every pinned package; says so where none answers
	@$(BIN)/python scripts/audit.py

sbom: dev  ## write dist/sbom.cdx.json, the bill of materials of what requirements.lock pins (CycloneDX)
	@$(BIN)/python scripts/sbom.py

lint: dev  ## ruff (lint and format) and mypy, as CI runs them
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: dev  ## put the code into its format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: dev  ## choose the newest versions that pyproject.toml allows and pin them
	@$(BIN)/python scripts/lock.py

models-table: install  ## write the table of models in README.md and docs/methods from cards and figures
	@$(BIN)/python scripts/models_table.py

clean:  ## remove the environment and caches; state in DEEPNIGHT_HOME stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
