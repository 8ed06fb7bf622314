from __future__ import annotations

import os

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.security.access import (
    ANONYMOUS,
    PERMISSIONS,
    Operation,
    Principal,
    PrincipalKind,
    Role,
    allows,
    local_principal,
    require,
)

# The golden matrix: a change here is a change of who may do what, and is reviewed as one.
MATRIX = """
operation      admin  operator  approver  developer  predictor
predict        x      x         -         x          x
read           x      x         x         x          -
register       x      x         -         x          -
trust_code     x      x         -         -          -
approve        x      -         x         -          -
promote        x      x         -         x          -
record_evidence x     x         -         x          -
hold           x      x         x         -          -
set_policy     x      -         -         -          -
deploy         x      x         -         -          -
delete         x      -         -         -          -
keep_keys      x      -         -         -          -
operate        x      x         -         -          -
read_audit     x      x         x         -          -
read_tokens    x      -         -         -          -
create_token   x      -         -         -          -
revoke_token   x      -         -         -          -
"""


def principal(role: Role) -> Principal:
    return Principal("ann", role, "default", PrincipalKind.TOKEN)


def test_the_table_is_the_golden_matrix() -> None:
    header, *rows = (line.split() for line in MATRIX.strip().splitlines())
    golden = {
        (role, operation): mark == "x"
        for operation, *marks in rows
        for role, mark in zip(header[1:], marks, strict=True)
    }
    actual = {(role.value, operation.value): allows(role, operation) for role in Role for operation in Operation}
    assert actual == golden


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("operation", Operation)
def test_require_says_what_the_table_says(role: Role, operation: Operation) -> None:
    if allows(role, operation):
        require(principal(role), operation)
        return
    with pytest.raises(SalverError) as raised:
        require(principal(role), operation)
    assert raised.value.code == "PERMISSION_DENIED"
    beginning, _, words = raised.value.message.partition(f"ann has role {role.value}, which may not ")
    assert (beginning, "_" in words, bool(words)) == ("", False, True), "it is said in words"
    assert "admin" in raised.value.remedy


def test_a_role_without_a_row_is_granted_nothing() -> None:
    stranger = msgspec.structs.replace(ANONYMOUS, role="root")
    for operation in Operation:
        with pytest.raises(SalverError, match="role root"):
            require(stranger, operation)


def test_the_table_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        PERMISSIONS[Role.PREDICTOR] = frozenset(Operation)


def test_the_local_principal_is_the_process_user_whatever_the_environment_says(monkeypatch) -> None:
    monkeypatch.setenv("USER", "eve")
    monkeypatch.setenv("LOGNAME", "eve")
    local = local_principal()
    assert local.name.startswith("local:")
    assert local.name != "local:eve"
    assert (local.role, local.kind) == (Role.ADMIN, PrincipalKind.LOCAL)


def test_a_user_without_an_account_is_named_by_number(monkeypatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert local_principal().name == "local:3999999999"


def test_anonymous_callers_may_only_predict() -> None:
    assert [operation for operation in Operation if allows(ANONYMOUS.role, operation)] == [Operation.PREDICT]
