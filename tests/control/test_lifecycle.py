"""Promotions over the control listener of a running server, by people with tokens of their own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import salver
from salver.protocol.errors import SalverError

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


APPROVED = """
[[transition]]
to = "production"
models = "other"
[[transition.gate]]
kind = "approvals"
"""


def test_nothing_that_deploys_serves_what_gates_keep_from_production(tree, models) -> None:
    tree.salver("register", "other", models / "times2.onnx")
    tree.salver("alias", "set", "other", "champion", "1.0.0")
    tree.start()
    assert tree.administer("PUT", "/v1/policy", {"text": APPROVED}).status == 200
    for stage in ("validation", "staging"):
        tree.salver("promote", "other@1.0.0", stage)
    assert tree.attempt("promote", "other@1.0.0", "production")[0] == 2
    ways: dict[str, Any] = {
        "the route": lambda: tree.administer("POST", "/v1/deployments", {"model": "other", "version": "1.0.0"}),
        "an alias": lambda: tree.administer("POST", "/v1/deployments", {"model": "other", "version": "champion"}),
        "load": lambda: tree.administer("POST", "/v2/repository/models/other/load"),
        "TorchServe's workers": lambda: tree.administer("POST", "/models?url=other@1.0.0&initial_workers=1"),
        "TorchServe's scaling": lambda: tree.administer("PUT", "/models/other?min_worker=1"),
        "TorchServe's default": lambda: tree.administer("PUT", "/models/other/1.0.0/set-default"),
    }
    for name, ask in ways.items():
        answer = ask()
        assert answer.status == 403, name
        assert b"only versions in production, or there before, may be deployed (deploy_from)" in answer.body, name
    for words in (("deploy", "other"), ("deploy", "other@champion"), ("promote", "other@1.0.0", "staging", "--deploy")):
        code, _, complaint = tree.attempt(*words)
        assert (code, json.loads(complaint)["error"]["code"]) == (3, "REFUSED_BY_POLICY"), words
    refused = pytest.raises(SalverError, match="only versions in production")
    with salver.Registry(tree.control, token=tree.admin_token) as registry, refused:
        registry.deploy("other", "1.0.0")
    assert tree.salver("status")["deployments"] == []
