"""Media types of MLflow's and SageMaker's scoring: which bodies are understood, and which answers were asked for."""

from __future__ import annotations

from typing import Final, NamedTuple

from salver.gateway.exchange import JSON
from salver.gateway.negotiation import check_accept
from salver.protocol.errors import SalverError

__all__ = ["CSV", "FRAMED", "LINES", "RAW", "Kind", "answer_media", "kind_of"]

CSV: Final = b"text/csv"
LINES: Final = b"application/jsonlines"
RAW: Final = b"application/octet-stream"
FRAMED: Final = b"application/vnd.sagemaker-triton.binary+json"
"""The Open Inference Protocol with binary tensors, the length of its JSON a parameter of the media type."""
_SAME: Final = {b"application/x-jsonlines": LINES, b"application/jsonl": LINES, b"application/x-ndjson": LINES}
_PARAMETERS: Final[dict[bytes, frozenset[bytes]]] = {
    JSON: frozenset(),
    CSV: frozenset({b"header", b"label_size"}),
    LINES: frozenset(),
    RAW: frozenset(),
    FRAMED: frozenset({b"json-header-size"}),
}
_HEADERS: Final = {b"present": True, b"absent": False}
"""RFC 4180, section 3."""


class Kind(NamedTuple):
    """How a body is to be read."""

    media: bytes
    has_header: bool | None = None
    """Of CSV: whether its type says that it begins with names; None where it does not say."""
    json_bytes: bytes = b""
    """Of FRAMED: the length of the JSON, as it was written."""


def kind_of(content_type: bytes) -> Kind:
    """Raises UNSUPPORTED_MEDIA_TYPE as MLflow does, for unknown parameters too."""
    media, *parameters = (part.strip() for part in content_type.lower().split(b";"))
    media = _SAME.get(media, media)
    given = {name: value.strip(b'"') for name, _, value in (each.partition(b"=") for each in parameters if each)}
    if given.pop(b"charset", b"utf-8") != b"utf-8":
        raise SalverError("UNSUPPORTED_MEDIA_TYPE", "the body is not in UTF-8", "send it in UTF-8")
    if media not in _PARAMETERS or not given.keys() <= _PARAMETERS[media]:
        raise _unknown(content_type)
    if media == FRAMED:
        return Kind(media, json_bytes=given.get(b"json-header-size", b""))
    if b"header" in given and given[b"header"] not in _HEADERS:
        raise _unknown(content_type)
    if given.get(b"label_size", b"0") != b"0":
        raise SalverError("UNSUPPORTED_MEDIA_TYPE", "the CSV has labels", "send the features alone, label_size=0")
    has_header = _HEADERS.get(given.get(b"header", b""), False if b"label_size" in given else None)
    return Kind(media, has_header)


def answer_media(accept: bytes | None) -> bytes:
    """JSON if the client takes it, else CSV or JSON by lines; raises NOT_ACCEPTABLE where it takes none of them."""
    if accept is None:
        return JSON
    for media, names in ((JSON, (JSON,)), (CSV, (CSV,)), (LINES, (LINES, *_SAME))):
        for name in names:
            try:
                check_accept(accept, name)
            except SalverError:
                continue
            return media
    check_accept(accept, JSON)
    return JSON


def _unknown(content_type: bytes) -> SalverError:
    return SalverError(
        "UNSUPPORTED_MEDIA_TYPE",
        f"a body of type {content_type[:80].decode('latin-1')!r} is not understood",
        "send application/json, text/csv or application/jsonlines, without parameters but charset=utf-8",
    )
