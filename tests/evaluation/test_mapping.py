"""From columns to inputs and from outputs to predictions: nothing is guessed, everything is named."""

from __future__ import annotations

import numpy as np
import pytest

from salver.evaluation.subject.inputs import map_inputs
from salver.evaluation.subject.predictions import Reader, Task
from salver.evaluation.subject.rows import Rows
from salver.evaluation.suites.suite import decode_suite
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

X2 = TensorSpec("X", "FP32", (-1, 2))
LABEL = TensorSpec("label", "INT64", (-1,))
PROBABILITIES = TensorSpec("probabilities", "FP32", (-1, 2))
ROWS = Rows(
    {
        "b": np.array([1.0, 2.0]),
        "a": np.array([3, 4]),
        "who": np.array(["x", None], dtype=object),
        "y": np.array([0, 1]),
    }
)


def suite(**sections):
    return decode_suite({"suite": {"name": "s", "target": "y"} | sections.pop("about", {})} | sections, "s")


def inputs(*specs: TensorSpec, rows: Rows = ROWS, **sections):
    return map_inputs(Signature(specs, (LABEL,)), suite(**sections), rows).arrays(rows)


def test_one_input_takes_the_features_in_the_order_of_the_file_or_of_the_suite() -> None:
    assert inputs(X2)["X"].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert inputs(X2, about={"features": ["a", "b"]})["X"].tolist() == [[3.0, 1.0], [4.0, 2.0]]
    assert inputs(X2)["X"].dtype == np.float32


def test_columns_for_the_split_and_slices_are_no_features_unless_they_must_be() -> None:
    assert inputs(TensorSpec("X", "FP32", (-1, 1)), slices={"columns": ["a"]})["X"].tolist() == [[1.0], [2.0]]
    assert inputs(X2, slices={"columns": ["a"]})["X"].shape == (2, 2)
    split = {"kind": "grouped", "column": "a"}
    assert inputs(TensorSpec("X", "FP32", (-1, 1)), split=split)["X"].tolist() == [[1.0], [2.0]]


def test_several_inputs_take_columns_of_their_names_or_those_declared() -> None:
    a, who = TensorSpec("a", "INT64", (-1, 1)), TensorSpec("who", "BYTES", (-1,))
    found = inputs(a, who)
    assert (found["a"].tolist(), found["who"].tolist()) == ([[3], [4]], ["x", ""])
    assert inputs(TensorSpec("both", "FP64", (-1, -1)), a, inputs={"both": ["b", "a"]})["both"].shape == (2, 2)


@pytest.mark.parametrize(
    ("specs", "sections", "message"),
    [
        ((TensorSpec("X", "FP32", (-1, 3)),), {}, "takes 3 features a row, and the data has 2: b, a"),
        (
            (TensorSpec("p", "FP32", (-1,)), TensorSpec("q", "FP32", (-1,))),
            {},
            "no column 'p' for the input of that name",
        ),
        ((X2,), {"about": {"features": ["a", "y"]}}, "the target 'y' is among the features"),
        ((X2,), {"about": {"features": ["a", "c"]}}, "no column 'c'"),
        ((X2,), {"about": {"features": ["a", "who"]}}, "column 'who' holds no numbers"),
        ((X2,), {"inputs": {"Z": ["a"]}}, "[inputs] names 'Z'; the version has 'X'"),
        ((TensorSpec("X", "BYTES", (-1,)),), {"inputs": {"X": ["a"]}}, "column 'a' holds no text"),
    ],
)
def test_what_does_not_fit_is_named(specs: tuple, sections: dict, message: str) -> None:
    with pytest.raises(SalverError) as refused:
        inputs(*specs, **sections)
    assert message in str(refused.value)


def test_numbers_are_never_rounded_to_fit_an_input() -> None:
    rows = Rows({"a": np.array([1.5, 2.0]), "y": np.array([0, 1])})
    with pytest.raises(SalverError, match="column 'a' has values that do not fit"):
        inputs(TensorSpec("X", "INT64", (-1, 1)), rows=rows)


def reader(*specs: TensorSpec, target=ROWS.columns["y"], **sections) -> Reader:
    return Reader(Signature((X2,), specs), suite(**sections), Rows({"y": np.asarray(target)}))


def test_labels_and_probabilities_are_recognised() -> None:
    found = reader(LABEL, PROBABILITIES)
    assert (found.task, found.classes) == (Task.BINARY, ("0", "1"))
    said = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    predicted = found.read({"label": np.array([1, 0]), "probabilities": said})
    assert predicted.labels.tolist() == [1, 0]
    assert predicted.score().tolist() == [0.75, 0.5]


def test_names_of_the_signature_join_numbers_text_and_bytes() -> None:
    named = TensorSpec("probabilities", "FP32", (-1, 2), labels=("ill", "well"))
    found = reader(TensorSpec("label", "BYTES", (-1,)), named, target=np.array(["well", "ill"], dtype=object))
    predicted = found.read(
        {"label": np.array([b"ill", b"well"], dtype=object), "probabilities": np.array([[0.9, 0.1], [0.2, 0.8]])}
    )
    rows = Rows({"y": np.array(["well", "ill"], dtype=object)})
    assert (predicted.labels.tolist(), found.truth(rows).target.tolist()) == ([0, 1], [1, 0])


def test_the_positive_class_is_the_last_column() -> None:
    found = reader(LABEL, PROBABILITIES, about={"positive": 0})
    assert found.classes == ("1", "0")
    said = np.array([[0.25, 0.75], [0.5, 0.5]])
    predicted = found.read({"label": np.array([1, 0]), "probabilities": said})
    assert (predicted.labels.tolist(), predicted.score().tolist()) == ([0, 1], [0.25, 0.5])


def test_logits_are_no_probabilities_and_a_score_may_be_declared() -> None:
    logits = reader(PROBABILITIES).read({"probabilities": np.array([[-3.0, 2.0], [1.0, 0.0]])})
    assert (logits.labels.tolist(), logits.probabilities) == ([1, 0], None)
    score = TensorSpec("s", "FP32", (-1, 1))
    found = reader(LABEL, score, outputs={"score": "s", "label": "label"})
    assert found.read({"label": np.array([0, 1]), "s": np.array([[0.1], [0.9]])}).score().tolist() == [0.1, 0.9]
    with pytest.raises(SalverError, match="holds no probabilities: values outside 0 to 1"):
        found.read({"label": np.array([0, 1]), "s": np.array([[1.5], [0.9]])})


def test_a_regression_is_recognised_by_its_outputs() -> None:
    found = reader(TensorSpec("variable", "FP32", (-1, 1)), target=[0.5, 1.5])
    assert found.task is Task.REGRESSION
    assert found.read({"variable": np.array([[1.0], [2.0]])}).values.tolist() == [1.0, 2.0]
    with pytest.raises(SalverError, match="NaN or infinity"):
        found.read({"variable": np.array([[1.0], [np.nan]])})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reader(LABEL, outputs={"label": "lable"}), "[outputs] names 'lable'; the version has 'label'"),
        (lambda: reader(LABEL, target=[1, 1]), "has 1 different values"),
        (lambda: reader(LABEL, about={"positive": 7}), "the positive class '7' is none of 0, 1"),
        (lambda: reader(LABEL).read({"label": np.array([0, 5])}), "1 rows are answered with a class that is none"),
        (lambda: reader(LABEL).truth(Rows({"y": np.array([0, 9])})), "holds '9', and the classes are 0, 1"),
        (lambda: reader(LABEL).truth(Rows({"y": np.array([0, np.nan])})), "1 rows have no target"),
    ],
)
def test_what_cannot_be_scored_is_named(call, message: str) -> None:
    with pytest.raises(SalverError) as refused:
        call()
    assert message in str(refused.value)
