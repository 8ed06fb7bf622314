"""One client connection of the gRPC listener: calls in, answers out, under limits.

It speaks the HTTP/2 that gRPC needs and no more: no push, no priorities. Whatever happens to
the connection, each call that was taken is either answered once or abandoned, and gives back
the bytes it was counted with.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from salver.gateway.connection import Connection
from salver.gateway.grpc.call import UNKNOWN_METHOD, Call, Method
from salver.gateway.grpc.frames import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    LARGEST_WINDOW,
    ErrorCode,
    Frame,
    Http2Error,
    Setting,
    pack_frame,
    pack_goaway,
    pack_reset,
    pack_settings,
    pack_window_update,
)
from salver.gateway.grpc.headers import Head, encode_headers
from salver.gateway.grpc.reader import FRAME_BYTES, FrameReader
from salver.gateway.grpc.sender import FrameSender
from salver.gateway.pace import Stretch
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["GrpcLane", "grpc_refusal"]

_STREAM_WINDOW: Final = 2**20
"""Bytes that a client may send ahead on one stream."""
_WINDOW: Final = 2**24
"""Bytes that a client may send ahead on the connection."""
_EVERY_STREAM: Final = 2**31 - 1
_LAST_CHANCE_S: Final = 0.2
"""At the end: how long a quiet connection is kept for a call that is on its way."""
_NOT_GRPC: Final = encode_headers([(b":status", b"415")])


class GrpcLane(FrameSender, FrameReader, Connection):
    """A connection. Times that only serve timeouts of a second and more come from `gateway.now_s`."""

    def __init__(self, gateway: Gateway, methods: Mapping[bytes, Method]) -> None:
        Connection.__init__(self, gateway)
        FrameReader.__init__(self, gateway)
        FrameSender.__init__(self)
        self._methods = methods
        self._calls: dict[int, Call] = {}
        self._last_id = 0
        self._window = _WINDOW
        """Bytes that the client may still send on the connection."""
        self._since_s = gateway.now_s
        """When a call was last open, or the last word was said."""
        self._closing = False
        self._told_last = False
        self._quiet_s: float | None = None

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client is there."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)
        self.gateway.lanes.add(self)
        limits = self.gateway.limits
        self._write(
            pack_settings(
                (
                    (Setting.MAX_CONCURRENT_STREAMS, limits.streams),
                    (Setting.INITIAL_WINDOW_SIZE, _STREAM_WINDOW),
                    (Setting.MAX_FRAME_SIZE, FRAME_BYTES),
                    (Setting.MAX_HEADER_LIST_SIZE, limits.header_bytes),
                )
            )
        )
        self._write(pack_window_update(0, _WINDOW - DEFAULT_WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the client is gone."""
        del exc
        self._closing, self._transport = True, None
        self.gateway.lanes.discard(self)
        for call in list(self._calls.values()):
            self._abandon(call)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the client."""
        if self._closing:
            return
        try:
            self._feed(data)
        except Http2Error as error:
            self._break(error)
        except Exception as error:  # noqa: BLE001 - what came next could not be understood any more
            self.gateway.fault(error)
            self._break(Http2Error(ErrorCode.INTERNAL_ERROR, "a fault of this server"))

    def resume_writing(self) -> None:
        """asyncio: the client reads again."""
        self._stalled_s = None
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.resume_reading()
        for call in (*self._blocked.values(), *self._starved.values()):
            call.going = None
        self._pump()

    def _break(self, error: Http2Error) -> None:
        """End a connection that cannot be understood, or must not be listened to any more."""
        self.gateway.metrics.refused(None, "BAD_HTTP")
        for call in list(self._calls.values()):
            self._abandon(call)
        self._close(error.code, error.reason, linger=True)

    def _close(self, code: ErrorCode, reason: str = "", *, linger: bool = False) -> None:
        """Say the last word; with `linger` go on to read for a moment, else the client may not see it."""
        transport = self._transport
        if self._closing or transport is None:
            return
        self._closing = True
        self._since_s = self.gateway.now_s
        self._write(pack_goaway(self._last_id, code, reason))
        self._flush()
        self._over = True
        if linger and transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    # Calls.

    def _take_head(self, stream_id: int, head: Head, last: bool) -> None:
        if stream_id <= self._last_id:
            self._take_trailers(stream_id, head, last)
            return
        self._last_id = stream_id
        gateway = self.gateway
        if len(self._calls) >= gateway.limits.streams:
            self._count_idle_frame()
            self._write(pack_reset(stream_id, ErrorCode.REFUSED_STREAM))
            return
        if not head.is_grpc:
            self._write(pack_frame(Frame.HEADERS, END_HEADERS | END_STREAM, stream_id, _NOT_GRPC))
            if not last:
                self._write(pack_reset(stream_id, ErrorCode.NO_ERROR))
            return
        method = self._methods.get(head.path, UNKNOWN_METHOD)
        call = Call(self, stream_id, head, method, gateway.clock.monotonic_s(), last)
        call.window, call.send_window = _STREAM_WINDOW, self.initial_send_window
        self._calls[stream_id] = call
        if math.isnan(head.timeout_s):
            call.refuse(
                SalverError(
                    "INVALID_PARAMETER", "grpc-timeout is no time", "write a number and its unit, as 20S or 500m"
                )
            )
        elif method.streaming:
            gateway.begin(call)
        elif gateway.welcome(call) and last:
            call.take_end()

    def _take_trailers(self, stream_id: int, head: Head, last: bool) -> None:
        call = self._calls.get(stream_id)
        if call is None:
            # Of a call that was ended early; the client may not know yet.
            self._count_idle_frame()
        elif call.half_closed or not last or head.method or head.path:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "headers in the middle of a call")
        else:
            self._take_end(call)

    def _take_data(self, stream_id: int, data: bytes, size: int, last: bool) -> None:
        self._spend(size)
        call = self._calls.get(stream_id)
        if call is None:
            if stream_id > self._last_id or not stream_id & 1:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "data of a call that was not begun")
            # Of a call that was ended early; the client may not know yet.
            return
        if call.half_closed:
            raise Http2Error(ErrorCode.STREAM_CLOSED, "data behind the end of a call")
        call.window -= size
        if call.window < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window of the stream")
        gateway = self.gateway
        call.body_bytes += len(data)
        gateway.inflight_bytes += len(data)
        try:
            gateway.require_room()
        except SalverError as error:
            call.refuse(error)
            return
        call.take(data)
        if last:
            self._take_end(call)
        elif call.window < _STREAM_WINDOW // 2 and not call.answered:
            self._grant(call)

    def _spend(self, size: int) -> None:
        self._window -= size
        if self._window < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window of the connection")
        if self._window < _WINDOW // 2:
            self._write(pack_window_update(0, _WINDOW - self._window))
            self._window = _WINDOW

    def _grant(self, call: Call) -> None:
        """Let the client send more on a stream: the rest of a message, else no more than a window ahead."""
        window = _STREAM_WINDOW if call.wants_more() else _STREAM_WINDOW - len(call.buffer)
        if not call.half_closed and window - call.window >= _STREAM_WINDOW // 2:
            self._write(pack_window_update(call.stream_id, window - call.window))
            call.window = window

    def give_back(self, call: Call, size: int) -> None:
        """So many bytes of a stream have been taken: they no longer count, and as many may come."""
        size = min(size, call.body_bytes)
        call.body_bytes -= size
        self.gateway.inflight_bytes -= size
        if call.window < _STREAM_WINDOW // 2:
            self._grant(call)

    def _take_end(self, call: Call) -> None:
        call.half_closed = True
        if not call.answered:
            call.take_end()

    def _take_reset(self, stream_id: int) -> None:
        if stream_id > self._last_id or not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the reset of a call that was not begun")
        call = self._calls.get(stream_id)
        if call is not None:
            self._abandon(call)

    def _take_initial_window(self, size: int) -> None:
        change = size - self.initial_send_window
        self.initial_send_window = size
        for call in self._calls.values():
            call.send_window += change
            if call.send_window > LARGEST_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a window larger than there are numbers")
            self._feed_starved(call)
        self._pump()

    def _find(self, stream_id: int) -> Call | None:
        if stream_id > self._last_id or not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the window of a call that was not begun")
        return self._calls.get(stream_id)

    def _ended(self, call: Call) -> None:
        if not call.half_closed:
            # RFC 9113 section 8.1: what is still to come need not be sent.
            self._write(pack_reset(call.stream_id, ErrorCode.NO_ERROR))
        self._credit()
        self._forget(call)

    def _abandon(self, call: Call) -> None:
        self._unblock(call)
        self._forget(call)
        call.abandon()

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.stream_id, None)
        self.gateway.inflight_bytes -= call.body_bytes
        call.body_bytes = 0
        if not self._calls:
            self._since_s = self.gateway.now_s

    # Time.

    def sweep(self, now_s: float) -> None:
        """Close the connection if it is stalled or idle for too long; refuse calls that come too slowly."""
        limits = self.gateway.limits
        self._forgive()
        if self._transport is None:
            return
        if self._stalled_s is not None:
            self._sweep_stalled(self._transport, now_s)
        elif self._closing:
            if now_s - self._since_s > (limits.linger_s if self._over else limits.write_stall_s):
                self._transport.abort()
        elif not self._calls:
            idle_s = limits.keep_alive_s if self._greeted else limits.header_timeout_s
            if now_s - self._since_s > idle_s:
                self._close(ErrorCode.NO_ERROR, "idle")
        else:
            self._since_s = now_s
            for call in list(self._calls.values()):
                if not call.half_closed and not call.answered:
                    self._sweep_call(call, now_s)
                self._sweep_unsent(call, now_s)
        if self.gateway.draining:
            self._tell_last()

    def _sweep_call(self, call: Call, now_s: float) -> None:
        """Refuse a message that comes too slowly; a stream may be quiet between two."""
        limits, size = self.gateway.limits, len(call.buffer)
        if call.route.streaming and not (size and call.wants_more()):
            call.coming = None
        elif call.coming is None:
            call.coming = Stretch(size, now_s)
        elif call.coming.is_slow(size, now_s, limits.body_grace_s, limits.body_bytes_per_s):
            pace = f"{limits.body_bytes_per_s:g} bytes a second"
            call.refuse(SalverError("REQUEST_TIMEOUT", f"the message came slower than {pace}"))

    def _sweep_unsent(self, call: Call, now_s: float) -> None:
        """Cut off a call whose answer the windows take as slowly as a client may not read."""
        limits = self.gateway.limits
        if call.unsent is None:
            call.going = None
        elif call.going is None:
            call.going = Stretch(call.sent_bytes, now_s)
        elif call.going.is_slow(call.sent_bytes, now_s, limits.write_stall_s, limits.body_bytes_per_s):
            self._write(pack_reset(call.stream_id, ErrorCode.CANCEL))
            self._abandon(call)

    def _tell_last(self) -> None:
        """Ask the client to open no more calls here; those on their way are still answered."""
        if not self._told_last:
            self._told_last = True
            self._write(pack_goaway(_EVERY_STREAM, ErrorCode.NO_ERROR, "draining"))

    def drain(self, now_s: float) -> None:
        """Close the connection once it has been quiet for a moment and nothing is owed to the client."""
        self._tell_last()
        if self._transport is None or not all(call.is_quiet for call in self._calls.values()):
            self._quiet_s = None
        elif self._quiet_s is None:
            self._quiet_s = now_s
        elif now_s - self._quiet_s >= _LAST_CHANCE_S:
            for call in list(self._calls.values()):
                call.refuse(SalverError("NOT_READY", "the server stops; open the stream again elsewhere"))
            self._close(ErrorCode.NO_ERROR, "draining")


def grpc_refusal(gateway: Gateway, error: SalverError) -> bytes:
    """What a client of gRPC is told instead of being served."""
    del gateway
    return pack_settings(()) + pack_goaway(0, ErrorCode.ENHANCE_YOUR_CALM, str(error))
