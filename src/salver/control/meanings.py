"""From words to their meaning: the vectors that a model served by Salver itself makes, as far as one answers.

Search by meaning is never more than a better answer. Where no such model is deployed, or it does not answer, the
caller is told and looks for words instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.registry.search import Meaning
from salver.registry.semantic import Embedder, Embeddings

__all__ = ["Embed", "Meanings", "Refreshed"]

Embed = Callable[[Embedder, Sequence[str]], NDArray[np.float32]]
"""Asks an endpoint for the vectors of texts, a row each; blocks, and raises SalverError where it does not answer."""

_AT_ONCE: Final = 32
_MOST_EACH: Final = 2048
"""Cards that one refreshing makes vectors of."""
_SEARCH_S: Final = 3.0
"""For which a search makes missing vectors before it answers with those there are."""
_REFRESH_S: Final = 20.0


class Refreshed(msgspec.Struct, frozen=True):
    """What became of making vectors."""

    embedder: str
    """The version that made them; empty where none is deployed."""
    embedded: int
    waiting: int
    """Versions that are still without."""


class Meanings:
    """Makes and keeps the vectors of cards, through `embed`, which is None where nothing serves."""

    def __init__(self, embeddings: Embeddings, embed: Embed | None, clock: Clock) -> None:
        self._embeddings = embeddings
        self._embed = embed
        self._clock = clock

    def of(self, words: str) -> tuple[Meaning | None, tuple[str, ...]]:
        """The meaning of words, and what the answer should say beside; None where there is no meaning to be had."""
        embedder = self._embeddings.embedder()
        if embedder is None:
            return None, ("no embedding model is deployed, so this is a search for words",)
        if self._embed is None:
            return None, (f"nothing serves {embedder.endpoint} now, so this is a search for words",)
        try:
            vector = self._embed(embedder, [words])
            made = self._make(self._embed, embedder, _MOST_EACH, _SEARCH_S)
            meaning = Meaning(embedder, vector)
        except SalverError as error:
            return None, (f"{embedder.endpoint} does not answer, so this is a search for words: {error.message}",)
        waiting = f"{made.waiting} versions have no vector yet and cannot be found: salver search --refresh"
        return meaning, (waiting,) if made.waiting else ()

    def refresh(self) -> Refreshed:
        """Make vectors that are missing, for some seconds at most.

        Raises NOT_FOUND where no embedding model is deployed, NOT_READY where nothing serves it, and what it answers
        with.
        """
        embedder = self._embeddings.embedder()
        if embedder is None:
            remedy = "deploy a version of kind embed, such as examples/minilm"
            raise SalverError("NOT_FOUND", "no embedding model is deployed", remedy)
        if self._embed is None:
            raise SalverError("NOT_READY", f"nothing serves {embedder.endpoint}", "start `salver serve`")
        return self._make(self._embed, embedder, _MOST_EACH, _REFRESH_S)

    def _make(self, embed: Embed, embedder: Embedder, most: int, budget_s: float) -> Refreshed:
        until_s = self._clock.monotonic_s() + budget_s
        cards, waiting = self._embeddings.waiting(embedder, most)
        done = 0
        while done < len(cards) and self._clock.monotonic_s() < until_s:
            part = cards[done : done + _AT_ONCE]
            self._embeddings.keep(embedder, part, embed(embedder, [card.text for card in part]))
            done += len(part)
        return Refreshed(embedder.reference, done, waiting - done)
