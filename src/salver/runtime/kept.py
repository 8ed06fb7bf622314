"""Answers kept for identical requests, within a number of bytes.

What is kept is a copy of one request's own rows: a slice would hold the whole batch. What the doors
make of it - its numbers as JSON, say - is kept with it, so that it is made once, and counts as well.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from typing import Any, Final

import numpy as np

from salver.protocol.request import BatchOutputs, CacheNote, CacheWish, Response
from salver.protocol.tensor import pack_bytes_elements
from salver.telemetry.metrics import CacheCounts

__all__ = ["KeptAnswers"]

_ENTRY_BYTES: Final = 1024
"""What an answer takes beside its arrays, warnings and encodings: 944 bytes by tracemalloc, rounded up."""
_ARRAY_BYTES: Final = 192
_DIMENSION_BYTES: Final = 16
"""Likewise an array beside its elements: 213 bytes with two dimensions."""
_ENCODING_BYTES: Final = 192
"""Its place in a dictionary that had none."""
_TAG_CHARACTERS: Final = 32
"""128 bits: two answers will not have one tag by chance."""


class _Kept:
    """One answer and what it takes."""

    __slots__ = ("response", "size_bytes", "until_s")

    def __init__(self, response: Response, until_s: float, size_bytes: int) -> None:
        self.response = response
        self.until_s = until_s
        self.size_bytes = size_bytes


class _Encodings(dict[Any, Any]):
    """The `codec_cache` of a kept answer: what a door puts there is counted at once.

    REQUIRES that doors only ever assign, and leave alone what they have assigned.
    """

    __slots__ = ("_answers", "_key")

    def __init__(self, answers: KeptAnswers, key: bytes) -> None:
        super().__init__()
        self._answers = answers
        self._key = key

    def __setitem__(self, name: Any, encoded: Any) -> None:
        before_bytes = _size_bytes(self[name]) if name in self else -_ENCODING_BYTES
        super().__setitem__(name, encoded)
        self._answers.grew(self._key, self, _size_bytes(encoded) - before_bytes)


class KeptAnswers:
    """Answers by key. What has been used longest ago makes room, and nothing is given after `ttl_s`.

    `size_bytes` never exceeds `most_bytes`, whatever is kept, encoded or replaced.
    """

    def __init__(self, most_bytes: int, ttl_s: float, counts: CacheCounts) -> None:
        self.size_bytes = 0
        self._most_bytes = most_bytes
        self._ttl_s = ttl_s
        self._counts = counts
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes, wish: CacheWish, now_s: float) -> Response | None:
        """The answer under `key` if there is one and it will do. Nobody may change it."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        left_s = kept.until_s - now_s
        if left_s <= 0:
            self._drop(key)
            return None
        if left_s < wish.min_fresh_s or self._ttl_s - left_s > wish.max_age_s:
            return None
        self._kept.move_to_end(key)
        return kept.response

    def keep(self, key: bytes, response: Response, now_s: float) -> CacheNote:
        """Keep a copy of `response` in place of what is under `key`; what to say of it to who waited for it.

        One that alone takes more than all may is not kept, and nothing makes room for it.
        """
        self._drop(key)
        views = {name: response.array(name) for name in response.batch.arrays}
        size_bytes = _ENTRY_BYTES + sum(map(_array_bytes, views.values())) + sum(map(sys.getsizeof, response.warnings))
        if size_bytes > self._most_bytes:
            return CacheNote("miss")
        arrays = {name: _own(view) for name, view in views.items()}
        rows = 1 if response.stop is None else response.stop - response.start
        batch = BatchOutputs(arrays, rows)
        batch.codec_cache = _Encodings(self, key)
        note = CacheNote("miss", _tag(key, arrays, response.warnings), now_s, self._ttl_s)
        kept = Response(
            response.model,
            response.version,
            batch,
            0,
            None if response.stop is None else rows,
            response.warnings,
            cache=CacheNote("hit", note.tag, now_s, self._ttl_s),
        )
        self._kept[key] = _Kept(kept, now_s + self._ttl_s, size_bytes)
        self.size_bytes += size_bytes
        self._make_room(now_s)
        return note

    def grew(self, key: bytes, encodings: dict[Any, Any], by_bytes: int) -> None:
        """An encoding of the answer under `key` was added, unless the answer has gone meanwhile."""
        kept = self._kept.get(key)
        if kept is not None and kept.response.batch.codec_cache is encodings:
            kept.size_bytes += by_bytes
            self.size_bytes += by_bytes
            self._make_room(float("-inf"))

    def clear(self) -> None:
        """Forget all, and keep nothing from now on."""
        self._most_bytes = 0
        self._kept.clear()
        self.size_bytes = 0

    def _make_room(self, now_s: float) -> None:
        """Drop the least recently used until the rest fits, and those whose time is over before them."""
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            over = oldest.until_s <= now_s
            if not over and self.size_bytes <= self._most_bytes:
                return
            self._drop(key)
            self._counts.evictions += not over

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size_bytes -= kept.size_bytes


def _array_bytes(array: np.ndarray[Any, Any]) -> int:
    """What a copy of `array` takes, its elements included where they are objects."""
    elements_bytes = sum(map(sys.getsizeof, array.flat)) if array.dtype.hasobject else 0
    return _ARRAY_BYTES + _DIMENSION_BYTES * array.ndim + array.nbytes + elements_bytes


def _own(view: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy that nobody can change, because it is given again and again."""
    array = view.copy()
    array.flags.writeable = False
    return array


def _size_bytes(encoded: Any) -> int:
    """What an encoding takes: byte strings, and lists, tuples and dictionaries of such."""
    size_bytes = sys.getsizeof(encoded)
    if isinstance(encoded, list | tuple):
        size_bytes += sum(map(_size_bytes, encoded))
    elif isinstance(encoded, dict):
        size_bytes += sum(_size_bytes(part) for item in encoded.items() for part in item)
    return size_bytes


def _tag(key: bytes, arrays: dict[str, np.ndarray[Any, Any]], warnings: tuple[str, ...]) -> str:
    """A digest of what was asked and what was answered, so equal in every process that answers alike."""
    digest = hashlib.sha256(key)
    # A version has its outputs in one order and of one type; only shapes differ from answer to answer.
    digest.update(b"%a" % ([warnings, *(array.shape for array in arrays.values())],))
    for array in arrays.values():
        digest.update(pack_bytes_elements(array.reshape(-1).tolist()) if array.dtype.hasobject else array.data)
    return digest.hexdigest()[:_TAG_CHARACTERS]
