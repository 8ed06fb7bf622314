"""What is said of model files that cannot be loaded: enough to mend them, and no path of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from salver.protocol.errors import SalverError
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source, format_named
from salver.runtime.formats.onnx import _reason


def refused(path: Path, **options: object) -> SalverError:
    with pytest.raises(SalverError) as raised:
        read_artifact(path, **options)  # type: ignore[arg-type]
    return raised.value


def test_a_text_pipeline_is_not_called_unfitted(tmp_path) -> None:
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
    fitted = tmp_path / "text.skops"
    skops.io.dump(pipeline.fit(["good day", "bad night"], [1, 0]), fitted)
    error = refused(fitted, trust_code=True)
    assert error.code == "INVALID_ARTIFACT"
    assert "no n_features_in_" in error.message
    assert "salver.Model" in error.remedy


@pytest.mark.parametrize("estimator", [LogisticRegression(), make_pipeline(TfidfVectorizer(), LogisticRegression())])
def test_what_is_not_fitted_is_called_so(tmp_path, estimator) -> None:
    path = tmp_path / "new.skops"
    skops.io.dump(estimator, path)
    error = refused(path, trust_code=True)
    assert "is not fitted" in error.message
    assert "fit it" in error.remedy


def test_what_cannot_predict_is_called_so(tmp_path) -> None:
    path = tmp_path / "vectors.skops"
    skops.io.dump(TfidfVectorizer().fit(["a text"]), path)
    assert "predict()" in refused(path, trust_code=True).message


def test_the_types_that_need_a_word_of_trust_are_named(tmp_path) -> None:
    path = tmp_path / "forest.skops"
    skops.io.dump(RandomForestClassifier(2, random_state=0).fit(np.eye(4), [0, 1, 0, 1]), path)
    error = refused(path)
    assert error.code == "REFUSED_BY_POLICY"
    assert "sklearn.tree._tree.Tree" in error.message
    assert "--trust-code" in error.remedy
    assert read_artifact(path, trust_code=True).executes_code


def test_a_pickle_is_called_one(tmp_path) -> None:
    (tmp_path / "m.joblib").write_bytes(b"never opened")
    assert "it is a pickle" in refused(tmp_path / "m.joblib").message


# ONNX Runtime's reasons.


def test_the_reason_of_onnx_runtime_is_given(tmp_path) -> None:
    import onnx
    from onnx import TensorProto, helper

    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], "g", spec[:1], spec[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    assert "NoSuchOperator" in refused(tmp_path / "odd.onnx").message
    model.ir_version = 99
    onnx.save(model, tmp_path / "late.onnx")
    error = refused(tmp_path / "late.onnx")
    assert "Unsupported model IR version: 99" in error.message
    assert str(tmp_path) not in error.message


def test_a_file_that_is_none_is_named_without_its_directories(tmp_path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    chosen = format_named("onnx")
    with pytest.raises(SalverError, match="rotobuf") as raised:
        chosen.load(Source(tmp_path, tmp_path / "bad.onnx"), Declaration(), RuntimeOptions())
    assert "'bad.onnx'" in raised.value.message
    assert str(tmp_path) not in raised.value.message


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("first\nsecond", "first"),
        ("[ONNXRuntimeError] : 1 : FAIL : /home/me/my models/a.onnx is bad", "1 : FAIL : a.onnx is bad"),
        ("/src/core/graph/model.cc:181 Model() IR version 99", "model.cc:181 Model() IR version 99"),
        ("External data path: '/srv/x/y/weights.bin' is absent", "External data path: 'weights.bin' is absent"),
        ("node com.microsoft/Gelu a/b", "node com.microsoft/Gelu a/b"),
        ("first" + "x" * 10**6 + "last", "first" + "x" * 95 + " ... " + "x" * 146 + "last"),
        ("bell \x07", "bell"),
        ("", "RuntimeError"),
    ],
)
def test_a_reason_is_one_bounded_line_without_directories(said, told) -> None:
    assert _reason(RuntimeError(said), Path("/home/me/my models")).strip() == told
