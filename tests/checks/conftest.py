from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from salver.runtime.environment import _allowed, allow_users_code


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Lists of checks that every member of a family must pass are tests of their own."""
    if file_path.name.endswith("_checks.py"):
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.fixture(scope="module", autouse=True)
def users_code() -> Iterator[None]:
    """This process is as good as a worker while the checks run."""
    allow_users_code()
    yield
    _allowed.clear()


@pytest.fixture(scope="session")
def trained():
    """A small classifier and rows it was not trained on."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, labels = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[labels]
    return LogisticRegression(max_iter=500).fit(rows[::2], names[::2]), rows[1::2]


@pytest.fixture(scope="session")
def artifacts(trained, tmp_path_factory) -> dict[str, Path]:
    """One artifact of each kind, by the name of its example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import joblib
        import skl2onnx
        import skops.io

        estimator, rows = trained
        root = tmp_path_factory.mktemp("artifacts")
        graph = skl2onnx.to_onnx(estimator, rows[:1].astype(np.float32), options={"zipmap": False}, target_opset=17)
        (root / "iris.onnx").write_bytes(graph.SerializeToString())
        skops.io.dump(estimator, root / "iris.skops")
        joblib.dump(estimator, root / "iris.joblib")
        (root / "doubling_model.py").write_text(DOUBLING)
    return {path.name: path for path in root.iterdir()}


DOUBLING = """
import salver

class Doubling(salver.Model):
    inputs = [salver.TensorSpec("x", "FP64", (-1, 4))]
    outputs = [salver.TensorSpec("y", "FP64", (-1, 4))]

    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""


@pytest.fixture(autouse=True)
def _imports_are_undone() -> Iterator[None]:
    """Python artifacts import their modules; in this process that must not last."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == "doubling_model" or name.startswith("artifact_"):
            del sys.modules[name]
