"""Waiting until a server has reached a desired state: by a program that has nothing else to do, or by many at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from salver.clock import Clock
from salver.control.administration import Administration
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.runtime.status import EndpointStatus, LoadState
from salver.telemetry.logs import log_event

__all__ = ["Watch", "wait_until_reached"]

_LOOK_S: Final = 0.05
_MOST: Final = 64


def wait_until_reached(
    admin: Administration, spec: DeploymentSpec, timeout_s: float, clock: Clock
) -> EndpointStatus | None:
    """Block until the endpoint serves `spec` or a later one, or has failed to; None after `timeout_s`."""
    until_s = clock.monotonic_s() + timeout_s
    pause = threading.Event()
    while True:
        reached = _reached(admin.status().endpoints, spec)
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


class Watch:
    """Waits on behalf of many, at most `most`. Lives on the event loop.

    `look` may block: it runs in the one thread of this object. However many wait, one look at a
    time is made for all of them, and none while nobody waits.
    """

    def __init__(self, look: Callable[[], Iterable[EndpointStatus]], *, most: int = _MOST) -> None:
        self._look = look
        self._most = most
        self._places = 0
        self._waiting: dict[asyncio.Future[EndpointStatus], DeploymentSpec] = {}
        self._looking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """One of the places to wait in, to be had before what will be waited for is begun.

        Raises QUEUE_FULL when all are taken.
        """
        if self._places >= self._most:
            raise SalverError(
                "QUEUE_FULL",
                f"{self._places} requests wait for models to load, the most this server takes",
                "retry later, or deploy without waiting",
            )
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    async def reached(self, spec: DeploymentSpec, timeout_s: float) -> EndpointStatus | None:
        """As `wait_until_reached`, without a thread. REQUIRES a `place`."""
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[EndpointStatus] = loop.create_future()
        self._waiting[reached] = spec
        if self._looking is None:
            self._looking = loop.create_task(self._watch())
        try:
            return await asyncio.wait_for(reached, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._waiting[reached]

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                endpoints = await loop.run_in_executor(self._thread, self._endpoints)
                for reached, spec in list(self._waiting.items()):
                    found = _reached(endpoints, spec)
                    if found is not None and not reached.done():
                        reached.set_result(found)
                await asyncio.sleep(_LOOK_S)
        finally:
            self._looking = None

    def _endpoints(self) -> tuple[EndpointStatus, ...]:
        try:
            return tuple(self._look())
        except Exception as error:  # noqa: BLE001 - those who wait have a time to wait; the next look may succeed
            log_event("fault", level=logging.ERROR, error=error)
            return ()
