"""What the simulator says of a trace is what the pool does with it, request by request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import BatchPolicy, QueuePolicy
from salver.runtime.curve import Measured
from salver.runtime.pool import Pool
from salver.scaling.simulation import Arrival, measured_service, simulate
from salver.telemetry.metrics import VersionMetrics
from salver.testing import HeldReplica, ManualClock, ManualLoop, make_manifest, make_request, make_spec

POINTS = {1: 0.011, 8: 0.018, 32: 0.042}
CASES: list[dict[str, Any]] = [
    {},
    {"max_batch": 4},
    {"replicas": 2, "max_batch": 4},
    {"policy": BatchPolicy.TIMEOUT, "max_wait_s": 0.02},
    {"policy": BatchPolicy.HYBRID, "max_wait_s": 0.02, "min_batch": 3},
    {"policy": BatchPolicy.PREDICTIVE},
    {"policy": BatchPolicy.DEFERRED, "slo_s": 0.1},
    {"slo_s": 0.05},
    {"max_queue": 3},
    {"deadline_s": 0.04, "max_batch": 2},
    {"priorities": (QueuePolicy(), QueuePolicy(max_queue=4)), "max_batch": 4},
]


class TimedReplica(HeldReplica):
    """Computes for as long as the curve says, on the loop's clock."""

    def start(self, batch: Any) -> None:
        super().start(batch)
        seconds = measured_service(POINTS)(batch.size)
        asyncio.get_running_loop().call_later(seconds, self.finish, seconds)


class Real:
    """The pool itself, on a clock that is turned from arrival to arrival."""

    def __init__(self, clock: ManualClock, spec: dict[str, Any]) -> None:
        self.clock, self.metrics = clock, VersionMetrics()
        self.spec = make_spec(**spec)
        self.latencies_s: list[float] = []
        self.codes: list[str] = []

    async def run(self, load: Sequence[Arrival]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ManualLoop)
        pool = Pool(self.spec, make_manifest(), self.metrics, self.clock)
        pool.learn(Measured(POINTS, 0.042))
        for _ in range(self.spec.replicas):
            TimedReplica(pool)
        began_s = loop.time()
        for arrival in load:
            if began_s + arrival.at_s > loop.time():
                await loop.turn(began_s + arrival.at_s - loop.time())
            self._ask(pool, arrival)
        await loop.turn(5.0)
        await pool.stop(SalverError("NOT_READY", "the end"))

    def _ask(self, pool: Pool, arrival: Arrival) -> None:
        now_s = self.clock.monotonic_s()
        request = make_request(
            [[0, 0]] * arrival.rows,
            received_s=now_s,
            deadline_s=now_s + self.spec.deadline_s,
            tenant=arrival.tenant,
            priority=arrival.priority,
        )
        try:
            answer = pool(request)
        except SalverError as error:
            self.codes.append(error.code)
        else:
            answer.add_done_callback(lambda answer: self._answered(answer, now_s))

    def _answered(self, answer: asyncio.Future[Any], began_s: float) -> None:
        error = answer.exception()
        if error is None:
            self.latencies_s.append(self.clock.monotonic_s() - began_s)
        else:
            assert isinstance(error, SalverError)
            self.codes.append(error.code)


def trace() -> list[Arrival]:
    """Two hundred requests: some far apart, some close together, of several sizes, tenants and levels."""
    rng = np.random.default_rng(3)
    gaps = rng.exponential(1.0, 200) * rng.choice((0.0005, 0.004, 0.02), 200)
    return [
        Arrival(
            round(float(at_s), 5), int(rng.choice((1, 1, 1, 2))), str(rng.choice(["", "a", "b"])), int(rng.integers(3))
        )
        for at_s in np.cumsum(gaps)
    ]


@pytest.mark.parametrize("spec", CASES, ids=lambda spec: " ".join(spec) or "plain")
def test_the_simulator_and_the_pool_agree(spec: dict[str, Any]) -> None:
    load = trace()
    clock = ManualClock()
    real = Real(clock, spec)
    with asyncio.Runner(loop_factory=lambda: ManualLoop(clock)) as runner:
        runner.run(real.run(load))
    outcome = simulate(make_spec(**spec), POINTS, load)
    assert outcome.answered == len(real.latencies_s)
    assert outcome.refused == sum(code in ("QUEUE_FULL", "OVERLOADED") for code in real.codes)
    assert outcome.expired == sum(code == "DEADLINE_EXCEEDED" for code in real.codes)
    assert outcome.answered + outcome.refused + outcome.expired == len(load)
    batches = sum(real.metrics.batches.values())
    assert outcome.batches == batches
    assert outcome.mean_batch_rows == real.metrics.rows / batches
    # The loop of the test is late by a microsecond for each timer.
    assert outcome.mean_s == pytest.approx(np.mean(real.latencies_s), abs=1e-4)
    assert outcome.p99_s == pytest.approx(np.quantile(real.latencies_s, 0.99, method="inverted_cdf"), abs=1e-3)
