from __future__ import annotations

import ast
from http import HTTPStatus
from pathlib import Path

import pytest

import salver
from salver.protocol.errors import CATALOGUE, SalverError

GRPC = {
    "ABORTED",
    "ALREADY_EXISTS",
    "DATA_LOSS",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
}


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_has_real_statuses_and_a_meaning(code: str) -> None:
    row = CATALOGUE[code]
    assert HTTPStatus(row.http) >= 400
    assert row.grpc in GRPC
    assert row.meaning
    assert not row.meaning.endswith(".")
    assert code == code.upper()


def test_an_error_says_what_and_what_to_do() -> None:
    error = SalverError("QUEUE_FULL", "9 wait", "retry later")
    assert (error.http, error.grpc, str(error)) == (429, "RESOURCE_EXHAUSTED", "9 wait; retry later")
    assert str(SalverError("INTERNAL", "a fault")) == "a fault"


def test_a_code_outside_the_catalogue_is_a_mistake_at_once() -> None:
    with pytest.raises(KeyError):
        SalverError("NO_SUCH_CODE", "x")


def test_every_code_in_the_package_is_in_the_catalogue() -> None:
    used = {}
    for path in Path(salver.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SalverError":
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant):
                    used[first.value] = path.name
    assert len(used) > 30
    assert {code: where for code, where in used.items() if code not in CATALOGUE} == {}
