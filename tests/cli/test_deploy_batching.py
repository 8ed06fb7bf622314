"""The options of `salver deploy` that say how requests are batched and who goes first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from salver.cli import deployments
from salver.cli.context import Context
from salver.control.actions.status import ServerStatus
from salver.runtime.status import EndpointStatus, LoadState
from salver.testing import make_spec


@pytest.fixture
def registered(salver, models):
    assert salver("register", "double", models / "times2.onnx").code == 0
    return salver


def test_a_policy_and_what_it_needs_is_kept_until_it_is_changed(registered) -> None:
    given = ["--policy", "hybrid", "--max-wait", "0.02", "--min-batch", "8", "--max-age", "2.5", "--slo", "0.25"]
    spec = registered("--json", "deploy", "double", *given).json
    assert {name: spec[name] for name in ("policy", "max_wait_s", "min_batch", "max_age_s", "slo_s")} == {
        "policy": "hybrid",
        "max_wait_s": 0.02,
        "min_batch": 8,
        "max_age_s": 2.5,
        "slo_s": 0.25,
    }
    kept = registered("--json", "deploy", "double", "--max-wait", "0.03").json
    assert (kept["policy"], kept["max_wait_s"], kept["min_batch"]) == ("hybrid", 0.03, 8)


def test_what_another_policy_does_not_heed_goes_with_the_policy_before(registered) -> None:
    def deployed(*given: str) -> list[object]:
        spec = registered("--json", "deploy", "double", *given).json
        return [spec.get(name) for name in ("policy", "max_wait_s", "min_batch", "slo_s")]

    assert deployed("--policy", "hybrid", "--max-wait", "0.02", "--min-batch", "8", "--slo", "1") == [
        "hybrid",
        0.02,
        8,
        1,
    ]
    assert deployed("--policy", "timeout") == ["timeout", 0.02, None, 1]
    assert deployed("--policy", "eager") == [None, None, None, 1]
    assert deployed("--policy", "timeout", "--max-wait", "0.01") == ["timeout", 0.01, None, 1]
    assert deployed("--policy", "deferred") == ["deferred", None, None, 1]
    done = registered("--json", "deploy", "double", "--policy", "eager", "--max-wait", "0.01")
    assert (done.code, done.error["code"]) == (1, "INVALID_SETTING")
    assert "policy eager does not heed it" in done.error["remedy"]


@pytest.mark.parametrize(
    ("slo_s", "curve", "noted"),
    [(0.001, {"1": 0.011, "8": 0.02}, True), (0.011, {"1": 0.011}, False), (0.001, {}, False)],
)
def test_an_objective_that_no_request_can_meet_is_noted(home, capsys, slo_s, curve, noted) -> None:
    spec = make_spec(slo_s=slo_s)
    now = EndpointStatus(
        "arithmetic", LoadState.READY, True, "", "", True, None, None, "inline", 1, 0, 0, (), 0, spec.generation, curve
    )
    admin = SimpleNamespace(do=lambda *_: ServerStatus(serving=True, deployments=(spec,), endpoints=(now,)))
    deployments._wait(Context(home, json=False), admin, spec, 1.0)
    said = capsys.readouterr().err
    assert ("even the smallest batch takes 0.011 s: no request meets the objective of 0.001 s" in said) is noted
    assert noted or not said


def test_levels_are_given_most_urgent_first_and_taken_away_again(registered) -> None:
    given = ["--priority", "max_queue=100,deadline_s=0.5", "--priority", "default", "--priority", "max_age_s = 1"]
    levels = [{"max_queue": 100, "deadline_s": 0.5}, {}, {"max_age_s": 1.0}]
    assert registered("--json", "deploy", "double", *given).json["priorities"] == levels
    assert registered("--json", "deploy", "double", "--max-batch", "64").json["priorities"] == levels
    assert "priorities" not in registered("--json", "deploy", "double", "--priority", "none").json


def test_labels_are_kept_by_the_next_deployment_and_taken_away_again(registered) -> None:
    assert registered("--json", "deploy", "double", "--label", "stable", "--label", "q1").json["labels"] == [
        "stable",
        "q1",
    ]
    assert registered("--json", "deploy", "double", "--max-batch", "64").json["labels"] == ["stable", "q1"]
    assert "labels" not in registered("--json", "deploy", "double", "--label", "none").json
    refused = registered("--json", "deploy", "double", "--label", "none", "--label", "a")
    assert "labels is none" in refused.error["message"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--priority", "fast"], "--priority is 'fast'; write it as max_queue=100,deadline_s=0.5"),
        (["--priority", "max_queue=many"], "--priority is 'max_queue=many'"),
        (["--priority", "max_queue=1.5"], "--priority is 'max_queue=1.5'"),
        (["--priority", "max_queue=1,"], "--priority is 'max_queue=1,'"),
        (["--priority", ""], "--priority is ''"),
        (["--priority", "none", "--priority", "default"], "--priority is 'none' beside others; none stands alone"),
        (["--priority", "patience=1"], "--priority knows no 'patience'; use max_queue, max_age_s, deadline_s"),
        (["--priority", "max_queue=-1"], "priorities[1].max_queue is -1"),
        (["--priority", "deadline_s=nan"], "priorities"),
        (["--policy", "timeout"], "policy timeout needs one"),
        (["--policy", "deferred"], "policy deferred needs an objective"),
        (["--max-wait", "0.01"], "policy eager does not heed it"),
        (["--min-batch", "2"], "only policy hybrid heeds it"),
        (["--slo", "-1"], "--slo is -1"),
        (["--max-age", "nan"], "--max-age is nan"),
        (["--priority", "default"] * 17, "17 levels"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_deployed(registered, arguments: list[str], says: str) -> None:
    done = registered("--json", "deploy", "double", *arguments)
    assert (done.code, done.error["code"]) == (1, "INVALID_SETTING")
    assert says in done.error["message"] + "; " + done.error["remedy"]
    assert registered("--json", "status").json["deployments"] == []
