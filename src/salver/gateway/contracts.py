"""What every door of inference shares: preparing once for each version, and asking it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.routing.router import Router, Target

if TYPE_CHECKING:
    from salver.gateway.exchange import Exchange
    from salver.gateway.grpc.call import Call

__all__ = ["TIMING", "Contract", "Contracts", "ask", "read_wait_s", "refuse_unwritten", "server_timing"]

TIMING: Final = "salver_timing"
"""The request's parameter that asks why the answer took as long as it did."""

_MICROSECONDS: Final = 1e-6
_LONGEST_TIMEOUT_US: Final = 3_600_000_000


class Contract(Protocol):
    """What a door has prepared for the version behind an endpoint, from the target it is made with."""

    target: Target


Prepared = TypeVar("Prepared", bound=Contract)


class Contracts(Generic[Prepared]):
    """The contracts of one door, one for each endpoint, renewed when its target changes."""

    def __init__(self, router: Router, make: Callable[[Target], Prepared]) -> None:
        self._router = router
        self._make = make
        self._prepared: dict[str, Prepared] = {}

    def of(self, endpoint: str, version: str | None) -> Prepared:
        """The contract with the version that `endpoint` leads to; raises what `Router.resolve` raises."""
        target = self._router.resolve(endpoint, version)
        contract = self._prepared.get(endpoint)
        if contract is None or contract.target is not target:
            # Those of endpoints that no longer are go, and the versions they hold.
            current = {name for name, _ in self._router.targets()}
            self._prepared = {name: contract for name, contract in self._prepared.items() if name in current}
            contract = self._prepared[endpoint] = self._make(target)
        return contract


def ask(target: Target, request: Request) -> asyncio.Future[Response]:
    """Send a request to the service behind a target."""
    answer = target.service(request)
    # A pool answers with a future as it is; only layered services cost a task.
    return answer if isinstance(answer, asyncio.Future) else asyncio.ensure_future(answer)


def read_wait_s(parameters: Mapping[str, Any], default_s: float) -> float:
    """How long a request may take: its own `timeout` in microseconds, as the protocol has it, if that is shorter.

    Raises INVALID_PARAMETER for a value that it, or the wish for timing, cannot have.
    """
    if not isinstance(parameters.get(TIMING, False), bool):
        raise SalverError("INVALID_PARAMETER", f"{TIMING} is {_shown(parameters[TIMING])}", "use true or false")
    if "timeout" not in parameters:
        return default_s
    timeout = parameters["timeout"]
    if not isinstance(timeout, int) or isinstance(timeout, bool) or not 0 <= timeout <= _LONGEST_TIMEOUT_US:
        raise SalverError(
            "INVALID_PARAMETER",
            f"timeout is {_shown(timeout)}",
            "give whole microseconds, at most an hour; 0 for the default",
        )
    return min(timeout * _MICROSECONDS, default_s) if timeout else default_s


def _shown(value: object) -> str:
    """A client's own value as far as an error repeats it; Python itself refuses to write the longest numbers."""
    return "a very large number" if isinstance(value, int) and value.bit_length() > 64 else repr(value)[:80]


def server_timing(response: Response, clock: Clock, received_s: float) -> bytes:
    """Why an answer took as long as it did, in milliseconds as W3C Server Timing has it."""
    total_s = clock.monotonic_s() - received_s
    spans = (("queue", response.queue_s), ("compute", response.compute_s), ("total", total_s))
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in spans).encode()


def refuse_unwritten(exchange: Exchange | Call, request: Request, response: Response, error: Exception) -> None:
    """Answer with why the model's answer cannot be written; counted with its batch, it is a failure all the same."""
    gateway = exchange.lane.gateway
    if not isinstance(error, SalverError):
        gateway.fault(error)
        error = SalverError("INTERNAL", "the request met a fault of this server")
    seconds = gateway.clock.monotonic_s() - exchange.received_s
    gateway.metrics.version(request.endpoint, response.version).unwritten(error.code, seconds)
    exchange.refuse(error, counted=True)
