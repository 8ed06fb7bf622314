"""The sections on behaviour, robustness, fairness, leakage and fit: what cannot be is refused, with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scored import made_subject

from salver.evaluation.parts import checks_of
from salver.evaluation.subject.rows import Rows
from salver.evaluation.suites.scripts import read_suite
from salver.evaluation.suites.suite import decode_suite
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict

ABOUT = {"suite": {"name": "s", "target": "target"}}
NOISE = {"name": "b", "kind": "invariance", "generator": "noise"}
CASE = {"name": "b", "kind": "minimum", "cases": [{"row": {"x": 1}, "label": 1}]}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"behaviour": [NOISE | {"kinds": "x"}]}, "behaviour[0] has no setting 'kinds'; did you mean 'kind'?"),
        ({"behaviour": [{"name": "b", "kind": "minimum"}]}, "behaviour 'b': it needs one of cases, template"),
        ({"behaviour": [CASE | {"generator": "noise"}]}, "has cases and generator"),
        ({"behaviour": [CASE | {"kind": "invariance"}]}, "kind 'invariance' needs a generator"),
        ({"behaviour": [NOISE | {"kind": "directional"}]}, "kind 'directional' needs expect"),
        ({"behaviour": [NOISE | {"expect": "not_lower"}]}, "kind 'invariance' has no expect"),
        ({"behaviour": [NOISE | {"at_most": 0}]}, "at_most is 0, which no number of rows can show"),
        ({"behaviour": [NOISE | {"at_most": 2}]}, "at_most is 2; it may be 0 to 1"),
        ({"behaviour": [NOISE | {"tolerance": -1}]}, "tolerance is -1; it may be 0 or more"),
        ({"behaviour": [NOISE | {"rows": 0}]}, "rows is 0"),
        ({"behaviour": [NOISE | {"copies": 0}]}, "copies is 0"),
        ({"behaviour": [NOISE, NOISE]}, "'b' stands twice"),
        ({"behaviour": [{"name": "b", "kind": "minimum", "template": "x"}]}, "its template has no label"),
        ({"behaviour": [CASE | {"cases": [{"row": {"x": 1}}]}]}, "a case expects nothing: x=1"),
        ({"robustness": [{"kind": "noize"}]}, "Invalid enum value 'noize'"),
        ({"robustness": [{"kind": "typos", "levels": [2.0]}]}, "robustness typos: levels is 2; it may be 0 to 1"),
        ({"robustness": [{"kind": "noise", "levels": [0.1] * 21}]}, "21 levels; there may be 20"),
        ({"robustness": [{"kind": "noise"}, {"kind": "noise"}]}, "robustness 'noise' stands twice"),
        ({"robustness": [{"kind": "noise", "drop_at_most": -1}]}, "drop_at_most is -1"),
        ({"robustness": [{"kind": "adversarial", "queries": 0}]}, "queries is 0"),
        ({"fairness": {"columns": []}}, "fairness names no columns"),
        ({"fairness": {"columns": ["a"], "at_most": {"equal_odds": 0.1}}}, "Invalid enum value 'equal_odds'"),
        (
            {"fairness": {"columns": ["a"], "at_most": {"demographic_parity_ratio": 0.8}}},
            "fairness.at_most has demographic_parity_ratio, whose bound is at_least",
        ),
        ({"fairness": {"columns": ["a"], "at_most": {"accuracy_difference": 3}}}, "accuracy_difference is 3"),
        ({"fairness": {"columns": ["a"], "bins": 1}}, "fairness.bins is 1"),
        ({"leakage": {"alike": 2}}, "leakage.alike is 2"),
        ({"leakage": {"known_at": {"a": "b"}}}, "leakage.known_at needs leakage.decided_at"),
        ({"fit": {"too_good": 2}}, "fit.too_good is 2"),
        ({"fit": {"label_noise_at_most": 2}}, "fit.label_noise_at_most is 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(more: dict, message: str) -> None:
    with pytest.raises(SalverError) as refused:
        decode_suite(ABOUT | more, "s")
    assert refused.value.code == "INVALID_SETTING"
    assert message in str(refused.value)


def test_each_section_makes_its_checks() -> None:
    suite = decode_suite(
        ABOUT
        | {
            "behaviour": [NOISE, CASE | {"name": "c"}],
            "robustness": [{"kind": "noise"}],
            "fairness": {"columns": ["a", "b"], "intersections": True},
            "leakage": {"decided_at": "t", "known_at": {"x": "u"}},
            "fit": {},
        },
        "s",
    )
    assert [check.name for check in checks_of(suite)][1:] == [
        "b", "c", "robustness noise", "fairness a", "fairness b", "fairness a and b", "duplicates", "target_leakage",
        "identifiers", "late_features", "baseline", "overfit", "label_noise",
    ]  # fmt: skip


def test_training_rows_are_found_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('[suite]\nname = "s"\ntarget = "y"\n[leakage]\ntraining = "train.csv"\n[fit]\n')
    read = read_suite(tmp_path / "s.toml").suite
    assert read.leakage.training == str(tmp_path / "train.csv")
    assert read.fit.training == ""


SCRIPT = """
import os

SUITE = {"suite": {"name": "s", "target": "target"}, "behaviour": [
    {"name": "mirrored", "kind": "invariance", "generator": "mirror"}]}


def perturb_mirror(rows, seed):
    return {"x": [None if x is None else -x for x in rows["x"]]}


def perturb_short(rows, seed):
    return {"x": rows["x"][:1]}


def perturb_wordy(rows, seed):
    return {"x": ["much"] * len(rows["x"])}


def perturb_seeded(rows, seed):
    return {"x": [seed] * len(rows["x"]), "n": [float(n + 1) for n in rows["n"]], "t": [os.getpid()] * len(rows["x"])}
"""


def test_generators_of_ones_own_run_in_a_process_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "suite.py").write_text(SCRIPT)
    read = read_suite(tmp_path / "suite.py")
    check = checks_of(read.suite, read.perturbations)[1]
    x = np.append(np.linspace(-2, 2, 199), np.nan)
    even = made_subject({"x": x}, np.arange(200) % 2, lambda rows: np.nan_to_num(rows.numbers("x") ** 2 / 4))
    found = check.run(even)
    assert (found.verdict, found.numbers["cases"]) == (Verdict.SUCCESSFUL, 198)  # neither 0 nor the missing one moved
    odd = made_subject({"x": x}, np.arange(200) % 2, lambda rows: np.nan_to_num(rows.numbers("x") / 4 + 0.5))
    assert check.run(odd).verdict is Verdict.FAILED
    text = np.array(["a", "b"], dtype=object)
    rows = Rows({"x": np.array([1.0, 2.0]), "n": np.array([1, 2]), "t": text})
    changed = read.perturbations["seeded"](rows, np.random.default_rng(0))
    assert changed.column("n").tolist() == [2, 3]
    assert changed.column("n").dtype == rows.column("n").dtype
    assert len(set(changed.column("x"))) == 1
    assert changed.column("t")[0] not in ("a", None)


@pytest.mark.parametrize(("name", "message"), [("short", "no columns of 2 cells each"), ("wordy", "could not convert")])
def test_a_generator_that_returns_something_else_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "suite.py").write_text(SCRIPT)
    own = read_suite(tmp_path / "suite.py").perturbations
    with pytest.raises(SalverError, match=message):
        own[name](Rows({"x": np.array([1.0, 2.0])}), np.random.default_rng(0))
