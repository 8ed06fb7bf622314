"""What MLflow, PyTorch and TensorFlow write themselves, imported and asked: `make test-engines`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from salver.imports import convert_path, recognise
from salver.protocol.errors import SalverError
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact, source_of
from salver.runtime.formats import format_named

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]
VENVS = Path(__file__).parents[2] / ".venvs"
ROWS = np.random.default_rng(5).normal(size=(60, 4))
LABELS = (ROWS[:, 0] > 0).astype(int)

WRITE = """
import sys, warnings, json
warnings.simplefilter("ignore")
import numpy as np, mlflow
from mlflow.models import infer_signature
rows = np.load(sys.argv[2]); labels = (rows[:, 0] > 0).astype(int); out = sys.argv[3]; which = sys.argv[1]
quick = {"pip_requirements": ["mlflow-skinny"]}
if which == "sklearn":
    from sklearn.linear_model import LogisticRegression
    model = LogisticRegression().fit(rows, labels)
    mlflow.sklearn.save_model(model, out, signature=infer_signature(rows, labels), **quick)
    answer = model.predict_proba(rows)
elif which == "xgboost":
    import xgboost
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(rows, labels)
    mlflow.xgboost.save_model(model, out, **quick)
    answer = model.predict_proba(rows.astype(np.float32))
elif which == "lightgbm":
    import lightgbm
    model = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, labels), 3)
    mlflow.lightgbm.save_model(model, out, **quick)
    answer = np.vstack((1.0 - model.predict(rows), model.predict(rows))).T
elif which == "lightgbm estimator":
    import lightgbm
    model = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(rows, labels)
    mlflow.lightgbm.save_model(model, out, **quick)
    answer = model.predict_proba(rows)
elif which == "onnx":
    import skl2onnx, onnx
    from sklearn.linear_model import LogisticRegression
    model = LogisticRegression().fit(rows, labels)
    graph = skl2onnx.to_onnx(model, rows[:1].astype(np.float32), options={"zipmap": False}, target_opset=17)
    mlflow.onnx.save_model(graph, out, **quick)
    import onnxruntime
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    answer = session.run(["probabilities"], {"X": rows.astype(np.float32)})[0]
else:
    class Twice(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input * 2
    mlflow.pyfunc.save_model(out, python_model=Twice(), signature=infer_signature(rows, rows * 2), **quick)
    answer = rows * 2
np.save(sys.argv[4], answer)
"""


def run(python: Path | str, code: str, *arguments: object) -> str:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(python), "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | quiet,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ANSWER = """
import sys, warnings, json
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import source_of
from salver.runtime.declaration import read_declaration
from salver.runtime.environment import allow_users_code
from salver.runtime.formats import format_named
allow_users_code()   # this process is the worker
directory, name, rows = Path(sys.argv[1]), sys.argv[2], np.load(sys.argv[3])
chosen, declared = format_named(name), read_declaration(directory)
source = source_of(directory, chosen, declared)
spec = chosen.signature(source, declared).inputs[0]
given = rows.astype({"FP32": np.float32, "FP64": np.float64}[spec.datatype])
found = chosen.load(source, declared, RuntimeOptions()).run({spec.name: given})
np.save(sys.argv[4], found.get("probabilities", next(iter(found.values()))))
"""


@pytest.mark.parametrize(
    ("which", "kind"),
    [("sklearn", "sklearn"), ("xgboost", "xgboost"), ("lightgbm", "lightgbm"), ("lightgbm estimator", "sklearn"),
     ("onnx", "onnx"), ("pyfunc", "python")],
)  # fmt: skip
def test_what_mlflow_saves_answers_as_its_library_does(tmp_path, which, kind) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    run(sys.executable, WRITE, which, tmp_path / "rows.npy", tmp_path / "m", tmp_path / "expected.npy")
    assert recognise(tmp_path / "m") == "mlflow"
    made = convert_path(tmp_path / "m", tmp_path / "into")
    assert made.format == kind
    artifact = read_artifact(made.directory, format=kind, trust_code=True)
    assert artifact.format == kind
    run(sys.executable, ANSWER, made.directory, kind, tmp_path / "rows.npy", tmp_path / "found.npy")
    found, expected = np.load(tmp_path / "found.npy"), np.load(tmp_path / "expected.npy")
    assert found.tolist() == expected.tolist()


def test_an_exported_program_is_recognised_by_content(tmp_path) -> None:
    import torch

    exported = torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.zeros(1, 4),))
    torch.export.save(exported, tmp_path / "program.pt2")
    (tmp_path / "program.pt2").rename(tmp_path / "odd.name")
    made = convert_path(tmp_path / "odd.name", tmp_path / "into")
    assert (made.format, [path.name for path in made.directory.iterdir()]) == ("torch", ["model.pt2"])


@pytest.mark.parametrize(("what", "says"), [("weights", "pickle of PyTorch"), ("script", "TorchScript")])
@pytest.mark.filterwarnings("ignore")
def test_other_files_of_pytorch_are_refused_by_name(tmp_path, what, says) -> None:
    import torch

    network = torch.nn.Linear(4, 2).eval()
    if what == "weights":
        torch.save(network.state_dict(), tmp_path / "m.pt")
    else:
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 4)), tmp_path / "m.pt")
    with pytest.raises(SalverError, match=says):
        convert_path(tmp_path / "m.pt", tmp_path / "into")


HANDLER = """
import json
from pathlib import Path
import torch
from network import Network

class Handler:
    def initialize(self, context):
        folder = Path(context.system_properties["model_dir"])
        self.network = Network()
        weights = folder / context.manifest["model"]["serializedFile"]
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.labels = json.loads((folder / "labels.json").read_text())

    def handle(self, data, context):
        rows = torch.tensor([json.loads(bytes(each["body"])) for each in data])
        with torch.no_grad():
            likely = self.network(rows).softmax(dim=1)
        return [{"label": self.labels[int(row.argmax())], "likely": row.tolist()} for row in likely]
"""
NETWORK = """
import torch

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, rows):
        return self.layer(rows)
"""


def test_what_torch_model_archiver_packs_is_registered_and_answers_as_its_network_does(tmp_path, trees) -> None:
    import torch

    network = torch.nn.Linear(4, 2)
    torch.save({f"layer.{name}": each for name, each in network.state_dict().items()}, tmp_path / "weights.pt")
    for name, content in {"handler.py": HANDLER, "network.py": NETWORK, "labels.json": '["no", "yes"]'}.items():
        (tmp_path / name).write_text(content)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "sides", "--version", "2.5"),
            *("--model-file", "network.py", "--serialized-file", "weights.pt", "--handler", "handler.py"),
            *("--extra-files", "labels.json", "--export-path", "."),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    tree = trees()
    imported = tree.salver("import", tmp_path / "sides.mar", "sides")
    assert imported["format"] == "python"
    tree.salver("deploy", "sides")
    tree.start()
    rows = ROWS[:8].astype(np.float32)
    body = {"name": "body", "datatype": "BYTES", "shape": [8], "data": [json.dumps(row.tolist()) for row in rows]}
    answer = tree.ask(tree.http, "POST", "/v2/models/sides/infer", {"inputs": [body]})
    assert tree.stop() == 0
    assert answer.status == 200, answer.body
    found = [json.loads(each) for each in answer.json["outputs"][0]["data"]]
    with torch.no_grad():
        expected = network(torch.from_numpy(rows)).softmax(dim=1).numpy()
    np.testing.assert_allclose([each["likely"] for each in found], expected, rtol=1e-5, atol=1e-6)
    assert [each["label"] for each in found] == [("no", "yes")[index] for index in expected.argmax(axis=1)]


SAVED = """
import sys
import numpy as np, tensorflow as tf
rows = np.load(sys.argv[2]).astype(np.float32)
if sys.argv[1] == "module":
    class Module(tf.Module):
        def __init__(self):
            self.w = tf.Variable(np.random.default_rng(0).normal(size=(4, 3)).astype("f4"))
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def __call__(self, x):
            return {"probabilities": tf.nn.softmax(x @ self.w), "label": tf.argmax(x @ self.w, 1)}
    model = Module()
    tf.saved_model.save(model, sys.argv[3], signatures=model.__call__)
    answer = model(tf.constant(rows))["probabilities"].numpy()
else:
    layers = tf.keras.layers
    hidden = [layers.Dense(8, activation="relu"), layers.BatchNormalization()]
    model = tf.keras.Sequential([tf.keras.Input((4,)), *hidden, layers.Dense(3)])
    model.export(sys.argv[3], verbose=False)
    answer = model(rows, training=False).numpy()
np.save(sys.argv[4], answer)
"""


@pytest.mark.parametrize("which", ["module", "keras"])
def test_a_saved_model_becomes_onnx_that_answers_as_tensorflow_does(tmp_path, which) -> None:
    python = VENVS / "tensorflow" / "bin" / "python"
    assert python.exists(), "make venv-tensorflow makes the environment this test drives"
    np.save(tmp_path / "rows.npy", ROWS)
    run(python, SAVED, which, tmp_path / "rows.npy", tmp_path / "m", tmp_path / "expected.npy")
    assert recognise(tmp_path / "m") == "savedmodel"
    made = convert_path(tmp_path / "m", tmp_path / "into", python=python)
    facts = made.facts()
    assert (made.format, facts["flavor"]) == ("onnx", "tensorflow")
    assert facts["tensorflow_version"]
    assert facts["converter"].startswith("tf2onnx")
    artifact = read_artifact(made.directory)
    assert artifact.signature.batched
    chosen = format_named("onnx")
    model = chosen.load(source_of(made.directory, chosen, artifact.declaration), artifact.declaration, RuntimeOptions())
    found = model.run({artifact.signature.inputs[0].name: ROWS.astype(np.float32)})
    expected = np.load(tmp_path / "expected.npy")
    answer = found.get("probabilities", next(iter(found.values())))
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    assert json.dumps(facts)
