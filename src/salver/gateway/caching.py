"""What clients and the cache of an endpoint tell each other in headers: RFC 9111 and RFC 9110, section 13.

The headers are those of HTTP; over gRPC the same names and values are metadata. Nobody but the
client itself may keep an answer (`private`), and its tag is a weak one: two answers with one tag say
the same, but one may have another request's id in it or be compressed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Final

from salver.protocol.request import CacheNote, CacheWish

__all__ = ["cache_headers", "read_cache_wish"]

_REMEMBERED: Final = 256
"""Wishes, and the longest ones in bytes, that are read once: a client has few, and sends them with every request."""
_DIRECTIVE: Final = re.compile(rb"""([^\s",;=]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*)))?""")
_TAG: Final = re.compile(rb'(?:W/)?"([^"]*)"')
_SECONDS: Final = re.compile(rb"\d{1,10}")


def read_cache_wish(headers: Mapping[bytes, bytes]) -> CacheWish | None:
    """What a request asks of the cache by `Cache-Control` and `If-None-Match`; None if it does not say.

    Directives that are unknown are ignored, as they must be. A number that is none counts as the strictest:
    for `max-age` 0, for `min-fresh` more than there ever is.
    """
    control, tags = headers.get(b"cache-control"), headers.get(b"if-none-match")
    if control is None and tags is None:
        return None
    control, tags = control or b"", tags or b""
    return _known(control, tags) if len(control) + len(tags) <= _REMEMBERED else _read(control, tags)


def _read(control: bytes, tags: bytes) -> CacheWish:
    asked = dict(_directives(control))
    keeps = b"no-store" not in asked
    return CacheWish(
        look=keeps and b"no-cache" not in asked,
        keep=keeps,
        only_kept=b"only-if-cached" in asked,
        max_age_s=_seconds(asked[b"max-age"], 0.0) if b"max-age" in asked else float("inf"),
        min_fresh_s=_seconds(asked[b"min-fresh"], float("inf")) if b"min-fresh" in asked else 0.0,
        unless=_tags(tags),
    )


_known: Final = functools.lru_cache(_REMEMBERED)(_read)


def _directives(value: bytes) -> Iterator[tuple[bytes, bytes]]:
    for name, quoted, plain in _DIRECTIVE.findall(value):
        yield name.lower(), quoted or plain


def _seconds(written: bytes, otherwise: float) -> float:
    return float(written) if _SECONDS.fullmatch(written) else otherwise


def _tags(value: bytes) -> frozenset[bytes]:
    """Entity tags for weak comparison: without what tells weak ones from strong ones."""
    return frozenset({b"*"}) if value == b"*" else frozenset(_TAG.findall(value))


def cache_headers(note: CacheNote, now_s: float) -> tuple[tuple[bytes, bytes], ...]:
    """What an answer tells of itself; nothing if it is not kept.

    `max-age` counts from when the model answered, and `Age` says how much of it has passed.

    >>> cache_headers(CacheNote("hit", "5e1f", since_s=100.0, ttl_s=300.0), now_s=112.5)
    ((b'etag', b'W/"5e1f"'), (b'cache-control', b'private, max-age=300'), (b'age', b'12'))
    """
    if not note.tag:
        return ()
    kept = ((b"etag", b'W/"%b"' % note.tag.encode()), (b"cache-control", b"private, max-age=%d" % note.ttl_s))
    return (*kept, (b"age", b"%d" % (now_s - note.since_s))) if note.source == "hit" else kept
