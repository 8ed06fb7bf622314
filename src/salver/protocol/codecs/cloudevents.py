"""CloudEvents 1.0 over HTTP as KServe takes and gives them: a request in, its answer in kind.

A structured event is a JSON object with the attributes and the body as `data`. A binary one is the
body alone, with the attributes in `ce-` headers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from salver.protocol.codecs.plain_json import decode_object
from salver.protocol.errors import SalverError

__all__ = ["STRUCTURED", "Event", "data_of", "is_binary", "is_structured"]

STRUCTURED: Final = b"application/cloudevents+json"
_FAMILY: Final = b"application/cloudevents"
_REQUIRED: Final = ("specversion", "id", "source", "type")
_HEADERS: Final = frozenset(f"ce-{name}".encode() for name in _REQUIRED)
_VERSIONS: Final = ("1.0", "0.3")
_JSON: Final = msgspec.json.Encoder()


class Event(NamedTuple):
    """The attributes of an answer."""

    id: str
    """Unlike that of any other answer of this server."""
    endpoint: str
    wall_s: float

    def structured(self, data: bytes) -> bytes:
        """The event with the JSON `data` inside."""
        told = {"specversion": "1.0", **self._attributes(), "datacontenttype": "application/json"}
        return b'%b,"data":%b}' % (_JSON.encode(told)[:-1], data)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that make a body of JSON the event."""
        return [(b"ce-specversion", b"1.0"), *((f"ce-{k}".encode(), v.encode()) for k, v in self._attributes().items())]

    def _attributes(self) -> dict[str, str]:
        # The source and type that KServe writes, unless it is told others.
        return {
            "id": self.id,
            "source": f"io.kserve.inference.{self.endpoint}",
            "type": "io.kserve.inference.response",
            "time": datetime.fromtimestamp(self.wall_s, UTC).isoformat().replace("+00:00", "Z"),
        }


def is_structured(content_type: bytes) -> bool:
    """Whether a body of this type is a structured event; raises UNSUPPORTED_MEDIA_TYPE for other forms of events."""
    media = content_type.partition(b";")[0].strip().lower()
    if media.startswith(_FAMILY) and media != STRUCTURED:
        raise SalverError(
            "UNSUPPORTED_MEDIA_TYPE",
            f"events of type {media[:80].decode('latin-1')!r} are not understood",
            f"send one event as {STRUCTURED.decode()}, or its attributes as ce- headers",
        )
    return media == STRUCTURED


def is_binary(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request is a binary event, which has all four required attributes; raises as `data_of` does."""
    if not headers.keys() >= _HEADERS:
        return False
    _require_version(headers[b"ce-specversion"].decode("latin-1"))
    return True


def data_of(body: bytes) -> dict[str, Any]:
    """The JSON object inside a structured event; raises INVALID_JSON for what is no event with such data."""
    event = decode_object(body, tokens=True)
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise SalverError("INVALID_JSON", f"the event has no {name!r}", f"an event has {', '.join(_REQUIRED)}")
    _require_version(event["specversion"])
    data = _decoded(event["data_base64"]) if "data_base64" in event else event.get("data")
    if not isinstance(data, dict):
        raise SalverError("INVALID_JSON", "the event's data is no JSON object", "send the body of the request as data")
    return data


def _require_version(version: str) -> None:
    if version not in _VERSIONS:
        raise SalverError(
            "INVALID_JSON", f"the event's specversion is {version[:40]!r}", f"it may be {' or '.join(_VERSIONS)}"
        )


def _decoded(encoded: Any) -> Any:
    try:
        body = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise SalverError("INVALID_JSON", "the event's data_base64 is no base64") from None
    return decode_object(body, tokens=True)
