"""What of a model is in use: in production, deployed, and allowed to be deployed. Within transactions of others."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.stages import Stage
from salver.registry.candidate import Rival
from salver.registry.catalog import find_version
from salver.registry.decisions import entrance_of
from salver.registry.description_rows import description_of
from salver.registry.evidence import evaluations_of
from salver.registry.policy import policy_in_force
from salver.registry.stages import NEAR_PRODUCTION, VersionStage, in_stage, stage_of
from salver.storage.schema import deployments, journal

__all__ = [
    "endpoints_of",
    "in_production",
    "require_deployable",
    "require_not_deployed",
    "require_production",
    "rival_of",
]

_ENTERING: Final[JournalAction] = "promote"


def require_deployable(connection: Connection, model: str, version: str, endpoint: str) -> None:
    """Raise REFUSED_BY_POLICY for a version that an endpoint may not serve anew, by the stage it is in.

    Where the policy does not say from which stages is deployed, a version that gates keep from production is not.
    """
    here = stage_of(connection, model, version)
    policy = policy_in_force(connection).policy
    allowed, rule = policy.deployable(model), policy.rule_for(model)
    if here.stage in allowed:
        return
    may, where = f"versions in {', '.join(allowed)}", ""
    if rule.deploy_from is None and here.stage in NEAR_PRODUCTION:
        shadow = here.stage is Stage.SHADOW
        if shadow and any(fnmatch.fnmatchcase(endpoint, each) for each in rule.shadow_endpoints):
            return
        if entrance_of(connection, here) is not None:
            return
        may += ", or there before,"
        where = f"; from shadow on endpoints called {' or '.join(rule.shadow_endpoints)}" if shadow else ""
    another = f"{model}@{Stage.PRODUCTION}" if in_production(connection, model) else "another version"
    missing = f"salver promote {here.reference} STAGE --dry-run says what is missing"
    said = f"{here.reference} is in {here.stage}; only {may} may be deployed (deploy_from){where}"
    raise SalverError("REFUSED_BY_POLICY", said, f"{missing}; or deploy {another}")


def in_production(connection: Connection, model: str) -> list[VersionStage]:
    """Those in production, the longest there first."""
    return sorted(in_stage(connection, model, Stage.PRODUCTION), key=lambda each: each.since_s or 0.0)


def require_production(connection: Connection, model: str, expected: str) -> None:
    """Raise CONFLICT unless `expected` is in production; empty asks for nothing to be."""
    present = [each.version for each in in_production(connection, model)]
    if (expected not in present) if expected else present:
        what = ", ".join(f"{model}@{each}" for each in present) or "empty"
        raise SalverError(
            "CONFLICT",
            f"production{'' if present else f' of {model}'} is {what}, not {expected or 'empty'}",
            "look again and decide anew",
        )


def rival_of(connection: Connection, model: str, version: str, suites: Collection[str] | None = None) -> Rival | None:
    """The version that came into production last, other than `version`, with its evaluations of `suites`.

    Where none is there, the last that was: to take it out first makes nobody better. None where none ever was.
    """
    present = [each.version for each in in_production(connection, model) if each.version != version]
    found = present[-1] if present else _last_in_production(connection, model, version)
    if found is None:
        return None
    theirs = find_version(connection, model, found)
    return Rival(
        found,
        theirs.digest,
        description_of(connection, model, found).metrics,
        evaluations_of(connection, model, found, suites),
        left=not present,
    )


def _last_in_production(connection: Connection, model: str, version: str) -> str | None:
    """Of the versions but `version` the one that came into production last, by the journal."""
    # "A" follows "@", so between are the subjects MODEL@VERSION, which an index has. A quotation mark within a text of
    # the record is escaped, so the words found are none that somebody has typed.
    query = select(journal.c.subject).where(
        journal.c.subject.between(f"{model}@", f"{model}A"),
        journal.c.subject != f"{model}@{version}",
        journal.c.action == _ENTERING,
        journal.c.record.contains(f'"target":"{Stage.PRODUCTION}"', autoescape=True),
    )
    found = connection.execute(query.order_by(journal.c.seq.desc()).limit(1)).scalar_one_or_none()
    return None if found is None else found.removeprefix(f"{model}@")


def endpoints_of(connection: Connection, here: VersionStage) -> tuple[str, ...]:
    """The endpoints that should serve a version."""
    query = select(deployments.c.endpoint).where(
        deployments.c.model == here.model, deployments.c.version == here.version
    )
    return tuple(connection.execute(query.order_by(deployments.c.endpoint)).scalars())


def require_not_deployed(connection: Connection, here: VersionStage, target: Stage) -> None:
    """Raise CONFLICT for a version that an endpoint should serve."""
    endpoints = endpoints_of(connection, here)
    if endpoints:
        raise SalverError(
            "CONFLICT",
            f"{here.reference} is deployed as {', '.join(endpoints)}, so it cannot go to {target}",
            "undeploy it, or deploy another version there, first",
        )
