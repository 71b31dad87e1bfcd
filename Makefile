# Two commands do all the set-up: `make run` and `make test`. Both install what they need into .venv first.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: help run test lint bench install lock clean

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort

run: $(INSTALLED)  ## everything up on this machine: database, shop, first build, Dagster, MLflow, API
	@exec $(BIN)/bookclub up

test: $(INSTALLED)  ## the tests
	@exec $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

lint: $(INSTALLED)  ## style, types, import rules, known faults of what is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/audit.py

# A script called serving.py would hide the package `serving` from all scripts beside it.
bench: $(INSTALLED)  ## the crawl against Scrapy, or with BENCH=load the loads against COPY: benchmarks/README.md
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[bench]'
	@exec $(BIN)/python benchmarks/$(or $(BENCH:serving=answers),crawl).py $(ARGS)

install: $(INSTALLED)  ## install into .venv

$(INSTALLED): setup.py constraints.txt
	@sh tools/make_venv.sh $(VENV)
	@sh tools/install.sh $(BIN)
	@touch $@

lock: $(INSTALLED)  ## write constraints.txt anew from what setup.py allows
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --no-header --upgrade \
	  --no-emit-index-url --no-emit-find-links -o constraints.txt setup.py

clean:  ## remove the environment and all embedded state
	rm -rf $(VENV) .bookclub
