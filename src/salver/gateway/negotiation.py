"""Content negotiation: which bodies are understood, which answers are accepted, compression."""

from __future__ import annotations

import re
import zlib
from typing import Final

from salver.protocol.errors import SalverError

__all__ = ["OFFLOAD_BYTES", "check_accept", "check_content_type", "compress", "decompress", "wanted_encoding"]

OFFLOAD_BYTES: Final = 16 * 2**10
"""A compressed body larger than this is decompressed off the event loop: it may hold 100 times as much."""
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""zlib's numbers for a gzip wrapper and for a zlib wrapper, which is what HTTP calls deflate."""
_WEIGHT: Final = re.compile(rb"[01](?:\.[0-9]{0,3})?")
_FREE_BYTES: Final = 2**20
_RATIO: Final = 100
"""Beyond the first MiB a body may expand a hundredfold; what expands further is an attack."""
_COMPRESS_FROM_BYTES: Final = 1400
"""An answer that fits one packet gains nothing."""
_UNDERSTOOD: Final = frozenset(
    {b"application/json", b"application/octet-stream", b"text/plain", b"application/x-www-form-urlencoded"}
)
"""The last two because clients that send JSON as a string label it so, and `curl -d` whatever it sends."""


def check_content_type(value: bytes) -> None:
    """Raise UNSUPPORTED_MEDIA_TYPE unless a tensor request may come under this type."""
    media, parameters = _parsed(value)
    if media not in _UNDERSTOOD or parameters.get(b"charset", b"utf-8") not in (b"utf-8", b'"utf-8"'):
        raise SalverError(
            "UNSUPPORTED_MEDIA_TYPE",
            f"a body of type {value[:80].decode('latin-1')!r} is not understood",
            "send application/json in UTF-8, or application/octet-stream with Inference-Header-Content-Length",
        )


def check_accept(value: bytes, offered: bytes) -> None:
    """Raise NOT_ACCEPTABLE unless an Accept header admits the media type `offered`."""
    # RFC 9110 section 12.5.1: the most specific range decides.
    ranges = dict(map(_weighed, value.split(b",")))
    for media in (offered, offered.partition(b"/")[0] + b"/*", b"*/*"):
        if media in ranges:
            if ranges[media] > 0:
                return
            break
    raise SalverError(
        "NOT_ACCEPTABLE",
        f"the answer is {offered.decode()}, which the Accept header {value[:80].decode('latin-1')!r} rules out",
        f"accept {offered.decode()} or */*",
    )


def decompress(body: bytes, coding: bytes, limit: int) -> bytes:
    """Undo one content coding, refusing to produce more than `limit` bytes or an absurd ratio."""
    coding = coding.strip().lower()
    if coding == b"identity":
        return body
    bits = _WINDOW_BITS.get(coding)
    if bits is None:
        raise SalverError(
            "UNSUPPORTED_MEDIA_TYPE",
            f"content coding {coding[:40].decode('latin-1')!r} is not understood",
            "use gzip or deflate, once",
        )
    allowed = min(limit, max(_FREE_BYTES, _RATIO * len(body)))
    decoder = zlib.decompressobj(bits)
    try:
        plain = decoder.decompress(body, allowed + 1)
    except zlib.error as error:
        raise SalverError("BAD_HTTP", f"the body is not {coding.decode()}: {error}") from None
    if len(plain) > allowed:
        raise SalverError("BODY_TOO_LARGE", f"the decompressed body exceeds {allowed} bytes")
    if not decoder.eof or decoder.unused_data:
        problem = "is cut short" if not decoder.eof else "is followed by other bytes"
        raise SalverError("BAD_HTTP", f"the {coding.decode()} body {problem}")
    return plain


def wanted_encoding(accept: bytes, size: int) -> bytes | None:
    """The coding a client prefers by its Accept-Encoding for an answer of `size` bytes, if we have it and it pays."""
    if size < _COMPRESS_FROM_BYTES:
        return None
    weights = [_weighed(part) for part in accept.split(b",")]
    known = [(weight, coding) for coding, weight in weights if coding in _WINDOW_BITS and weight > 0]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def compress(body: bytes, coding: bytes) -> bytes:
    """`body` in `coding`."""
    encoder = zlib.compressobj(level=1, wbits=_WINDOW_BITS[coding])
    return encoder.compress(body) + encoder.flush()


def _parsed(part: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """One element of a header, in lower case, and its parameters."""
    name, *parameters = part.lower().split(b";")
    pairs = (parameter.partition(b"=") for parameter in parameters)
    return name.strip(), {key.strip(): value.strip() for key, _, value in pairs}


def _weighed(part: bytes) -> tuple[bytes, float]:
    """One element of an Accept header and its weight; one that cannot be read counts as not there."""
    name, parameters = _parsed(part)
    weight = parameters.get(b"q", b"1")
    return name, float(weight) if _WEIGHT.fullmatch(weight) else 0.0
