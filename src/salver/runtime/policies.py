"""When a free replica takes a batch that could still grow: the policies, as pure functions.

Each says until when the batch that has gathered is worth holding, on the clock of `Gathering`;
not later than now means that it goes. No policy holds a batch that is full, or for so long that
the SLO or a deadline of one of its requests could not be kept.
"""

from __future__ import annotations

from typing import NamedTuple

from salver.protocol.tables import BatchPolicy
from salver.runtime.curve import Line
from salver.runtime.queue import Bounds, Gathering

__all__ = ["Rules", "Traffic", "hold_until_s", "worth_waiting_rows"]


class Rules(NamedTuple):
    """What a deployment says about holding batches."""

    policy: BatchPolicy = BatchPolicy.EAGER
    max_wait_s: float = 0.0
    min_batch: int = 1


class Traffic(NamedTuple):
    """What policy predictive knows of arrivals."""

    gap_s: float
    """Mean seconds between two arrivals, infinite before there were two."""
    last_s: float
    """When the last one came."""


def hold_until_s(
    rules: Rules,
    gathered: Gathering,
    bounds: Bounds,
    latest_start_s: float,
    line: Line | None = None,
    traffic: Traffic | None = None,
) -> float:
    """Until when the batch that has gathered should wait; in the past to go ahead.

    `latest_start_s` is when it must begin for its requests to be answered in time. `line` is the
    service curve, for policy predictive, which goes ahead without one.

    >>> waits = Gathering(rows=3, cost=3, oldest_s=10.0, due_s=40.0)
    >>> hold_until_s(Rules(BatchPolicy.TIMEOUT, 0.005), waits, Bounds(8), 39.0)
    10.005
    >>> hold_until_s(Rules(BatchPolicy.HYBRID, 0.005, min_batch=3), waits, Bounds(8), 39.0)
    -inf
    >>> hold_until_s(Rules(BatchPolicy.DEFERRED), waits, Bounds(8), 39.0)
    39.0
    """
    go = float("-inf")
    if gathered.rows >= bounds.rows or (bounds.cost and gathered.cost >= bounds.cost):
        return go
    policy = rules.policy
    waited_s = gathered.oldest_s + rules.max_wait_s
    if policy is BatchPolicy.EAGER or (policy is BatchPolicy.HYBRID and gathered.rows >= rules.min_batch):
        return go
    if policy is BatchPolicy.DEFERRED:
        return latest_start_s
    if policy is BatchPolicy.PREDICTIVE:
        if line is None or traffic is None or gathered.rows >= worth_waiting_rows(line, traffic.gap_s):
            return go
        # If nobody comes, the gap so far becomes the best guess of the rate; then this is when waiting stops to pay.
        paid_until_s = traffic.last_s + (line.a_s - line.b_s * gathered.rows) / (gathered.rows + 1)
        waited_s = min(paid_until_s, waited_s) if rules.max_wait_s else paid_until_s
    return min(waited_s, latest_start_s)


def worth_waiting_rows(line: Line, gap_s: float) -> float:
    """Below how many rows the wait for one more costs less time than it saves, by one step of looking ahead.

    Say n rows wait, a batch of n takes a + b n, and the next row comes in g. Going now, that row finds
    the replica busy until a + b n, and is answered after a + b n - g + a + b. Waiting for it, it is
    answered after a + b (n + 1): it gains a - g. Each of the n loses g + b. So waiting pays while
    n (g + b) < a - g; never, where nothing says that a next row will come.

    >>> worth_waiting_rows(Line(a_s=0.010, b_s=0.001), gap_s=0.001)
    4.5
    """
    if gap_s == float("inf"):
        return 0.0
    return (line.a_s - gap_s) / (gap_s + line.b_s) if gap_s + line.b_s > 0 else float("inf")
