"""Whole evaluations of real models: the good pass, the worse and the leaky do not, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import tempfile

import msgspec
import numpy as np
import psutil
import pytest
import skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from subjects import run_salver

from salver.evaluation.reports.records import EvaluationRecord
from salver.evaluation.reports.report import render_report

GATE = """
[[metric]]
name = "roc_auc"
at_least = 0.97
not_worse_than = "production"
margin = 0.02
[[metric]]
name = "accuracy"
at_least = 0.9
role = "satisficing"
"""
FULL = (
    GATE
    + """
[[satisficing]]
name = "latency_p99_s"
at_most = 5.0
requests = 320
[[satisficing]]
name = "size_bytes"
at_most = 1000000
[slices]
columns = ["mean_radius"]
discover = true
max_gap = 0.15
discover_columns = ["mean_texture", "mean_area"]
[calibration]
ece_at_most = 0.2
"""
)


RAISES = """
import salver


class Raises(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, 30))]
    outputs = [salver.TensorSpec("label", "INT64", (-1,))]

    def load(self, context):
        raise RuntimeError("no")

    def predict(self, inputs):
        return {}
"""


def verdicts(record: dict) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in record["checks"]}


def test_a_good_version_passes_and_leaves_a_record_and_a_report(house, evaluated, tmp_path) -> None:
    code, record = evaluated(house.good, FULL, "--report", tmp_path / "report")
    assert (code, record["verdict"]) == (0, "successful"), record["reasons"]
    assert set(verdicts(record)) == {
        "split", "roc_auc", "accuracy", "latency_p99_s", "size_bytes", "slices", "calibration",
    }  # fmt: skip
    assert record["data_digest"] == house.rows.digest
    assert (record["data_rows"], record["evaluated_rows"]) == (569, 228)
    assert "{model}@{version}".format(**record) == house.good
    kept = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert kept == record
    html = (tmp_path / "report" / "evaluation.html").read_text()
    assert html.count("<svg") == sum(len(check["plots"]) for check in record["checks"]) >= 4
    assert house.good in html


def test_a_version_worse_than_the_other_fails_and_says_by_how_much(house, evaluated) -> None:
    code, record = evaluated(house.worse, GATE, "--against", "1.0.0")
    assert (code, record["verdict"]) == (1, "failed")
    assert "{model}@{version}".format(**record["against"]) == house.good
    numbers = next(check for check in record["checks"] if check["name"] == "roc_auc")["numbers"]
    assert (numbers["relation"], numbers["method"]) == ("worse", "DeLong")


def test_another_good_version_is_no_worse(house, evaluated) -> None:
    code, record = evaluated(house.boosted, GATE, "--against", house.good)
    assert code in (0, 2)
    assert verdicts(record)["accuracy"] == "successful"
    assert record["checks"][1]["numbers"]["rival"] > 0.97


def test_a_leaky_version_looks_perfect_and_is_caught_by_what_it_was_trained_on(house, evaluated) -> None:
    from salver.cli.context import Context
    from salver.control.actions.descriptions import DESCRIBE, Changes

    with Context(house.home, json=True).administration() as admin:
        said = {"training_data": {"digest": house.rows.digest}, "extra": {"training_split": "all of it"}}
        admin.do(DESCRIBE, Changes("cancer", "2.0.0", said))
    code, record = evaluated(house.leaky, GATE)
    assert (code, record["verdict"]) == (1, "failed")
    assert verdicts(record) == {"split": "failed", "roc_auc": "successful", "accuracy": "successful"}


def workers() -> set[int]:
    """The workers below this process, those of its other tests included."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "salver.runtime" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def test_users_code_runs_in_a_worker_and_nothing_is_left(house, evaluated, tmp_path, monkeypatch) -> None:
    scratch, before = tmp_path / "scratch", workers()
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    code, record = evaluated(house.leaky, '[[metric]]\nname = "accuracy"\nat_least = 0.5\n')
    assert code in (0, 1, 2)
    assert verdicts(record)["accuracy"] == "successful"
    assert list(scratch.iterdir()) == []
    assert workers() <= before


def test_a_check_that_raises_is_an_error_and_the_others_go_on(house, evaluated) -> None:
    code, record = evaluated(house.good, GATE + '[slices]\ncolumns = ["nobody"]\n')
    assert (code, record["verdict"]) == (3, "error")
    assert verdicts(record)["slices"] == "error"
    assert verdicts(record)["accuracy"] == "successful"
    assert any("the data has no column 'nobody'" in reason for reason in record["reasons"])


@pytest.mark.parametrize(
    ("reference", "sections", "code"),
    [("cancer@9.9.9", "", "NOT_FOUND"), ("cancer", "[splits]\n", "INVALID_SETTING")],
)
def test_where_nothing_could_be_judged_the_command_ends_with_3(house, evaluated, reference, sections, code) -> None:
    ended, said = evaluated(reference, sections)
    assert (ended, said["error"]["code"]) == (3, code)


def test_a_version_that_does_not_load_is_an_error_and_no_failure(house, tmp_path, capsys) -> None:
    (tmp_path / "raises.py").write_text(RAISES)
    home = tmp_path / "home"
    if run_salver(home, "register", "raises", tmp_path / "raises.py"):
        pytest.fail(capsys.readouterr().err)
    capsys.readouterr()
    suite = house.suite(tmp_path, "")
    assert run_salver(home, "evaluate", "raises", "--suite", suite, "--data", house.data) == 3
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"]["code"]


def test_production_is_what_the_endpoint_serves_where_no_stage_says_so(house, evaluated, capsys) -> None:
    assert run_salver(house.home, "deploy", "cancer@1.0.0") == 0
    code, record = evaluated(house.good, GATE)
    assert "{model}@{version}".format(**record["against"]) == house.good
    assert record["checks"][1]["numbers"]["method"] == "equal answers"
    assert run_salver(house.home, "undeploy", "cancer") == 0
    assert code == 0


def test_digits_with_ten_classes_from_npy(house, tmp_path, capsys) -> None:
    x, y = load_digits(return_X_y=True)
    skops.io.dump(LogisticRegression(max_iter=1000).fit(x[:500] / 16, y[:500]), tmp_path / "digits.skops")
    home = tmp_path / "home"
    assert run_salver(home, "register", "digits", tmp_path / "digits.skops") == 0
    np.save(tmp_path / "digits.npy", np.column_stack([x[900:] / 16, y[900:]]))
    (tmp_path / "digits.toml").write_text(
        '[suite]\nname = "digits"\ntarget = "64"\nresamples = 100\n[[metric]]\nname = "accuracy"\nat_least = 0.85\n'
        '[[metric]]\nname = "log_loss"\nat_most = 1.0\n[slices]\ncolumns = ["64"]\nmax_gap = 0.3\n[calibration]\n'
    )
    capsys.readouterr()
    code = run_salver(
        home, "evaluate", "digits", "--suite", tmp_path / "digits.toml", "--data", tmp_path / "digits.npy"
    )
    record = json.loads(capsys.readouterr().out)
    assert (code, record["verdict"]) == (0, "successful"), record["reasons"]
    assert len(record["checks"][1]["tables"][0]["rows"]) == 10


def test_a_record_comes_back_whole_from_json_and_the_same_page_from_it(house, evaluated) -> None:
    _, document = evaluated(house.good, FULL)
    record = msgspec.convert(document, EvaluationRecord)
    assert msgspec.json.decode(msgspec.json.encode(record), type=EvaluationRecord) == record
    page = render_report(record)
    assert page == render_report(record)
    assert all(check.plots == () for check in record.evidence().checks)
    named = msgspec.structs.replace(record, suite="<script>alert(1)</script>", reasons=("<b>",))
    hostile = render_report(named)
    assert "<script>" not in hostile
    assert "<b>" not in hostile
    for loading in ('src="http', 'href="http', "@import", "url(http", "<link"):
        assert loading not in page
