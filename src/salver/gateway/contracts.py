"""What every door of inference shares: preparing once for each version, and asking it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from salver.clock import Clock
from salver.gateway.asked import Asked
from salver.gateway.caching import cache_headers, read_cache_wish
from salver.gateway.exchange import TIMING_HEADER
from salver.gateway.sequences import read_sequence
from salver.protocol.codecs.plain_answers import PlainAnswers
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, RequestedOutput, Response
from salver.protocol.signature import SignatureCheck
from salver.protocol.tensor import Tensor
from salver.routing.router import Router, Target

if TYPE_CHECKING:
    from salver.gateway.exchange import Exchange
    from salver.gateway.grpc.call import Call

__all__ = [
    "Contract",
    "Contracts",
    "PlainContract",
    "ask",
    "asks_timing",
    "headers_of",
    "make_request",
    "read_wishes",
    "refuse_unwritten",
    "server_timing",
    "told_waits",
]

_TIMING: Final = "salver_timing"
"""The request's parameter that asks why the answer took as long as it did."""
_TELLING: Final = frozenset({b"request-timeout", b"x-envoy-expected-rq-timeout-ms", b"priority"})
_URGENCY: Final = re.compile(rb"(?:^|[,\s])u=([0-7])(?=$|[,;\s])")

_MICROSECONDS: Final = 1e-6
_LONGEST_TIMEOUT_US: Final = 3_600_000_000
_LONGEST_TIMEOUT_S: Final = 3600.0


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
        self._revision = 0
        """Of the router's table, when those that are no more were dropped."""

    def of(self, endpoint: str, version: str | None) -> Prepared:
        """The contract with the version that `endpoint` leads to; raises what `Router.resolve` raises."""
        target = self._router.resolve(endpoint, version)
        if self._revision != self._router.revision:
            self._drop_gone()
        contract = self._prepared.get(endpoint)
        if contract is None or contract.target is not target:
            contract = self._prepared[endpoint] = self._make(target)
        return contract

    def _drop_gone(self) -> None:
        """Let go of endpoints that no longer are, and of the versions they hold."""
        self._revision = self._router.revision
        current = dict(self._router.targets())
        self._prepared = {name: contract for name, contract in self._prepared.items() if name in current}


class PlainContract:
    """What doors of plain values, without tensors, prepare once for each version behind an endpoint."""

    __slots__ = ("answers", "check", "headers", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.check = SignatureCheck(target.manifest.signature)
        self.answers = PlainAnswers(self.check.outputs, target.spec.nonfinite.of_python, batched=self.check.batched)
        self.headers = ((b"x-salver-version", target.manifest.reference.encode()),)


def make_request(
    asked: Exchange | Call,
    target: Target,
    check: SignatureCheck,
    inputs: dict[str, Tensor],
    *,
    id: str | None = None,
    outputs: tuple[RequestedOutput, ...] | None = None,
    parameters: Mapping[str, Any] | None = None,
    received_s: float | None = None,
    longest_s: float | None = None,
) -> Request:
    """The request for what a client sent; raises SalverError if the signature, or the protocol, forbids it.

    `received_s` is when it came, if that was later than the exchange or call began; `longest_s`
    bounds what it may take beside its own wishes.
    """
    rows = check.rows(inputs)
    if outputs is not None:
        check.require_outputs(outputs)
    spec = target.spec
    for header in target.headers:
        asked.add_header(*header)
    asked.lane.gateway.askings[spec.model, spec.version, spec.endpoint, asked.client] += 1
    began_s = asked.received_s if received_s is None else received_s
    wait_s, priority = spec.deadline_s, 0
    if parameters is not None or not _TELLING.isdisjoint(asked.headers):
        wait_s, priority = read_wishes(parameters, asked.headers, wait_s)
    if longest_s is not None:
        wait_s = min(wait_s, longest_s)
    return Request(
        spec.endpoint,
        inputs,
        target.manifest.version,
        id,
        outputs,
        parameters,
        began_s,
        began_s + wait_s,
        rows,
        asked.id,
        priority,
        asked.tenant,
        read_cache_wish(asked.headers) if spec.cache_bytes else None,
        read_sequence(parameters, asked.headers) if target.manifest.keeps_state else None,
    )


def ask(target: Target, request: Request) -> asyncio.Future[Response]:
    """Send a request to the service behind a target."""
    answer = target.service(request)
    # A pool answers with a future as it is; only layered services cost a task.
    return answer if isinstance(answer, asyncio.Future) else asyncio.ensure_future(answer)


def read_wishes(
    parameters: Mapping[str, Any] | None, headers: Mapping[bytes, bytes], default_s: float
) -> tuple[float, int]:
    """How many seconds a request may take, and its priority: 1 is the most urgent, 0 says nothing.

    The parameters `timeout` (microseconds) and `priority` are those of the Open Inference
    Protocol. Any protocol's requests may say the same in headers: `Request-Timeout` in seconds,
    Envoy's `X-Envoy-Expected-Rq-Timeout-Ms`, and `Priority: u=0` to `u=7` (RFC 9218). A request
    can only shorten the deployment's `default_s`. Raises INVALID_PARAMETER for values that these,
    or the wish for timing, cannot have.
    """
    wait_s, priority = default_s, 0
    if not _TELLING.isdisjoint(headers):
        wait_s, priority = _told_by_headers(headers, default_s)
    if parameters is None:
        return wait_s, priority
    if not isinstance(parameters.get(_TIMING, False), bool):
        raise SalverError("INVALID_PARAMETER", f"{_TIMING} is {_shown(parameters[_TIMING])}", "use true or false")
    if "timeout" in parameters:
        timeout = parameters["timeout"]
        if not isinstance(timeout, int) or isinstance(timeout, bool) or not 0 <= timeout <= _LONGEST_TIMEOUT_US:
            raise SalverError(
                "INVALID_PARAMETER",
                f"timeout is {_shown(timeout)}",
                "give whole microseconds, at most an hour; 0 for the default",
            )
        if timeout:
            wait_s = min(timeout * _MICROSECONDS, wait_s)
    if "priority" in parameters:
        priority = parameters["priority"]
        if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority < 2**32:
            raise SalverError(
                "INVALID_PARAMETER",
                f"priority is {_shown(priority)}",
                "give a whole number: 1 is the most urgent, 0 the default",
            )
    return wait_s, priority


def _told_by_headers(headers: Mapping[bytes, bytes], default_s: float) -> tuple[float, int]:
    wait_s, priority = default_s, 0
    for name, unit_s in ((b"request-timeout", 1.0), (b"x-envoy-expected-rq-timeout-ms", 1e-3)):
        if name in headers:
            given = headers[name]
            # Only plain decimals: no sign, exponent or name of infinity that float() would take.
            if not re.fullmatch(rb"\d{1,12}(?:\.\d{1,9})?", given) or float(given) * unit_s > _LONGEST_TIMEOUT_S:
                raise SalverError(
                    "INVALID_PARAMETER",
                    f"{name.decode()} is {given[:80].decode('latin-1')!r}",
                    f"give a decimal number of {'seconds' if unit_s == 1 else 'milliseconds'}, at most an hour",
                )
            if float(given):
                wait_s = min(wait_s, float(given) * unit_s)
    # What RFC 9218 does not define in a Priority header is to be ignored, so nothing is refused here.
    # Of a key that comes twice the last counts (RFC 8941, 3.2).
    urgencies = _URGENCY.findall(headers.get(b"priority", b""))
    if urgencies:
        priority = int(urgencies[-1]) + 1
    return wait_s, priority


def _shown(value: object) -> str:
    """A client's own value as far as an error repeats it; Python itself refuses to write the longest numbers."""
    return "a very large number" if isinstance(value, int) and value.bit_length() > 64 else repr(value)[:80]


def asks_timing(asked: Exchange | Call, request: Request) -> bool:
    """Whether a client wants to know why its answer took as long as it did."""
    parameters = request.parameters
    return TIMING_HEADER in asked.headers or (parameters is not None and bool(parameters.get(_TIMING)))


def headers_of(asked: Exchange | Call, request: Request, response: Response) -> tuple[tuple[bytes, bytes], ...]:
    """What an answer tells of itself in headers, or in the metadata of gRPC: from the cache, and its timing."""
    gateway = asked.lane.gateway
    told: tuple[tuple[bytes, bytes], ...] = ()
    if gateway.tells_timing or asks_timing(asked, request):
        told = ((b"server-timing", server_timing(response, gateway.clock, asked.received_s)),)
    return told if response.cache is None else (*cache_headers(response.cache, gateway.clock.monotonic_s()), *told)


def server_timing(response: Response, clock: Clock, received_s: float) -> bytes:
    """Why an answer took as long as it did, in milliseconds as W3C Server Timing has it.

    >>> from salver.protocol.request import BatchOutputs
    >>> from salver.testing import ManualClock
    >>> batch = BatchOutputs({}, rows=16, compute_s=0.0021, placement="thread")
    >>> server_timing(Response("m", "1.0.0", batch, queue_s=0.0004), ManualClock(5.0), 4.997).decode()
    'queue;dur=0.400, hold;dur=0.000, compute;dur=2.100, batch;desc="16", placement;desc="thread", total;dur=3.000'

    What it waited for before the queue comes first: `load` of its version, its `turn` in a session.
    """
    spans = told_waits(response)
    source = response.cache.source if response.cache else ""
    if source:
        spans.append(b'cache;desc="%b"' % source.encode())
    if source != "hit":
        spans.append(_ran(response))
    spans.append(b"total;dur=%.3f" % ((clock.monotonic_s() - received_s) * 1e3))
    return b", ".join(spans)


def told_waits(response: Response) -> list[bytes]:
    """What an answer waited for before the queue, or its first chunk before the model."""
    return [b"%b;dur=%.3f" % (cause.encode(), seconds * 1e3) for cause, seconds in response.waits]


def _ran(response: Response) -> bytes:
    """What became of a request until a model had answered it."""
    batch = response.batch
    told: bytes | None = batch.codec_cache.get(_TIMING)
    if told is None:
        told = b'compute;dur=%.3f, batch;desc="%d", placement;desc="%b"' % (
            batch.compute_s * 1e3,
            batch.rows,
            batch.placement.encode(),
        )
        batch.codec_cache[_TIMING] = told
    return b"queue;dur=%.3f, hold;dur=%.3f, %b" % (response.queue_s * 1e3, response.hold_s * 1e3, told)


def refuse_unwritten(exchange: Asked, request: Request, response: Response, error: Exception) -> None:
    """Answer with why the model's answer cannot be written; counted with its batch, it is a failure all the same."""
    response.unwritten()
    gateway = exchange.lane.gateway
    refusal: SalverError = error if isinstance(error, SalverError) else gateway.fault(error)
    seconds = gateway.clock.monotonic_s() - exchange.received_s
    gateway.metrics.version(request.endpoint, response.version).unwritten(refusal.code, seconds)
    exchange.refuse(refusal, counted=True)
