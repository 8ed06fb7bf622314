"""When to ask again, how long to wait first, and when asking again does more harm than good.

A server in trouble must not get more requests because it is in trouble. So retries are paid from
a budget that first attempts fill, as in Finagle (`RetryBudget`: a share of the requests and a
reserve) and in gRPC (proposal A6, "Throttling Retry Attempts and Hedged RPCs"): when everything
fails, one request in ten is a retry and no more. The waits double and are drawn anew from zero to
their bound ("full jitter", M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog,
2015), so that callers that failed together do not come back together.
"""

from __future__ import annotations

import threading
from typing import Final

import msgspec
import numpy as np

from salver.client.errors import CallError
from salver.protocol.errors import CATALOGUE, SalverError

__all__ = ["NO_RETRIES", "Retries", "RetryBudget", "pause_before_retry"]

_OVERLOADED: Final = frozenset({"QUEUE_FULL", "TOO_MANY_CONNECTIONS"})


class Retries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule for asking again where a server is unavailable. Raises INVALID_SETTING for what is no rule."""

    attempts: int = 4
    """At most so many for one call, the first included; 1 for no retries."""
    first_s: float = 0.05
    """The bound of the first wait; each is twice the one before."""
    longest_s: float = 2.0
    """The bound of all waits. What a server says in Retry-After is waited besides."""
    budget_ratio: float = 0.1
    """Retries that a request earns: what they come to in the long run."""
    budget_reserve: float = 10.0
    """Retries that can be saved up, and are there at the beginning."""
    overload: bool = False
    """Whether to ask again also where a server refuses because it has too much to do (429)."""
    idempotent: bool | None = None
    """Whether a request that a model may have run already may be sent again; None asks the server
    what the model's author declared."""

    def __post_init__(self) -> None:
        wrong = [
            name
            for name, right in (
                ("attempts", self.attempts >= 1),
                ("first_s", 0 <= self.first_s <= self.longest_s),
                ("longest_s", self.longest_s < float("inf")),
                ("budget_ratio", 0 <= self.budget_ratio <= 1),
                ("budget_reserve", 0 <= self.budget_reserve < float("inf")),
            )
            if not right
        ]
        if wrong:
            raise SalverError(
                "INVALID_SETTING",
                f"Retries.{wrong[0]} is {getattr(self, wrong[0])!r}",
                "attempts are 1 or more, a ratio is 0 to 1, and waits and the reserve are finite",
            )


NO_RETRIES: Final = Retries(attempts=1)
"""Every failure is told at once."""


class RetryBudget:
    """What the calls of one client may still spend on retries. May be shared by threads.

    Never more than `reserve`, and retries <= reserve + ratio * requests at any time.
    """

    def __init__(self, ratio: float, reserve: float) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._left = reserve
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A request is sent for the first time."""
        with self._lock:
            self._left = min(self._left + self._ratio, self._reserve)

    def spend(self) -> bool:
        """Pay for one retry; False where there is not enough."""
        with self._lock:
            # Ten tenths are a little less than one.
            if self._left < 1 - 1e-9:
                return False
            self._left -= 1
            return True


def pause_before_retry(
    retries: Retries, attempt: int, error: SalverError, left_s: float, rng: np.random.Generator
) -> float | None:
    """How long to wait after `attempt` (from 1) failed; None where it is not to be repeated.

    Only what is UNAVAILABLE is, or by choice an overload, and only if the wait ends before the
    deadline, `left_s` away. Says nothing of whether the model may run twice, nor of the budget.
    """
    if not isinstance(error, CallError) or attempt >= retries.attempts:
        return None
    if CATALOGUE[error.code].grpc != "UNAVAILABLE" and not (retries.overload and error.code in _OVERLOADED):
        return None
    bound_s = min(retries.first_s * 2.0 ** (attempt - 1), retries.longest_s)
    pause_s = (error.retry_after_s or 0.0) + bound_s * float(rng.random())
    return pause_s if pause_s < left_s else None
