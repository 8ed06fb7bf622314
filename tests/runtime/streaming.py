"""Versions that stream, ports that stand in for workers, and reading what comes."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.runtime.workers import Serving

from salver.protocol.request import Chunks
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import VersionManifest
from salver.runtime.pool import Pool
from salver.runtime.streams import ReplicaStreams, StreamingPool
from salver.testing import make_manifest, make_request

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 2)),),
    (TensorSpec("y", "FP32", (-1, 1)), TensorSpec("text", "BYTES", (-1, 1))),
)
WIDE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, -1)),))
STREAMS = make_manifest(signature=SIGNATURE, streams=True)

COUNTING = """
import os, signal, time
from pathlib import Path
import numpy as np
import salver

class Counting(salver.Model):
    def load(self, path):
        self.notes = Path({notes!r})

    def note(self, text):
        with self.notes.open("a") as file:
            file.write(text + "\\n")

    def stream(self, inputs):
        x = inputs["x"]
        count = int(x[0, 0])
        self.note(f"begun {{count}}")
        try:
            for n in range(count):
{body}
                yield {chunk}
        finally:
            self.note(f"closed {{count}}")
"""
CHUNK = """{
                    "y": np.full((len(x), 1), n, np.float32),
                    "text": np.full((len(x), 1), f"<{n}>", dtype=object),
                }"""
PREDICTING = """
    def predict(self, inputs):
        x = inputs["x"]
        return {"y": x[:, :1], "text": np.full((len(x), 1), "predicted", dtype=object)}
"""


def streaming(store: Any, body: str = "pass", *, more: str = "", chunk: str = CHUNK, **changes: Any) -> VersionManifest:
    """A version that streams as many chunks as `x[0, 0]` says; `body` runs before each, with `x` and `n`."""
    lines = "\n".join(" " * 16 + line for line in body.splitlines())
    code = COUNTING.format(body=lines, notes=str(store.root / "notes"), chunk=chunk) + more
    fields = {"signature": SIGNATURE, "streams": True} | changes
    return store.version({"model.py": code, "salver-model.toml": "streams = true\n"}, **fields)


def notes(store: Any) -> list[str]:
    path = store.root / "notes"
    return path.read_text().splitlines() if path.exists() else []


def open_stream(one: Serving, *values: float, **changes: Any) -> Any:
    return StreamingPool(one.pool).open_stream(make_request([[value, value] for value in values], **changes))


async def values_of(stream: Chunks) -> list[float]:
    """The numbers that a stream counts, to its end."""
    try:
        return [response.array("y")[0, 0].item() async for response in stream]
    finally:
        stream.close()


class Port:
    """A worker that says what the test says."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.granted: list[tuple[int, int]] = []
        self.cancelled: list[int] = []

    def open_stream(self, number: int, arrays: Any) -> None:
        del arrays
        self.opened.append(number)

    def grant(self, number: int, chunks: int) -> None:
        self.granted.append((number, chunks))

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)


class Replica:
    """The streams of a replica whose worker is a `Port`."""

    def __init__(self, pool: Pool, clock: Any) -> None:
        self.busy = False
        self.given_up = 0
        self.port = Port()
        self.pool = pool
        self.streams = ReplicaStreams(pool, clock, lambda: self.busy, self._give_up)
        pool.streams.append(self.streams)
        self.streams.serve(self.port)

    def _give_up(self) -> None:
        self.given_up += 1

    def open(self, **changes: Any) -> Any:
        return StreamingPool(self.pool).open_stream(make_request([[1, 1]], **changes))

    def chunk(self, number: int, value: float = 0.0, text: str = "a", **changes: Any) -> None:
        outputs = {"y": np.full((1, 1), value, np.float32), "text": np.full((1, 1), text, dtype=object)}
        self.streams.chunk(number, outputs | changes, 0.001)
