"""A version is registered through the control listener only if its bytes are there."""

from __future__ import annotations

import json

import pytest

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


@pytest.fixture
def draft(shared):
    """A draft of `bytes` with the stored file of `double`, changed as asked, and one more that is right."""
    (stored,) = shared.administer("GET", "/v1/models/double").json[0]["files"]

    def make(**changes) -> dict:
        files = [stored | {"path": "right.onnx"}, stored | {"path": "wrong.onnx"} | changes]
        return {"model": "bytes", "format": "onnx", "files": files, "signature": SIGNATURE}

    return make


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"sha256": "0" * 64}, 404, "NOT_FOUND"),
        ({"size_bytes": 1}, 500, "CORRUPT_ARTIFACT"),
        ({"sha256": "../../salver.db"}, 400, "INVALID_ARTIFACT"),
    ],
)
def test_a_file_that_is_not_stored_or_of_another_size_is_refused_by_name(shared, draft, changes, status, code) -> None:
    answer = shared.administer("POST", "/v1/versions", draft(**changes))
    assert (answer.status, answer.code) == (status, code)
    assert "'wrong.onnx'" in answer.json["message"]
    assert str(shared.home) not in answer.body.decode()
    assert shared.administer("GET", "/v1/models/bytes").status == 404
    assert not [row for row in shared.salver("doctor") if row["state"] == "error"]


def test_who_may_not_register_learns_nothing_of_what_is_stored(shared, draft) -> None:
    token = shared.token("registers-nothing", "approver")
    for body in (draft(), draft(sha256="0" * 64)):
        answer = shared.administer("POST", "/v1/versions", body, token=token)
        assert answer.code == "PERMISSION_DENIED", json.loads(answer.body)


def test_versions_come_page_by_page(shared) -> None:
    draft = {"model": "paged", "format": "onnx", **shared.administer("GET", "/v1/models/double").json[0]}
    draft = {name: draft[name] for name in ("format", "files", "signature")} | {"model": "paged"}
    for number in ("1.0.0", "1.0.1", "1.0.2", "1.0.10"):
        assert shared.administer("POST", "/v1/versions", draft | {"version": number}).status == 200

    def page(query: str) -> list[str]:
        return [each["version"] for each in shared.administer("GET", f"/v1/models/paged{query}").json]

    assert page("") == ["1.0.0", "1.0.1", "1.0.2", "1.0.10"]
    assert page("?limit=2") == ["1.0.0", "1.0.1"]
    assert page("?limit=2&after=2") == ["1.0.2", "1.0.10"]
    assert page("?limit=2&last=true") == ["1.0.10", "1.0.2"]
    assert page("?limit=2&last=true&before=3") == ["1.0.1", "1.0.0"]
    assert page("?after=4") == []
    for query in ("?limit=0", "?limit=1001", "?after=-1", "?page=2"):
        assert shared.administer("GET", f"/v1/models/paged{query}").code == "INVALID_PARAMETER"
    (summary,) = (each for each in shared.administer("GET", "/v1/models").json if each["name"] == "paged")
    assert (summary["versions"], summary["newest"], summary["latest"]) == (4, "1.0.10", "1.0.10")
