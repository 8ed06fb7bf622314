"""XGBoost and LightGBM answer through Salver what they answer themselves, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact
from salver.runtime.declaration import DECLARATION_FILE, Declaration
from salver.runtime.formats import Loaded, Source, format_named

GENERATOR = np.random.default_rng(7)
ROWS = GENERATOR.normal(size=(300, 4)).astype(np.float32)
ROWS[GENERATOR.random(ROWS.shape) < 0.2] = np.nan
CLASSES = np.nan_to_num(ROWS[:, 0] + ROWS[:, 1] > 0).astype(int) + np.nan_to_num(ROWS[:, 2] > 0.5).astype(int)
VALUES = np.nan_to_num(ROWS).sum(axis=1)


def loaded(path: Path, threads: int = 1) -> tuple[Signature, Loaded]:
    name = "lightgbm" if path.suffix == ".txt" else "xgboost"
    chosen, source = format_named(name), Source(path.parent, path)
    return chosen.signature(source, Declaration()), chosen.load(source, Declaration(), RuntimeOptions(threads=threads))


def equal(answer: dict[str, Any], **expected: Any) -> None:
    assert answer.keys() == expected.keys()
    for name, values in expected.items():
        assert answer[name].tolist() == np.asarray(values).tolist(), name


FAST = {"n_estimators": 8, "n_jobs": 1}


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
@pytest.mark.parametrize("settings", [{}, {"booster": "dart"}, {"booster": "gblinear"}, {"objective": "multi:softmax"}])
def test_xgboost_classifies_as_by_itself(tmp_path, suffix, settings) -> None:
    for labels in (CLASSES, (CLASSES > 0).astype(int)):
        if settings.get("objective") and labels.max() == 1:
            continue
        model = xgboost.XGBClassifier(**FAST, **settings).fit(ROWS, labels)
        model.save_model(tmp_path / f"m{suffix}")
        signature, found = loaded(tmp_path / f"m{suffix}")
        assert [spec.name for spec in signature.outputs] == ["label", "probabilities"]
        assert signature.outputs[1].shape == (-1, labels.max() + 1)
        equal(found.run({"X": ROWS}), label=model.predict(ROWS), probabilities=model.predict_proba(ROWS))


@pytest.mark.parametrize(
    ("parameters", "target", "shape"),
    [
        ({"objective": "reg:squarederror"}, VALUES, (-1,)),
        ({"objective": "count:poisson"}, np.abs(VALUES), (-1,)),
        ({"objective": "reg:logistic"}, CLASSES > 0, (-1,)),
        ({"objective": "binary:logitraw"}, CLASSES > 0, (-1,)),
        (
            {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"},
            np.stack([VALUES, -VALUES], 1),
            (-1, 2),
        ),
        ({"objective": "reg:squarederror"}, np.stack([VALUES, -VALUES], 1), (-1, 2)),
        ({"objective": "rank:pairwise"}, CLASSES, (-1,)),
    ],
)
def test_xgboosts_other_objectives_answer_a_value(tmp_path, parameters, target, shape) -> None:
    table = xgboost.DMatrix(ROWS, np.asarray(target, float))
    if parameters["objective"].startswith("rank"):
        table.set_group([100, 100, 100])
    booster = xgboost.train({"nthread": 1, "tree_method": "hist", **parameters}, table, 5)
    booster.save_model(tmp_path / "m.ubj")
    signature, found = loaded(tmp_path / "m.ubj")
    assert signature.outputs == (TensorSpec("value", "FP32", shape),)
    equal(found.run({"X": ROWS}), value=booster.predict(xgboost.DMatrix(ROWS)))


def test_a_booster_of_softmax_answers_the_labels_it_would_with_their_probabilities(tmp_path) -> None:
    booster = xgboost.train({"objective": "multi:softmax", "num_class": 3}, xgboost.DMatrix(ROWS, CLASSES), 5)
    booster.save_model(tmp_path / "m.json")
    answer = loaded(tmp_path / "m.json")[1].run({"X": ROWS})
    assert answer["label"].tolist() == booster.predict(xgboost.DMatrix(ROWS)).astype(int).tolist()
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1.0, rtol=1e-6)


def test_a_booster_of_hinge_answers_labels_only(tmp_path) -> None:
    booster = xgboost.train({"objective": "binary:hinge"}, xgboost.DMatrix(ROWS, CLASSES > 0), 5)
    booster.save_model(tmp_path / "m.json")
    signature, found = loaded(tmp_path / "m.json")
    assert signature.outputs == (TensorSpec("label", "INT64", (-1,)),)
    equal(found.run({"X": ROWS}), label=booster.predict(xgboost.DMatrix(ROWS)).astype(int))


def test_an_estimator_that_stopped_early_answers_with_its_best_trees(tmp_path) -> None:
    noise = GENERATOR.normal(size=300)
    model = xgboost.XGBRegressor(n_estimators=60, learning_rate=0.9, early_stopping_rounds=5, n_jobs=1)
    model.fit(ROWS[:150], noise[:150], eval_set=[(ROWS[150:], noise[150:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    model.save_model(tmp_path / "m.ubj")
    equal(loaded(tmp_path / "m.ubj")[1].run({"X": ROWS}), value=model.predict(ROWS))


@pytest.mark.parametrize("labels", [CLASSES, (CLASSES > 0).astype(int)], ids=["three", "two"])
@pytest.mark.parametrize(
    "settings", [{}, {"boosting_type": "dart"}, {"objective": "multiclassova"}, {"linear_tree": True}]
)
def test_lightgbm_classifies_as_by_itself(tmp_path, labels, settings) -> None:
    if settings.get("objective") and labels.max() == 1:
        return
    rows = ROWS.astype(np.float64)
    model = lightgbm.LGBMClassifier(**FAST, verbose=-1, **settings).fit(rows, labels)
    model.booster_.save_model(tmp_path / "m.txt")
    signature, found = loaded(tmp_path / "m.txt")
    assert signature.outputs[1] == TensorSpec("probabilities", "FP64", (-1, labels.max() + 1))
    # What answers is the text, so the library reads the text as well.
    alone = lightgbm.Booster(model_file=tmp_path / "m.txt").predict(rows, num_threads=1)
    expected = alone if alone.ndim > 1 else np.vstack((1.0 - alone, alone)).T
    equal(found.run({"X": rows}), label=model.predict(rows), probabilities=expected)
    np.testing.assert_allclose(expected, model.predict_proba(rows), rtol=1e-12)


@pytest.mark.parametrize("objective", ["regression", "poisson", "quantile", "huber", "cross_entropy"])
def test_lightgbms_other_objectives_answer_a_value(tmp_path, objective) -> None:
    rows, target = ROWS.astype(np.float64), (CLASSES > 0).astype(float)
    booster = lightgbm.train(
        {"objective": objective, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, target), 5
    )
    booster.save_model(tmp_path / "m.txt")
    signature, found = loaded(tmp_path / "m.txt")
    assert signature.outputs == (TensorSpec("value", "FP64", (-1,)),)
    equal(found.run({"X": rows}), value=booster.predict(rows))


def test_names_of_features_come_along_and_labels_may_be_declared(tmp_path) -> None:
    names = ["age", "height", "weight", "dose"]
    booster = xgboost.train(
        {"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, CLASSES > 0, feature_names=names), 2
    )
    booster.save_model(tmp_path / "model.json")
    (tmp_path / "config.json").write_text('{"learner_rate": 0.1}')
    declared = (
        '[[inputs]]\nname = "X"\ndatatype = "FP32"\nshape = [-1, 4]\nlabels = ["age", "height", "weight", "dose"]\n'
    )
    declared += '[[outputs]]\nname = "probabilities"\ndatatype = "FP32"\nshape = [-1, 2]\nlabels = ["well", "ill"]\n'
    (tmp_path / DECLARATION_FILE).write_text(declared)
    signature = read_artifact(tmp_path).signature
    assert signature.inputs == (TensorSpec("X", "FP32", (-1, 4), labels=tuple(names)),)
    assert signature.outputs[1].labels == ("well", "ill")
    table = lightgbm.Dataset(ROWS.astype(float), CLASSES > 0, feature_name=names)
    lightgbm.train({"objective": "binary", "verbose": -1}, table, 2).save_model(tmp_path / "l.txt")
    assert loaded(tmp_path / "l.txt")[0].inputs[0].labels == tuple(names)


def test_json_and_text_files_beside_a_model_are_not_taken_for_models(tmp_path, artifacts_beside) -> None:
    assert read_artifact(artifacts_beside, format="python").format == "python"
    (artifacts_beside / "model.py").unlink()
    with pytest.raises(SalverError, match="no format recognises"):
        read_artifact(artifacts_beside)


@pytest.fixture
def artifacts_beside(tmp_path) -> Path:
    directory = tmp_path / "upload"
    directory.mkdir()
    (directory / "tokenizer.json").write_text('{"version": "1.0", "truncation": null, "model": {}}')
    (directory / "vocab.txt").write_text("tree\nhouse\n")
    (directory / "model.py").write_text(
        "import salver\nclass M(salver.Model):\n"
        '    inputs = outputs = [salver.TensorSpec("x", "FP64", (-1,))]\n'
        "    def predict(self, inputs):\n        return inputs\n"
    )
    return directory


@pytest.mark.parametrize("kind", ["text", "ubj"])
def test_a_damaged_file_ends_a_child_process_and_not_this_one(tmp_path, kind) -> None:
    if kind == "text":
        booster = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(ROWS, CLASSES > 0), 5)
        content = booster.model_to_string().replace("leaf_value=", "leaf_valXe=")
        path = tmp_path / "m.txt"
        path.write_text(content)
    else:
        booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, CLASSES > 0), 5)
        content = bytearray(booster.save_raw("ubj"))
        at = content.index(b"left_children")
        content[at + 13 : at + 40] = b"\xff" * 27
        path = tmp_path / "m.ubj"
        path.write_bytes(content)
    with pytest.raises(SalverError) as raised:
        read_artifact(path)
    assert raised.value.code == "INVALID_ARTIFACT"
    assert str(tmp_path) not in str(raised.value)
