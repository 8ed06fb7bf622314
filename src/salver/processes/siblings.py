"""One server process among several: what all of them have counted, and accepting for one that is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from salver.gateway.acceptor import Acceptor
from salver.processes.order import Order
from salver.processes.places import Places
from salver.telemetry.counts import Picture, read_picture

__all__ = ["Siblings", "StandIn"]

_ASK_S: Final = 1.0
"""How long another process may take to say what it has counted."""
_LOOK_S: Final = 0.1
"""How often the places of the others are looked at."""


class Siblings:
    """The other server processes. Of one that does not answer, what it last wrote down counts."""

    def __init__(self, order: Order) -> None:
        count = len(order.http_fds)
        self._others = [order.of(slot) for slot in range(count) if slot != order.slot]

    async def pictures(self) -> list[Picture]:
        """What each of them has counted."""
        return list(await asyncio.gather(*map(self._picture, self._others)))

    async def _picture(self, other: Order) -> Picture:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            return read_picture(await asyncio.wait_for(_get(other.server_socket, "/counts"), _ASK_S))
        with contextlib.suppress(OSError, ValueError):
            return read_picture(other.counts_path.read_bytes()).past()
        return Picture()


async def _get(path: str, target: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError("the process refused")
        return body
    finally:
        writer.close()


class StandIn:
    """Accepts on the listeners of slots that have no process, for as long as this one accepts on its own.

    `acceptors` makes those of a slot, which stay. Lives on the event loop.
    """

    def __init__(self, places: Places, slots: list[int], acceptors: Callable[[int], list[Acceptor]]) -> None:
        self._places = places
        self._acceptors = {slot: acceptors(slot) for slot in slots}
        self._standing: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._look()

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        for slot, acceptors in self._acceptors.items():
            vacant = self._places.is_vacant(slot) and not self._places.closing
            if vacant and slot not in self._standing:
                self._standing.add(slot)
                for acceptor in acceptors:
                    acceptor.start()
            elif slot in self._standing and not self._places.is_vacant(slot):
                self._standing.discard(slot)
                for acceptor in acceptors:
                    acceptor.rest()

    def leave(self) -> list[Acceptor]:
        """Look no more, and let go of all listeners but those that nobody else accepts from while all leave.

        Those are returned, to be stopped like one's own.
        """
        if self._timer is not None:
            self._timer.cancel()
        kept: list[Acceptor] = []
        for slot, acceptors in self._acceptors.items():
            if slot in self._standing and self._places.closing:
                kept += acceptors
            else:
                for acceptor in acceptors:
                    acceptor.let_go()
        return kept
