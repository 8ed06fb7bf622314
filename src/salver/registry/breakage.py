"""What would break if a version were retired: who serves it, who asks it, what is named after it or made of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, select

from salver.clock import DAY_S, Clock
from salver.protocol.names import SemanticVersion
from salver.protocol.stages import NEAREST_FIRST, Stage
from salver.protocol.tables import VersionManifest
from salver.protocol.verdict import Verdict
from salver.registry.availability import MAY_SERVE
from salver.registry.by_number import Highest
from salver.registry.description_rows import aliases_of
from salver.registry.failures import failed_suites, told
from salver.registry.holds import hold_of
from salver.registry.in_use import endpoints_of
from salver.registry.lineage import dependents_of
from salver.registry.lineage_rows import BASED_ON, version_node
from salver.registry.matrix import MOST, compatibility_matrix
from salver.registry.resolution import resolve
from salver.registry.stages import in_stage, stage_of, stages_of
from salver.registry.usage import VersionUse, use_of
from salver.storage.database import Database
from salver.storage.schema import versions

__all__ = ["Breakage", "Breakages", "judge"]


class Breakage(msgspec.Struct, frozen=True, omit_defaults=True):
    """*Successful*: nothing breaks; *inconclusive*: others must follow; *failed*: somebody loses it, or it is held."""

    model: str
    version: str
    stage: str
    verdict: Verdict
    reasons: tuple[str, ...]
    endpoints: tuple[str, ...] = ()
    """Where it is deployed."""
    aliases: tuple[str, ...] = ()
    clients: tuple[VersionUse, ...] = ()
    """Who asked it lately."""
    substitutes: tuple[str, ...] = ()
    """Versions that its clients would understand, the nearest to production first, those that failed last."""
    failed: dict[str, tuple[str, ...]] = {}
    """Of these, suites whose newest evaluation failed."""
    dependents: tuple[str, ...] = ()
    """Versions that are based on it."""
    only_in_production: bool = False
    held: str = ""
    """Why it must be kept; empty where it need not."""
    since_s: float = 0.0
    """Clients that asked it last before this are not counted."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Breakages:
    """The question "what breaks without it?" over one database."""

    __slots__ = ("_clock", "_database")

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def of(self, model: str, wanted: str | None, days: float = 30.0) -> Breakage:
        """What retiring a version would break, seen from who asked it in the last `days`; NOT_FOUND for none."""
        since_s = self._clock.wall_s() - days * DAY_S
        with self._database.read() as connection:
            manifest = resolve(connection, model, wanted)
            return _impact(connection, manifest, since_s)


def _impact(connection: Connection, manifest: VersionManifest, since_s: float) -> Breakage:
    model, version = manifest.model, manifest.version
    here = stage_of(connection, model, version)
    hold = hold_of(connection, model, version)
    late = [use for use in use_of(connection, model, version) if use.last_s >= since_s]
    dependents = dependents_of(connection, [version_node(model, version)])
    others = [each.version for each in in_stage(connection, model, Stage.PRODUCTION) if each.version != version]
    failed = {number: suites for (_, number), suites in failed_suites(connection, model).items()}
    substitutes = _substitutes(connection, manifest, late)
    found = Breakage(
        model,
        version,
        here.stage.value,
        Verdict.SUCCESSFUL,
        (),
        endpoints_of(connection, here),
        tuple(each.alias for each in aliases_of(connection, model) if each.version == version),
        tuple(late),
        tuple(sorted(substitutes, key=lambda each: each in failed)),
        {each: failed[each] for each in substitutes if each in failed},
        tuple(f"{name}@{number}" for _, name, number, relation in dependents if relation == BASED_ON),
        here.stage is Stage.PRODUCTION and not others,
        hold.why if hold else "",
        since_s,
    )
    verdict, reasons = judge(found)
    return msgspec.structs.replace(found, verdict=verdict, reasons=reasons)


def judge(found: Breakage) -> tuple[Verdict, tuple[str, ...]]:
    """Whether the version can go, and what stands in the way. Pure."""
    refused: list[str] = []
    following: list[str] = []
    instead = f"; {found.substitutes[0]} could take its place" if found.substitutes else ""
    if found.substitutes and found.substitutes[0] in found.failed:
        instead += f", but {told(found.failed[found.substitutes[0]])}"
    if found.held:
        refused.append(f"it is held: {found.held}")
    if found.endpoints:
        (following if instead else refused).append(f"deployed as {', '.join(found.endpoints)}{instead}")
    if found.clients:
        names = ", ".join(sorted({each.client for each in found.clients}))
        count = sum(each.requests for each in found.clients)
        requests = f"{count} request{'s' * (count != 1)}"
        rest = instead or "; no other version understands what they send"
        (following if instead else refused).append(f"asked lately by {names} ({requests}){rest}")
    if found.only_in_production:
        (following if instead else refused).append(f"the only version in production{instead}")
    if found.aliases:
        following.append(f"the aliases {', '.join(found.aliases)} would have to move")
    if found.dependents:
        following.append(f"{', '.join(found.dependents)} are based on it and keep working, but cannot be made again")
    if refused:
        return Verdict.FAILED, (*refused, *following)
    return (Verdict.INCONCLUSIVE, tuple(following)) if following else (Verdict.SUCCESSFUL, ("nothing needs it",))


def _substitutes(connection: Connection, manifest: VersionManifest, late: Sequence[VersionUse]) -> tuple[str, ...]:
    """Versions whose answers and inputs the clients of this one understand, by the compatibility matrix."""
    model = manifest.model
    stages = {each.version: each.stage for each in stages_of(connection, model)}
    others = versions.c.version != manifest.version
    query = select(versions.c.manifest).where(versions.c.model == model, others, MAY_SERVE)
    rows = connection.execute(query.order_by(versions.c.ordinal.desc()).limit(MOST - 1)).scalars()
    usable = [VersionManifest.parse(text) for text in rows]
    matrix = compatibility_matrix(model, Highest((manifest, *usable), len(usable) + 1), late)
    fitting = {
        cell.server_version
        for cell in matrix.cells
        if cell.client_version == manifest.version and cell.level != "major"
    }
    ranked = sorted((SemanticVersion.parse(each.version) for each in usable if each.version in fitting), reverse=True)
    ranked.sort(key=lambda each: NEAREST_FIRST.index(stages[str(each)]))
    return tuple(map(str, ranked))
