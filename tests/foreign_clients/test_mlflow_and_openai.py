"""MLflow's scoring client and OpenAI's client, unmodified, in environments of their own, against `salver serve`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VENVS = HERE.parents[1] / ".venvs"

SUMS = """
import numpy as np
import salver


class Sums(salver.Model):
    inputs = (salver.TensorSpec("X", "FP64", (-1, 3)),)
    outputs = (salver.TensorSpec("sum", "FP64", (-1,)), salver.TensorSpec("twice", "FP64", (-1, 3)))

    def predict(self, inputs):
        return {"sum": inputs["X"].sum(axis=1), "twice": inputs["X"] * 2}


class Total(Sums):
    outputs = Sums.outputs[:1]

    def predict(self, inputs):
        return {"sum": inputs["X"].sum(axis=1)}
"""
TEXTS = """
import numpy as np
import salver


class Texts(salver.Model):
    inputs = (salver.TensorSpec("text", "BYTES", (-1,)),)
    outputs = (salver.TensorSpec("embedding", "FP32", (-1, 3)), salver.TensorSpec("tokens", "INT64", (-1,)))

    def predict(self, inputs):
        texts = inputs["text"].tolist()
        rows = [(len(text), sum(text.count(vowel) for vowel in (b"a", b"e", b"i", b"o", b"u")), 0.1) for text in texts]
        return {
            "embedding": np.array(rows, np.float32),
            "tokens": np.array([len(text.split()) for text in texts], np.int64),
        }
"""
MODELS = {
    "sums": (SUMS, 'entry = "model:Sums"\n'),
    "total": (SUMS, 'entry = "model:Total"\n'),
    "texts": (TEXTS, 'entry = "model:Texts"\nkind = "embed"\n'),
}


@pytest.fixture(scope="module")
def served(trees, tmp_path_factory):
    """A server with the models that the clients ask for."""
    directory = tmp_path_factory.mktemp("foreign")
    tree = trees()
    for name, (code, declaration) in MODELS.items():
        (directory / name).mkdir()
        (directory / name / "model.py").write_text(code)
        (directory / name / "salver-model.toml").write_text(declaration)
        tree.salver("register", name, directory / name)
        tree.salver("deploy", name)
    tree.start(SALVER_SERVER_DEFAULT_ENDPOINT="sums")
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert not tree.events("fault")


def drive(client: str, *arguments: str) -> str:
    python = VENVS / client / "bin" / "python"
    assert python.exists(), f"make venv-{client} makes the environment this test drives"
    command = [python, HERE / f"{client}_client.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mlflows_scoring_client_works_unmodified_and_its_server_would_have_answered_the_same(served) -> None:
    assert drive("mlflow", served.http).count("ok ") == 5


def test_openais_client_works_unmodified(served) -> None:
    assert drive("openai", served.http, served.admin_token).count("ok ") == 8
