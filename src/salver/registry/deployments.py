"""Desired state: which version each endpoint should serve, and the snapshot that says so."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, insert, select, tuple_

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name
from salver.protocol.tables import DeploymentSpec, Placement, Retirement, Tables, VersionManifest
from salver.registry.access_tokens import read_tokens
from salver.registry.attestation import attested
from salver.registry.catalog import find_version
from salver.registry.deletions import require_not_deleted
from salver.registry.deploy_request import DeployRequest, requested_spec
from salver.registry.in_use import require_deployable
from salver.registry.resolution import resolve
from salver.registry.revocations import read_revocations, require_unrevoked
from salver.registry.settings import check_settings, check_settings_of_version
from salver.registry.webhooks import read_webhooks
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database, current_revision, raise_revision
from salver.storage.journal import Journal
from salver.storage.registry_schema import retirements
from salver.storage.schema import deployments

__all__ = ["Deployments"]


class Deployments:
    """The deployments in one database."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def change(self, principal: Principal, request: DeployRequest) -> DeploymentSpec:
        """Deploy what is asked for; what it leaves open stays as it is. Raises what `deploy` raises."""
        require(principal, Operation.DEPLOY)
        with self._database.begin() as connection:
            manifest = resolve(connection, request.model, request.version)
            spec = requested_spec(request, manifest, _read(connection, request.endpoint_name))
            return self._deploy(connection, principal, spec)

    def deploy(self, principal: Principal, spec: DeploymentSpec) -> DeploymentSpec:
        """Make `spec` the desired state of its endpoint and return it with its new generation.

        REQUIRES a version number, no alias. The generation is
        given here, higher than any before in this home, so deploying again loads again. Raises
        PERMISSION_DENIED, INVALID_NAME, INVALID_SETTING, NOT_FOUND,
        REFUSED_BY_POLICY for user code in the server process for a version that was revoked,
        and for one whose stage says that it is not to be deployed anew.
        """
        require(principal, Operation.DEPLOY)
        with self._database.begin() as connection:
            return self._deploy(connection, principal, spec)

    def _deploy(self, connection: Connection, principal: Principal, spec: DeploymentSpec) -> DeploymentSpec:
        check_name(spec.endpoint, "endpoint")
        spec = check_settings(spec)
        manifest = find_version(connection, spec.model, spec.version)
        require_unrevoked(connection, spec.model, spec.version)
        require_not_deleted(connection, spec.model, spec.version)
        _check_deployable(manifest, spec)
        check_settings_of_version(spec, manifest)
        before = _read(connection, spec.endpoint)
        if before is None or (before.model, before.version) != (spec.model, spec.version):
            require_deployable(connection, spec.model, spec.version, spec.endpoint)
        spec = msgspec.structs.replace(spec, generation=raise_revision(connection))
        connection.execute(delete(deployments).where(deployments.c.endpoint == spec.endpoint))
        connection.execute(
            insert(deployments).values(
                endpoint=spec.endpoint,
                model=spec.model,
                version=spec.version,
                generation=spec.generation,
                updated_s=self._clock.wall_s(),
                spec=msgspec.json.encode(spec).decode(),
            )
        )
        # All that `salver.registry.history` tells of it: rows elsewhere may change or go.
        details = {"before": msgspec.to_builtins(before), "after": msgspec.to_builtins(spec), "digest": manifest.digest}
        self._journal.append(
            connection,
            actor=principal.name,
            action="deploy",
            subject=spec.endpoint,
            details=details,
            before=before,
            after=spec,
        )
        return spec

    def undeploy(self, principal: Principal, endpoint: str, if_generation: int | None = None) -> DeploymentSpec:
        """Remove an endpoint and return what it was; NOT_FOUND names those that exist.

        With `if_generation` only that deployment of it: raises CONFLICT where it is another by now.
        """
        require(principal, Operation.DEPLOY)
        with self._database.begin() as connection:
            before = _read(connection, endpoint)
            if before is None:
                raise _unknown_endpoint(connection, endpoint)
            if if_generation not in (None, before.generation):
                raise SalverError(
                    "CONFLICT",
                    f"endpoint {endpoint!r} has been deployed anew: its generation is {before.generation}, "
                    f"not {if_generation}",
                )
            connection.execute(delete(deployments).where(deployments.c.endpoint == endpoint))
            raise_revision(connection)
            self._journal.append(
                connection,
                actor=principal.name,
                action="undeploy",
                subject=endpoint,
                details={"before": msgspec.to_builtins(before)},
                before=before,
            )
        return before

    def list(self) -> tuple[DeploymentSpec, ...]:
        """All deployments by endpoint."""
        with self._database.read() as connection:
            return _read_all(connection)

    def tables(self) -> Tables:
        """The whole snapshot to publish, of one moment: what the data path needs and no more."""
        with self._database.read() as connection:
            return _snapshot(connection)

    def catch_up(self, principal: Principal, published: Tables) -> bool:
        """Number this state above `published` where the two contradict each other; return whether.

        A database restored from a backup has a lower revision than the snapshot published since, and
        nothing it publishes would count as newer. REQUIRES the home lock; call it once at start.
        """
        require(principal, Operation.DEPLOY)
        with self._database.begin() as connection:
            before = current_revision(connection)
            if published.revision < before or published == _snapshot(connection):
                return False
            raise_revision(connection, above=published.revision)
            details = {"before": before, "published": published.revision}
            self._journal.append(
                connection,
                actor=principal.name,
                action="catch_up",
                subject="revision",
                details=details,
                before=before,
                after=current_revision(connection),
            )
        return True

    def revision(self) -> int:
        """The number of the state that `tables` would return."""
        with self._database.read() as connection:
            return current_revision(connection)


def _check_deployable(manifest: VersionManifest, spec: DeploymentSpec) -> None:
    if manifest.runs_user_code and spec.placement not in (Placement.AUTO, Placement.PROCESS):
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{manifest.reference} runs code of its own, which never runs in the server process; "
            f"setting placement is {spec.placement}",
            "use placement process or auto",
        )


def _snapshot(connection: Connection) -> Tables:
    specs = _read_all(connection)
    return Tables(
        revision=current_revision(connection),
        versions=attested(connection, {(spec.model, spec.version) for spec in specs}),
        deployments=specs,
        tokens=read_tokens(connection),
        webhooks=read_webhooks(connection),
        revocations=read_revocations(connection),
        retirements=_announced(connection, {(spec.model, spec.version) for spec in specs}),
    )


def _announced(connection: Connection, wanted: set[tuple[str, str]]) -> tuple[Retirement, ...]:
    query = (
        select(retirements.c.model, retirements.c.version, retirements.c.proposed_s, retirements.c.due_s)
        .where(tuple_(retirements.c.model, retirements.c.version).in_(wanted))
        .order_by(retirements.c.model, retirements.c.version)
    )
    return tuple(Retirement(*row) for row in connection.execute(query))


def _read(connection: Connection, endpoint: str) -> DeploymentSpec | None:
    query = select(deployments.c.spec).where(deployments.c.endpoint == endpoint)
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else msgspec.json.decode(text, type=DeploymentSpec)


def _read_all(connection: Connection) -> tuple[DeploymentSpec, ...]:
    query = select(deployments.c.spec).order_by(deployments.c.endpoint)
    return tuple(msgspec.json.decode(text, type=DeploymentSpec) for text in connection.execute(query).scalars())


def _unknown_endpoint(connection: Connection, endpoint: str) -> SalverError:
    names = [spec.endpoint for spec in _read_all(connection)]
    existing = f"deployed are {', '.join(names[:20])}" if names else "nothing is deployed"
    return SalverError("NOT_FOUND", f"there is no endpoint {endpoint[:140]!r}", existing)
