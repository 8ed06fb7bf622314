"""What of a model is in use: in production, deployed, and allowed to be deployed. Within transactions of others."""

from __future__ import annotations

from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.registry.candidate import Rival
from salver.registry.catalog import find_version
from salver.registry.description_rows import description_of
from salver.registry.evidence import evaluations_of
from salver.registry.policy import policy_in_force
from salver.registry.stages import VersionStage, in_stage, stage_of
from salver.storage.schema import deployments

__all__ = [
    "endpoints_of",
    "in_production",
    "require_deployable_stage",
    "require_not_deployed",
    "require_production",
    "rival_of",
]


def require_deployable_stage(connection: Connection, model: str, version: str) -> None:
    """Raise REFUSED_BY_POLICY for a version in a stage from which nothing is newly deployed."""
    here = stage_of(connection, model, version)
    allowed = policy_in_force(connection).policy.rule_for(model).deploy_from
    if here.stage not in allowed:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{here.reference} is in {here.stage}; deployed is from {', '.join(allowed)}",
            f"salver promote {here.reference} STAGE, or deploy another version",
        )


def in_production(connection: Connection, model: str) -> list[VersionStage]:
    """Those in production, the longest there first."""
    return sorted(in_stage(connection, model, Stage.PRODUCTION), key=lambda each: each.since_s or 0.0)


def require_production(connection: Connection, model: str, expected: str) -> None:
    """Raise CONFLICT unless `expected` is in production; empty asks for nothing to be."""
    present = [each.version for each in in_production(connection, model)]
    if (expected not in present) if expected else present:
        what = f"{', '.join(present)} is in production" if present else "nothing is in production"
        raise SalverError("CONFLICT", f"of {model} {what}, not {expected or 'nothing'}", "look again and decide anew")


def rival_of(connection: Connection, model: str, version: str) -> Rival | None:
    """The version that came into production last, other than `version`."""
    others = [each for each in in_production(connection, model) if each.version != version]
    if not others:
        return None
    theirs = find_version(connection, model, others[-1].version)
    return Rival(
        theirs.version,
        theirs.digest,
        description_of(connection, model, theirs.version).metrics,
        evaluations_of(connection, model, theirs.version),
    )


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
