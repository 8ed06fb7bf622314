"""Suites: read strictly, from TOML and from Python, which never runs here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest
from subjects import make_subject

from salver.evaluation.parts import checks_of
from salver.evaluation.suites import scripts
from salver.evaluation.suites.scripts import read_suite
from salver.evaluation.suites.suite import _SECTIONS, Suite, decode_suite
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict

ABOUT = '[suite]\nname = "s"\ntarget = "y"\n'
PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


def written(tmp_path: Path, text: str, name: str = "suite.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[split]\nkinds = 'none'\n", "split has no setting 'kinds'; did you mean 'kind'?"),
        ("[[metric]]\nname = 'f1'\natleast = 0.9\n", "metric[0] has no setting 'atleast'; did you mean 'at_least'?"),
        ("[slice]\ndiscover = true\n", "the file has no setting 'slice'; did you mean 'slices'?"),
        ("[split]\nkind = 'random'\n", "Invalid enum value 'random'"),
        ("[split]\nkind = 'temporal'\n", "split.kind is 'temporal' and names no column"),
        ("[split]\ntest_ratio = 1.5\n", "split.test_ratio is 1.5; it may be 0.001 to 0.999"),
        ("[[metric]]\nname = 'f1'\n[[metric]]\nname = 'f1'\n", "'f1' stands twice"),
        ("[[metric]]\nname = 'f1'\nrole = 'satisficing'\n", "metric 'f1' is satisficing and has no bound"),
        ("[[metric]]\nname = 'f1'\nat_least = 0.1\nat_most = 0.2\n", "metric 'f1' has both at_least and at_most"),
        ("[[satisficing]]\nname = 'latency'\nat_most = 1.0\n", "Invalid enum value 'latency'"),
        ("[slices]\nbins = 1\n", "slices.bins is 1; it may be 2 to 100"),
        ("[[slices.where]]\nname = 'old'\ncolumn = 'age'\n", "slice 'old' needs either equals, or at_least and below"),
        ("[calibration]\nbins = 1\n", "calibration.bins is 1"),
        ("[suite]\n", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(SalverError) as refused:
        read_suite(written(tmp_path, ABOUT + more))
    assert refused.value.code == "INVALID_SETTING"
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"name": "roc_auk"}, "no metric 'roc_auk'; did you mean roc_auc"),
        ({"name": "log_loss", "at_least": 0.1}, "metric 'log_loss' has at_least, and lower is better; say at_most"),
        ({"name": "ndcg", "at_least": 0.1}, "ranks documents of queries"),
    ],
)
def test_a_metric_that_cannot_be_is_refused_before_anything_is_loaded(metric: dict, message: str) -> None:
    suite = decode_suite({"suite": {"name": "s", "target": "y"}, "metric": [metric]}, "s")
    with pytest.raises(SalverError, match=re.escape(message)):
        checks_of(suite)


def test_a_suite_that_is_no_file_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match=r"cannot read the suite 'none\.toml'"):
        read_suite(tmp_path / "none.toml")
    with pytest.raises(SalverError, match="neither TOML nor Python"):
        read_suite(written(tmp_path, "{}", "suite.json"))


PYTHON = """
import os
print("said on the side")
open({canary!r}, "w").write(f"{{os.getpid()}} {{os.environ.get('SECRET')}}")
TARGETS = ["y"]
SUITE = {{"suite": {{"name": "in python", "target": TARGETS[0]}}, "metric": [{{"name": "accuracy"}}]}}

def check_first_row(rows, truth, predicted):
    good = predicted["labels"][0] == truth[0] and rows["age"][0] == 31.0
    return {{"verdict": "successful" if good else "failed", "reasons": ["looked"], "numbers": {{"rows": len(truth)}}}}
"""


def test_a_python_suite_runs_in_a_process_of_its_own_without_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    read = read_suite(written(tmp_path, PYTHON.format(canary=str(tmp_path / "canary")), "suite.py"))
    assert (read.suite.suite.name, [check.name for check in read.checks]) == ("in python", ["first_row"])
    pid, secret = (tmp_path / "canary").read_text().split()
    assert int(pid) != os.getpid()
    assert secret == "None"
    assert "said on the side" in capfd.readouterr().err
    columns = {"age": [31.0, 50.0]}
    subject = make_subject(
        target=[1, 0], labels=[1, 0], columns={k: __import__("numpy").array(v) for k, v in columns.items()}
    )
    result = read.checks[0].run(subject)
    assert (result.verdict, result.reasons, result.numbers) == (Verdict.SUCCESSFUL, ("looked",), {"rows": 2})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("x = 1", "defines no SUITE"),
        ("SUITE = {'suite': {'name': 's', 'target': 'y', 'colour': 1}}", "suite has no setting 'colour'"),
        ("import os; os._exit(7)", "ended with code 7 and no answer"),
        ("SUITE = object()", "TypeError"),
        ("while True: pass", "was not done within 1 s"),
    ],
)
def test_a_python_suite_that_fails_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    if "while" in script:
        monkeypatch.setattr(scripts, "_READ_S", 1.0)
    with pytest.raises(SalverError) as refused:
        read_suite(written(tmp_path, script, "suite.py"))
    assert message in str(refused.value)


def test_a_check_of_a_script_that_returns_no_verdict_is_refused(tmp_path: Path) -> None:
    script = "SUITE = {'suite': {'name': 's', 'target': 'y'}}\ndef check_it(rows, truth, predicted): return True"
    check = read_suite(written(tmp_path, script, "suite.py")).checks[0]
    with pytest.raises(SalverError, match=r"check_it of 'suite.py' returned no verdict"):
        check.run(make_subject(target=[0, 1], labels=[0, 1]))


def test_every_setting_is_documented_with_its_default() -> None:
    page = "".join(path.read_text().partition("## Every setting")[2] for path in PAGES)
    for place, section in _SECTIONS.items():
        if section is Suite:
            continue
        text = page.partition(f"`[{place}]`")[2] or page.partition(f"`[[{place}]]`")[2]
        assert text, f"no page has {place} under the heading 'Every setting'"
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.split("\n\n")[1].splitlines()[2:]]
        shown = {row[0].strip("`"): row[1].strip("`") for row in rows}
        assert shown == {field.name: default_of(field) for field in msgspec.structs.fields(section)}, place


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return "{}"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if isinstance(field.default, tuple):
        return msgspec.json.encode(field.default).decode().replace(",", ", ")
    return {"": "empty"}.get(field.default, str(field.default))
