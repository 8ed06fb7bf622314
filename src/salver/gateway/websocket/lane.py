"""One connection that speaks WebSocket: messages in, messages out, under the limits of the data listener.

wsproto reads frames strictly; what it would take without end is held here: the size of messages, frames
and control frames, and the pace of both. Whatever is wrong ends the connection with a close code.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from salver.gateway.connection import Connection, bound_unsent
from salver.gateway.pace import Stretch
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["Talk", "WebSocketLane"]

_MOST_FRAMES: Final = 4096
"""Of one message; more are there to keep us busy."""
_MOST_CONTROL_FRAMES: Final = 100
"""Between two sweeps."""
_PINGS: Final = 3
"""A client that says nothing is asked so many times, in the time after which it counts as gone."""
_LONGEST_REASON: Final = 100


class Talk(Protocol):
    """Who answers the messages of a connection."""

    def take(self, data: bytes, *, binary: bool) -> None:
        """A message is whole, and counts as in flight until it is answered; SalverError where no more are taken."""

    def abandon(self) -> None:
        """Nobody waits for answers any more."""

    @property
    def is_quiet(self) -> bool:
        """Whether no answer is owed."""


class WebSocketLane(Connection):
    """A connection behind its handshake. Times come from `gateway.now_s`."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.talk: Talk | None = None
        self._frames = Frames(ConnectionType.SERVER)
        self._message = bytearray()
        self._frame_count = self._control_count = 0
        self._coming: Stretch | None = None
        """The pace of a message that is not whole yet."""
        """Since when a message has been coming."""
        self._heard_s = gateway.now_s
        self._pings = 0
        """That nothing has answered."""
        self._room: asyncio.Future[None] | None = None
        self._closing_s: float | None = None
        """Since when the last frame has been sent."""
        self._deaf = False
        """Whether nothing that comes is read any more."""

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is ours."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)
        self.gateway.lanes.add(self)
        bound_unsent(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the client is gone."""
        del exc
        self.gateway.lanes.discard(self)
        self._transport = None
        self._abandon()

    def _abandon(self) -> None:
        self.gateway.inflight_bytes -= len(self._message)
        self._message = bytearray()
        if self.talk is not None:
            self.talk.abandon()

    def resume_writing(self) -> None:
        """asyncio: the client reads again."""
        self._stalled_s = None
        self._heard_s = self.gateway.now_s
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # In.

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the client."""
        self._heard_s, self._pings = self.gateway.now_s, 0
        if self._deaf:
            return
        self._frames.receive_data(data)
        try:
            for event in self._frames.events():
                self._take(event)
                if self._transport is None:
                    return
        except SalverError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still end the connection
            self.gateway.fault(error)
            self.close(CloseReason.INTERNAL_ERROR, "a fault of this server")

    def _take(self, event: Event) -> None:
        if isinstance(event, CloseConnection):
            self._take_close(event)
        elif self._closing_s is not None:
            return
        elif isinstance(event, TextMessage | BytesMessage):
            self._take_part(event)
        elif isinstance(event, Ping | Pong):
            self._count_control()
            if isinstance(event, Ping):
                self._write(self._frames.send(event.response()))

    def _take_part(self, event: TextMessage | BytesMessage) -> None:
        part = event.data.encode() if isinstance(event, TextMessage) else event.data
        self._message += part
        gateway, limits = self.gateway, self.gateway.limits
        gateway.inflight_bytes += len(part)
        self._frame_count += 1
        if len(self._message) > limits.body_bytes:
            raise SalverError("BODY_TOO_LARGE", f"a message has more than {limits.body_bytes} bytes")
        if self._frame_count > _MOST_FRAMES and len(self._message) < self._frame_count * _MOST_CONTROL_FRAMES:
            raise SalverError("TOO_MANY_PIPELINED", f"a message came in more than {_MOST_FRAMES} tiny parts")
        gateway.require_room()
        if event.message_finished:
            message, self._message, self._frame_count = bytes(self._message), bytearray(), 0
            self._coming = None
            assert self.talk is not None
            self.talk.take(message, binary=isinstance(event, BytesMessage))

    def _count_control(self) -> None:
        self._control_count += 1
        if self._control_count > _MOST_CONTROL_FRAMES:
            raise SalverError("TOO_MANY_PIPELINED", "too many pings came", "send fewer")

    def _take_close(self, event: CloseConnection) -> None:
        """The client ends it, answers our end, or has sent what is no frame."""
        if self._frames.state is ConnectionState.OPEN:
            self.gateway.refused(None, SalverError("BAD_HTTP", "no frame of WebSocket"))
            self.close(event.code, event.reason or "", deaf=True)
            return
        transport = self._transport
        self._deaf = True
        if self._frames.state is ConnectionState.REMOTE_CLOSING:
            self._write(self._frames.send(event.response()))
            self._closing_s = self.gateway.now_s
        self._abandon()
        if transport is not None:
            transport.close()

    # Out.

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def send(self, data: bytes, *, binary: bool) -> None:
        """Send a message, and wait until the client reads."""
        if self._closing_s is not None:
            return
        self._write(self._frames.send(BytesMessage(data) if binary else TextMessage(data.decode())))
        while self._stalled_s is not None and self._transport is not None:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def fail(self, error: SalverError) -> None:
        """End the connection with an error of the catalogue, which is counted."""
        self.gateway.refused(None, error)
        code = CloseReason.MESSAGE_TOO_BIG if error.code == "BODY_TOO_LARGE" else CloseReason.POLICY_VIOLATION
        self.close(
            CloseReason.TRY_AGAIN_LATER if error.code == "QUEUE_FULL" else code, f"{error.code}: {error}", deaf=True
        )

    def close(self, code: int, reason: str, *, deaf: bool = False) -> None:
        """Say the last word, and wait for the client's; `deaf` where that could not be understood."""
        if self._closing_s is not None:
            return
        if self._frames.state is ConnectionState.OPEN:
            self._write(self._frames.send(CloseConnection(code, reason[:_LONGEST_REASON])))
        self._closing_s = self.gateway.now_s
        self._abandon()
        self._deaf = deaf
        if deaf and self._transport is not None and self._transport.can_write_eof():
            # Closing with unread bytes would reset the connection under the last word.
            self._transport.write_eof()

    # Time.

    def sweep(self, now_s: float) -> None:
        """Close the connection if it is stalled, too slow or long silent; ask a silent client if it is there."""
        transport, limits = self._transport, self.gateway.limits
        self._control_count = 0
        if transport is None:
            return
        silent_s = now_s - self._heard_s
        if self._stalled_s is not None:
            self._sweep_stalled(transport, now_s)
        elif self._closing_s is not None:
            if now_s - self._closing_s > limits.linger_s:
                transport.abort()
        elif self._frame_count and self._is_slow(now_s):
            pace = f"{limits.body_bytes_per_s:g} bytes a second"
            self.fail(SalverError("REQUEST_TIMEOUT", f"a message came slower than {pace}"))
        elif silent_s > limits.keep_alive_s:
            transport.abort()
        elif silent_s > limits.keep_alive_s * (self._pings + 1) / (_PINGS + 1):
            self._pings += 1
            self._write(self._frames.send(Ping()))
        if self.gateway.draining:
            self.drain(now_s)

    def _is_slow(self, now_s: float) -> bool:
        """Whether a message comes too slowly."""
        limits = self.gateway.limits
        if self._coming is None:
            self._coming = Stretch(len(self._message), now_s)
        return self._coming.is_slow(len(self._message), now_s, limits.body_grace_s, limits.body_bytes_per_s)

    def drain(self, now_s: float) -> None:
        """End the connection once no answer is owed."""
        del now_s
        if self.talk is not None and self.talk.is_quiet and not self._frame_count:
            self.close(CloseReason.GOING_AWAY, "the server stops")
