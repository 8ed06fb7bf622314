"""Impact: the versions, endpoints, clients and predictions that a set of data, a run or a base model has reached."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.registry.history import served_of
from salver.registry.lineage import dependents_of, is_registered, joined_spans, parse_version_node
from salver.registry.lineage_rows import EVALUATED_ON, JUDGED_ON, base_node, version_node
from salver.registry.resolution import resolve
from salver.registry.stages import stages_of
from salver.registry.usage import VersionUse, use_of
from salver.storage.database import Database
from salver.storage.registry_schema import lineage

__all__ = ["Affected", "Impact", "Impacts", "Serving"]

KINDS: Final = ("data", "run", "commit", "image", "lock", "model", "version")
_BY_BEGINNING: Final = {"data", "commit", "image", "lock"}
"""Kinds with digests, of which the beginning will do."""
_DIGEST: Final = re.compile(r"(?:sha256:)?[0-9a-fA-F]{7,64}")
_JUDGING: Final = frozenset({EVALUATED_ON, JUDGED_ON})
"""Relations by which data say something of a version and have not made it."""
_MOST_VERSIONS: Final = 1000
_MOST_NODES: Final = 50
"""That one beginning may stand for."""


class Affected(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version that is concerned, and how it comes to be."""

    model: str
    version: str
    stage: str
    relation: str
    """What it has to do with the node, or with the version that it is concerned by."""
    through: str
    """That node or version."""
    steps: int
    """1 where it names the node itself."""
    requests: int = 0
    """That it has answered."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Serving(msgspec.Struct, frozen=True, omit_defaults=True):
    """An endpoint that serves or once served a concerned version."""

    endpoint: str
    model: str
    version: str
    since_s: float
    until_s: float | None = None
    """None while it serves."""
    requests: int | None = None
    """Counted on these days; None where nothing was."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Impact(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that one subject has reached."""

    subject: str
    nodes: tuple[str, ...]
    """What it was taken for."""
    versions: tuple[Affected, ...] = ()
    endpoints: tuple[Serving, ...] = ()
    clients: tuple[VersionUse, ...] = ()
    """Who asked them."""
    requests: int = 0
    """Predictions of all concerned versions."""
    cut: bool = False
    """Whether there are more versions than are shown."""


class Impacts:
    """Impact analysis over one database."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, subject: str) -> Impact:
        """What KIND:NAME has reached; NAME and NAME@VERSION stand for versions, `base:NAME` for a base model.

        Versions that are based on a concerned version are concerned too; those that were only evaluated on data are,
        but what is based on them is not. Raises NOT_FOUND for what no version names, INVALID_PARAMETER for no KIND
        and for a beginning that stands for too much.
        """
        with self._database.read() as connection:
            nodes = _nodes_of(connection, subject)
            affected, cut = _affected(connection, nodes)
            if not affected:
                raise SalverError(
                    "NOT_FOUND",
                    f"no version says anything of {subject[:200]!r}",
                    "`salver lineage NAME` shows what is said",
                )
            serving, uses = _use(connection, affected)
        counts: Counter[str] = Counter()
        for use in uses:
            counts[use.reference] += use.requests
        return Impact(
            subject,
            tuple(nodes),
            tuple(msgspec.structs.replace(each, requests=counts[each.reference]) for each in affected),
            serving,
            uses,
            counts.total(),
            cut,
        )


def _nodes_of(connection: Connection, subject: str) -> list[str]:
    """The nodes that a subject stands for."""
    kind, colon, name = subject.partition(":")
    if not colon:
        kind, name = "version", subject
    if kind not in (*KINDS, "base"):
        raise SalverError(
            "INVALID_PARAMETER",
            f"{subject[:200]!r} is of no kind that is known",
            f"write KIND:NAME with one of {', '.join(KINDS)}, base; or NAME@VERSION",
        )
    if kind in ("model", "base"):
        named = base_node(name)
        # Of a whole model all its versions, as far as any is the base of something.
        return [named] if named.startswith("version:") else [named, *_starting(connection, f"version:{name}@")]
    if kind == "version":
        model, _, wanted = name.partition("@")
        found = resolve(connection, model, wanted or None)
        return [version_node(found.model, found.version)]
    if kind in _BY_BEGINNING and _DIGEST.fullmatch(name):
        return _beginning_with(connection, kind, name)
    return [f"{kind}:{name}"]


def _beginning_with(connection: Connection, kind: str, name: str) -> list[str]:
    prefix = "sha256:" if kind == "image" and name.startswith("sha256:") else ""
    start = f"{kind}:{prefix}{name.removeprefix('sha256:').lower()}"
    return _starting(connection, start) or [start]


def _starting(connection: Connection, start: str) -> list[str]:
    """The nodes with this beginning."""
    query = select(lineage.c.node).where(lineage.c.node >= start, lineage.c.node < start + "\U0010ffff")
    found = list(connection.execute(query.distinct().order_by(lineage.c.node).limit(_MOST_NODES + 1)).scalars())
    if len(found) > _MOST_NODES:
        raise SalverError("INVALID_PARAMETER", f"{start[:80]!r} is the beginning of many", "give more of it")
    return found


def _affected(connection: Connection, nodes: list[str]) -> tuple[list[Affected], bool]:
    """The concerned versions, those that name a node first; and whether there are more."""
    found: dict[str, Affected] = {}
    for node in nodes:
        of = parse_version_node(node)
        if of is not None and is_registered(connection, *of):
            found[node] = Affected(*of, "", "is", node, 0)
    seen, ahead, steps = set(nodes), list(nodes), 0
    while ahead:
        steps += 1
        further: list[str] = []
        for node, model, version, relation in dependents_of(connection, ahead):
            identity = version_node(model, version)
            known = found.get(identity)
            if known is None and len(found) >= _MOST_VERSIONS:
                return _staged(connection, found), True
            # What has made a version says more than what it was judged on.
            if known is None or (known.relation in _JUDGING and relation not in _JUDGING):
                found[identity] = Affected(model, version, "", relation, node, steps)
            if identity not in seen and relation not in _JUDGING:
                seen.add(identity)
                further.append(identity)
        ahead = further
    return _staged(connection, found), False


def _staged(connection: Connection, found: dict[str, Affected]) -> list[Affected]:
    """The same with the stages they are in."""
    stages = {
        (each.model, each.version): each.stage.value
        for model in {each.model for each in found.values()}
        for each in stages_of(connection, model)
    }
    return [msgspec.structs.replace(each, stage=stages.get((each.model, each.version), "")) for each in found.values()]


def _use(connection: Connection, affected: list[Affected]) -> tuple[tuple[Serving, ...], tuple[VersionUse, ...]]:
    wanted = {(each.model, each.version) for each in affected}
    serving: list[Serving] = []
    uses: list[VersionUse] = []
    for model in dict.fromkeys(each.model for each in affected):
        serving += [
            Serving(span.endpoint, model, span.version, span.since_s, span.until_s, span.requests)
            for span in joined_spans(served_of(connection, model))
            if (model, span.version) in wanted
        ]
        uses += [use for use in use_of(connection, model) if (model, use.version) in wanted]
    # What serves now first.
    serving.sort(key=lambda each: (each.until_s is not None, -each.since_s))
    return tuple(serving), tuple(uses)
