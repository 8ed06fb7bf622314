"""For tests: a clock with hands to turn, and models whose answers can be computed.

    >>> clock = ManualClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic_s()
    1002.5

`ComputableModel` stands in for a loaded version and misbehaves on request; `HeldReplica` stands
in for a replica and runs a batch only when it is told to, so that a test decides what happens
while a batch is running. `make_manifest`, `make_spec` and `make_request` fill in what a test
does not care about.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.request import Request
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, FileEntry, VersionManifest
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
    "eventually",
    "make_manifest",
    "make_request",
    "make_spec",
]

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
    until_s = loop.time() + within_s
    while not (found := condition()):
        if loop.time() > until_s:
            raise AssertionError(f"did not happen within {within_s:g} s")
        await asyncio.sleep(0.002)
    return found
