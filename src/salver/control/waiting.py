"""Waiting for what a server does and for what is changed: by a program with nothing else to do, or by many at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from salver.clock import Clock
from salver.control.places import Places
from salver.protocol.tables import DeploymentSpec
from salver.runtime.status import EndpointStatus, LoadState
from salver.security.access import Principal
from salver.telemetry.logs import log_event

__all__ = ["Followed", "Followers", "Lookout", "Watch", "follow", "wait_until_reached"]

_LOOK_S: Final = 0.05
_FOLLOW_S: Final = 0.2
_MOST: Final = 64

Seen = TypeVar("Seen")
Wanted = TypeVar("Wanted")
Found = TypeVar("Found")
Answered = TypeVar("Answered")


def wait_until_reached(
    endpoints: Callable[[], Iterable[EndpointStatus]], spec: DeploymentSpec, timeout_s: float, clock: Clock
) -> EndpointStatus | None:
    """Block until one of `endpoints` serves `spec` or a later one, or has failed to; None after `timeout_s`."""
    until_s = clock.monotonic_s() + timeout_s
    pause = threading.Event()
    while True:
        reached = _reached(endpoints(), spec)
        if reached is not None:
            return reached
        if clock.monotonic_s() >= until_s:
            return None
        pause.wait(_LOOK_S)


def _reached(endpoints: Iterable[EndpointStatus], spec: DeploymentSpec) -> EndpointStatus | None:
    for endpoint in endpoints:
        reached = endpoint.endpoint == spec.endpoint and endpoint.generation >= spec.generation
        if reached and endpoint.state is not LoadState.LOADING:
            return endpoint
    return None


class Lookout(Generic[Seen, Wanted, Found]):
    """Looks on behalf of many who wait, at most `most`. Lives on the event loop.

    `look` may block: it runs in the one thread of this object. However many wait, one look at a
    time is made for all of them, and none while nobody waits. `found` says what somebody wants in what was
    seen, None where it is not there yet; a look that fails has seen `nothing`.
    """

    def __init__(
        self,
        look: Callable[[], Seen],
        found: Callable[[Seen, Wanted], Found | None],
        nothing: Seen,
        *,
        what: str,
        most: int,
        pause_s: float = _LOOK_S,
    ) -> None:
        self._look = look
        self._found = found
        self._nothing = nothing
        self._pause_s = pause_s
        self._places = Places(f"requests that wait {what}", most)
        self._waiting: dict[asyncio.Future[Found], Wanted] = {}
        self._looking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")

    @contextlib.contextmanager
    def place(self, principal: Principal) -> Iterator[None]:
        """One of the places to wait in, to be had before what will be waited for is begun.

        Raises QUEUE_FULL when all are taken, or the principal has its share.
        """
        give_back = self._places.take(principal)
        try:
            yield
        finally:
            give_back()

    async def wait(self, wanted: Wanted, timeout_s: float) -> Found | None:
        """What is wanted, as soon as it is seen; None after `timeout_s`. Needs no thread. REQUIRES a `place`."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Found] = loop.create_future()
        self._waiting[found] = wanted
        if self._looking is None:
            self._looking = loop.create_task(self._watch())
        try:
            return await asyncio.wait_for(found, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._waiting[found]

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                seen = await loop.run_in_executor(self._thread, self._see)
                for future, wanted in list(self._waiting.items()):
                    found = self._found(seen, wanted)
                    if found is not None and not future.done():
                        future.set_result(found)
                await asyncio.sleep(self._pause_s)
        finally:
            self._looking = None

    def _see(self) -> Seen:
        try:
            return self._look()
        except Exception as error:  # noqa: BLE001 - those who wait have a time to wait; the next look may succeed
            log_event("fault", level=logging.ERROR, error=error)
            return self._nothing


class Watch(Lookout[Iterable[EndpointStatus], DeploymentSpec, EndpointStatus]):
    """Waits for endpoints to be what they are to be."""

    def __init__(self, look: Callable[[], Iterable[EndpointStatus]], *, most: int = _MOST) -> None:
        super().__init__(lambda: tuple(look()), _reached, (), what="for models to load", most=most)

    async def reached(self, spec: DeploymentSpec, timeout_s: float) -> EndpointStatus | None:
        """As `wait_until_reached`, without a thread. REQUIRES a `place`."""
        return await self.wait(spec, timeout_s)


class Followers(Lookout[int, int, int]):
    """Waits for the journal to grow; `head` gives the number of its newest record, and may block."""

    def __init__(self, head: Callable[[], int], *, most: int = _MOST) -> None:
        super().__init__(head, _beyond, 0, what="for changes", most=most, pause_s=_FOLLOW_S)


def _beyond(head: int, position: int) -> int | None:
    return head if head > position else None


@dataclass(frozen=True)
class Followed(Generic[Answered]):
    """An answer to somebody who follows the journal."""

    answer: Answered
    position: int
    """The record up to which was looked."""
    wait_s: float
    """How long to wait for more; 0 where there is something to tell."""
    again: Callable[[], Followed[Answered]]
    """Looks from `position` on; blocks."""


async def follow(followers: Followers, begun: Followed[Answered]) -> Answered:
    """What there is to tell as soon as there is something, or that there was nothing for so long."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + begun.wait_s
    while begun.wait_s > 0 and (left_s := until_s - loop.time()) > 0:
        if await followers.wait(begun.position, left_s) is None:
            break
        begun = await asyncio.to_thread(begun.again)
    return begun.answer
