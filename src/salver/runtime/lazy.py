"""A version that is loaded when it is asked: the service that is there before it, and after it.

It stays the service of its endpoint while the version comes and goes, so whoever holds it need not know.
Requests that find the version cold wait, each up to its own deadline, for one load that they share.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import Chunks, Request, Response, Service, StreamingService
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.runtime.watching import WATCH_S
from salver.telemetry.metrics import VersionMetrics

__all__ = ["LazyVersion"]

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


class _Waiting(asyncio.Future[Any]):
    """What one request waits for: its answer, or its stream. `inner` is that of the version, from when it is there."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop, since_s: float, *, streams: bool) -> None:
        super().__init__(loop=loop)
        self.request = request
        self.since_s = since_s
        self.streams = streams
        self.inner: asyncio.Future[Any] | None = None
        self.waited_s = 0.0
        """How long, once the version is there."""

    def cancel(self, msg: Any = None) -> bool:
        """As ever; what has not begun to run never will."""
        if self.inner is not None:
            self.inner.cancel()
        return super().cancel(msg)


class LazyVersion:
    """The service of one deployed version that may not be loaded. Lives on the event loop.

    `wake` is called when somebody waits for it; later one of `serve` and `failed` follows.
    """

    def __init__(
        self,
        spec: DeploymentSpec,
        manifest: VersionManifest,
        metrics: VersionMetrics,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.manifest = manifest
        self.used_s = 0.0
        """When it was last asked."""
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._inner: Service | None = None
        self._waiting: deque[_Waiting] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._error: SalverError | None = None
        self._failures = 0
        self._closed_until_s = 0.0
        self._over = False

    # The request's side.

    def __call__(self, request: Request) -> Awaitable[Response]:
        """Answer `request`, when the version is loaded; see `Service`.

        Raises QUEUE_FULL when as many wait for the load as may wait for the model, and NOT_READY for a while
        after a load that failed.
        """
        self.used_s = request.received_s
        if self._inner is not None:
            return self._inner(request)
        return self._wait(request, streams=False)

    def open_stream(self, request: Request) -> Chunks:
        """Answer `request` bit by bit, see `StreamingService`; what is refused is so before the first chunk."""
        self.used_s = request.received_s
        if self._inner is not None:
            return cast("StreamingService", self._inner).open_stream(request)
        return _ColdChunks(self._wait(request, streams=True))

    @property
    def available(self) -> bool:
        """Whether a request would be answered, after a load if need be."""
        if self._inner is not None:
            return self._inner.available
        # After the pause the next request tries again, so whoever keeps requests away must not keep it away.
        return self._error is None or self._clock.monotonic_s() >= self._closed_until_s

    @property
    def waiting(self) -> int:
        """Requests that wait for the load."""
        return len(self._waiting)

    def _wait(self, request: Request, *, streams: bool) -> _Waiting:
        now_s = self._clock.monotonic_s()
        if self._over:
            raise SalverError("NOT_READY", "the version was taken away before it was asked", "retry")
        if self._error is not None and now_s < self._closed_until_s:
            self._error.retry_after_s = self._closed_until_s - now_s
            raise self._error.with_traceback(None)
        if len(self._waiting) >= self.spec.max_queue:
            self._drop_done()
        if len(self._waiting) >= self.spec.max_queue:
            raise SalverError(
                "QUEUE_FULL", f"{len(self._waiting)} requests wait for {self.manifest.reference} to load", "retry later"
            )
        answer = _Waiting(request, asyncio.get_running_loop(), now_s, streams=streams)
        self._waiting.append(answer)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)
        self._wake()
        return answer

    def _drop_done(self) -> None:
        self._waiting = deque(answer for answer in self._waiting if not answer.done())

    def _look(self) -> None:
        """Answer what has expired; runs while anybody waits. When nobody is left, the load still ends as it does."""
        now_s = self._clock.monotonic_s()
        self._drop_done()
        for answer in self._waiting:
            if answer.request.deadline_s <= now_s:
                waited_s = now_s - answer.request.received_s
                self._fail(
                    answer, SalverError("DEADLINE_EXCEEDED", f"the version was not loaded after {waited_s:.3f} s")
                )
        self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look) if self._waiting else None

    def _fail(self, answer: _Waiting, error: Exception) -> None:
        if answer.done():
            return
        answer.set_exception(error)
        if isinstance(error, SalverError):
            # Anything else is a fault of ours, and the doors log and count those.
            self._metrics.failed(error.code, self._clock.monotonic_s() - answer.request.received_s)

    # The version's side.

    def serve(self, inner: Service) -> None:
        """The version is loaded: `inner` answers, those who wait first."""
        self._inner, self._error, self._failures = inner, None, 0
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if not answer.done():
                self._hand_over(answer, inner)

    def _hand_over(self, answer: _Waiting, inner: Service) -> None:
        answer.waited_s = self._clock.monotonic_s() - answer.since_s
        try:
            if answer.streams:
                answer.set_result(cast("StreamingService", inner).open_stream(answer.request))
                return
            given = inner(answer.request)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave the others without an answer
            self._fail(answer, error)
            return
        answer.inner = asyncio.ensure_future(given)
        answer.inner.add_done_callback(functools.partial(_pass_on, answer))

    def rest(self) -> None:
        """The version is about to be unloaded: the next request finds it cold."""
        self._inner = None

    def failed(self, error: SalverError) -> None:
        """It could not be loaded; who waits is told so, and for a while who comes.

        Then the next request tries again; the pauses grow from 1 to 60 s.
        """
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE_S)
        self._error = SalverError(
            "NOT_READY",
            f"{self.manifest.reference} could not be loaded: {error.code}",
            error.message if error.code == "NOT_READY" else "see `salver status`",
            retry_after_s=pause_s,
        )
        self._failures += 1
        self._closed_until_s = self._clock.monotonic_s() + pause_s
        self._answer_all(self._error)

    def end(self, successor: LazyVersion | None = None) -> None:
        """It is deployed no more. Who waits is answered by the `successor`, if that takes and gives the same.

        Where it is loaded, whoever still holds it may ask until its pool is stopped.
        """
        self._over = True
        waiting, self._waiting = self._waiting, deque()
        if successor is not None and successor.manifest.signature == self.manifest.signature:
            successor.take_over(waiting)
            return
        for answer in waiting:
            self._fail(answer, SalverError("NOT_READY", "the version was taken away before it was loaded", "retry"))

    def take_over(self, waiting: deque[_Waiting]) -> None:
        """Answer what has waited for the version before."""
        if not waiting:
            return
        self._waiting.extend(waiting)
        if self._inner is not None:
            self.serve(self._inner)
            return
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)
        self._wake()

    def _answer_all(self, error: SalverError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            self._fail(answer, error.with_traceback(None))

    def __repr__(self) -> str:
        state = "cold" if self._inner is None else "loaded"
        return f"<LazyVersion {self.manifest.reference} {state}, {self.waiting} waiting>"


def _pass_on(answer: _Waiting, inner: asyncio.Future[Response]) -> None:
    if answer.done():
        if not inner.cancelled():
            inner.exception()  # nobody is left to hear of it
    elif inner.cancelled():
        answer.cancel()
    elif (error := inner.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(inner.result().waited("load", answer.waited_s))


class _ColdChunks:
    """The stream of a request that waits for its version."""

    def __init__(self, opening: _Waiting) -> None:
        self._opening = opening

    def __aiter__(self) -> _ColdChunks:
        return self

    async def __anext__(self) -> Response:
        chunks: Chunks = await self._opening
        return (await chunks.__anext__()).waited("load", self._opening.waited_s)

    def close(self) -> None:
        opening = self._opening
        # A consumer that was cancelled while it waited has cancelled it.
        if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
            opening.result().close()
