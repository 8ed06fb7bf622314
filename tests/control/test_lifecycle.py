"""Promotions over the control listener of a running server, by people with tokens of their own."""

from __future__ import annotations

import re
from typing import Any

import pytest

POLICY = """
[[transition]]
to = "validation"
models = "way-to-production"
[[transition.gate]]
kind = "approvals"
[[transition.gate]]
kind = "evaluation"
suite = "release"
roles = ["developer"]
"""


@pytest.fixture
def digest(shared, models) -> str:
    shared.salver("register", "way-to-production", models / "times2.onnx")
    return shared.salver("show", "way-to-production")["manifest"]["digest"]


def test_a_version_goes_on_when_others_agree_and_the_evidence_is_there(shared, digest) -> None:
    root = "/v1/models/way-to-production/versions/1.0.0"
    dev, bea = shared.token("way-dev", "developer"), shared.token("way-bea", "approver")

    def ask(method: str, path: str, body: Any, token: str) -> Any:
        answer = shared.administer(method, path, body, token=token)
        assert answer.status == 200, answer.body
        return answer.json

    before = ask("GET", "/v1/policy", None, dev)["text"]
    ask("PUT", "/v1/policy", {"text": POLICY}, shared.admin_token)
    try:
        refused = ask("POST", f"{root}/stage", {"target": "validation"}, dev)
        assert (refused["moved"], refused["decision"]["verdict"]) == (False, "inconclusive")
        ask("POST", f"{root}/approvals", {"target": "validation", "why": "fine"}, bea)
        again = shared.administer("POST", f"{root}/approvals", {"target": "validation"}, token=dev)
        assert (again.status, again.code) == (403, "PERMISSION_DENIED")
        document = {"suite": "release", "verdict": "successful", "digest": digest}
        made = ask("POST", f"{root}/evaluations", {"document": document}, dev)
        assert (made["created"], made["evaluation"]["role"]) == (True, "developer")
        done = ask("POST", f"{root}/stage", {"target": "validation", "why": "all agree"}, dev)
        assert (done["moved"], done["stage"]) == (True, "validation")
        assert [gate["verdict"] for gate in done["decision"]["gates"]] == ["successful", "successful"]
        illegal = shared.administer("POST", f"{root}/stage", {"target": "production"}, token=dev)
        assert (illegal.status, illegal.code) == (409, "ILLEGAL_TRANSITION")
        assert ask("GET", "/v1/decisions?model=way-to-production", None, bea)[0]["why"] == "all agree"
        assert ask("GET", f"{root}/approvals", None, bea) == []
        assert shared.salver("promote", "way-to-production@1.0.0", "validation")["already"]
        records = ask("GET", "/v1/audit?subject=way-to-production@1.0.0&last=true", None, bea)
        assert (records[0]["action"], records[0]["actor"], records[0]["why"]) == ("promote", "way-dev", "all agree")
        assert re.fullmatch("[0-9a-f]{64}", records[0]["after"])
    finally:
        ask("PUT", "/v1/policy", {"text": before}, shared.admin_token)
