"""Versions whose cards mean what is asked for: vectors of texts, made by a model that this Salver itself serves.

A vector is kept with the digest of the text it is of and the name of the version that made it; where either is
another by now, it is made anew. They are no part of the journal: nobody decided them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.protocol.tables import VersionManifest
from salver.registry.card_text import Card, card_text
from salver.registry.description_rows import description_of, tags_of
from salver.storage.database import Database
from salver.storage.registry_schema import embeddings
from salver.storage.schema import deployments, versions

__all__ = ["Embedder", "Embeddings"]

_WIDEST: Final = 16_384


class Embedder(NamedTuple):
    """An endpoint that turns texts into vectors."""

    endpoint: str
    reference: str
    """Of the version it serves."""
    input: str
    output: str


class Embeddings:
    """The vectors in one database."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def embedder(self) -> Embedder | None:
        """The first endpoint, by name, that serves a version of kind `embed` with one input of texts; None for none."""
        same = and_(versions.c.model == deployments.c.model, versions.c.version == deployments.c.version)
        query = (
            select(deployments.c.endpoint, versions.c.manifest)
            .join_from(deployments, versions, same)
            .where(versions.c.kind == "embed")
            .order_by(deployments.c.endpoint)
        )
        with self._database.read() as connection:
            for endpoint, text in connection.execute(query):
                manifest = VersionManifest.parse(text)
                ends = _ends(manifest.signature)
                if ends is not None:
                    return Embedder(endpoint, manifest.reference, *ends)
        return None

    def waiting(self, embedder: Embedder, most: int) -> tuple[list[Card], int]:
        """Cards of versions without a vector by this embedder, the newest first, and how many there are."""
        query = select(versions.c.model, versions.c.version, versions.c.manifest).where(~_embedded(embedder))
        counting = select(func.count()).select_from(versions).where(~_embedded(embedder))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(versions.c.created_s.desc()).limit(most)).all()
            cards = []
            for model, version, text in rows:
                manifest = VersionManifest.parse(text)
                said, tagged = description_of(connection, model, version), tags_of(connection, model, version)
                cards.append(Card(model, version, card_text(manifest, said, tagged)))
            return cards, int(connection.execute(counting).scalar_one())

    def keep(self, embedder: Embedder, cards: Sequence[Card], vectors: NDArray[np.float32]) -> None:
        """Keep vectors, a row for each card. Of a card that was changed meanwhile the vector is kept no longer."""
        rows = _checked(vectors, len(cards))
        with self._database.begin() as connection:
            for card, vector in zip(cards, rows, strict=True):
                same = (embeddings.c.model == card.model) & (embeddings.c.version == card.version)
                connection.execute(delete(embeddings).where(same))
                if _card_of(connection, card) == card:
                    values = {"digest": card.digest, "embedder": embedder.reference, "vector": vector.tobytes()}
                    connection.execute(insert(embeddings).values(model=card.model, version=card.version, **values))

    def nearest(
        self,
        connection: Connection,
        embedder: Embedder,
        asked: NDArray[np.float32],
        where: ColumnElement[bool] | None = None,
        most: int | None = None,
    ) -> tuple[list[tuple[str, str, float]], int]:
        """The versions with a vector by this embedder and their cosines to `asked`, the nearest first.

        Only those that fulfil `where`, a condition of `versions`, and at most `most`; and how many there are.
        """
        (query,) = _checked(asked, 1)
        same = and_(versions.c.model == embeddings.c.model, versions.c.version == embeddings.c.version)
        wanted = select(embeddings.c.model, embeddings.c.version, embeddings.c.vector).where(
            embeddings.c.embedder == embedder.reference,
            func.length(embeddings.c.vector) == query.nbytes,
        )
        if where is not None:
            wanted = wanted.join_from(embeddings, versions, same).where(where)
        rows = connection.execute(wanted).all()
        if not rows:
            return [], 0
        table = np.frombuffer(b"".join(row[2] for row in rows), np.float32).reshape(len(rows), -1)
        cosines = table @ query
        order = np.argsort(-cosines, kind="stable")[:most]
        found = [
            (rows[place][0], rows[place][1], cosine)
            for place, cosine in zip(order.tolist(), cosines[order].tolist(), strict=True)
        ]
        return found, len(rows)


def _card_of(connection: Connection, card: Card) -> Card:
    query = select(versions.c.manifest).where(versions.c.model == card.model, versions.c.version == card.version)
    manifest = VersionManifest.parse(connection.execute(query).scalar_one())
    said = description_of(connection, card.model, card.version)
    return Card(card.model, card.version, card_text(manifest, said, tags_of(connection, card.model, card.version)))


def _embedded(embedder: Embedder) -> ColumnElement[bool]:
    return (
        select(embeddings.c.model)
        .where(
            embeddings.c.model == versions.c.model,
            embeddings.c.version == versions.c.version,
            embeddings.c.embedder == embedder.reference,
        )
        .exists()
    )


def _ends(signature: Signature) -> tuple[str, str] | None:
    """The input of texts and the output of vectors; None where they are not told apart from others."""
    required = [spec for spec in signature.inputs if not spec.optional]
    vectors = [spec for spec in signature.outputs if spec.datatype == "FP32" and len(spec.shape) == 2]
    if len(required) != 1 or required[0].datatype != "BYTES" or required[0].shape != (-1,) or len(vectors) != 1:
        return None
    return required[0].name, vectors[0].name


def _checked(vectors: NDArray[Any], rows: int) -> NDArray[np.float32]:
    """Vectors of length 1; raises BAD_MODEL_OUTPUT for what are none."""
    table = np.asarray(vectors)
    if table.dtype != np.float32 or table.ndim != 2 or len(table) != rows or not 0 < table.shape[1] <= _WIDEST:
        raise _bad(f"{table.dtype} {list(table.shape)} for {rows} texts")
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise _bad("vectors that are not finite")
    return np.ascontiguousarray(table / np.where(lengths > 0, lengths, 1.0), np.float32)


def _bad(what: str) -> SalverError:
    return SalverError("BAD_MODEL_OUTPUT", f"the embedding model answered {what}", "deploy one that embeds sentences")
