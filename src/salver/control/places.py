"""Places and turns: what is finite at one time, and that nobody gets more than a share of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

from salver.protocol.errors import SalverError
from salver.security.access import Principal

__all__ = ["AT_ONCE", "Places", "Turns"]

AT_ONCE: Final = 7
"""Actions of one principal that are carried out at one time: not half of the connections to the database."""
_MOST_HERE: Final = 64
"""Requests of one principal that run or wait: a quarter of the connections there may be."""


class Places:
    """At most `most` places for what `what` says in the plural, half of them for one principal. Usable from any thread.

    A principal is known by its name, so several tokens of one name share. The last place goes to whoever asks: half of
    one is one.
    """

    __slots__ = ("_lock", "_most", "_share", "_taken", "_what")

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._most = most
        self._share = max(1, most // 2)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, principal: Principal) -> Callable[[], None]:
        """A place, until what is returned is called; again that does nothing. QUEUE_FULL where there is none."""
        who = principal.name
        with self._lock:
            taken = self._taken.total()
            if taken >= self._most:
                raise SalverError(
                    "QUEUE_FULL", f"{taken} {self._what} are under way, the most at one time", "repeat it in a moment"
                )
            if self._taken[who] >= self._share:
                raise SalverError(
                    "QUEUE_FULL",
                    f"{who} has {self._share} of the {self._most} places for {self._what}, the most for one principal",
                    "wait for one of its own to end, and repeat it then",
                )
            self._taken[who] += 1
        given = threading.Lock()

        def give_back() -> None:
            if given.acquire(blocking=False):
                with self._lock:
                    self._taken -= Counter({who: 1})  # which forgets those who have none

        return give_back


class Turns:
    """At most `each` things of one principal at one time; its others wait until it is their turn. On the event loop."""

    __slots__ = ("_each", "_here", "_turns")

    def __init__(self, each: int = AT_ONCE) -> None:
        self._each = each
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._here: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def of(self, principal: Principal) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends; QUEUE_FULL where the principal has too many here."""
        who = principal.name
        if self._here[who] >= _MOST_HERE:
            raise SalverError(
                "QUEUE_FULL",
                f"{who} has {_MOST_HERE} requests waiting, the most for one principal",
                "ask for less at one time",
            )
        turns = self._turns.setdefault(who, asyncio.Semaphore(self._each))
        self._here[who] += 1
        try:
            async with turns:
                yield
        finally:
            self._here[who] -= 1
            if not self._here[who]:
                del self._here[who], self._turns[who]
