from __future__ import annotations

import json
from pathlib import Path

import pytest

POLICY = """
[[model]]
deploy_from = ["development", "staging", "production"]
[[transition]]
to = "production"
[[transition.gate]]
kind = "evaluation"
suite = "release"
[[transition.gate]]
kind = "metric"
metric = "revenue"
at_least = 1.2
[[retirement]]
name = "old"
older_than_days = 0
notice_days = 0
"""


@pytest.fixture
def registered(salver, models: Path) -> str:
    assert salver("register", "digits", models / "times2.onnx").code == 0
    return "digits@1.0.0"


@pytest.fixture
def policy(salver, registered: str, tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    assert salver("policy", "set", path).code == 0
    return path


def test_promotion_works_without_a_policy_and_can_be_repeated(salver, registered) -> None:
    assert salver("promote", registered, "validation", "--why", "first try").out == (
        "digits@1.0.0: development -> validation\n"
    )
    again = salver("promote", registered, "validation")
    assert (again.code, again.out) == (0, "digits@1.0.0 is in validation already\n")
    assert salver("decisions", "digits", "--json").json[0]["why"] == "first try"
    refused = salver("promote", registered, "production")
    assert refused.code == 1
    assert "possible from there: staging, rejected, development, archived" in refused.err


def test_exit_codes_say_what_the_gates_said(salver, registered, policy, tmp_path) -> None:
    for stage in ("validation", "staging"):
        assert salver("promote", registered, stage).code == 0
    missing = salver("promote", registered, "production", "--dry-run")
    assert missing.code == 2
    assert "nothing that counts is recorded for digits@1.0.0" in missing.out
    assert salver("describe", registered, "--metric", "revenue=1.1").code == 0
    failed = salver("promote", registered, "production")
    assert failed.code == 1
    assert "revenue is 1.1, below 1.2" in failed.out
    assert salver("describe", registered, "--metric", "revenue=1.3").code == 0
    document = tmp_path / "evaluation.json"
    digest = salver("show", registered, "--json").json["manifest"]["digest"]
    document.write_text(json.dumps({"suite": "release", "verdict": "successful", "digest": digest}))
    listed = salver("evaluations", registered, "--document", document)
    assert listed.code == 0
    assert "release  successful" in listed.out
    done = salver("promote", registered, "production", "--deploy", "--json")
    assert done.code == 0
    assert (done.json["moved"], done.json["endpoint"]) == (True, "digits")
    again = salver("promote", registered, "production", "--deploy", "--json")
    assert (again.code, again.json["already"], again.json["endpoint"]) == (0, True, "digits")
    assert salver("audit", "--action", "deploy", "--json").json[0]["subject"] == "digits"
    assert "digits@1.0.0  production" in salver("stage", "digits").out


def test_an_emergency_is_shown_wherever_the_version_is(salver, registered, policy) -> None:
    for stage in ("validation", "staging"):
        salver("promote", registered, stage)
    assert salver("promote", registered, "production", "--emergency").code == 1
    done = salver("promote", registered, "production", "--emergency", "--why", "all is down")
    assert (done.code, "past its gates in an emergency: all is down" in done.out) == (0, True)
    assert "EMERGENCY" in salver("stage").out
    assert "EMERGENCY" in salver("decisions", "digits").out
    assert "EMERGENCY" in salver("show", registered).out
    assert "was once promoted past its gates" in salver("promote", registered, "staging", "--why", "it is up").out


def test_the_author_cannot_approve(salver, registered) -> None:
    refused = salver("approve", registered, "validation")
    assert refused.code == 3
    assert "nobody approves what is their own" in refused.err


def test_a_policy_is_checked_shown_and_refused(salver, registered, policy, tmp_path) -> None:
    assert salver("policy", "show").out == POLICY
    assert salver("policy", "check", policy).out == "2 gates, 1 rule for models, 1 for retirement\n"
    warning = "the gate evaluation 'release' before"
    assert warning in salver("policy", "check", policy).err
    assert warning in salver("policy", "set", policy).err
    assert warning in salver("policy", "check", policy, "--json").json["warnings"][0]
    assert warning in salver("policy", "set", policy, "--json").json["warnings"][0]
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[transition]]\nto = "live"')
    assert "Invalid enum value 'live'" in salver("policy", "check", wrong).err
    assert salver("policy", "set", wrong).code == 1
    assert salver("policy", "show").out == POLICY
    assert "cannot read" in salver("policy", "set", tmp_path / "none.toml").err


def test_retirement_and_holds(salver, registered, policy) -> None:
    assert "goes to the archive from" in salver("retire", "propose", "--dry-run").out
    assert salver("retire", "list").out == "nothing is proposed\n"
    assert salver("hold", registered, "--why", "case 7").out == "digits@1.0.0 is held by local:root: case 7\n"
    assert "case 7" in salver("hold").out
    assert salver("retire", "propose").out == "nothing new to propose\n"
    assert salver("hold", registered, "--release").code == 0
    assert salver("retire", "propose").code == 0
    assert salver("retire", "cancel", registered).code == 0
    salver("deploy", registered)
    salver("retire", "propose")
    kept = salver("retire", "run")
    assert (kept.code, "is kept: " in kept.out) == (1, True)
    salver("undeploy", "digits")
    assert salver("retire", "run").out == "digits@1.0.0 is archived\n"
    assert salver("deploy", registered).code == 3


def test_a_version_must_be_named(salver, registered) -> None:
    refused = salver("promote", "digits", "validation")
    assert (refused.code, "names no version" in refused.err) == (1, True)
    assert salver("promote", registered, "live").code == 2


def test_a_check_measures_a_real_server_and_its_record_opens_the_gate(salver, registered, tmp_path) -> None:
    done = salver("check", registered, "--rate", "100", "--duration", "1", "--json")
    assert done.code == 0, done.out
    assert done.json["numbers"]["failed"] == 0
    assert done.json["numbers"]["cold_start_s"] > 0
    path = tmp_path / "policy.toml"
    path.write_text('[[transition]]\nto = "validation"\n[[transition.gate]]\nkind = "operational"\np99_at_most_s = 5')
    assert salver("policy", "set", path).code == 0
    assert salver("promote", registered, "validation").code == 0


def test_what_was_promoted_and_not_deployed_yet_is_told_with_who_put_it_there(salver, registered) -> None:
    for stage in ("validation", "staging", "production"):
        salver("promote", registered, stage, "--why", "first")
    then = salver("history", "digits", "--at", "now").out
    assert then.startswith("digits: digits@1.0.0 in production, nothing served then\n")
    assert then.splitlines()[-1].split()[:2] == ["digits@1.0.0", "production"]
    assert then.endswith(" 3         first\n"), "the decision, and why"
    salver("promote", registered, "staging", "--why", "back")
    salver("promote", registered, "production", "--emergency", "--why", "fire")
    salver("deploy", registered)
    found = salver("--json", "history", "digits", "--at", "now").json
    (stood,) = found["stages"]
    assert (stood["stage"], stood["decision"], stood["emergency"], stood["why"]) == ("production", "5", True, "fire")
    told = salver("history", "digits", "--at", "now").out
    assert told.startswith("digits: digits@1.0.0, generation")
    assert told.endswith("EMERGENCY: fire\n")


def test_of_many_versions_those_nearest_to_production_are_told(salver, registered, models, monkeypatch) -> None:
    monkeypatch.setattr("salver.cli.history._MOST_STAGES", 1)
    salver("register", "digits", models / "times3.onnx")
    salver("promote", registered, "validation")
    assert "digits@1.0.0  validation" in (told := salver("history", "digits", "--at", "now").out)
    assert told.endswith("\nand 1 more; --json tells all\n")


def test_a_policy_that_deploys_from_before_its_gates_is_warned_of(salver, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    gated = '[[transition]]\nto = "production"\n[[transition.gate]]\nkind = "approvals"'
    path.write_text(f'[[model]]\ndeploy_from = ["staging"]\n{gated}')
    for command in ("check", "set"):
        assert "warning: deploy_from of '*' names staging" in salver("policy", command, path).err
        (warning,) = salver("--json", "policy", command, path).json["warnings"]
        assert warning.startswith("deploy_from of '*' names staging: such versions are deployed though gates stand")
