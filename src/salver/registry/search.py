"""Finding versions: by a filter over what is known of them, by words, and by meaning."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.registry.conditions import Condition, condition_of
from salver.registry.description_rows import description_of, tags_of
from salver.registry.facts import Key, fulfilling, matching, read_pages
from salver.registry.fields import VersionFacts
from salver.registry.filters import Filter, parse_filter
from salver.registry.semantic import Embedder, Embeddings
from salver.registry.terms import index_terms, rank, unindexed
from salver.storage.database import Database
from salver.storage.schema import models, versions

__all__ = ["MOST_HITS", "Found", "Hit", "Meaning", "Search"]

MOST_HITS: Final = 1000
_LONGEST_WORDS: Final = 2000
_SUMMARY: Final = 200


class Hit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version that was found."""

    model: str
    version: str
    stage: str
    registered_s: float
    format: str
    kind: str
    score: float | None = None
    """How well it fits: BM25 of words, the cosine of meanings; None where only a filter was given."""
    task: str = ""
    owner: str = ""
    summary: str = ""
    """The beginning of its description."""
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    aliases: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: the best first; without words the newest registrations first."""

    hits: tuple[Hit, ...]
    total: int
    """How many versions there are; by meaning all are more or less near."""
    way: str
    """`filter`, `words` or `meaning`."""
    notes: tuple[str, ...] = ()
    """What somebody who reads the answer should know."""
    embedder: str = ""
    """By meaning: the version that told the meanings."""


class Meaning(msgspec.Struct, frozen=True):
    """The vector of what is asked for, and who made it."""

    embedder: Embedder
    vector: NDArray[np.float32]


class Search:
    """Looks for versions in one database. What it finds is of one moment."""

    __slots__ = ("_database", "_embeddings")

    def __init__(self, database: Database, embeddings: Embeddings) -> None:
        self._database = database
        self._embeddings = embeddings

    def catch_up(self) -> int:
        """Index the versions from before there was an index; returns how many. To be called when a home is opened."""
        with self._database.read() as connection:
            if not unindexed(connection):
                return 0
        with self._database.begin() as connection:
            missing = unindexed(connection)
            for model, version in missing:
                query = select(versions.c.manifest).where(versions.c.model == model, versions.c.version == version)
                manifest = VersionManifest.parse(connection.execute(query).scalar_one())
                said = description_of(connection, model, version)
                index_terms(connection, manifest, said, tags_of(connection, model, version))
        return len(missing)

    def find(self, words: str = "", filter: str = "", limit: int = 20, meaning: Meaning | None = None) -> Found:
        """The versions that a filter lets through, ranked by `words`, or by `meaning` where that is given.

        Raises INVALID_PARAMETER for a filter that is none, pointing at the place, for words or a limit beyond
        bounds, and for nothing to look for.
        """
        _check(words, filter, limit)
        wanted = parse_filter(filter) if filter.strip() else None
        with self._database.read() as connection:
            condition = _condition(connection, wanted)
            where = condition.where if condition else None
            # What the database cannot judge is judged of all that it lets through.
            most = limit if condition is None or condition.exact else None
            if meaning is not None:
                embedder = meaning.embedder
                near = self._embeddings.nearest(connection, embedder, meaning.vector, where, most)
                return _ranked(connection, near, condition, limit, "meaning", embedder.reference)
            if words.strip():
                return _ranked(connection, rank(connection, words, where, most), condition, limit, "words")
            assert condition is not None  # or nothing would be asked for
            if condition.rest is None:
                keys, total = fulfilling(connection, condition.where, limit)
            else:
                keys = matching(connection, condition.rest, condition.where)
                total = len(keys)
            return Found(_hits(connection, [(*key, None) for key in keys[:limit]]), total, "filter")


def _ranked(
    connection: Connection,
    ranked: tuple[list[tuple[str, str, float]], int],
    condition: Condition | None,
    limit: int,
    way: str,
    embedder: str = "",
) -> Found:
    best, total = ranked
    if condition is not None and condition.rest is not None:
        passed = set(matching(connection, condition.rest, condition.where))
        best = [each for each in best if each[:2] in passed]
        total = len(best)
    return Found(_hits(connection, best[:limit]), total, way, embedder=embedder)


def _check(words: str, filter: str, limit: int) -> None:
    if not words.strip() and not filter.strip():
        raise SalverError("INVALID_PARAMETER", "nothing is asked for", "give words, a filter, or both")
    if len(words) > _LONGEST_WORDS:
        raise SalverError("INVALID_PARAMETER", f"{len(words)} characters are asked for", f"use {_LONGEST_WORDS}")
    if not 1 <= limit <= MOST_HITS:
        raise SalverError("INVALID_PARAMETER", f"the limit is {limit}", f"use 1 to {MOST_HITS}")


def _condition(connection: Connection, wanted: Filter | None) -> Condition | None:
    if wanted is None:
        return None
    names: list[str] = []
    if "name" in wanted.names:
        names = list(connection.execute(select(models.c.name)).scalars())
    return condition_of(wanted, names)


def _hits(connection: Connection, ranked: list[tuple[str, str, Any]]) -> tuple[Hit, ...]:
    keys: list[Key] = [(model, version) for model, version, _ in ranked]
    pages = read_pages(connection, keys)
    return tuple(_hit(pages[model, version], score) for model, version, score in ranked)


def _hit(facts: VersionFacts, score: float | None) -> Hit:
    said = facts.description
    return Hit(
        facts.model,
        facts.version,
        facts.stage,
        facts.registered_s,
        facts.format,
        facts.kind,
        score,
        said.task,
        said.owner,
        said.description[:_SUMMARY],
        said.metrics,
        facts.tags,
        facts.aliases,
        facts.endpoints,
    )
