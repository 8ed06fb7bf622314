"""Real versions, served: the clean one passes every safeguard, the worse and the leaky do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from subjects import run_salver

SECTIONS = """
[[behaviour]]
name = "noise within measurement error"
kind = "invariance"
generator = "noise"
amount = 0.02
[[behaviour]]
name = "a larger tumour is no likelier benign"
kind = "directional"
generator = "shift"
columns = ["worst_radius"]
amount = 1.0
expect = "not_higher"
[[behaviour]]
name = "wild values are answered"
kind = "minimum"
generator = "out_of_range"
rows = 100
[[behaviour]]
name = "plain cases"
kind = "minimum"
fill = "typical"
cases = [
  { row = { worst_radius = 40.0, worst_area = 4000.0, worst_concave_points = 0.3 }, label = 0 },
  { row = { worst_radius = 10.0 }, label = 1, at_least = 0.9 },
]
[[robustness]]
kind = "noise"
levels = [0.05, 0.2]
drop_at_most = 0.1
[[robustness]]
kind = "adversarial"
levels = [0.02]
rows = 100
queries = 70
[fairness]
columns = ["ward"]
at_most = { accuracy_difference = 0.15 }
[leakage]
[fit]
"""


@pytest.fixture(scope="module")
def leaked(house, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home with a version of data that has the target in a column, and that data."""
    root = tmp_path_factory.mktemp("leaked")
    frame = pd.read_csv(house.data)
    frame["biopsy"] = frame["target"] + np.random.default_rng(0).normal(0, 0.15, len(frame))
    features = frame.drop(columns="target")
    frame.to_csv(root / "leaked.csv", index=False)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features.to_numpy(), frame["target"])
    graph = to_onnx(model, features.to_numpy()[:1].astype(np.float32), options={id(model): {"zipmap": False}})
    (root / "leaky.onnx").write_bytes(graph.SerializeToString())
    assert run_salver(root / "home", "register", "leaky", root / "leaky.onnx") == 0
    return root / "home", root / "leaked.csv"


@pytest.fixture(scope="module")
def with_ward(house, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data with a column that the versions do not see, of people in two wards."""
    path = tmp_path_factory.mktemp("ward") / "cancer.csv"
    frame = pd.read_csv(house.data)
    frame.assign(ward=np.random.default_rng(1).choice(["east", "west"], len(frame))).to_csv(path, index=False)
    return path


def judged(home: Path, reference: str, suite: Path, data: Path, capsys, *more: object) -> tuple[int, dict]:
    capsys.readouterr()
    code = run_salver(home, "evaluate", reference, "--suite", suite, "--data", data, *more)
    record = json.loads(capsys.readouterr().out)
    return code, {check["name"]: check for check in record["checks"]}


def test_a_clean_version_passes_every_safeguard(house, with_ward, tmp_path, capsys) -> None:
    suite = house.suite(tmp_path, SECTIONS)
    code, checks = judged(house.home, house.good, suite, with_ward, capsys, "--report", tmp_path / "report")
    assert {name: check["reasons"] for name, check in checks.items() if check["verdict"] != "successful"} == {}
    assert code == 0
    assert checks["plain cases"]["numbers"]["cases"] == 2
    page = (tmp_path / "report" / "evaluation.html").read_text()
    for name in checks:
        assert f"<h3>{name} " in page
    assert page.count("<svg") == sum(len(check["plots"]) for check in checks.values())


def test_a_worse_version_fails_beside_a_simple_model(house, with_ward, tmp_path, capsys) -> None:
    code, checks = judged(house.home, house.worse, house.suite(tmp_path, "[fit]\n"), with_ward, capsys)
    assert (code, checks["baseline"]["verdict"]) == (1, "failed")


def test_a_version_of_leaky_data_fails_by_the_column_that_leaks(house, leaked, tmp_path, capsys) -> None:
    home, data = leaked
    metric = '[[metric]]\nname = "roc_auc"\nat_least = 0.97\n[leakage]\n'
    code, checks = judged(home, "leaky", house.suite(tmp_path, metric), data, capsys)
    assert checks["roc_auc"]["verdict"] == "successful"
    assert (code, checks["target_leakage"]["verdict"]) == (1, "failed")
    assert checks["target_leakage"]["reasons"][0].startswith("'biopsy' alone predicts the target")


def test_empty_cells_are_answered_by_a_tree_in_a_worker_and_found_where_they_come_out_as_nan(
    house, tmp_path, capsys
) -> None:
    more = """
[[behaviour]]
name = "gaps"
kind = "minimum"
generator = "missing"
amount = 0.05
rows = 100
at_most = 0.1
"""
    _, checks = judged(house.home, house.leaky, house.suite(tmp_path, more), house.data, capsys)
    assert checks["gaps"]["verdict"] == "successful"
    code, checks = judged(house.home, house.good, house.suite(tmp_path, more), house.data, capsys)
    assert (code, checks["gaps"]["verdict"]) == (1, "failed")
    assert checks["gaps"]["tables"][0]["rows"][0][3] == "refused: NONFINITE_OUTPUT"
