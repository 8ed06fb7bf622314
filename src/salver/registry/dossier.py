"""The dossier of a version: all evidence that the registry has about it, of one moment, in one frozen snapshot.

Cards and checklists are pure functions of it. `dossier_of` reads rows within a transaction that is already open, so
that a gate decides from the very rows that it is recorded with; beyond these it asks only whether files are there.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.registry.approvals import approvals_of
from salver.registry.attestation import attestation_of
from salver.registry.candidate import Approval
from salver.registry.catalog import find_version
from salver.registry.compatibility import breaking
from salver.registry.decisions import DecisionRecord, decisions_of
from salver.registry.evidence import Evaluation, evaluations_of
from salver.registry.gates import ApprovalsGate
from salver.registry.history import Served, history_of
from salver.registry.in_use import in_production
from salver.registry.lineage_rows import version_node
from salver.registry.pages import VersionPage, page_of
from salver.registry.policy import policy_in_force
from salver.registry.resolution import resolve
from salver.registry.usage import VersionUse, use_of
from salver.registry.ways_back import Missing, WayBack, missing_in, ways_back
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.registry_schema import evaluations, lineage, retirements, revocations
from salver.storage.schema import deployments

__all__ = ["CheckSaid", "Dossier", "Dossiers", "Edge", "Findings", "OtherVersion", "TableSaid", "dossier_of"]

Cell = str | int | float | bool | None
_MOST_DECISIONS: Final = 200


class TableSaid(msgspec.Struct, frozen=True):
    """A table that a recorded evaluation has."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class CheckSaid(msgspec.Struct, frozen=True):
    """What one check of a recorded evaluation found."""

    name: str
    verdict: str = ""
    role: str = ""
    reasons: tuple[str, ...] = ()
    numbers: dict[str, Cell] = {}
    tables: tuple[TableSaid, ...] = ()


class Findings(msgspec.Struct, frozen=True):
    """What the newest evaluation of a suite says beyond what gates read. Everything may be missing."""

    data: str = ""
    reasons: tuple[str, ...] = ()
    checks: tuple[CheckSaid, ...] = ()
    environment: dict[str, str] = {}
    relation: str = ""
    """Of a comparison."""


class Edge(msgspec.Struct, frozen=True):
    """What a version was made of or by, as lineage has it."""

    relation: str
    node: str


class OtherVersion(msgspec.Struct, frozen=True):
    """Another version of the model that is in production."""

    version: str
    breaks: tuple[str, ...] = ()
    """What its clients might not understand in this version."""


class Dossier(msgspec.Struct, frozen=True):
    """Everything that is known of one version."""

    page: VersionPage
    at_s: float
    key_id: str = ""
    """Of the key that signed it; empty where nothing is signed."""
    signed_s: float | None = None
    revoked: str = ""
    """Why it was revoked."""
    evaluations: tuple[Evaluation, ...] = ()
    """The newest first."""
    findings: dict[str, Findings] = {}
    """Of the newest evaluation of each suite that can be read, by the evaluation's id."""
    decisions: tuple[DecisionRecord, ...] = ()
    """The newest first."""
    approvals: tuple[Approval, ...] = ()
    """Those that hold now."""
    uses: tuple[VersionUse, ...] = ()
    deployments: tuple[DeploymentSpec, ...] = ()
    """Where it is deployed now, with every setting."""
    in_production: tuple[OtherVersion, ...] = ()
    """Beside it, the longest there first."""
    ways_back: tuple[WayBack, ...] = ()
    """See `salver.registry.ways_back`."""
    made_of: tuple[Edge, ...] = ()
    made_from_it: tuple[str, ...] = ()
    """Versions that are based on this one."""
    retirement: str = ""
    """Why it is proposed for the archive."""
    retirement_due_s: float | None = None
    approvals_asked: int = 0
    """How many the policy wants before production."""
    served: tuple[Served, ...] = ()
    """Where it was deployed, ever; only in what `Dossiers.of` gives."""

    @property
    def manifest(self) -> VersionManifest:
        """Of the version."""
        return self.page.manifest

    def newest(self, suite: str) -> Evaluation | None:
        """The newest evaluation of a suite about these very bytes; one that cannot be read is none about them."""
        digest = self.manifest.digest
        return next((each for each in self.evaluations if each.suite == suite and each.digest == digest), None)


class Dossiers:
    """The dossiers of the versions in one database."""

    __slots__ = ("_clock", "_database", "_missing")

    def __init__(self, home: Home, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._missing = missing_in(home)

    def of(self, model: str, wanted: str | None = None) -> Dossier:
        """The dossier of the version that `wanted` names, with its deployments of ever; raises NOT_FOUND."""
        with self._database.read() as connection:
            version = resolve(connection, model, wanted).version
            found = dossier_of(connection, model, version, self._clock.wall_s(), self._missing)
        return msgspec.structs.replace(found, served=self._served(model, version))

    def _served(self, model: str, version: str) -> tuple[Served, ...]:
        try:
            history = history_of(self._database, model)
        except SalverError as error:
            if error.code != "NOT_FOUND":
                raise
            return ()
        return tuple(each for each in history.served if (each.model, each.version) == (model, version))


def dossier_of(connection: Connection, model: str, version: str, now_s: float, missing: Missing) -> Dossier:
    """What is known of a version; raises NOT_FOUND for one that is not registered."""
    manifest = find_version(connection, model, version)
    attestation = attestation_of(connection, model, version)
    found = evaluations_of(connection, model, version)
    retirement = connection.execute(
        select(retirements.c.reason, retirements.c.due_s).where(
            retirements.c.model == model, retirements.c.version == version
        )
    ).one_or_none()
    specs = select(deployments.c.spec).where(deployments.c.model == model, deployments.c.version == version)
    return Dossier(
        page=page_of(connection, manifest),
        at_s=now_s,
        key_id=attestation.key_id if attestation else "",
        signed_s=attestation.signed_s if attestation else None,
        revoked=_revoked(connection, model, version),
        evaluations=found,
        findings=_findings(connection, manifest, found),
        decisions=decisions_of(connection, model, version, _MOST_DECISIONS),
        approvals=approvals_of(connection, model, version),
        uses=use_of(connection, model, version),
        deployments=tuple(
            msgspec.json.decode(text, type=DeploymentSpec)
            for text in connection.execute(specs.order_by(deployments.c.endpoint)).scalars()
        ),
        in_production=_beside(connection, manifest),
        ways_back=ways_back(connection, manifest, missing),
        made_of=_made_of(connection, model, version),
        made_from_it=_made_from(connection, manifest),
        retirement=retirement.reason if retirement else "",
        retirement_due_s=retirement.due_s if retirement else None,
        approvals_asked=_approvals_asked(connection, model),
    )


def _revoked(connection: Connection, model: str, version: str) -> str:
    query = select(revocations.c.why).where(revocations.c.model == model, revocations.c.version == version)
    return connection.execute(query).scalar_one_or_none() or ""


def _findings(connection: Connection, manifest: VersionManifest, known: tuple[Evaluation, ...]) -> dict[str, Findings]:
    """What the newest evaluation of each suite about these bytes says in full."""
    newest: dict[str, str] = {}
    for each in known:
        if each.digest == manifest.digest:
            newest.setdefault(each.suite, each.id)
    query = select(evaluations.c.id, evaluations.c.document).where(
        evaluations.c.model == manifest.model,
        evaluations.c.version == manifest.version,
        evaluations.c.id.in_(list(newest.values())),
    )
    found = {}
    for row in connection.execute(query) if newest else ():
        read = _read(row.document)
        if read is not None:
            found[row.id] = read
    return found


def _read(document: str) -> Findings | None:
    """The findings of a record that anybody may have written: what does not fit is left out whole."""
    try:
        return msgspec.json.decode(document, type=Findings)
    except msgspec.MsgspecError:
        return None


def _beside(connection: Connection, manifest: VersionManifest) -> tuple[OtherVersion, ...]:
    present = [each.version for each in in_production(connection, manifest.model) if each.version != manifest.version]
    return tuple(
        OtherVersion(version, breaking(find_version(connection, manifest.model, version), manifest))
        for version in present
    )


def _made_of(connection: Connection, model: str, version: str) -> tuple[Edge, ...]:
    query = select(lineage.c.relation, lineage.c.node).where(lineage.c.model == model, lineage.c.version == version)
    rows = connection.execute(query.order_by(lineage.c.relation, lineage.c.node))
    return tuple(Edge(row.relation, row.node) for row in rows)


def _made_from(connection: Connection, manifest: VersionManifest) -> tuple[str, ...]:
    node = version_node(manifest.model, manifest.version)
    query = select(lineage.c.model, lineage.c.version).where(lineage.c.node == node)
    rows = connection.execute(query.distinct().order_by(lineage.c.model, lineage.c.version))
    return tuple(f"{row.model}@{row.version}" for row in rows)


def _approvals_asked(connection: Connection, model: str) -> int:
    """The most approvals that any gate before production asks for; a policy that cannot be read asks for none here."""
    try:
        policy = policy_in_force(connection).policy
    except SalverError:
        return 0
    return max(
        (
            gate.count
            for rule in policy.transitions
            for source in Stage
            if rule.holds(model, source, Stage.PRODUCTION)
            for gate in rule.gates
            if isinstance(gate, ApprovalsGate)
        ),
        default=0,
    )
