"""Streaming calls: messages in one by one, answers out as the client takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from salver.gateway.grpc.call import MESSAGE_HEAD, Call
from salver.gateway.grpc.compression import inflate, is_compressed
from salver.protocol.errors import SalverError

__all__ = ["Stream", "streaming"]


class Stream:
    """What the coroutine that answers a streaming call works with."""

    def __init__(self, call: Call) -> None:
        self.call = call

    async def messages(self) -> AsyncIterator[bytes]:
        """The client's messages until it has sent all; raises SalverError for one that cannot be taken."""
        call = self.call
        while True:
            found = self._next()
            if found is not None:
                compressed, message = found
                yield await inflate(call, message) if compressed else message
                if call.buffer:
                    # Others on this event loop want a turn too.
                    await asyncio.sleep(0)
            elif call.half_closed:
                if call.buffer:
                    raise SalverError("BAD_MESSAGE", "the call ends in the middle of a message")
                return
            else:
                call.arrived = asyncio.get_running_loop().create_future()
                await call.arrived

    def _next(self) -> tuple[bool, bytes] | None:
        """The next message, if it is whole, and whether it is compressed; the client may then send as much again."""
        call, buffer = self.call, self.call.buffer
        if len(buffer) < MESSAGE_HEAD.size:
            return None
        flag, size = MESSAGE_HEAD.unpack_from(buffer)
        most = call.lane.gateway.limits.body_bytes
        if size > most:
            raise SalverError("BODY_TOO_LARGE", f"the message has {size} bytes; at most {most} are taken")
        end = MESSAGE_HEAD.size + size
        if len(buffer) < end:
            return None
        message = bytes(memoryview(buffer)[MESSAGE_HEAD.size : end])
        if len(buffer) == end:
            call.buffer = b""
        else:
            # Cutting off the front of a bytearray moves nothing.
            call.buffer = rest = bytearray(buffer) if isinstance(buffer, bytes) else buffer
            del rest[:end]
        call.owed += 1
        call.lane.give_back(call, end)
        return is_compressed(flag, call.headers), message

    def _require_open(self) -> None:
        if self.call.answered:
            # It was refused meanwhile: nobody wants to hear more of it.
            raise asyncio.CancelledError

    def settle(self) -> None:
        """The message whose turn it was has all its answers."""
        self.call.owed -= 1

    async def send(self, message: bytes, *, more: bool = False) -> None:
        """Send an answer to a message, its last or with `more` one of several; wait until the windows have taken it."""
        call = self.call
        self._require_open()
        if not more:
            self.settle()
        call.lane.send(call, MESSAGE_HEAD.pack(0, len(message)) + message, None)
        while call.unsent is not None:
            call.room = asyncio.get_running_loop().create_future()
            await call.room
            self._require_open()


def streaming(answer: Callable[[Stream], Coroutine[Any, Any, None]]) -> Callable[[Call], None]:
    """`Method.open` for a coroutine that answers a call: it ends with status OK when that returns."""

    def open_(call: Call) -> None:
        task = asyncio.get_running_loop().create_task(run(call))
        call.pending = task

    async def run(call: Call) -> None:
        try:
            async with asyncio.timeout(None if call.timeout_s == float("inf") else call.timeout_s):
                await answer(Stream(call))
        except TimeoutError:
            call.refuse(SalverError("DEADLINE_EXCEEDED", f"the call did not end within {call.timeout_s:g} s"))
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            call.fail(error)
        else:
            call.finish()

    return open_
