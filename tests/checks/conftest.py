from __future__ import annotations

import importlib.util
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
def learnt(trained):
    """What the artifacts were made of, by the suffix of their files: the libraries' own models."""
    import lightgbm
    import xgboost
    from sklearn.datasets import load_iris

    rows, labels = (each[::2] for each in load_iris(return_X_y=True))
    boosted = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(rows, labels)
    light = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(rows, labels)
    made = {".ubj": boosted, ".json": boosted, ".txt": light, ".pt2": network()}
    return {".onnx": trained[0], ".skops": trained[0], ".joblib": trained[0], ".py": None} | made


def network():
    """A small network of PyTorch, where that is installed: `make test-engines` does."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, rows):
            scores = self.layer(rows)
            return {"label": scores.argmax(1), "probabilities": torch.softmax(scores, 1)}

    return Network().eval()


def export_network(made, path: Path) -> None:
    import torch

    batch = {"rows": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(made, (torch.zeros(2, 4),), dynamic_shapes=batch), path)


@pytest.fixture(scope="session")
def artifacts(trained, learnt, tmp_path_factory) -> dict[str, Path]:
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
        for name in ("iris.json", "iris.ubj"):
            learnt[".ubj"].save_model(root / name)
        learnt[".txt"].booster_.save_model(root / "iris.txt")
        if learnt[".pt2"] is not None:
            export_network(learnt[".pt2"], root / "iris.pt2")
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
