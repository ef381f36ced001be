.DEFAULT_GOAL := help
PYTHON ?= python3
OSTEON_PORT ?= 8000
PORT ?= $(OSTEON_PORT)
IMAGE ?=
DEMO_EXIT ?=
BIN := .venv/bin
LOCK := $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: help demo serve dicom-node test test-quick check docs bench architecture lock

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

demo: .venv/runtime  ## set up, serve the starter, send a radiograph, print the answers (IMAGE=, PORT=, DEMO_EXIT=1)
	$(BIN)/python -m app.demo --port $(PORT) $(if $(IMAGE),--image "$(IMAGE)") $(if $(filter-out 0,$(DEMO_EXIT)),--exit)

serve: .venv/runtime  ## set up and serve (PORT=, OSTEON_*=)
	OSTEON_PORT=$(PORT) exec $(BIN)/python -m app

dicom-node: .venv/runtime  ## set up and take studies by C-STORE (OSTEON_JOBS=, OSTEON_DICOM_PORT=)
	exec $(BIN)/python -m app.hospital.storescp

# A thread each for what computes: the workers share the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal

test: .venv/dev  ## set up and run all tests
	@tests/install-tools || echo "the tests that need other projects' programs are skipped"
	$(PYTEST) --cov --cov-report=
	@echo "lines that the tests run: $$($(BIN)/coverage report --format=total) %"

test-quick: .venv/dev  ## run the tests that take no more than a moment, for the loop of changing a line
	$(PYTEST) -m "not slow"

# The notice that it hides is about versions that the lock does not name.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: .venv/dev  ## format, lint, types, import contracts, Dockerfile, compose file, links of the documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(MKDOCS)

docs: .venv/dev  ## build the documentation's site into site/; a broken link is an error
	$(MKDOCS)
	@echo "open site/index.html"

bench: .venv/dev  ## measure the service beside its peers on this machine's CPU
	$(BIN)/python -m benchmarks.serving

architecture: .venv/dev  ## draw docs/architecture.svg from the imports
	$(BIN)/python -m docs.draw_architecture

lock: .venv/dev  ## generate both locks from pyproject.toml
	$(LOCK) --output-file requirements.lock pyproject.toml
	$(LOCK) --extra dev --output-file requirements-dev.lock pyproject.toml

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/runtime: .venv/bin/python requirements.lock
	@echo "installing the locked packages into .venv: about 7 GB, a few minutes"
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	@touch $@

.venv/dev: .venv/bin/python requirements-dev.lock
	@echo "installing the locked packages and the developers' tools into .venv: about 8 GB, a few minutes"
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	@touch $@ .venv/runtime
