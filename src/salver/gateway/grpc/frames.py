"""HTTP/2 frames (RFC 9113) as far as a gRPC server needs them: constants, packing, settings."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = [
    "ACK",
    "DEFAULT_WINDOW",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEAD_BYTES",
    "LARGEST_FRAME_BYTES",
    "LARGEST_WINDOW",
    "PADDED",
    "PREFACE",
    "PRIORITY_FLAG",
    "SMALLEST_FRAME_BYTES",
    "ErrorCode",
    "Frame",
    "Http2Error",
    "Setting",
    "pack_frame",
    "pack_goaway",
    "pack_reset",
    "pack_settings",
    "pack_window_update",
    "unpack_settings",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES: Final = 9
SMALLEST_FRAME_BYTES: Final = 2**14
"""Also what a peer takes until it says otherwise."""
LARGEST_FRAME_BYTES: Final = 2**24 - 1
DEFAULT_WINDOW: Final = 2**16 - 1
LARGEST_WINDOW: Final = 2**31 - 1

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20


class Frame(enum.IntEnum):
    """Types of frames, RFC 9113 section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends, RFC 9113 section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(enum.IntEnum):
    """Settings, RFC 9113 section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Http2Error(Exception):
    """The peer broke the protocol or asks too much: the connection ends with GOAWAY."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


_HEAD: Final = struct.Struct(">HBBBI")
_SETTING: Final = struct.Struct(">HI")
_U32: Final = struct.Struct(">I")


def pack_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 255, kind, flags, stream_id) + payload


def pack_settings(settings: Iterable[tuple[Setting, int]]) -> bytes:
    """A SETTINGS frame."""
    return pack_frame(Frame.SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in settings))


def unpack_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings in the payload of a SETTINGS frame; raises FRAME_SIZE_ERROR for an odd length."""
    if len(payload) % _SETTING.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of an odd length")
    yield from _SETTING.iter_unpack(payload)


def pack_window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return pack_frame(Frame.WINDOW_UPDATE, 0, stream_id, _U32.pack(increment))


def pack_reset(stream_id: int, code: ErrorCode) -> bytes:
    """An RST_STREAM frame."""
    return pack_frame(Frame.RST_STREAM, 0, stream_id, _U32.pack(code))


def pack_goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """A GOAWAY frame; `reason` is for people."""
    return pack_frame(Frame.GOAWAY, 0, 0, _U32.pack(last_stream_id) + _U32.pack(code) + reason.encode())
