from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROWS = np.random.default_rng(3).normal(size=(80, 4))
LABELS = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """One small file of each kind, called what their libraries would not call them."""
    import joblib
    import lightgbm
    import skl2onnx
    import skops.io
    import xgboost
    from sklearn.linear_model import LogisticRegression

    root = tmp_path_factory.mktemp("models")
    linear = LogisticRegression().fit(ROWS, LABELS)
    joblib.dump(linear, root / "joblib")
    joblib.dump(linear, root / "compressed.joblib", compress=("gzip", 3))
    skops.io.dump(linear, root / "skops")
    graph = skl2onnx.to_onnx(linear, ROWS[:1].astype(np.float32), options={"zipmap": False}, target_opset=17)
    (root / "onnx").write_bytes(graph.SerializeToString())
    boosted = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(ROWS, LABELS)
    for kind in ("json", "ubj"):
        (root / f"xgboost-{kind}").write_bytes(boosted.get_booster().save_raw(kind))
    light = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(ROWS, LABELS), 3)
    light.save_model(root / "lightgbm")
    return {path.name: path for path in root.iterdir()}


def mar(path: Path, handler: str, code: dict[str, str], **model: Any) -> Path:
    """An archive as torch-model-archiver writes it."""
    told = {"modelName": "words", "modelVersion": "2.5", "handler": handler, **model}
    manifest = {"createdOn": "03/03/2024 10:00:00", "runtime": "python", "model": told, "archiverVersion": "0.12.0"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, text in code.items():
            archive.writestr(name, text)
    return path


@pytest.fixture(scope="session")
def archived():
    return mar


def mlmodel(directory: Path, flavors: dict[str, Any], files: dict[str, Path], **more: Any) -> Path:
    """A model directory as MLflow 3 writes it. JSON is YAML."""
    directory.mkdir(parents=True)
    described = {
        "flavors": flavors,
        "mlflow_version": "3.17.2",
        "model_uuid": "5b0f",
        "run_id": "a1b2",
        "utc_time_created": "2026-03-03 10:00:00.000000",
        **more,
    }
    (directory / "MLmodel").write_text(json.dumps(described))
    (directory / "requirements.txt").write_text("mlflow==3.17.2\nscikit-learn==1.9.1\n")
    for name, source in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(source.read_bytes())
    return directory


@pytest.fixture(scope="session")
def mlflow_model():
    return mlmodel
