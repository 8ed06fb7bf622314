"""Real models of breast cancer data in one home."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from salver.evaluation.subject.rows import Rows, read_rows
from salver.evaluation.subject.splits import split_rows
from salver.evaluation.suites.suite import SplitSettings

sys.path.insert(0, str(Path(__file__).parent))

from subjects import run_salver

SPLIT = SplitSettings("stratified", test_ratio=0.4)
SUITE = """
[suite]
name = "release"
target = "target"
positive = 1
resamples = 300

[split]
kind = "stratified"
test_ratio = 0.4
"""


class House(NamedTuple):
    """A home with versions of the model `cancer`, and the data."""

    home: Path
    data: Path
    rows: Rows
    good: str
    boosted: str
    worse: str
    leaky: str
    """A tree that was trained on all rows, as a pickle: it runs in a worker."""

    def suite(self, directory: Path, more: str) -> Path:
        path = directory / "suite.toml"
        path.write_text(SUITE + more)
        return path


def _onnx(path: Path, model: object, rows: np.ndarray) -> Path:
    graph = to_onnx(model, rows[:1].astype(np.float32), options={id(model): {"zipmap": False}})
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    root = tmp_path_factory.mktemp("evaluation")
    x, y = load_breast_cancer(return_X_y=True)
    names = [name.replace(" ", "_") for name in load_breast_cancer().feature_names]
    data = root / "cancer.csv"
    pd.DataFrame(x, columns=names).assign(target=y).to_csv(data, index=False)
    rows = read_rows(data)
    train, _ = split_rows(rows, SPLIT, "target")
    some = np.random.default_rng(0).permutation(y[train])  # labels that mean nothing
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    files = {
        "1.0.0": _onnx(root / "good.onnx", logistic.fit(x[train], y[train]), x),
        "1.0.1": _onnx(
            root / "boosted.onnx",
            GradientBoostingClassifier(n_estimators=40, random_state=0).fit(x[train], y[train]),
            x,
        ),
        "1.0.2": _onnx(root / "worse.onnx", DecisionTreeClassifier(max_depth=2, random_state=0).fit(x[train], some), x),
        "2.0.0": root / "leaky.joblib",
    }
    joblib.dump(DecisionTreeClassifier(random_state=0).fit(x, y), files["2.0.0"])
    for version, file in files.items():
        trust = ["--trust-code"] if file.suffix == ".joblib" else []
        assert run_salver(root / "home", "register", "cancer", file, "--version", version, *trust) == 0
    return House(root / "home", data, rows, *(f"cancer@{version}" for version in files))


@pytest.fixture
def evaluated(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run `salver evaluate` with a suite of these sections; returns the exit code and the record."""

    def run(reference: str, sections: str, *more: object):
        capsys.readouterr()
        suite = house.suite(tmp_path, sections)
        code = run_salver(house.home, "evaluate", reference, "--suite", suite, "--data", house.data, *more)
        said = capsys.readouterr()
        return code, json.loads(said.out or said.err.splitlines()[-1])

    return run


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = {thread.name for thread in threading.enumerate()}
    yield
    left = {thread.name for thread in threading.enumerate() if "evaluation" in thread.name}
    assert left <= before
