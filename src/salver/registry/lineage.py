"""The lineage of versions: data -> run -> version -> deployments -> predictions, as one graph.

What a version was made of stands in the table `lineage`; where it was deployed is told by the journal, also when it
no longer is, and how many predictions it gave by the table `usage`. Descriptions are statements of people: they can
name what nobody knows, and even each other in a circle. Each node is visited once, so neither does any harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from salver.registry.description_rows import description_of
from salver.registry.history import Served, served_of
from salver.registry.lineage_rows import BASED_ON, data_nodes, version_node
from salver.registry.resolution import resolve
from salver.registry.stages import stage_of
from salver.registry.usage import use_of
from salver.storage.database import Database
from salver.storage.registry_schema import lineage
from salver.storage.schema import versions

__all__ = ["Edge", "Graph", "Lineage", "Node", "dependents_of", "is_registered", "joined_spans", "parse_version_node"]

MOST_NODES: Final = 1000
_AT_ONCE: Final = 400


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is part of the story of a version. `id` is KIND:NAME."""

    id: str
    kind: str
    """data, run, commit, image, lock, model, version, endpoint or predictions."""
    label: str
    known: bool = True
    """False for a version that is named but not registered."""
    details: dict[str, str | int | float | bool] = {}


class Edge(msgspec.Struct, frozen=True, omit_defaults=True):
    """`source` came before `target`; `relation` is said of the target: it was trained-on the source."""

    source: str
    target: str
    relation: str
    since_s: float | None = None
    until_s: float | None = None
    """Of a deployment; None while it lasts."""


class Graph(msgspec.Struct, frozen=True, omit_defaults=True):
    """The lineage of one version, both ways."""

    root: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cut: bool = False
    """Whether there is more than is shown."""


class Lineage:
    """The lineage in one database."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, model: str, wanted: str | None = None, most: int = MOST_NODES) -> Graph:
        """What a version was made of, and what came of it; NOT_FOUND for an unknown one."""
        with self._database.read() as connection:
            manifest = resolve(connection, model, wanted)
            return _Walk(connection, max(2, min(most, MOST_NODES))).graph(manifest.model, manifest.version)


def parse_version_node(node: str) -> tuple[str, str] | None:
    """The model and number of a version's node; None for any other.

    >>> parse_version_node("version:digits@1.0.0"), parse_version_node("run:7")
    (('digits', '1.0.0'), None)
    """
    kind, _, name = node.partition(":")
    model, at, version = name.rpartition("@")
    return (model, version) if kind == "version" and at else None


def dependents_of(connection: Connection, nodes: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """The versions that name one of some nodes in their lineage: the node, model, version and relation."""
    query = select(lineage.c.node, lineage.c.model, lineage.c.version, lineage.c.relation)
    found: list[tuple[str, str, str, str]] = []
    for start in range(0, len(nodes), _AT_ONCE):
        wanted = query.where(lineage.c.node.in_(nodes[start : start + _AT_ONCE]))
        rows = connection.execute(wanted.order_by(lineage.c.model, lineage.c.version, lineage.c.relation))
        found += [(row.node, row.model, row.version, row.relation) for row in rows]
    return found


def joined_spans(served: Iterable[Served]) -> list[Served]:
    """Deployments of one version in a row, as by a change of settings, as one."""
    found: list[Served] = []
    last: dict[str, int] = {}
    for each in served:
        place = last.get(each.endpoint)
        before = None if place is None else found[place]
        if before is not None and before.until_seq == each.seq and before.version == each.version:
            assert place is not None
            # Requests are counted by days, so those of both parts cannot be added up.
            requests = max((n for n in (before.requests, each.requests) if n is not None), default=None)
            found[place] = msgspec.structs.replace(
                before, until_s=each.until_s, until_seq=each.until_seq, ended=each.ended, requests=requests
            )
        else:
            last[each.endpoint] = len(found)
            found.append(each)
    return found


class _Walk:
    """One walk over the graph, in a transaction that is already open."""

    def __init__(self, connection: Connection, most: int) -> None:
        self._connection = connection
        self._most = most
        self._nodes: dict[str, Node] = {}
        self._edges: dict[Edge, None] = {}
        self._served: dict[str, list[Served]] = {}
        self._cut = False

    def graph(self, model: str, version: str) -> Graph:
        root = self._version(model, version)
        self._up(root.id)
        self._down(root.id)
        return Graph(root.id, tuple(self._nodes.values()), tuple(self._edges), self._cut)

    def _up(self, start: str) -> None:
        """What it was made of, and what that was made of."""
        ahead, seen = deque([start]), {start}
        while ahead:
            here = ahead.popleft()
            of = parse_version_node(here)
            if of is None or not self._nodes[here].known:
                continue
            for relation, node in self._made_of(*of):
                if self._add(node):
                    self._edges[Edge(node.id, here, relation)] = None
                    if node.id not in seen:
                        seen.add(node.id)
                        ahead.append(node.id)

    def _made_of(self, model: str, version: str) -> list[tuple[str, Node]]:
        """The relations and nodes of a version's rows; what a description says of one set of data is one node."""
        said = description_of(self._connection, model, version)
        same: dict[str, Node] = {}
        for data in (said.training_data, said.evaluation_data):
            nodes = data_nodes(data)
            if data is None or not nodes:
                continue
            called = {"name": data.name, "uri": data.uri, "version": data.version}
            one = Node(nodes[0], "data", nodes[0].removeprefix("data:"), details={k: v for k, v in called.items() if v})
            same |= dict.fromkeys(nodes, one)
        query = select(lineage.c.relation, lineage.c.node).where(lineage.c.model == model, lineage.c.version == version)
        rows = self._connection.execute(query.order_by(lineage.c.relation, lineage.c.node))
        found = [(relation, same.get(node) or self._node(node)) for relation, node in rows]
        return list({(relation, node.id): (relation, node) for relation, node in found}.values())

    def _down(self, start: str) -> None:
        """What was made of it, where all that was deployed, and what it answered."""
        ahead, seen = deque([start]), {start}
        while ahead:
            here = ahead.popleft()
            of = parse_version_node(here)
            assert of is not None
            self._deployments(here, *of)
            for _, model, version, relation in dependents_of(self._connection, [here]):
                node = self._version(model, version)
                if relation == BASED_ON and self._add(node):
                    self._edges[Edge(here, node.id, relation)] = None
                    if node.id not in seen:
                        seen.add(node.id)
                        ahead.append(node.id)

    def _deployments(self, here: str, model: str, version: str) -> None:
        if model not in self._served:
            self._served[model] = joined_spans(served_of(self._connection, model))
        for served in self._served[model]:
            if served.version == version and self._add(
                Node(f"endpoint:{served.endpoint}", "endpoint", served.endpoint)
            ):
                edge = Edge(here, f"endpoint:{served.endpoint}", "deployed-as", served.since_s, served.until_s)
                self._edges[edge] = None
        by_endpoint: dict[str, list[tuple[str, int, float]]] = {}
        for use in use_of(self._connection, model, version):
            by_endpoint.setdefault(use.endpoint, []).append((use.client, use.requests, use.last_s))
        for endpoint, uses in by_endpoint.items():
            requests, clients = sum(count for _, count, _ in uses), len({client for client, _, _ in uses})
            node = Node(
                f"predictions:{endpoint}/{model}@{version}",
                "predictions",
                f"{requests} prediction{'s' * (requests != 1)} for {clients} client{'s' * (clients != 1)}",
                details={"requests": requests, "clients": clients, "last_s": max(last_s for _, _, last_s in uses)},
            )
            if self._add(Node(f"endpoint:{endpoint}", "endpoint", endpoint)) and self._add(node):
                self._edges[Edge(f"endpoint:{endpoint}", node.id, "answered")] = None

    def _add(self, node: Node) -> bool:
        """Whether the node is in the graph now."""
        if node.id not in self._nodes:
            if len(self._nodes) >= self._most:
                self._cut = True
                return False
            self._nodes[node.id] = node
        return True

    def _node(self, node: str) -> Node:
        of = parse_version_node(node)
        if of is not None:
            return self._version(*of)
        kind, _, name = node.partition(":")
        return Node(node, kind, name)

    def _version(self, model: str, version: str) -> Node:
        identity = version_node(model, version)
        if identity in self._nodes:
            return self._nodes[identity]
        known = is_registered(self._connection, model, version)
        details: dict[str, str | int | float | bool] = {}
        if known:
            details["stage"] = stage_of(self._connection, model, version).stage.value
        node = Node(identity, "version", f"{model}@{version}", known, details)
        self._add(node)
        return node


def is_registered(connection: Connection, model: str, version: str) -> bool:
    """Whether there is such a version."""
    query = select(versions.c.version).where(versions.c.model == model, versions.c.version == version)
    return connection.execute(query).one_or_none() is not None
