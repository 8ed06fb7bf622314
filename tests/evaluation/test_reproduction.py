from __future__ import annotations

import sys
from pathlib import Path

import pytest

from salver.evaluation.remaking import make_again
from salver.evaluation.reproduction import (
    SUITE,
    Compared,
    Remade,
    compare_metrics,
    environment_differences,
    judge,
    recorded_data,
    recorded_metrics,
    standard_suite,
)
from salver.evaluation.subject.shapes import shape_of
from salver.evaluation.suites.scripts import read_suite
from salver.protocol.description import DataReference, Description
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.registry.evidence import Evaluation

DATA, OTHER, BYTES = "ab" * 32, "cd" * 32, "ef" * 32
SAME = Compared("accuracy", 0.9, 0.9, "description", agrees=True)
WORSE = Compared("accuracy", 0.9, 0.8, "description", agrees=False)
MISSING = Compared("accuracy", 0.9, None, "description", agrees=None)


def evaluation(**fields) -> Evaluation:
    given = {"suite": "release", "digest": BYTES, "data_digest": DATA, "numbers": {"accuracy": 0.8}}
    of = {"id": "e1", "model": "m", "version": "1.0.0", "recorded_s": 1.0, "recorded_by": "ann", "role": "admin"}
    return Evaluation(verdict=Verdict.SUCCESSFUL, **(of | given | fields))


@pytest.mark.parametrize(
    ("metrics", "data", "remade", "verdict"),
    [
        ([SAME], "same", None, Verdict.SUCCESSFUL),
        ([SAME, WORSE], "same", None, Verdict.FAILED),
        ([SAME], "other", None, Verdict.INCONCLUSIVE),
        ([WORSE], "other", None, Verdict.INCONCLUSIVE),
        ([SAME], "unknown", None, Verdict.INCONCLUSIVE),
        ([MISSING], "same", None, Verdict.INCONCLUSIVE),
        ([], "same", None, Verdict.INCONCLUSIVE),
        ([SAME], "same", "same bytes", Verdict.SUCCESSFUL),
        ([SAME], "same", "same metrics", Verdict.SUCCESSFUL),
        ([SAME], "same", "different", Verdict.FAILED),
        ([SAME], "same", "unknown", Verdict.INCONCLUSIVE),
        ([SAME], "other", "different", Verdict.FAILED),
    ],
)
def test_each_combination_has_its_verdict(metrics, data, remade, verdict) -> None:
    found, reasons = judge(metrics, data, (), Remade(remade, "") if remade else None)
    assert found is verdict
    assert reasons


def test_an_evaluation_on_these_rows_says_more_than_the_description() -> None:
    said = Description(metrics={"accuracy": 0.9, "latency": 3.0})
    newest = evaluation(id="e2", numbers={"accuracy": 0.85, "accuracy.low": 0.8, "odd": 1.0})
    found = recorded_metrics(said, [newest, evaluation()], BYTES, DATA, 40)
    assert found == {"accuracy": (0.85, "evaluation e2"), "latency": (3.0, "description")}


def test_records_of_other_rows_other_bytes_or_of_reproductions_count_for_nothing() -> None:
    others = [evaluation(data_digest=OTHER), evaluation(digest=OTHER), evaluation(suite=SUITE)]
    assert recorded_metrics(Description(), others, BYTES, DATA, 40) == {}


def test_of_the_same_data_split_otherwise_nothing_is_compared() -> None:
    some, all_of_them = evaluation(id="e3", evaluated_rows=16), evaluation(numbers={"accuracy": 0.7}, evaluated_rows=40)
    found = [recorded_metrics(Description(), [some, all_of_them], BYTES, DATA, rows) for rows in (16, 40, 8)]
    assert found == [{"accuracy": (0.8, "evaluation e3")}, {"accuracy": (0.7, "evaluation e1")}, {}]


def test_which_data_were_recorded() -> None:
    said = Description(evaluation_data=DataReference(digest=f"sha256:{OTHER.upper()}"))
    assert recorded_data(said, [evaluation(), evaluation(data_digest="")]) == (OTHER, DATA)
    assert recorded_data(Description(), []) == ()


def test_metrics_are_compared_by_what_they_are_called_here() -> None:
    recorded = {"auc": (0.9, "description"), "accuracy": (0.5, "description"), "odd": (1.0, "description")}
    found = {each.name: each.agrees for each in compare_metrics(recorded, {"roc_auc": 0.9001, "accuracy": 0.6}, 0.001)}
    assert found == {"auc": True, "accuracy": False, "odd": None}


def test_the_standard_suite_measures_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(standard_suite('a "target"', ["auc", "accuracy", "revenue", "roc_auc"]))
    suite = read_suite(path).suite
    assert (suite.suite.target, [each.name for each in suite.metric]) == ('a "target"', ["roc_auc", "accuracy"])
    with pytest.raises(SalverError):
        standard_suite("target", ["revenue"])


def test_packages_of_another_version_are_told() -> None:
    import numpy as np

    lock = f"numpy=={np.__version__} \\\n    --hash=sha256:00\nnot-installed-anywhere==1.0\nmsgspec==0.0.1\n# x==1\n"
    found = [(each.package, each.recorded) for each in environment_differences(lock)]
    assert found == [("not-installed-anywhere", "1.0"), ("msgspec", "0.0.1")]
    _, reasons = judge([SAME], "same", environment_differences(lock), None)
    assert "the environment differs: not-installed-anywhere none for 1.0" in reasons[-1]


# The command.


def python(program: str) -> str:
    return f'{sys.executable} -c "{program}"'


def test_a_command_is_told_where_to_write_and_no_secret(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SALVER_TOKEN", "secret")
    target = tmp_path / "model.onnx"
    make_again(
        python("import os; open(os.environ['SALVER_ARTIFACT'], 'w').write(str('SALVER_TOKEN' in os.environ))"),
        target,
        30,
    )
    assert target.read_text() == "False"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "is empty"),
        ("'unended", "cannot be read"),
        ("/nowhere/program", "does not start"),
        (python("raise SystemExit(3)"), "ended with code 3"),
        (python("pass"), "wrote nothing to 'model.onnx'"),
    ],
)
def test_what_went_wrong_with_a_command_is_told(tmp_path: Path, command: str, says: str) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("from before")
    with pytest.raises(SalverError) as caught:
        make_again(command, target, 30)
    assert says in caught.value.message


def test_a_command_that_takes_too_long_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match=r"not done within 0\.5 s") as caught:
        make_again("sleep 60", tmp_path / "m.onnx", 0.5)
    assert "--timeout" in caught.value.remedy


# What data look like.


def test_a_file_of_rows_has_a_shape(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("age,town,member,grade\n30,a,True,1\n40,b,False,2\n,c,True,1\n")
    shape = shape_of(file, "grade")
    assert [(each.name, each.kind) for each in shape.columns] == [
        ("age", "number"),
        ("town", "text"),
        ("member", "truth"),
        ("grade", "number"),
    ]
    assert (shape.values, shape.whole, shape.is_classification) == (("1", "2"), True, True)
    assert shape_of(file, "town").values == ("a", "b", "c")
    assert shape_of(file, "age").values == ("30", "40")
    assert shape_of(file).is_classification is None
    with pytest.raises(SalverError):
        shape_of(file, "nothing")
