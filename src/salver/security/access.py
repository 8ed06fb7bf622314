"""Principals, roles and the one table of what each role may do.

Decisions are made on operations, never on the text of a path, and what the table does not
grant is denied.
"""

from __future__ import annotations

import enum
import os
import pwd
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = [
    "ANONYMOUS",
    "DEFAULT_TENANT",
    "PERMISSIONS",
    "Operation",
    "Principal",
    "PrincipalKind",
    "Role",
    "allows",
    "local_principal",
    "require",
]

DEFAULT_TENANT: Final = "default"


class Role(enum.StrEnum):
    """What a principal is trusted with."""

    ADMIN = "admin"
    OPERATOR = "operator"
    APPROVER = "approver"
    DEVELOPER = "developer"
    PREDICTOR = "predictor"


class Operation(enum.StrEnum):
    """What can be asked of Salver."""

    PREDICT = "predict"
    """Call endpoints, and read what the data listener says about them."""
    READ = "read"
    """Read models, versions, deployments and status."""
    REGISTER = "register"
    """Add versions whose format cannot run code."""
    TRUST_CODE = "trust_code"
    """Vouch for code or pickles inside an artifact."""
    APPROVE = "approve"
    """Agree to a change that another principal proposes."""
    PROMOTE = "promote"
    """Move versions between the stages before production. To and from shadow and production takes DEPLOY as well."""
    RECORD_EVIDENCE = "record_evidence"
    """Record what an evaluation of a version found."""
    HOLD = "hold"
    """Keep versions as evidence, so that they are not retired, and give them free again."""
    SET_POLICY = "set_policy"
    """Say which gates stand before which stage."""
    DEPLOY = "deploy"
    """Change what endpoints serve: deploy, undeploy, load, unload; and revoke versions."""
    DELETE = "delete"
    """Give up the files of archived and rejected versions for good."""
    KEEP_KEYS = "keep_keys"
    """Say whose signatures are trusted, and make the home a new key."""
    OPERATE = "operate"
    """See and cancel everybody's jobs, and say which webhooks there are."""
    READ_AUDIT = "read_audit"
    """Read and verify the journal."""
    READ_TOKENS = "read_tokens"
    """List tokens: ids, names, roles; no secret is kept to be read."""
    CREATE_TOKEN = "create_token"  # noqa: S105 - the name of an operation
    REVOKE_TOKEN = "revoke_token"  # noqa: S105 - the name of an operation


_SAID: Final = MappingProxyType(
    {
        Operation.TRUST_CODE: "vouch for code",
        Operation.RECORD_EVIDENCE: "record evaluations and cases",
        Operation.SET_POLICY: "set policies and retraining hooks",
        Operation.DELETE: "delete versions",
        Operation.KEEP_KEYS: "change whose signatures are trusted",
        Operation.OPERATE: "see to jobs, webhooks, storage and retraining",
        Operation.READ_AUDIT: "read the journal",
        Operation.READ_TOKENS: "list tokens",
        Operation.CREATE_TOKEN: "create tokens",
        Operation.REVOKE_TOKEN: "revoke tokens",
    }
)
"""Operations in words, where their names are none."""

PERMISSIONS: Final[Mapping[Role, frozenset[Operation]]] = MappingProxyType(
    {
        Role.ADMIN: frozenset(Operation),
        Role.OPERATOR: frozenset(
            {
                Operation.PREDICT,
                Operation.READ,
                Operation.REGISTER,
                Operation.TRUST_CODE,
                Operation.PROMOTE,
                Operation.RECORD_EVIDENCE,
                Operation.HOLD,
                Operation.DEPLOY,
                Operation.OPERATE,
                Operation.READ_AUDIT,
            }
        ),
        Role.APPROVER: frozenset({Operation.READ, Operation.APPROVE, Operation.HOLD, Operation.READ_AUDIT}),
        Role.DEVELOPER: frozenset(
            {
                Operation.PREDICT,
                Operation.READ,
                Operation.REGISTER,
                Operation.PROMOTE,
                Operation.RECORD_EVIDENCE,
            }
        ),
        Role.PREDICTOR: frozenset({Operation.PREDICT}),
    }
)


class PrincipalKind(enum.StrEnum):
    """How a principal became known."""

    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    LOCAL = "local"
    ANONYMOUS = "anonymous"


class Principal(msgspec.Struct, frozen=True):
    """Somebody who asks. `name` is what the journal records as the actor."""

    name: str
    role: Role
    tenant: str
    kind: PrincipalKind


ANONYMOUS: Final = Principal("anonymous", Role.PREDICTOR, DEFAULT_TENANT, PrincipalKind.ANONYMOUS)
"""Who calls a data listener that is open to everybody on this machine."""


def local_principal() -> Principal:
    """Who runs this process, as administrator of the home whose lock it holds.

    REQUIRES the home lock. The name is that of the process's user, not what the environment
    says; token names cannot hold a colon, so nobody else is called `local:...`.
    """
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    printable = user.encode("utf-8", "replace").decode()
    return Principal(f"local:{printable}", Role.ADMIN, DEFAULT_TENANT, PrincipalKind.LOCAL)


def allows(role: Role, operation: Operation) -> bool:
    """Whether the table grants `operation` to `role`; a role without a row is granted nothing."""
    return operation in PERMISSIONS.get(role, frozenset())


def require(principal: Principal, operation: Operation) -> None:
    """Raise PERMISSION_DENIED unless the principal's role may do `operation`."""
    if not allows(principal.role, operation):
        granted = ", ".join(role for role in Role if operation in PERMISSIONS[role])
        raise SalverError(
            "PERMISSION_DENIED",
            f"{principal.name} has role {principal.role}, which may not {_SAID.get(operation, operation)}",
            f"use a token with one of the roles {granted}",
        )
