"""Asking a pool, and what its replicas and its answers say."""

from __future__ import annotations

import asyncio
from typing import Any

from salver.protocol.errors import SalverError
from salver.protocol.request import Response
from salver.runtime.batch import Batch
from salver.runtime.pool import Pool
from salver.testing import HeldReplica, eventually, make_request

ONE_LOOK_S = 0.05
"""Longer than a pool takes to look at deadlines once."""


def ask(pool: Pool, *values: float, **changes: Any) -> asyncio.Future[Response]:
    """One request with a row [v, v] for each value."""
    return pool(make_request([[value, value] for value in values], **changes))


async def started(replica: HeldReplica) -> Batch:
    await eventually(lambda: replica.batch)
    assert replica.batch is not None
    return replica.batch


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(4):
        await asyncio.sleep(0)


def rows_of(batch: Batch) -> list[float]:
    return batch.inputs["x"][:, 0].tolist()


def answer_of(future: asyncio.Future[Response]) -> list[list[float]]:
    return future.result().array("y").tolist()


def code_of(future: asyncio.Future[Response]) -> str:
    error = future.exception()
    assert isinstance(error, SalverError)
    return error.code


def assert_settled(pool: Pool) -> None:
    assert (pool.waiting, pool.running) == (0, 0)
