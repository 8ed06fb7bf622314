"""Group commit: one thread that does for many callers in one transaction what each has asked for.

While one transaction is being written the next one's requests gather, so under load each fsync
pays for many, and an idle store adds no wait. The event loop never touches the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from salver.protocol.errors import SalverError

__all__ = ["Commits", "Grouped"]

_MOST: Final = 2000
"""Requests of one transaction: what it takes, the first of them waits for."""

One = TypeVar("One")
Answer = TypeVar("Answer")


class Grouped(Protocol):
    """Something that carries out steps, all of one call in one transaction."""

    def run(self, steps: Sequence[tuple[Callable[..., Sequence[Any]], Sequence[Any]]]) -> list[Sequence[Any]]:
        """Carry out each step on its list, and give what each returns, once all is durable."""

    def close(self) -> None:
        """Close whatever is open."""


class Commits:
    """Steps asked for on an event loop, carried out by one thread on what `open` gives.

    It is opened by the first step, and anew by the next one after something went wrong. A step that
    returns a `SalverError` for one request fails that request; one that raises fails all requests
    of its transaction, of which nothing has happened then.

    What is asked of one step is done in the order asked. Of two steps either may be done first: a
    transaction does all of one and then all of the next. Futures are answered in the order asked.
    """

    def __init__(self, open: Callable[[], Grouped], name: str) -> None:
        self._open = open
        self._loop = asyncio.get_running_loop()
        self._asked: list[tuple[Callable[..., Sequence[Any]], Any, asyncio.Future[Any]]] = []
        self._waiting = threading.Semaphore(0)
        self._asleep = True
        """Whether the thread must be told that there is something to do. Of the event loop alone."""
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._started = False

    def ask(self, step: Callable[[Any, Sequence[One]], Sequence[Answer | SalverError]], value: One) -> Any:
        """A future of what `step` gives for `value`; REQUIRES the event loop, and raises NOT_READY after `close`."""
        if self._stopped:
            # Nobody would ever answer the future.
            raise SalverError("NOT_READY", "the store is closed: this process ends", "retry")
        future = self._loop.create_future()
        self._asked.append((step, value, future))
        if self._asleep:
            if not self._started:
                self._started = True
                self._thread.start()
            self._asleep = False
            self._loop.call_soon(self._waiting.release)  # with what else comes in this turn of the loop
        return future

    async def close(self) -> None:
        """Carry out what was asked for and end."""
        self._stopped = True
        if not self._started:
            return
        self._waiting.release()
        await self._loop.run_in_executor(None, self._thread.join)

    # The thread.

    def _work(self) -> None:
        store: Grouped | None = None
        while True:
            self._waiting.acquire()
            stopping = self._stopped
            while self._asked:
                taken = self._asked[:_MOST]
                del self._asked[: len(taken)]  # the event loop may have added to it meanwhile
                try:
                    store = store or self._open()
                    answers: Sequence[Any] | BaseException = _carry_out(store, taken)
                except BaseException as error:  # noqa: BLE001 - whoever asked is told
                    answers = error
                    _close(store)
                    store = None
                self._tell(taken, answers)
            if stopping:
                break
            self._tell_asleep()
        _close(store)

    def _tell(self, taken: Sequence[Any], answers: Sequence[Any] | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(_resolve, [future for _, _, future in taken], answers)

    def _tell_asleep(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._fell_asleep)

    def _fell_asleep(self) -> None:
        if self._asked:
            self._waiting.release()
        else:
            self._asleep = True


def _close(store: Grouped | None) -> None:
    if store is not None:
        with contextlib.suppress(Exception):
            store.close()


def _carry_out(store: Grouped, taken: Sequence[tuple[Callable[..., Sequence[Any]], Any, Any]]) -> list[Any]:
    places: dict[Callable[..., Sequence[Any]], list[int]] = {}
    for place, (step, _, _) in enumerate(taken):
        places.setdefault(step, []).append(place)
    given = store.run([(step, [taken[place][1] for place in found]) for step, found in places.items()])
    answers: list[Any] = [None] * len(taken)
    for found, of_step in zip(places.values(), given, strict=True):
        for place, answer in zip(found, of_step, strict=True):
            answers[place] = answer
    return answers


def _resolve(futures: Sequence[asyncio.Future[Any]], answers: Sequence[Any] | BaseException) -> None:
    for place, future in enumerate(futures):
        answer = answers if isinstance(answers, BaseException) else answers[place]
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
