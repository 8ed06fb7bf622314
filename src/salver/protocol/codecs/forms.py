"""Forms (multipart/form-data, RFC 7578), read strictly and under limits, in memory.

The bytes have come whole and within the limit for bodies; what is bounded here is how many parts
and headers they may be.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import multipart

from salver.protocol.errors import SalverError

__all__ = ["Part", "read_form"]

_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]", re.ASCII)
"""RFC 2046 section 5.1.1: up to 70 characters, the last no space."""
_MOST_PARTS: Final = 4096
_PART_HEADERS: Final = 8
_PART_HEADER_BYTES: Final = 4096
_PLAIN: Final = frozenset({"7bit", "8bit", "binary"})


class Part(NamedTuple):
    """One part of a form."""

    name: str
    is_file: bool
    data: bytes


def read_form(content_type: bytes, body: bytes) -> list[Part]:
    """The parts of a form in their order; raises BAD_MESSAGE for what is malformed, cut short or beyond a limit."""
    _, options = multipart.parse_options_header(content_type.decode("latin-1"))
    boundary = options.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise SalverError("BAD_MESSAGE", "the Content-Type of the form has no proper boundary", "see RFC 7578")
    parser = multipart.PushMultipartParser(
        boundary,
        content_length=len(body),
        max_header_size=_PART_HEADER_BYTES,
        max_header_count=_PART_HEADERS,
        max_segment_count=_MOST_PARTS,
        strict=True,
    )
    parts: list[Part] = []
    pieces: list[bytes] = []
    segment: multipart.MultipartSegment | None = None
    try:
        for event in parser.parse(body):
            if isinstance(event, multipart.MultipartSegment):
                segment = event
            elif event:
                pieces.append(bytes(event))
            elif segment is not None:
                parts.append(_part(segment, b"".join(pieces)))
                pieces, segment = [], None
        parser.close()
    except multipart.MultipartError as error:
        raise SalverError("BAD_MESSAGE", f"the body is no form: {error.args[0]}", "see RFC 7578") from None
    return parts


def _part(segment: multipart.MultipartSegment, data: bytes) -> Part:
    coding = segment.header("Content-Transfer-Encoding", "binary").lower()
    if coding not in _PLAIN:
        raise SalverError(
            "BAD_MESSAGE",
            f"the part {segment.name[:80]!r} has the transfer encoding {coding[:40]!r}",
            "send its bytes as they are",
        )
    return Part(segment.name, segment.filename is not None, data)
