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
