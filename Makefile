# make demo    the main job, from training to predictions over HTTP
# make test    all tests        make check   lint, types, import layers
# make bench   ratios against an echo server and between placements
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-chaos check format bench lock proto clean venv

venv: $(VENV)/.made

$(VENV)/.made: requirements/lock.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Salver needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements/lock.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Foreign clients and peers, each locked in an environment of its own: make venv-tritonclient
venv-%: .venvs/%/.made ;

.venvs/%/.made: requirements/%.txt
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/pip install --quiet --require-hashes -r requirements/$*.txt
	touch $@

demo: venv
	$(BIN)/python examples/digits/demo.py

test: venv .venvs/tritonclient/.made
	$(BIN)/python -m pytest -q

test-chaos: venv
	$(BIN)/python -m pytest -q -m chaos tests/chaos

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv
	$(BIN)/python bench/run.py

# Needs uv. The lock names no index; pip takes the one it is configured for.
lock:
	uv pip compile --quiet --generate-hashes --no-header --no-emit-package salver --python-version 3.11 \
	  -o requirements/lock.txt requirements/lock.in
	for name in tritonclient; do uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 \
	  -o requirements/$$name.txt requirements/$$name.in; done

# What the .proto files say, in the form the gRPC listener reads at start.
proto: venv
	$(BIN)/python -m grpc_tools.protoc -I src/salver/protocol/proto \
	  --descriptor_set_out=src/salver/protocol/proto/salver.binpb src/salver/protocol/proto/*.proto

clean:
	rm -rf $(VENV) .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
