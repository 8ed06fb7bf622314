"""Full text: the words of what is said of versions, as an inverted index, and their ranking.

The index is rows of the table `terms`, written in the transaction that writes what they are the words of, so it is
never behind. Ranking is BM25F (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009, section 3.6): words
of more telling fields weigh more. Lengths are compared with a fixed one instead of the average, which every
registration would change; so the weight of a word in a version depends on nothing but this version.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, insert, select

from salver.protocol.description import Description
from salver.protocol.tables import VersionManifest
from salver.storage.registry_schema import terms
from salver.storage.schema import versions

__all__ = ["MOST_WORDS", "index_terms", "rank", "unindexed", "weights_of", "words_of"]

MOST_WORDS: Final = 32
"""Words of one question; what follows is not looked at."""
_INDEXED: Final = ""
"""The term of the row that every indexed version has; its weight is the version's length."""
_USUAL_LENGTH: Final = 60.0
"""The weights of all words of a version that is described in a few sentences."""
_WORD: Final = re.compile(r"[^\W_]+")
_LONGEST_WORD: Final = 64
_MOST_TERMS: Final = 2000
"""Different words of one version that are indexed."""
_MOST_COMPLETIONS: Final = 64
"""Words that the last word of a question is the beginning of."""
_MOST_ROWS: Final = 20_000
"""Occurrences that one question adds up; of more, those of its commonest words are left out, which tell the least."""
_COMPLETED: Final = 0.5
"""What a word counts that only begins as the question's last one."""
_K1: Final = 1.2
_B: Final = 0.75
_NAME, _SAID, _TOLD = 4.0, 2.0, 1.0


def words_of(text: str) -> list[str]:
    """The words of a text, in one form for all ways to write them.

    >>> words_of("Fraud-detector v2, für Käufe")
    ['fraud', 'detector', 'v2', 'für', 'käufe']
    """
    return [word[:_LONGEST_WORD] for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]


def weights_of(manifest: VersionManifest, description: Description, tags: Mapping[str, str]) -> dict[str, float]:
    """What each word of a version weighs against the others, the version's length taken into account. Pure."""
    found: dict[str, float] = {}
    for weight, texts in _texts(manifest, description, tags):
        for text in texts:
            for word in words_of(text):
                found[word] = found.get(word, 0.0) + weight
    heaviest = sorted(found, key=found.__getitem__, reverse=True)[:_MOST_TERMS]
    # Equation 3.18 over the whole version: tf / ((1 - b) + b * dl / avdl).
    stretched = (1 - _B) + _B * sum(found.values()) / _USUAL_LENGTH
    return {word: found[word] / stretched for word in heaviest}


def _texts(
    manifest: VersionManifest, said: Description, tags: Mapping[str, str]
) -> Iterable[tuple[float, Iterable[str]]]:
    signature = manifest.signature
    yield _NAME, (manifest.model,)
    yield _SAID, (said.task, said.owner, said.publisher, said.base_model, *(f"{k} {v}" for k, v in tags.items()))
    yield _TOLD, (said.description, said.intended_use, said.limitations, said.change_note, said.licence)
    yield _TOLD, (manifest.format, manifest.kind)
    for data in (said.training_data, said.evaluation_data):
        if data is not None:
            yield _TOLD, (data.name, data.uri)
    yield _TOLD, said.metrics
    yield _TOLD, (f"{name} {value}" for name, value in (*said.extra.items(), *manifest.metadata.items()))
    for spec in (*signature.inputs, *signature.outputs):
        yield _TOLD, (spec.name, *spec.labels)


def index_terms(
    connection: Connection, manifest: VersionManifest, description: Description, tags: Mapping[str, str]
) -> None:
    """Replace the words of a version in the transaction that changes what is said of it."""
    weights = weights_of(manifest, description, tags)
    connection.execute(delete(terms).where(terms.c.model == manifest.model, terms.c.version == manifest.version))
    of = {"model": manifest.model, "version": manifest.version}
    rows = [of | {"term": word, "weight": weight} for word, weight in weights.items()]
    connection.execute(insert(terms), [*rows, of | {"term": _INDEXED, "weight": sum(weights.values())}])


def unindexed(connection: Connection) -> Sequence[tuple[str, str]]:
    """The versions whose words are not in the index: those from before there was one."""
    indexed = select(terms.c.term).where(
        terms.c.term == _INDEXED, terms.c.model == versions.c.model, terms.c.version == versions.c.version
    )
    query = select(versions.c.model, versions.c.version).where(~indexed.exists())
    return [(row.model, row.version) for row in connection.execute(query)]


def rank(
    connection: Connection, text: str, where: ColumnElement[bool] | None = None, most: int | None = None
) -> tuple[list[tuple[str, str, float]], int]:
    """The versions in which words of `text` occur, with scores, the best first, and how many there are.

    The last word may go on. Of equal ones the order is that of names and numbers. Only those that fulfil `where`, a
    condition of `versions`, and at most `most`.
    """
    asked = words_of(text)[:MOST_WORDS]
    factors = _factors(connection, asked) if asked else {}
    if not factors:
        return [], 0
    # Equation 3.15 with 3.20: w_idf * tf' / (k1 + tf'), summed over the words of the question.
    part = case(factors, value=terms.c.term, else_=0.0) * terms.c.weight / (_K1 + terms.c.weight)
    score = func.sum(part).label("score")
    query = (
        select(terms.c.model, terms.c.version, score, func.count().over())
        .where(terms.c.term.in_(list(factors)))
        .group_by(terms.c.model, terms.c.version)
        .order_by(score.desc(), terms.c.model, terms.c.version)
        .limit(most)
    )
    if where is not None:
        same = and_(versions.c.model == terms.c.model, versions.c.version == terms.c.version)
        query = query.join_from(terms, versions, same).where(where)
    rows = connection.execute(query).all()
    return [(row[0], row[1], float(row[2])) for row in rows], int(rows[0][3]) if rows else 0


def _factors(connection: Connection, asked: Sequence[str]) -> dict[str, float]:
    """What an occurrence of each word is worth: the rarer the word, the more; without those that cost too much."""
    last = asked[-1]
    completions = and_(terms.c.term > last, terms.c.term < last + "\U0010ffff")
    counted = select(terms.c.term, func.count()).group_by(terms.c.term)
    known = select(func.count()).where(terms.c.term == _INDEXED)
    total = connection.execute(known).scalar_one()
    found = {word: int(n) for word, n in connection.execute(counted.where(terms.c.term.in_(set(asked))))}
    longer = counted.where(completions).order_by(func.count().desc(), terms.c.term).limit(_MOST_COMPLETIONS)
    begun = {word: int(n) for word, n in connection.execute(longer) if word not in found}
    factors: dict[str, float] = {}
    rows = 0
    for word, n in sorted((found | begun).items(), key=lambda each: each[1]):
        rows += n
        if factors and rows > _MOST_ROWS:
            break
        factors[word] = (1.0 if word in found else _COMPLETED) * _rarity(total, n)
    return factors


def _rarity(total: int, occurring: int) -> float:
    """The weight of Robertson and Sparck Jones (equation 3.6) without relevance information, kept above 0."""
    return math.log(1.0 + (total - occurring + 0.5) / (occurring + 0.5))
