"""Model directories of MLflow become what Salver serves; `make test-engines` has MLflow write them itself."""

from __future__ import annotations

import json

import pytest

from salver.imports import convert_path, recognise
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec
from salver.runtime.artifact import read_artifact

COLUMNS = json.dumps(
    [{"type": "double", "name": "a", "required": True}, {"type": "string", "name": "b", "required": False}]
)
TENSORS = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}])
LONG = json.dumps([{"type": "long"}])
PYFUNC = {"python_function": {"loader_module": "mlflow.sklearn", "python_version": "3.11.7"}}

FLAVORS = {
    "sklearn": (
        {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"},
        "model.pkl",
        "joblib",
        "sklearn",
    ),
    "sklearn, skops": ({"pickled_model": "model.skops"}, "model.skops", "skops", "sklearn"),
    "xgboost": ({"data": "model.ubj", "model_format": "ubj"}, "model.ubj", "xgboost-ubj", "xgboost"),
    "xgboost, json": ({"data": "model.xgb"}, "model.xgb", "xgboost-json", "xgboost"),
    "lightgbm": ({"data": "model.lgb"}, "model.lgb", "lightgbm", "lightgbm"),
    "lightgbm, pickled": ({"data": "model.pkl"}, "model.pkl", "joblib", "sklearn"),
    "onnx": ({"data": "model.onnx"}, "model.onnx", "onnx", "onnx"),
}


@pytest.mark.parametrize("which", FLAVORS)
def test_known_flavors_are_taken_as_what_they_are(tmp_path, models, mlflow_model, which) -> None:
    flavor, file, kind, expected = FLAVORS[which]
    name = which.partition(",")[0]
    source = mlflow_model(tmp_path / "m", {name: flavor, **PYFUNC}, {file: models[kind]}, signature={"inputs": TENSORS})
    assert recognise(source) == "mlflow"
    made = convert_path(source, tmp_path / "into")
    assert made.format == expected
    (file,) = made.directory.iterdir()
    assert file.read_bytes() == models[kind].read_bytes()
    facts, said = made.facts(), made.described()
    assert (facts["flavor"], facts["mlflow_version"]) == (f"mlflow.{name}", "3.17.2")
    assert json.loads(facts["signature"])["inputs"] == TENSORS
    assert (said["run_id"], said["trained_at"]) == ("a1b2", "2026-03-03 10:00:00.000000")
    assert "scikit-learn==1.9.1" in said["environment"]


def test_any_other_flavor_runs_behind_pyfunc_with_the_signature_mlflow_has(tmp_path, models, mlflow_model) -> None:
    source = mlflow_model(
        tmp_path / "m", PYFUNC, {"data/x.bin": models["joblib"]}, signature={"inputs": COLUMNS, "outputs": LONG}
    )
    made = convert_path(source, tmp_path / "into")
    artifact = read_artifact(made.directory, format=made.format)
    assert artifact.signature.inputs == (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "BYTES", (-1,), optional=True))
    assert artifact.signature.outputs == (TensorSpec("prediction", "INT64", (-1,)),)
    assert {"model.py", "mlflow_model/MLmodel", "mlflow_model/data/x.bin"} <= set(artifact.files)
    assert artifact.executes_code
    assert "needs mlflow" in made.notes[0]


BAD_SIGNATURES = [
    (None, "says nothing of the inputs"),
    ({"inputs": COLUMNS}, "says nothing of the outputs"),
    ({"inputs": "no json", "outputs": LONG}, "says nothing of the inputs"),
    ({"inputs": json.dumps([{"type": "datetime", "name": "when"}]), "outputs": LONG}, "'when'"),
    (
        {
            "inputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [2]}}]),
            "outputs": LONG,
        },
        "complex64",
    ),
]


@pytest.mark.parametrize(("signature", "says"), BAD_SIGNATURES)
def test_behind_pyfunc_a_signature_is_needed(tmp_path, mlflow_model, signature, says) -> None:
    with pytest.raises(SalverError, match=says) as raised:
        convert_path(mlflow_model(tmp_path / "m", PYFUNC, {}, signature=signature), tmp_path / "into")
    assert raised.value.code == "INVALID_ARTIFACT"


@pytest.mark.parametrize(
    "named", ["../secret.pkl", "/etc/passwd", "a/../../secret.pkl", "link.pkl", "way/secret.pkl", "gone.pkl", ""]
)
def test_files_outside_the_directory_are_not_taken(tmp_path, models, mlflow_model, named) -> None:
    (tmp_path / "secret.pkl").write_bytes(models["joblib"].read_bytes())
    source = mlflow_model(tmp_path / "m", {"sklearn": {"pickled_model": named}}, {})
    (source / "link.pkl").symlink_to(tmp_path / "secret.pkl")
    (source / "way").symlink_to(tmp_path)
    with pytest.raises(SalverError, match="which the artifact names") as raised:
        convert_path(source, tmp_path / "into")
    assert raised.value.code == "INVALID_ARTIFACT"


def test_links_in_a_directory_behind_pyfunc_are_refused(tmp_path, mlflow_model) -> None:
    source = mlflow_model(tmp_path / "m", PYFUNC, {}, signature={"inputs": TENSORS, "outputs": LONG})
    (source / "way").symlink_to("/etc")
    with pytest.raises(SalverError, match="no regular file"):
        convert_path(source, tmp_path / "into")


BAD_YAML = {
    "code": "!!python/object/apply:os.system ['touch CANARY']",
    "a list": "- a\n- b\n",
    "no YAML": "a: [",
    "too large": "a: " + "x" * (2 << 20),
    "no text": "\udcff",
    "deep": "[" * 5000,
}


@pytest.mark.parametrize("what", BAD_YAML)
def test_a_description_that_is_none_is_refused(tmp_path, monkeypatch, what) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "MLmodel").write_bytes(BAD_YAML[what].encode(errors="surrogateescape"))
    with pytest.raises(SalverError) as raised:
        convert_path(tmp_path / "m", tmp_path / "into")
    assert raised.value.code == "INVALID_ARTIFACT"
    assert not (tmp_path / "CANARY").exists()


def test_much_made_of_little_text_is_left(tmp_path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "m").mkdir()
    text = "flavors: {onnx: {data: gone}}\nmetadata: {" + "b: *a11}\n"
    (tmp_path / "m" / "MLmodel").write_text("\n".join(lines) + "\n" + text)
    with pytest.raises(SalverError, match="is not there"):
        convert_path(tmp_path / "m", tmp_path / "into")


def test_flavors_that_cannot_be_served_are_named(tmp_path, mlflow_model) -> None:
    for flavors, says in (({"spark": {}}, "spark"), ({}, "it has none")):
        source = mlflow_model(tmp_path / f"m{says}", flavors, {})
        with pytest.raises(SalverError, match=says):
            convert_path(source, tmp_path / f"into{says}")


def test_without_yaml_the_extra_is_named(tmp_path, mlflow_model, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(SalverError, match=r"pip install 'salver\[mlflow\]'") as raised:
        convert_path(mlflow_model(tmp_path / "m", {}, {}), tmp_path / "into")
    assert raised.value.code == "UNSUPPORTED"
