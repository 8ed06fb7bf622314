"""Sessions of a model that sums up what it is sent, on replicas that run when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.runtime.asking import turn

from salver.protocol.errors import SalverError
from salver.protocol.request import SequenceStep
from salver.protocol.tables import VersionManifest
from salver.runtime.sessions import Sessions
from salver.runtime.states import StateKeeper, keep_states
from salver.telemetry.metrics import VersionMetrics
from salver.testing import RAISES, HeldReplica, ManualClock, make_manifest, make_request, make_spec

LONG_S = 1000.0


class Sums:
    """Answers the sum of all rows of a session so far; a row with `RAISES` raises."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.wrong = False
        """Whether answers are of another type than declared."""

    def step(self, inputs: Any, states: list[Any]) -> Any:
        x = inputs["x"]
        self.batches.append(x[:, 0].tolist())
        if (x == RAISES).any():
            raise ValueError("a row is marked to raise")
        y = x.copy()
        for row, state in enumerate(states):
            if state is not None:
                y[row] += state
            states[row] = y[row].copy()
        return {"y": y.astype("f8") if self.wrong else y}

    def run(self, inputs: Any) -> Any:
        raise AssertionError("a model of sequences is stepped")

    def unload(self) -> None:
        pass


class Stepping:
    """Sessions over replicas that are held."""

    def __init__(self, clock: ManualClock, manifest: VersionManifest | None = None, **spec: Any) -> None:
        self.clock = clock
        self.metrics = VersionMetrics()
        manifest = manifest or make_manifest(kind="sequence", idempotent=False)
        self.sessions = Sessions(make_spec(**{"deadline_s": LONG_S, **spec}), manifest, self.metrics, clock)
        self.models = [Sums() for _ in self.sessions.pools]
        self.keepers: list[StateKeeper] = [keep_states(model, manifest, None, None) for model in self.models]
        self.replicas = [
            HeldReplica(pool, keeper) for pool, keeper in zip(self.sessions.pools, self.keepers, strict=True)
        ]

    def send(
        self, id: Any, value: float, *, start: bool = False, end: bool = False, **changes: Any
    ) -> asyncio.Future[Any]:
        """One step, of the row [value, value]."""
        now_s = self.clock.monotonic_s()
        changes = {"received_s": now_s, "deadline_s": now_s + LONG_S, **changes}
        return self.sessions(make_request([[value, value]], sequence=SequenceStep(id, start, end), **changes))

    async def settle(self) -> None:
        """Let everything run that has been sent."""
        await turn()
        while running := [replica for replica in self.replicas if replica.batch is not None]:
            for replica in running:
                replica.finish()
            await turn()

    async def step(self, id: Any, value: float, **how: Any) -> float:
        """The sum after one more step."""
        answer = self.send(id, value, **how)
        await self.settle()
        return sum_of(answer)

    def kill(self, at: int) -> None:
        """Let a replica's worker die and another take its place, which has kept nothing."""
        replica = self.replicas[at]
        replica.die()
        self.keepers[at]._kept.clear()
        replica.restarts += 1
        replica.revive()

    def over(self) -> tuple[int, int, int]:
        """Sessions ended, expired and lost."""
        counts = self.metrics.sessions
        assert counts is not None
        return counts.ended, counts.expired, counts.lost


def refused(send: Callable[..., object], *args: Any, **how: Any) -> str:
    """The code with which a step is refused at once."""
    with pytest.raises(SalverError) as caught:
        send(*args, **how)
    return caught.value.code


def sum_of(answer: asyncio.Future[Any]) -> float:
    value: float = answer.result().array("y")[0, 0].item()
    return value
