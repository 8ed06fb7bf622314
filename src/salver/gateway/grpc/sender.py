"""Frames to a client, as fast as it takes them: the writing half of an HTTP/2 connection."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import OrderedDict
from typing import Final

from salver.gateway.grpc.call import Call
from salver.gateway.grpc.frames import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    LARGEST_WINDOW,
    SMALLEST_FRAME_BYTES,
    ErrorCode,
    Frame,
    Http2Error,
    pack_frame,
)

__all__ = ["FrameSender"]

_FRAME_BYTES: Final = 2**18
"""Longer frames than these would only keep other calls waiting."""
_UPDATES_PER_FRAME: Final = 2
"""A client that has taken a frame of data may say so for its stream, and for the connection."""
_UPDATES_AT_ONCE: Final = 2**16
"""For so many frames it may say that later."""


class FrameSender:
    """Writes under the client's windows; what does not fit waits in its call.

    All that is written in one turn of the event loop leaves in one call of the kernel.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._over = False
        """Whether the last frame has been written."""
        self._send_window = DEFAULT_WINDOW
        self.initial_send_window = DEFAULT_WINDOW
        self._frame_bytes = SMALLEST_FRAME_BYTES
        self._blocked: OrderedDict[int, Call] = OrderedDict()
        """Calls with data that does not fit the windows yet, the one to go on with first."""
        self._starved: dict[int, Call] = {}
        """Those of them that were found without a window of their own: nothing else lets them go on."""
        self._updates_due = 0
        """Window updates that answer the data that was sent."""
        self._stalled_s: float | None = None
        """Since when the client has not read what was sent."""

    def _write(self, data: bytes) -> None:
        if self._over:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def send(self, call: Call, data: bytes, ending: bytes | None) -> None:
        """Send `data` of a call as soon as the windows allow, and then `ending`, a header block, if it is the last.

        The answer's own headers come first if they have not been sent.
        """
        stream_id, size = call.stream_id, len(data)
        begin = b""
        if not call.begun:
            call.begun = True
            begin = pack_frame(Frame.HEADERS, END_HEADERS, stream_id, call.head_block())
        if (
            size <= self._send_window
            and size <= call.send_window
            and size <= self._frame_bytes
            and not self._blocked
            and self._stalled_s is None
        ):
            self._send_window -= size
            call.send_window -= size
            self._updates_due += _UPDATES_PER_FRAME
            frame = pack_frame(Frame.DATA, 0, stream_id, data)
            if ending is None:
                self._write(begin + frame)
            else:
                self._write(
                    b"%b%b%b" % (begin, frame, pack_frame(Frame.HEADERS, END_HEADERS | END_STREAM, stream_id, ending))
                )
                self._ended(call)
            return
        if begin:
            self._write(begin)
        call.unsent = memoryview(data)
        call.ending = ending
        self._blocked[stream_id] = call
        self._pump()

    def end(self, call: Call, block: bytes) -> None:
        """Send the header block that ends a call, at once."""
        self._write(pack_frame(Frame.HEADERS, END_HEADERS | END_STREAM, call.stream_id, block))
        self._unblock(call)
        self._ended(call)

    def _unblock(self, call: Call) -> None:
        """Hold nothing of a call any more."""
        if self._blocked.pop(call.stream_id, None) is None:
            self._starved.pop(call.stream_id, None)

    @abstractmethod
    def _ended(self, call: Call) -> None:
        """The last frame of an answer has been written."""

    @abstractmethod
    def _find(self, stream_id: int) -> Call | None:
        """The open call of a stream."""

    def _pump(self) -> None:
        """Send what the windows allow, a frame of each call in turn."""
        while self._blocked and self._send_window > 0 and self._stalled_s is None and self._transport is not None:
            stream_id, call = self._blocked.popitem(last=False)
            if call.send_window <= 0 and call.unsent:
                self._starved[stream_id] = call
                continue
            if self._send_some(call):
                # To the end of the row.
                self._blocked[stream_id] = call
            # Now, so that a client that does not read stops this loop and not only the next.
            self._flush()

    def _feed_starved(self, call: Call) -> None:
        """The window of a call has changed: it may go on."""
        if call.send_window > 0 and self._starved.pop(call.stream_id, None) is not None:
            self._blocked[call.stream_id] = call

    def _send_some(self, call: Call) -> bool:
        """Send a frame of a call; whether more is left."""
        assert call.unsent is not None
        size = min(len(call.unsent), self._send_window, call.send_window, self._frame_bytes, _FRAME_BYTES)
        self._send_window -= size
        call.send_window -= size
        call.sent_bytes += size
        self._updates_due += _UPDATES_PER_FRAME
        self._write(pack_frame(Frame.DATA, 0, call.stream_id, bytes(call.unsent[:size])))
        call.unsent = call.unsent[size:]
        if call.unsent:
            return True
        call.unsent = None
        if call.ending is not None:
            self.end(call, call.ending)
        else:
            call.drained()
        return False

    # What the client says of its windows.

    def _take_window(self, stream_id: int, increment: int) -> bool:
        if stream_id == 0:
            self._send_window += increment
            grown = self._send_window
        else:
            call = self._find(stream_id)
            grown = increment
            if call is not None:
                call.send_window += increment
                grown = call.send_window
                self._feed_starved(call)
        if grown > LARGEST_WINDOW:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a window larger than there are numbers")
        if self._blocked:
            self._pump()
        self._updates_due = min(self._updates_due, _UPDATES_AT_ONCE) - 1
        if self._updates_due >= 0:
            return True
        self._updates_due = 0
        return False

    def _take_frame_bytes(self, size: int) -> None:
        self._frame_bytes = size
