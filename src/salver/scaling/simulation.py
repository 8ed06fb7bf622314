"""What a deployment would do under a load, in virtual time.

The queue, the policies, the steering and the admission are not modelled: they are the ones that
serve. Only the model is replaced, by its measured service curve, and time, by a clock that is
turned as soon as nothing is left to do. What is not simulated: the processor's share that
reading and writing requests takes from the model, and the lateness of a busy event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, Placement, Validate, VersionManifest
from salver.protocol.tensor import Tensor
from salver.runtime.batch import Batch
from salver.runtime.curve import Measured
from salver.runtime.pool import Pool
from salver.scaling.virtual_time import VirtualClock, VirtualLoop
from salver.telemetry.metrics import VersionMetrics

__all__ = ["MOST_ARRIVALS", "Arrival", "SimulatedOutcome", "SimulatedTenant", "measured_service", "simulate"]

MOST_ARRIVALS: Final = 2_000_000
_MOST_ROWS: Final = 65_536
"""What any deployment lets one request have."""
_SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))


class Arrival(NamedTuple):
    """One request of a load."""

    at_s: float
    rows: int = 1
    tenant: str = ""
    priority: int = 0


class SimulatedTenant(msgspec.Struct, frozen=True):
    """What became of the requests of one tenant."""

    answered: int
    mean_s: float
    p99_s: float


class SimulatedOutcome(msgspec.Struct, frozen=True):
    """What became of a load; latencies in seconds, over the answered requests (None without any)."""

    policy: str
    requests: int
    answered: int
    refused: int
    """At the door, or pushed out of a full queue."""
    expired: int
    within_slo: int
    """Answers that met the objective, or the deadline where there is none."""
    mean_s: float | None
    p50_s: float | None
    p99_s: float | None
    mean_batch_rows: float | None
    batches: int
    busy_ratio: float
    """Share of the time in which a replica computed."""
    batch_limit: int
    """The rows a batch might hold at the end."""
    goodput_per_s: float
    tenants: dict[str, SimulatedTenant]
    """Of those with an answer."""


def measured_service(points: Mapping[int, float]) -> Callable[[int], float]:
    """Seconds of a batch by its rows, from measured means: linear between sizes, in proportion above the largest.

    Raises INVALID_PARAMETER without a point, or for one that is no time.
    """
    sizes = sorted(points)
    if not sizes or any(size < 1 or not 0 <= points[size] < float("inf") for size in sizes):
        raise SalverError(
            "INVALID_PARAMETER", "the service curve has no sound point", "give rows=seconds, once or more"
        )

    def seconds(rows: int) -> float:
        at = bisect_left(sizes, rows)
        if at == len(sizes):
            return points[sizes[-1]] * rows / sizes[-1] if len(sizes) == 1 else _beyond(sizes, points, rows)
        high = sizes[at]
        if high == rows or at == 0:
            return points[high]
        low = sizes[at - 1]
        share = (rows - low) / (high - low)
        return points[low] + share * (points[high] - points[low])

    return seconds


def _beyond(sizes: Sequence[int], points: Mapping[int, float], rows: int) -> float:
    """Above the largest size: on the line through the smallest and the largest, never below the largest."""
    low, high = sizes[0], sizes[-1]
    slope = max(0.0, (points[high] - points[low]) / (high - low))
    return points[high] + slope * (rows - high)


class _SimulatedReplica:
    """Computes nothing, for as long as the model would."""

    placement = Placement.THREAD
    pid = None
    restarts = 0

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop, service: Callable[[int], float]) -> None:
        self._pool = pool
        self._loop = loop
        self._service = service
        self._running: asyncio.TimerHandle | None = None
        self.busy_s = 0.0
        pool.add(self)

    def start(self, batch: Batch) -> None:
        seconds = self._service(batch.size)
        self.busy_s += seconds
        outputs = {"y": np.zeros((batch.rows, 1), np.float32)}
        self._running = self._loop.call_later(seconds, self._pool.finished, self, outputs, seconds)

    def give_up(self) -> None:
        """The pool takes it for hung; it goes on with the next batch."""
        if self._running is not None:
            self._running.cancel()
        self._pool.ready(self)

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()


def simulate(
    spec: DeploymentSpec,
    points: Mapping[int, float],
    arrivals: Sequence[Arrival],
    *,
    overhead_s: float = 0.0,
) -> SimulatedOutcome:
    """Send `arrivals`, in order of time, to a deployment whose batches take what `points` say, seconds by rows.

    `overhead_s` is what a request takes outside queue and model, such as reading and writing it; it is added to
    each latency. Raises INVALID_PARAMETER for a load that is empty, too long, out of order or out of bounds.
    """
    if not 0 < len(arrivals) <= MOST_ARRIVALS:
        raise SalverError("INVALID_PARAMETER", f"the load has {len(arrivals)} requests", f"use 1 to {MOST_ARRIVALS}")
    wrong = next((a for a in arrivals if not (math.isfinite(a.at_s) and 1 <= a.rows <= _MOST_ROWS)), None)
    if wrong is not None:
        raise SalverError(
            "INVALID_PARAMETER",
            f"a request comes at {wrong.at_s} s with {wrong.rows} rows",
            f"use finite times, and 1 to {_MOST_ROWS} rows",
        )
    if any(later.at_s < earlier.at_s for earlier, later in itertools.pairwise(arrivals)):
        raise SalverError("INVALID_PARAMETER", "the arrivals are not in order of time", "sort them")
    clock = VirtualClock()
    loop = VirtualLoop(clock)
    try:
        return loop.run_until_complete(_Run(spec, points, overhead_s, clock, loop).load(arrivals))
    finally:
        loop.close()


class _Run:
    """One simulation under way."""

    def __init__(
        self,
        spec: DeploymentSpec,
        points: Mapping[int, float],
        overhead_s: float,
        clock: VirtualClock,
        loop: VirtualLoop,
    ) -> None:
        self._spec = msgspec.structs.replace(spec, validate=Validate.OFF)
        self._points = points
        self._service = measured_service(points)
        self._overhead_s = overhead_s
        self._clock = clock
        self._loop = loop
        self._metrics = VersionMetrics()
        self._latencies_s: dict[str, list[float]] = {}
        self._refused = self._expired = self._open = 0
        self._done = asyncio.Event()

    async def load(self, arrivals: Sequence[Arrival]) -> SimulatedOutcome:
        manifest = VersionManifest("simulated", "1.0.0", 1, "", "onnx", (), _SIGNATURE)
        pool = Pool(self._spec, manifest, self._metrics, self._clock)
        pool.learn(Measured(dict(self._points), max(self._points.values())))
        replicas = [_SimulatedReplica(pool, self._loop, self._service) for _ in range(self._spec.replicas)]
        first_s = arrivals[0].at_s
        self._open = len(arrivals)
        feed = iter(arrivals)

        def send(arrival: Arrival | None) -> None:
            at_s = arrival.at_s if arrival else first_s
            # Those of one moment come in one turn of the loop, as they do from sockets.
            while arrival is not None and arrival.at_s == at_s:
                self._ask(pool, arrival, at_s - first_s)
                arrival = next(feed, None)
            if arrival is not None:
                self._loop.call_at(arrival.at_s - first_s, send, arrival)

        self._loop.call_soon(send, next(feed))
        await self._done.wait()
        ended_s = self._clock.now_s
        limit = pool.batch_limit
        await pool.stop(SalverError("NOT_READY", "the simulation has ended"))
        return self._outcome(len(arrivals), ended_s, sum(each.busy_s for each in replicas), limit)

    def _ask(self, pool: Pool, arrival: Arrival, at_s: float) -> None:
        tensor = Tensor("x", "FP32", (arrival.rows, 1), bytes(4 * arrival.rows))
        request = Request(
            self._spec.endpoint,
            {"x": tensor},
            received_s=at_s,
            deadline_s=at_s + self._spec.deadline_s,
            rows=arrival.rows,
            priority=arrival.priority,
            tenant=arrival.tenant,
        )
        try:
            answer = pool(request)
        except SalverError:
            self._refused += 1
            self._settle()
        else:
            answer.add_done_callback(lambda future: self._answered(future, at_s, arrival.tenant))

    def _answered(self, answer: asyncio.Future[Response], at_s: float, tenant: str) -> None:
        error = answer.exception()
        if error is None:
            self._latencies_s.setdefault(tenant, []).append(self._clock.now_s - at_s + self._overhead_s)
        elif isinstance(error, SalverError) and error.code in ("QUEUE_FULL", "OVERLOADED"):
            self._refused += 1
        else:
            self._expired += 1
        self._settle()

    def _settle(self) -> None:
        self._open -= 1
        if not self._open:
            self._done.set()

    def _outcome(self, requests: int, ended_s: float, busy_s: float, limit: int) -> SimulatedOutcome:
        latencies = np.array([seconds for each in self._latencies_s.values() for seconds in each])
        batches = sum(self._metrics.batches.values())
        within_s = self._spec.slo_s or self._spec.deadline_s
        within = int((latencies <= within_s).sum())
        p50, p99 = _quantiles(latencies, 0.5, 0.99) if len(latencies) else (None, None)
        return SimulatedOutcome(
            str(self._spec.policy),
            requests,
            len(latencies),
            self._refused,
            self._expired,
            within,
            float(latencies.mean()) if len(latencies) else None,
            p50,
            p99,
            self._metrics.rows / batches if batches else None,
            batches,
            busy_s / (ended_s * self._spec.replicas) if ended_s else 0.0,
            limit,
            within / ended_s if ended_s else 0.0,
            {
                tenant: SimulatedTenant(len(each), sum(each) / len(each), *_quantiles(np.array(each), 0.99))
                for tenant, each in self._latencies_s.items()
            },
        )


def _quantiles(values: np.ndarray[Any, Any], *shares: float) -> list[float]:
    found: list[float] = np.quantile(values, shares, method="inverted_cdf").tolist()
    return found
