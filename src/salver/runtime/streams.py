"""Answers that come bit by bit: the streams open on the workers of a version.

Each worker steps its open streams in turn, and batches run between the steps. A stream has credit
for a few chunks, which comes back as the caller takes them: where the caller is slow the model is not
asked for more. A caller that leaves closes its stream, and the model's generator is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol, TypeVar, cast

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.frames import FrameKind
from salver.protocol.request import BatchOutputs, Chunks, Request, Response, Service
from salver.protocol.tables import Placement, VersionManifest
from salver.runtime.batch import Entry, check_outputs, join_inputs
from salver.runtime.chunks import JoinedChunks
from salver.runtime.model import Arrays
from salver.runtime.pool import Pool
from salver.runtime.settlement import model_error
from salver.runtime.watching import STALL_S, WATCH_S, hang_limit_s
from salver.telemetry.logs import log_event

__all__ = ["ChunkStream", "ReplicaStreams", "StreamPort", "StreamingPool", "layer_streams", "open_streams"]

_WINDOW: Final = 8
"""Chunks of a stream that the worker may be ahead of the caller."""
_GRANT: Final = 4
"""Credit comes back so many chunks at a time."""


class StreamPort(Protocol):
    """Where streams are opened: a worker."""

    def open_stream(self, number: int, arrays: Arrays) -> None:
        """Begin a stream with a number that no other has had; nothing of it runs before `grant`."""

    def grant(self, number: int, chunks: int) -> None:
        """Let so many more chunks of a stream come."""

    def cancel(self, number: int) -> None:
        """End a stream; its last word still comes."""


class ChunkStream:
    """One open stream: its chunks in order, each a `Response`. Lives on the event loop.

    It ends once: with StopAsyncIteration, or with a SalverError behind the chunks that came before.
    Whoever has opened it closes it, however it ends; then nothing more of it runs.
    """

    def __init__(self, streams: ReplicaStreams, number: int, entry: Entry) -> None:
        self.request = entry.request
        self.number = number
        self.warnings = entry.warnings
        self.credit = _WINDOW
        self.settled = False
        """Whether it has ended, as far as the caller is concerned."""
        self.compute_s = 0.0
        self.chunks = 0
        self._streams = streams
        self._taken = 0
        self._ready: deque[Response] = deque()
        self._error: SalverError | None = None
        self._wanted: asyncio.Future[None] | None = None

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> Response:
        """Wait for the next chunk."""
        while not self._ready:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self.settled:
                raise StopAsyncIteration
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        self._taken += 1
        if self._taken == _GRANT and not self.settled:
            self._taken = 0
            self._streams.grant(self, _GRANT)
        return self._ready.popleft()

    def put(self, response: Response) -> None:
        """Take in a chunk."""
        self.chunks += 1
        self._ready.append(response)
        self._wake()

    def end(self, error: SalverError | None) -> None:
        """There will be no more chunks: it was all, or `error` says why."""
        self.settled, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def close(self) -> None:
        """Nobody wants more of it. Does nothing the second time, and where it has ended."""
        self._ready.clear()
        if not self.settled:
            self.end(None)
            self._streams.left(self)


class ReplicaStreams:
    """The streams of one replica; `is_busy` says whether it runs a batch now, and `give_up` abandons its worker."""

    def __init__(self, pool: Pool, clock: Clock, is_busy: Callable[[], bool], give_up: Callable[[], None]) -> None:
        self._pool = pool
        self._clock = clock
        self._is_busy = is_busy
        self._give_up = give_up
        self._port: StreamPort | None = None
        self.accepts = False
        """Whether a stream can be opened now."""
        self._open: dict[int, ChunkStream] = {}
        """Those whose last word has not come yet, whether the caller has left or not."""
        self._last = 0
        self._longest_s = 0.0
        self._progress_s = self._looked_s = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    # The caller's side.

    def open(self, request: Request) -> ChunkStream:
        """Open a stream. REQUIRES `accepts`."""
        pool, port = self._pool, self._port
        assert port is not None
        entry = Entry(request, asyncio.get_running_loop().create_future(), self._clock.monotonic_s(), request.rows)
        inputs = join_inputs([entry], request.rows if pool.manifest.signature.batched else None)
        if pool.settlement.screens and not pool.settlement.screened([entry], inputs):
            return self._refused(entry)
        self._last += 1
        stream = ChunkStream(self, self._last, entry)
        port.open_stream(stream.number, inputs)
        port.grant(stream.number, stream.credit)
        self._open[stream.number] = stream
        pool.metrics.streams.opened += 1
        if self._watch is None:
            self._progress_s = self._clock.monotonic_s()
            self._look()
        return stream

    def _refused(self, entry: Entry) -> ChunkStream:
        """A stream that has failed already, and is counted."""
        error = entry.answer.exception()
        assert isinstance(error, SalverError)
        stream = ChunkStream(self, 0, entry)
        stream.end(error)
        return stream

    def grant(self, stream: ChunkStream, chunks: int) -> None:
        """The caller has taken so many chunks."""
        if self._port is not None and stream.number in self._open:
            stream.credit += chunks
            self._port.grant(stream.number, chunks)

    def left(self, stream: ChunkStream) -> None:
        """The caller wants no more of it."""
        self._pool.metrics.streams.cancelled += 1
        self._cancel(stream)

    def _cancel(self, stream: ChunkStream) -> None:
        if self._port is not None and stream.number in self._open:
            self._port.cancel(stream.number)

    def _fail(self, stream: ChunkStream, error: SalverError) -> None:
        if not stream.settled:
            stream.end(error)
            self._pool.metrics.failed(error.code, self._clock.monotonic_s() - stream.request.received_s)

    # The worker's side.

    def chunk(self, number: int, outputs: Arrays, seconds: float) -> None:
        """A chunk has come; raises ValueError for one that was not asked for."""
        stream = self._open.get(number)
        if stream is None or stream.credit <= 0:
            if self._port is None:
                return
            raise ValueError(f"a chunk of stream {number} that nobody asked for")
        pool, now_s = self._pool, self._clock.monotonic_s()
        stream.credit -= 1
        self._progress_s = now_s
        self._longest_s = max(self._longest_s, seconds)
        pool.metrics.busy_s += seconds
        if stream.settled:
            return
        request, manifest = stream.request, pool.manifest
        try:
            checked = check_outputs(outputs, manifest.signature, request.rows)
        except SalverError as error:
            self._reject(stream, error)
            self._cancel(stream)
            return
        stream.compute_s += seconds
        pool.metrics.streams.chunk(None if stream.chunks else now_s - request.received_s)
        stop = request.rows if manifest.signature.batched else None
        batch = BatchOutputs(checked, request.rows, seconds, Placement.PROCESS)
        stream.put(Response(manifest.model, manifest.version, batch, 0, stop, stream.warnings))

    def arriving(self) -> None:
        """The worker is sending something large."""
        self._progress_s = self._clock.monotonic_s()

    def ended(self, number: int, kind: FrameKind, problem: str, refusal: str = "") -> None:
        """A stream has had its last word; raises ValueError for one that is not open."""
        if self._port is None:
            return
        stream = self._open.pop(number, None)
        if stream is None:
            raise ValueError(f"the end of stream {number}, which is not open")
        self._progress_s = self._clock.monotonic_s()
        reference = self._pool.manifest.reference
        if stream.settled:
            pass
        elif kind is FrameKind.STREAM_RAISED:
            self._fail(stream, model_error(reference, stream.request, problem, refusal))
        elif kind is FrameKind.STREAM_BAD_OUTPUT:
            self._reject(stream, SalverError("BAD_MODEL_OUTPUT", problem))
        else:
            stream.end(None)
            request, now_s = stream.request, self._clock.monotonic_s()
            self._pool.metrics.streamed(
                request.rows, stream.compute_s, now_s - request.received_s, self._clock.wall_s()
            )
        self._pool.note_drained()

    def _reject(self, stream: ChunkStream, error: SalverError) -> None:
        reference = self._pool.manifest.reference
        log_event("bad_model_output", level=logging.WARNING, version=reference, problem=error.message)
        self._fail(stream, error)

    def serve(self, port: StreamPort) -> None:
        """A worker is ready."""
        self._port, self.accepts = port, True

    def suspend(self) -> None:
        """The worker takes no more streams. What it has said already may still be read."""
        self.accepts = False

    def lost(self, error: SalverError) -> None:
        """The worker is gone, or must not be listened to any more: all streams end with `error`."""
        self._port, self.accepts = None, False
        streams, self._open = self._open, {}
        for stream in streams.values():
            self._fail(stream, error)
        self._pool.note_drained()

    # Time.

    def _look(self) -> None:
        """End what has expired, give up what hangs; runs while streams are open."""
        now_s = self._clock.monotonic_s()
        stalled, self._looked_s = now_s - self._looked_s > STALL_S, now_s
        try:
            for stream in list(self._open.values()):
                if stream.request.deadline_s <= now_s and not stream.settled:
                    after_s = now_s - stream.request.received_s
                    self._fail(stream, SalverError("DEADLINE_EXCEEDED", f"the stream had no end after {after_s:.3f} s"))
                    self._cancel(stream)
            owed = any(stream.credit > 0 or stream.settled for stream in self._open.values())
            if not owed or stalled or self._is_busy():
                # While a batch runs it is the pool that watches.
                self._progress_s = now_s
            elif now_s - self._progress_s > self._hang_limit_s():
                self._hung()
        finally:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(WATCH_S, self._look) if self._open else None

    def _hang_limit_s(self) -> float:
        """Seconds without a chunk of any stream after which the model hangs."""
        return hang_limit_s(self._pool.spec, self._longest_s)

    def _hung(self) -> None:
        reference, limit_s = self._pool.manifest.reference, self._hang_limit_s()
        traces = [stream.request.trace.decode() for stream in self._open.values()]
        log_event("model_hung", level=logging.WARNING, version=reference, requests=traces, seconds=limit_s)
        self.lost(SalverError("MODEL_HUNG", f"{reference} gave no chunk within {limit_s:g} s"))
        self._give_up()


class StreamingPool:
    """The service of a version that streams, in front of its pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def available(self) -> bool:
        """As of the pool."""
        return self._pool.available

    def open_stream(self, request: Request) -> Chunks:
        """Open a stream on the replica that has fewest.

        Raises TOO_MANY_ROWS, DEADLINE_EXCEEDED, NOT_READY, or QUEUE_FULL where every replica has as many as it may.
        """
        pool, spec = self._pool, self._pool.spec
        if request.rows > spec.max_batch:
            raise SalverError(
                "TOO_MANY_ROWS",
                f"the request has {request.rows} rows; {spec.endpoint} takes at most {spec.max_batch}",
                "split the request, or deploy with a larger --max-batch",
            )
        pool.require_available()
        if request.deadline_s <= pool.now_s():
            raise SalverError("DEADLINE_EXCEEDED", "the deadline had passed before the stream was opened")
        ready = [streams for streams in pool.streams if streams.accepts]
        if not ready:
            raise SalverError("NOT_READY", f"no worker of {pool.manifest.reference} is ready", "try again shortly")
        fewest = min(ready, key=len)
        if len(fewest) >= spec.max_streams:
            raise SalverError(
                "QUEUE_FULL",
                f"{spec.max_streams} streams are open on each replica of {spec.endpoint}, the most there may be",
                "retry later, or deploy with a larger --max-streams",
            )
        return fewest.open(request)

    def __call__(self, request: Request) -> Awaitable[Response]:
        """Answer in one piece: by `predict` where the model has one, else by joining what it streams."""
        if self._pool.predicts:
            return self._pool(request)
        stream = self.open_stream(request)
        joining = asyncio.get_running_loop().create_task(self._join(request, stream))
        # Not in the task: one that is cancelled before its first step runs nothing, not even its end.
        joining.add_done_callback(lambda _: stream.close())
        return joining

    async def _join(self, request: Request, stream: Chunks) -> Response:
        joined, compute_s = JoinedChunks(self._pool.manifest.signature), 0.0
        last: Response | None = None
        async for last in stream:
            joined.add(last.batch.arrays)
            compute_s += last.batch.compute_s
        batch = BatchOutputs(joined.outputs(request.rows), request.rows, compute_s, Placement.PROCESS)
        manifest, stop = self._pool.manifest, request.rows if self._pool.manifest.signature.batched else None
        return Response(manifest.model, manifest.version, batch, 0, stop, last.warnings if last else ())


class _Serving(Service, Protocol):
    """What serves a version: a pool, or what keeps sessions over several."""

    manifest: VersionManifest


_AnyServing = TypeVar("_AnyServing", bound=_Serving)


def layer_streams(
    pools: Iterable[_AnyServing], before: Mapping[_AnyServing, StreamingPool]
) -> dict[_AnyServing, StreamingPool]:
    """The services that open the streams of those pools whose versions stream: those of `before`, and new ones."""
    return {
        pool: before[pool] if pool in before else StreamingPool(cast("Pool", pool))
        for pool in pools
        if pool.manifest.streams
    }


def open_streams(serving: _Serving) -> int | None:
    """How many streams are open; None for a version that has none."""
    return sum(map(len, cast("Pool", serving).streams)) if serving.manifest.streams else None
