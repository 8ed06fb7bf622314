"""Batch against online: equal where they are, and seen where they are not, by a really started server."""

from __future__ import annotations

import contextlib
import json
import sys
import threading

import joblib
import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from subjects import make_subject, run_salver

from salver.cli import online
from salver.clock import SYSTEM_CLOCK
from salver.evaluation.service.batch_paths import BatchOrder, NoBatchPathError, batch_outputs
from salver.evaluation.service.skew import SkewCheck, differences
from salver.evaluation.subject.serving import serve_versions
from salver.evaluation.suites.service_sections import SkewSettings
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.tables import RuntimeOptions
from salver.protocol.verdict import Verdict
from salver.runtime import environment
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source, format_named

SUITE = '[suite]\nname = "skew"\ntarget = "y"\nfeatures = ["a", "b"]\n[skew]\nrows = 60\nsingles = 5\n'
SCRIPT = """
import numpy as np


def predict(columns, artifact):
    rows = np.column_stack([columns["a"], columns["b"]])
    assert any(artifact.iterdir())
    return {{"label": (rows[:, 0] > {threshold}).astype(int)}}
"""


@pytest.fixture
def compared(tmp_path, capsys):
    """The skew check of an estimator, saved as it is, on rows of two features."""

    def run(file, frame, settings="", trust=()):
        frame.to_csv(tmp_path / "rows.csv", index=False)
        (tmp_path / "suite.toml").write_text(SUITE + settings)
        home = tmp_path / "home"
        assert run_salver(home, "register", "m", file, *trust) == 0
        capsys.readouterr()
        run_salver(home, "evaluate", "m", "--suite", tmp_path / "suite.toml", "--data", tmp_path / "rows.csv")
        record = json.loads(capsys.readouterr().out)
        return next(check for check in record["checks"] if check["name"] == "skew")

    return run


def rows(count=80, step=1.0):
    grid = np.random.default_rng(0).normal(size=(count, 2)) * step
    return pd.DataFrame({"a": grid[:, 0], "b": grid[:, 1], "y": (grid[:, 0] > 0).astype(int)})


def saved(tmp_path, estimator):
    path = tmp_path / "model.joblib"
    joblib.dump(estimator, path)
    return path


def test_a_pickle_answers_online_what_it_answers_in_a_batch_over_every_path(compared, tmp_path) -> None:
    frame = rows()
    model = LogisticRegression().fit(frame[["a", "b"]].to_numpy(), frame["y"])
    found = compared(saved(tmp_path, model), frame, trust=("--trust-code",))
    assert found["verdict"] == "successful", found["reasons"]
    assert found["reasons"][0] == "the columns of probabilities stand for 0, 1"
    ways = {(row[0], row[1], row[2]) for row in found["tables"][0]["rows"]}
    assert len(ways) == 3 * 2 * 2
    assert found["numbers"]["largest_difference"] < 1e-6


class InProcess:
    """The version in this process, behind what JSON can carry."""

    def __init__(self, served) -> None:
        self.served = served

    def ask(self, path, inputs):
        if path == "json" and any(np.isnan(array).any() for array in inputs.values()):
            raise SalverError("INVALID_VALUE", "JSON has no NaN", "ask in binary")
        return self.served.ask(inputs)


@pytest.fixture
def in_process(monkeypatch):
    """No server: the same loader and pools, in this process."""

    def online_of(home):
        @contextlib.contextmanager
        def started(manifest):
            with serve_versions(home, {"candidate": manifest}, SYSTEM_CLOCK, batch_rows=256) as served:
                yield InProcess(served["candidate"])

        return started

    monkeypatch.setattr(online, "online_of", online_of)


@pytest.mark.usefixtures("in_process")
def test_rows_that_the_wire_makes_others_are_seen(compared, tmp_path) -> None:
    a = 1.0 + np.arange(80) * 1e-9  # of which float32 makes one number
    frame = pd.DataFrame({"a": a, "b": 0.0, "y": (np.arange(80) >= 40).astype(int)})
    tree = DecisionTreeClassifier().fit(frame[["a", "b"]].to_numpy(), frame["y"])
    graph = to_onnx(tree, np.zeros((1, 2), np.float32), options={"zipmap": False})
    (tmp_path / "tree.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "batch.py").write_text(SCRIPT.format(threshold=1.0 + 39.5e-9))
    found = compared(tmp_path / "tree.onnx", frame, 'script = "batch.py"\npaths = ["binary"]\n')
    assert found["verdict"] == "failed"
    assert "label differs in" in found["reasons"][0]
    assert 20 < found["numbers"]["outside"] < 60


@pytest.mark.usefixtures("in_process")
def test_missing_values_that_json_cannot_carry_are_said(compared, tmp_path) -> None:
    frame = rows()
    tree = DecisionTreeClassifier(random_state=0).fit(frame[["a", "b"]].to_numpy(), frame["y"])
    frame.loc[::4, "b"] = np.nan
    found = compared(saved(tmp_path, tree), frame, 'paths = ["json", "grpc"]\n', trust=("--trust-code",))
    assert found["verdict"] == "inconclusive"
    assert "json, batches" in str(found["reasons"])
    assert "JSON has no NaN" in str(found["reasons"])
    assert "grpc" not in str(found["reasons"])
    assert 10 < found["numbers"]["refused"] < 40


@pytest.mark.usefixtures("in_process")
def test_a_script_that_raises_is_an_error_and_says_what(compared, tmp_path) -> None:
    frame = rows()
    model = LogisticRegression().fit(frame[["a", "b"]].to_numpy(), frame["y"])
    (tmp_path / "batch.py").write_text("def predict(columns, artifact):\n    raise OSError('the share is gone')\n")
    found = compared(saved(tmp_path, model), frame, 'script = "batch.py"\n', trust=("--trust-code",))
    assert found["verdict"] == "error"
    assert "the batch path raised OSError: the share is gone" in found["reasons"][0]


@pytest.mark.parametrize(
    ("batch", "online", "largest", "outside"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0, 0),
        ([1.0, 2.0], [1.0, 2.5], 0.5, 1),
        ([100.0], [100.005], 0.005, 0),
        ([np.nan, 1.0], [np.nan, np.nan], np.inf, 1),
        ([np.inf], [np.inf], 0.0, 0),
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 9.0], [9.0, 4.0]], 7.0, 2),
        ([1.0, 2.0], [1.0], np.inf, 1),
    ],
)
def test_differences_of_numbers(batch, online, largest, outside) -> None:
    found = differences(np.array(batch), np.array(online), 1e-5, 1e-4)
    assert found == (pytest.approx(largest), outside)


def test_labels_differ_or_do_not_whatever_type_they_come_as() -> None:
    words = np.array([b"yes", b"no"], dtype=object)
    assert differences(words, np.array(["yes", "yes"], dtype=object), 0, 0) == (1.0, 1)
    assert differences(np.array([1, 2]), np.array([1, 2], dtype=np.int32), 0, 0) == (0.0, 0)


def test_without_a_server_nothing_is_said() -> None:
    found = SkewCheck(SkewSettings()).run(make_subject(target=[0, 1], labels=[0, 1]))
    assert found.verdict is Verdict.INCONCLUSIVE


PYTHON = """
import numpy as np
import salver


class Sums(salver.Model):
    inputs = (salver.TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (salver.TensorSpec("label", "INT64", (-1,)),)

    def predict(self, inputs):
        return {"label": (inputs["x"].sum(axis=1) > 0).astype(np.int64)}
"""


@pytest.mark.parametrize("name", ["xgboost", "xgboost values", "lightgbm", "lightgbm classes", "sklearn", "python"])
def test_each_library_answers_a_batch_as_the_runtime_does(tmp_path, name, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    allowed = threading.Event()
    allowed.set()
    monkeypatch.setattr(environment, "_allowed", allowed)
    x = np.random.default_rng(0).normal(size=(200, 2))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 1) * (name == "lightgbm classes")
    file = ARTIFACTS[name](tmp_path, x, y)
    kind = name.partition(" ")[0]
    batch = batch_outputs(BatchOrder(str(tmp_path), file, kind), {"X": x, "x": x.astype(np.float32)}, {}, x)
    source = Source(tmp_path, tmp_path / file, alone=True)
    adapter = format_named(kind)
    declaration = Declaration()
    signature = adapter.signature(source, declaration)
    inputs = {spec.name: x.astype(DATATYPES[spec.datatype].dtype) for spec in signature.inputs}
    served = adapter.load(source, declaration, RuntimeOptions()).run(inputs)
    assert set(served) <= set(batch)
    for output, array in served.items():
        assert differences(np.asarray(batch[output]), np.asarray(array), 1e-6, 1e-6) == (pytest.approx(0, abs=1e-6), 0)


def _xgboost(path, x, y):
    import xgboost

    xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(x, y).save_model(path / "model.ubj")
    return "model.ubj"


def _xgboost_values(path, x, y):
    import xgboost

    xgboost.XGBRegressor(n_estimators=3, max_depth=2).fit(x, x[:, 0]).save_model(path / "model.ubj")
    return "model.ubj"


def _lightgbm(path, x, y):
    import lightgbm

    classes = {"objective": "multiclass", "num_class": 3} if y.max() > 1 else {"objective": "binary"}
    lightgbm.train({"verbose": -1, **classes}, lightgbm.Dataset(x, y), 3).save_model(path / "model.txt")
    return "model.txt"


def _skops(path, x, y):
    import skops.io

    skops.io.dump(LogisticRegression().fit(x, y), path / "model.skops")
    return "model.skops"


def _python(path, x, y):
    (path / "sums_model.py").write_text(PYTHON)
    return "sums_model.py"


ARTIFACTS = {
    "xgboost": _xgboost,
    "xgboost values": _xgboost_values,
    "lightgbm": _lightgbm,
    "lightgbm classes": _lightgbm,
    "sklearn": _skops,
    "python": _python,
}


@pytest.mark.parametrize(
    "order",
    [
        {"format": "python", "main": "m.py"},
        {"format": "onnx", "main": "m.onnx", "preprocess": "m:f"},
        {"format": "sklearn", "main": "m.joblib", "trusted": True},
        {"format": "onnx", "main": "m.onnx", "script": "b.py"},
    ],
)
def test_users_code_runs_in_no_process_that_was_not_made_for_it(tmp_path, order) -> None:
    with pytest.raises(SalverError) as refused:
        batch_outputs(BatchOrder(str(tmp_path), **order), {}, {}, np.ones((1, 1)))
    assert refused.value.code == "REFUSED_BY_POLICY"


def test_what_lies_beside_a_graph_is_no_library(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    x = rows()[["a", "b"]].to_numpy()
    graph = to_onnx(LogisticRegression().fit(x, x[:, 0] > 0), x[:1].astype(np.float32), options={"zipmap": False})
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('it ran')")
    found = batch_outputs(BatchOrder(str(tmp_path), "m.onnx", "onnx"), {"X": x.astype(np.float32)}, {}, None)
    assert len(found["label"]) == len(x)


def test_a_format_without_a_batch_path_says_so_and_a_pickle_needs_trust(tmp_path) -> None:
    with pytest.raises(NoBatchPathError, match="the format torch has no batch path here"):
        batch_outputs(BatchOrder(str(tmp_path), "m.pt2", "torch"), {}, {}, None)
    saved(tmp_path, LogisticRegression())
    with pytest.raises(NoBatchPathError, match="a pickle that nobody vouched for"):
        batch_outputs(BatchOrder(str(tmp_path), "model.joblib", "sklearn"), {}, {}, np.ones((1, 1)))


def test_a_server_that_is_at_fault_is_an_error_and_no_skew(house, evaluated, monkeypatch) -> None:
    @contextlib.contextmanager
    def broken(_):
        raise SalverError("LOAD_FAILED", "no")
        yield

    monkeypatch.setattr(online, "online_of", lambda home: broken)
    code, record = evaluated(house.good, "[skew]\nrows = 10\n")
    assert (code, record["verdict"]) == (3, "error")
