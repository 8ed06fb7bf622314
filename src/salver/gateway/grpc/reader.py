"""Frames out of a stream of bytes, under limits: the reading half of an HTTP/2 connection.

What RFC 9113 forbids ends the connection, and so do frames that cost a client nothing and come
by the thousand: resets, settings, pings, empty data, header blocks without end.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from salver.gateway.grpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD_BYTES,
    LARGEST_FRAME_BYTES,
    LARGEST_WINDOW,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    SMALLEST_FRAME_BYTES,
    ErrorCode,
    Frame,
    Http2Error,
    Setting,
    pack_frame,
    unpack_settings,
)
from salver.gateway.grpc.headers import Head, HeaderDecoder

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["FRAME_BYTES", "FrameReader"]

FRAME_BYTES: Final = 2**18
"""The largest frame we take, as our SETTINGS say."""
_MOST_CONTINUATIONS: Final = 8
_MOST_SETTINGS: Final = 64
"""In one frame; there are ten or so."""
_GREETING_BYTES: Final = len(PREFACE) + 5
"""The preface, and the size, type and flags of the first frame."""
_FLOOD: Final = 1000
"""Frames that cost a client nothing: so many in half a second, and half of those before."""
_HEAD: Final = struct.Struct(">HBBBI")
_U32: Final = struct.Struct(">I")
_STREAM_ID: Final = 2**31 - 1


class FrameReader:
    """Reads frames and keeps the rules that concern one frame or one header block.

    Whoever reads on implements the methods without a body. All may raise `Http2Error`, after
    which nothing more may be fed.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._greeted = False
        self._rest = bytearray()
        """The beginning of a frame."""
        self._needed = 0
        """The size of that frame, or the part of it that says it."""
        self._decoder = HeaderDecoder(gateway.limits.header_bytes, gateway.limits.headers)
        self._block: _Block | None = None
        self._flood = 0
        self._readers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_reset,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )
        """By the type of the frame."""

    @abstractmethod
    def _take_head(self, stream_id: int, head: Head, last: bool) -> None:
        """Headers came; `last` if nothing follows them."""

    @abstractmethod
    def _take_data(self, stream_id: int, data: bytes, size: int, last: bool) -> None:
        """Data came, which counts `size` bytes against the windows."""

    @abstractmethod
    def _take_reset(self, stream_id: int) -> None:
        """The client wants no answer any more."""

    @abstractmethod
    def _take_window(self, stream_id: int, increment: int) -> bool:
        """The client takes more, on a stream or, if that is 0, on the connection; whether data was sent for that."""

    @abstractmethod
    def _take_initial_window(self, size: int) -> None:
        """What the client takes on each stream at first, those that are open included."""

    @abstractmethod
    def _take_frame_bytes(self, size: int) -> None:
        """The largest frame that the client takes."""

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Send frames."""

    def _feed(self, data: bytes) -> None:
        """Read on."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest = bytearray()
        at = 0
        if not self._greeted:
            at = self._greet(data)
            if not at:
                return
        end = len(data)
        self._needed = FRAME_HEAD_BYTES
        readers = self._readers
        while end - at >= FRAME_HEAD_BYTES:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > FRAME_BYTES:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes; {FRAME_BYTES} is the most")
            begin = at + FRAME_HEAD_BYTES
            stop = begin + size
            if stop > end:
                self._needed = stop - at
                break
            if self._block is not None and kind != Frame.CONTINUATION:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "another frame within a header block")
            at = stop
            if kind < len(readers):
                readers[kind](flags, stream_id & _STREAM_ID, data[begin:stop])
            else:
                # RFC 9113 section 5.5: unknown types are ignored.
                self._count_idle_frame()
        if at < end:
            self._rest += memoryview(data)[at:]

    def _greet(self, data: bytes) -> int:
        """Where the first frame begins, or 0 if more has to come; raises unless it is HTTP/2 that begins."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "this is no HTTP/2 connection preface")
        if len(data) < _GREETING_BYTES:
            self._rest += data
            self._needed = _GREETING_BYTES
            return 0
        if data[len(PREFACE) + 3] != Frame.SETTINGS or data[len(PREFACE) + 4] & ACK:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        self._greeted = True
        return len(PREFACE)

    def _count_idle_frame(self) -> None:
        self._flood += 1
        if self._flood > _FLOOD:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def _forgive(self) -> None:
        """Forget half of the frames counted; called twice a second."""
        self._flood //= 2

    def _credit(self) -> None:
        """A call was answered: whoever makes us work may send some frames for nothing."""
        if self._flood:
            self._flood = max(0, self._flood - 2)

    # Header blocks.

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & (PADDED | PRIORITY_FLAG):
            payload = _unpadded(flags, payload)
        if not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"headers on stream {stream_id}, which no client can open")
        if len(payload) > self.gateway.limits.header_bytes:
            self._refuse_block()
        if flags & END_HEADERS:
            self._take_head(stream_id, self._decoder.decode(payload), bool(flags & END_STREAM))
        else:
            self._block = _Block(stream_id, bool(flags & END_STREAM), payload)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream_id != stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION that continues nothing")
        block.data += payload
        block.frames += 1
        if len(block.data) > self.gateway.limits.header_bytes or block.frames > _MOST_CONTINUATIONS:
            self._refuse_block()
        if flags & END_HEADERS:
            self._block = None
            self._take_head(stream_id, self._decoder.decode(bytes(block.data)), block.last)

    def _refuse_block(self) -> NoReturn:
        limit = self.gateway.limits.header_bytes
        raise Http2Error(
            ErrorCode.ENHANCE_YOUR_CALM,
            f"headers of more than {limit} bytes, or in more than {_MOST_CONTINUATIONS} continuations",
        )

    # The other frames.

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        if flags & PADDED:
            payload = _unpadded(PADDED, payload)
        last = flags & END_STREAM
        if not payload and not last:
            self._count_idle_frame()
        self._take_data(stream_id, payload, size, bool(last))

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        _check_size(payload, 5)
        if not stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY of no stream")
        self._count_idle_frame()

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        _check_size(payload, 4)
        self._count_idle_frame()
        self._take_reset(stream_id)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._count_idle_frame()
        if stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            _check_size(payload, 0)
            return
        settings = list(unpack_settings(payload))
        if len(settings) > _MOST_SETTINGS:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"more than {_MOST_SETTINGS} settings in a frame")
        initial_window = None
        for name, value in settings:
            if name == Setting.INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, f"an initial window of {value}")
                initial_window = value
            elif name == Setting.MAX_FRAME_SIZE:
                if not SMALLEST_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a maximum frame size of {value}")
                self._take_frame_bytes(value)
            elif name == Setting.ENABLE_PUSH and value > 1:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        if initial_window is not None:
            # The last one counts, and each would go through all calls.
            self._take_initial_window(initial_window)
        self._write(pack_frame(Frame.SETTINGS, ACK, 0))

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags, stream_id, payload
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "clients do not push")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _check_size(payload, 8)
        if stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        self._count_idle_frame()
        if not flags & ACK:
            self._write(pack_frame(Frame.PING, ACK, 0, payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        # The client opens no more streams; it closes the connection when it has its answers.
        del flags, payload
        if stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        self._count_idle_frame()

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        _check_size(payload, 4)
        increment = _U32.unpack(payload)[0] & LARGEST_WINDOW
        if not increment:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a window update of 0")
        if not self._take_window(stream_id, increment):
            self._count_idle_frame()


class _Block:
    """A header block that goes on in CONTINUATION frames."""

    __slots__ = ("data", "frames", "last", "stream_id")

    def __init__(self, stream_id: int, last: bool, data: bytes) -> None:
        self.stream_id = stream_id
        self.last = last
        self.data = bytearray(data)
        self.frames = 0


def _check_size(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes that has {size}")


def _unpadded(flags: int, payload: bytes) -> bytes:
    """The payload without its padding and priority."""
    begin, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "padding without a length")
        begin, end = 1, end - payload[0]
    if flags & PRIORITY_FLAG:
        begin += 5
    if begin > end:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[begin:end]
