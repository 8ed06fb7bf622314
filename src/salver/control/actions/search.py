"""Finding versions: by filter, words and meaning, and for a set of data, a task or the clients of another version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.control.meanings import Refreshed
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.registry.recommendation import DataShape, Recommendation
from salver.registry.search import Found, Meaning
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "RECOMMEND", "REFRESH_MEANINGS", "SEARCH", "OfRecommendation", "OfSearch"]


class OfSearch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to look for: words, a filter, or both."""

    words: str = ""
    filter: str = ""
    """See `salver.registry.filters`."""
    semantic: bool = False
    """Whether the meaning of the words counts, where an embedding model is deployed."""
    limit: int = 20


class OfRecommendation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a version is wanted for; all that is given must fit."""

    task: str = ""
    data: DataShape | None = None
    like: str = ""
    """NAME or NAME@VERSION, whose clients must be able to go on."""
    limit: int = 10
    signature: Signature | None = None
    """Instead of `like`: what such clients send and expect."""


def _search(admin: LocalAdministration, asked: OfSearch) -> Found:
    meaning: Meaning | None = None
    notes: tuple[str, ...] = ()
    if asked.semantic:
        if not asked.words.strip():
            raise SalverError("INVALID_PARAMETER", "without words there is no meaning", "give words as well")
        meaning, notes = admin.meanings.of(asked.words)
    found = admin.records.search.find(asked.words, asked.filter, asked.limit, meaning)
    return msgspec.structs.replace(found, notes=notes)


def _recommend(admin: LocalAdministration, asked: OfRecommendation) -> tuple[Recommendation, ...]:
    model, _, version = asked.like.partition("@")
    like = (model, version or "latest") if asked.like else asked.signature
    if asked.like and asked.signature:
        raise SalverError("INVALID_PARAMETER", "both a version and a signature are given", "give one of them")
    return admin.records.offers.recommended(asked.task, asked.data, like, asked.limit)


SEARCH: Final = Action(
    "POST",
    "/v1/search",
    Operation.READ,
    "Find versions by filter, words or meaning",
    OfSearch,
    Found,
    _search,
)
REFRESH_MEANINGS: Final = Action(
    "POST",
    "/v1/search/embeddings",
    Operation.OPERATE,
    "Have the deployed embedding model make the vectors that are missing",
    Nothing,
    Refreshed,
    lambda admin, _: admin.meanings.refresh(),
)
RECOMMEND: Final = Action(
    "POST",
    "/v1/recommendations",
    Operation.READ,
    "Propose versions for a task, a set of data or the clients of another version",
    OfRecommendation,
    tuple[Recommendation, ...],
    _recommend,
)
ACTIONS: Final = (SEARCH, REFRESH_MEANINGS, RECOMMEND)
