"""The real models: their artifacts made from wheels, and one server of all, as their pages say."""

import asyncio
import sys
from pathlib import Path

import pytest

import salver
from salver.cli import main

# `from bert import ...` and `from pages import ...` work in the tests of this folder.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "docs")]

from real_models import EXAMPLES, MODELS, WHEELS, Served, run, steps


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    """A folder with what make.py of each example made, under the name that its page gives it."""
    assert (MODELS / ".made").exists(), "these tests need what make venv-models makes"
    folder = tmp_path_factory.mktemp("artifacts")
    for example in EXAMPLES:
        python, script, out = steps(example)[0]
        assert python == "python"
        run(script, folder / out, "--wheels", WHEELS)
    return folder


@pytest.fixture(scope="session")
def served(artifacts, tmp_path_factory):
    home = tmp_path_factory.mktemp("served") / "home"
    for example in EXAMPLES:
        (_, _, out), *commands, last = steps(example)
        assert last == ["salver", "serve"]
        for program, *words in commands:
            words_here = [str(artifacts / word) if word == out else word for word in words]
            assert (program, main(["--home", str(home), *words_here])) == ("salver", 0)
    with asyncio.Runner() as runner:
        server = salver.Server(home=home, grpc=0)
        runner.run(server.__aenter__())
        try:
            assert server.failed == []
            yield Served(server.http, f"grpc://{server.grpc}", home, artifacts)
        finally:
            runner.run(server.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def client(served):
    with salver.Client(served.http) as client:
        yield client
