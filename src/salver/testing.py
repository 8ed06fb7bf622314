"""For tests: a clock with hands to turn, and models whose answers can be computed.

    >>> clock = ManualClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic_s()
    1002.5

`ManualLoop` is an event loop whose timers go by such a clock. `ComputableModel` stands in for a
loaded version and misbehaves on request; `HeldReplica` stands in for a replica and runs a batch
only when it is told to, so that a test decides what happens while a batch is running.
`make_manifest`, `make_spec` and `make_request` fill in what a test does not care about.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final, TypeVarTuple

import msgspec
import numpy as np

from salver.clock import SYSTEM_CLOCK
from salver.protocol.request import Request
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, FileEntry, Placement, VersionManifest
from salver.protocol.tensor import Tensor
from salver.runtime.batch import Batch
from salver.runtime.model import Arrays
from salver.runtime.pool import Pool

__all__ = [
    "FREE_WIDTH",
    "RAISES",
    "SIGNATURE",
    "ComputableModel",
    "HeldReplica",
    "ManualClock",
    "ManualLoop",
    "eventually",
    "make_manifest",
    "make_request",
    "make_spec",
]

Ts = TypeVarTuple("Ts")

SIGNATURE: Final = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
"""What a `ComputableModel` takes and gives."""
FREE_WIDTH: Final = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))
"""The same with rows of any width, of which a `ComputableModel` takes any."""
RAISES: Final = -1.0
"""A row with this value makes a `ComputableModel` raise."""


class ManualClock:
    """A clock that stands still until a test turns it; both of its hands move together."""

    def __init__(self, monotonic_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start."""
        return self._monotonic_s

    def wall_s(self) -> float:
        """Seconds since the Unix epoch."""
        return self._wall_s

    def thread_s(self) -> float:
        """Processor seconds: as if everything were computing."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass; a negative step is refused, because monotonic time never goes back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot be advanced by {seconds} s")
        self._monotonic_s += seconds
        self._wall_s += seconds


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a `ManualClock`: what is due later happens when a test turns the clock.

    Sockets, processes and threads go on by themselves; `eventually` waits for those. A loop that
    waits for nothing but time that nobody turns raises AssertionError after `patience_s`.
    """

    _QUIET_TURNS: Final = 3
    """Turns of the loop in which nothing was begun, after which what has been sent has been received."""

    _LATE_S: Final = 1e-6
    """No loop is on time to the last digit; one that were could call back before the sum of two times."""

    def __init__(self, clock: ManualClock, *, patience_s: float = 30.0) -> None:
        self._clock = clock
        self._timers: list[asyncio.TimerHandle] = []
        self._begun = 0
        super().__init__(_Unhurried(patience_s))

    def time(self) -> float:
        """Seconds of the clock."""
        return self._clock.monotonic_s()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As ever; counted."""
        self._begun += 1
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back once the clock has been turned so far."""
        timer = super().call_at(when, callback, *args, context=context)
        self._timers.append(timer)
        return timer

    async def calm(self) -> None:
        """Let everything happen that needs no time."""
        quiet = 0
        while quiet < self._QUIET_TURNS:
            begun = self._begun
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._begun == begun + 1 else 0

    async def turn(self, seconds: float) -> None:
        """Let `seconds` pass; what comes due on the way happens in order, each at its own time."""
        until_s = self.time() + seconds
        while True:
            await self.calm()
            self._timers = [t for t in self._timers if not t.cancelled() and t.when() > self.time()]
            next_s = min((timer.when() for timer in self._timers), default=float("inf"))
            if next_s > until_s + self._LATE_S:
                break
            self._clock.advance(max(0.0, next_s - self.time()) + self._LATE_S)
        self._clock.advance(max(0.0, until_s - self.time()))
        await self.calm()

    async def pause(self) -> None:
        """Let a moment of real time pass, for what does not go by the clock."""
        await self.run_in_executor(None, threading.Event().wait, 0.002)


class _Unhurried(selectors.EpollSelector):
    """Waits for events only: the time in which nothing happens does not pass."""

    def __init__(self, patience_s: float) -> None:
        super().__init__()
        self._patience_s = patience_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for an event, or just look when others are due already."""
        at_once = timeout is not None and timeout <= 0
        events = super().select(0 if at_once else self._patience_s)
        if not events and not at_once:
            raise AssertionError(f"for {self._patience_s:g} s nothing happened and nobody turned the clock")
        return events


class ComputableModel:
    """A loaded version that answers `y = 2 x + 1`, row by row, and remembers what it was asked.

    It raises ValueError on batches with a `RAISES` in them. `answer` may be set to a function
    from the right outputs to what is answered instead: fewer rows, another type, None. After
    `hold()`, `run` blocks its thread until `release()`.
    """

    def __init__(self) -> None:
        self.batches: list[np.ndarray[Any, Any]] = []
        """The inputs of each batch that began, in order."""
        self.answer: Callable[[Arrays], Any] = lambda outputs: outputs
        self.unloads = 0
        self.entered = threading.Event()
        """Set while a batch is in `run`, or has been since `hold()`."""
        self._released = threading.Event()
        self._released.set()

    def run(self, inputs: Arrays) -> Any:
        """Answer a batch, as told."""
        x = inputs["x"]
        self.batches.append(x)
        self.entered.set()
        if not self._released.wait(timeout=60.0):
            raise TimeoutError("a held model was never released")
        if (x == RAISES).any():
            raise ValueError("a row is marked to raise")
        return self.answer({"y": 2 * x + 1})

    def hold(self) -> None:
        """Let batches block from now on."""
        self.entered.clear()
        self._released.clear()

    def release(self) -> None:
        """Let blocked batches go on."""
        self._released.set()

    def unload(self) -> None:
        """Count the unloading."""
        self.unloads += 1


class HeldReplica:
    """A replica of a `Pool` that runs its batch when told to: `finish`, `fail`, `die`, or never.

    It joins the pool when it is made.
    """

    placement = Placement.THREAD
    pid = None
    restarts = 0

    def __init__(self, pool: Pool, model: ComputableModel | None = None) -> None:
        self.model = model or ComputableModel()
        self.started: list[Batch] = []
        self.batch: Batch | None = None
        """The running batch."""
        self.given_up = 0
        self.stopped = False
        self._pool = pool
        pool.add(self)

    def start(self, batch: Batch) -> None:
        """Keep `batch` running."""
        self.started.append(batch)
        self.batch = batch

    def finish(self, seconds: float = 0.001) -> None:
        """Run the batch and report what the model made of it, an exception included."""
        batch = self._take()
        try:
            outputs = self.model.run(batch.inputs)
        except ValueError as error:
            self._pool.raised(self, str(error))
        else:
            self._pool.finished(self, outputs, seconds)

    def die(self, cause: str = "signal SIGSEGV") -> None:
        """Report that the worker is gone, running or not."""
        self.batch = None
        self._pool.lost(self, cause)

    def revive(self) -> None:
        """Report that a new worker is ready."""
        self._pool.ready(self)

    def give_up(self) -> None:
        """Forget the batch, which hangs."""
        self.given_up += 1
        self.batch = None

    async def stop(self) -> None:
        """Take note."""
        self.stopped = True

    def _take(self) -> Batch:
        assert self.batch is not None, "no batch is running"
        batch, self.batch = self.batch, None
        return batch


def make_manifest(**changes: Any) -> VersionManifest:
    """A manifest of `arithmetic@1.0.0`, which takes and gives `SIGNATURE`, with `changes`."""
    manifest = VersionManifest(
        "arithmetic", "1.0.0", 1, "ab" * 32, "onnx", (FileEntry("model.onnx", "cd" * 32, 1),), SIGNATURE
    )
    return msgspec.structs.replace(manifest, **changes)


def make_spec(**changes: Any) -> DeploymentSpec:
    """A deployment of `arithmetic@1.0.0` behind the endpoint of the same name, with `changes`."""
    return msgspec.structs.replace(DeploymentSpec("arithmetic", "arithmetic", "1.0.0"), **changes)


def make_request(rows: Sequence[Sequence[float]] | np.ndarray[Any, Any], **changes: Any) -> Request:
    """A request for `arithmetic` with these rows of `x`, with `changes`."""
    tensor = Tensor.from_numpy("x", np.asarray(rows, dtype=np.float32))
    request = Request("arithmetic", {"x": tensor}, rows=tensor.shape[0])
    for name, value in changes.items():
        setattr(request, name, value)
    return request


async def eventually(condition: Callable[[], Any], *, within_s: float = 10.0) -> Any:
    """Wait until `condition()` holds and return what it gave; AssertionError when it never does.

    Polls on the event loop, so that a test waits for what it means and never for a guess.
    """
    loop = asyncio.get_running_loop()
    until_s = SYSTEM_CLOCK.monotonic_s() + within_s
    while not (found := condition()):
        if SYSTEM_CLOCK.monotonic_s() > until_s:
            raise AssertionError(f"did not happen within {within_s:g} s")
        await (loop.pause() if isinstance(loop, ManualLoop) else asyncio.sleep(0.002))
    return found
