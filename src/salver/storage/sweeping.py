"""Which files of an artifact store nobody needs any more: a pure look at what is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator
from typing import Final

from salver.storage.blob_store import Blobs, Item, Kind

__all__ = ["GRACE_S", "collectable"]

GRACE_S: Final = 3600.0
"""How long what is stored waits for its registration."""


def collectable(
    blobs: Blobs, referenced: Container[str], now_s: float, grace_s: float = GRACE_S
) -> Iterator[tuple[Item, ...]]:
    """What can go, by blob: all that belongs to one, or what only somebody has left who was killed.

    Nothing of it is younger than `grace_s`, by the date of the file and the clock that gave `now_s`; what
    seems to come from the future is young.
    """
    files: defaultdict[str, list[Item]] = defaultdict(list)
    for item in blobs.items():
        files[item.sha256].append(item)
    for sha256, items in files.items():
        old = [item for item in items if now_s - item.modified_s > grace_s]
        if sha256 not in referenced:
            if len(old) == len(items):
                yield tuple(items)
            continue
        left = tuple(item for item in old if item.kind in (Kind.PIN, Kind.DOOM) or _is_left(blobs, item, items))
        if left:
            yield left


def _is_left(blobs: Blobs, item: Item, items: list[Item]) -> bool:
    """Whether a file is a data key that no blob uses."""
    if item.kind is not Kind.KEY or sum(each.kind is Kind.KEY for each in items) == 1:
        return False  # one key alone may be on its way to its blob; it costs nothing
    return any(each.kind is Kind.ENCRYPTED for each in items) and blobs.key_in_use(item.sha256) != item.key_name
