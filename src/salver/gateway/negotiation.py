"""Content negotiation: which bodies are understood, which answers are accepted, compression."""

from __future__ import annotations

import zlib
from typing import Final

from salver.protocol.errors import SalverError

__all__ = ["check_accept", "check_content_type", "compress", "decompress", "wanted_encoding"]

_WINDOW_BITS: Final = {b"gzip": 31, b"deflate": 15}
"""zlib's numbers for a gzip wrapper and for a zlib wrapper, which is what HTTP calls deflate."""
_FREE_BYTES: Final = 2**20
_RATIO: Final = 100
"""Beyond the first MiB a body may expand a hundredfold; what expands further is an attack."""
_COMPRESS_FROM_BYTES: Final = 1400
"""An answer that fits one packet gains nothing."""
_UNDERSTOOD: Final = frozenset({b"application/json", b"application/octet-stream", b"text/plain"})
"""text/plain because clients that send JSON as a string label it so."""


def check_content_type(value: bytes) -> None:
    """Raise UNSUPPORTED_MEDIA_TYPE unless a tensor request may come under this type."""
    media, _, parameters = value.partition(b";")
    charset = parameters.strip().lower()
    if media.strip().lower() not in _UNDERSTOOD or (charset and charset not in (b"charset=utf-8", b'charset="utf-8"')):
        raise SalverError(
            "UNSUPPORTED_MEDIA_TYPE",
            f"a body of type {value[:80].decode('latin-1')!r} is not understood",
            "send application/json in UTF-8, or application/octet-stream with Inference-Header-Content-Length",
        )


def check_accept(value: bytes, offered: bytes) -> None:
    """Raise NOT_ACCEPTABLE unless an Accept header admits the media type `offered`."""
    kind = offered.partition(b"/")[0]
    for part in value.split(b","):
        media, _, parameters = part.partition(b";")
        media = media.strip().lower()
        refused = parameters.replace(b" ", b"").lower().startswith((b"q=0.0", b"q=0,")) or parameters.strip() == b"q=0"
        if media in (b"*/*", kind + b"/*", offered) and not refused:
            return
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


def wanted_encoding(accept: bytes) -> bytes | None:
    """The coding a client asks for with Accept-Encoding, if it is one we have."""
    for part in accept.lower().split(b","):
        coding, _, parameters = part.partition(b";")
        coding = coding.strip()
        if coding in _WINDOW_BITS and parameters.replace(b" ", b"") not in (b"q=0", b"q=0.0"):
            return coding
    return None


def compress(body: bytes, coding: bytes) -> bytes | None:
    """`body` in `coding`, or None where that is not worth it."""
    if len(body) < _COMPRESS_FROM_BYTES:
        return None
    encoder = zlib.compressobj(level=1, wbits=_WINDOW_BITS[coding])
    return encoder.compress(body) + encoder.flush()
