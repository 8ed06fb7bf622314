"""What all connections of the data listener share.

Every request takes two steps here: who is it and may they, then the door of its route.
"""

from __future__ import annotations

import email.utils
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final, Protocol

from salver.clock import Clock
from salver.gateway.asked import Asked
from salver.gateway.exchange import Exchange
from salver.gateway.heads import HeadMemory
from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRouteTable, WrongVerbError
from salver.protocol.api_versions import API_VERSION_HEADER, check_api_version
from salver.protocol.errors import SalverError
from salver.protocol.usage import Asking
from salver.security.access import ANONYMOUS, Operation, Principal, allows, require
from salver.telemetry.logs import AccessSample, log_event
from salver.telemetry.metrics import Metrics

__all__ = ["Gateway"]

_LONGEST_ID_BYTES: Final = 128
_BEARER: Final = b"bearer "


class Swept(Protocol):
    """A `Connection`, as far as the gateway minds it; see there."""

    def sweep(self, now_s: float) -> None:
        """Called twice a second."""

    def drain(self, now_s: float) -> None:
        """Close it once nothing is owed."""


class Gateway:
    """The shared state of the data listener.

    `authenticate` maps a token, and the address it comes from, to a principal or None; with
    `open_to_anyone` a request without a token is the anonymous predictor, and one with a token
    must still be right. `default_token` counts as that of those who bring none and ask for more than that.
    """

    def __init__(
        self,
        routes: HttpRouteTable,
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
        *,
        authenticate: Callable[[str, str | None], Principal | None],
        open_to_anyone: bool,
        id_prefix: str,
        access: AccessSample,
        tells_timing: bool = False,
        default_token: str = "",
    ) -> None:
        self.routes = routes
        self.limits = limits
        self.metrics = metrics
        self.clock = clock
        self.authenticate = authenticate
        self._free: set[Operation | None] = {None}
        """Operations that need no token; None is that of health pages."""
        if open_to_anyone:
            self._free |= {operation for operation in Operation if allows(ANONYMOUS.role, operation)}
        self.access = access
        self.tells_timing = tells_timing
        """Whether every answer says why it took as long as it did, not only those that were asked to."""
        self._default_credentials = b"Bearer " + default_token.encode("latin-1", "replace") if default_token else b""
        self.lanes: set[Swept] = set()
        """The connections, from when they are accepted until they are gone."""
        self.askings: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        """Requests since they were last taken, by model, version, endpoint and whose token it was."""
        self.inflight_bytes = 0
        """All bodies that are being received or answered."""
        self.hosts: set[bytes] = set()
        """Some Host headers that were found well-formed."""
        self.unmeasured_bytes = min(limits.uri_bytes, limits.header_bytes)
        """Target and headers that came in less are within their limits."""
        self.draining = False
        self.heads = HeadMemory()
        self.date = b""
        self.ok_head = b""
        """How a reply begins that is JSON, as far as the length of its body."""
        self.now_s = 0.0
        self._id_prefix = id_prefix.encode()
        self._next_id = 0
        self.sweep()

    def begin(self, exchange: Asked) -> None:
        """Take a request that was read whole; it will be answered exactly once, and this never raises."""
        try:
            self.name(exchange)
            route = exchange.route
            if route is None:
                self._find_route(exchange)
                route = exchange.route
            headers = exchange.headers
            if route.operation not in self._free or b"authorization" in headers or API_VERSION_HEADER in headers:
                self._screen(exchange, route.operation)
            route.open(exchange)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            # Behind CONNECT no HTTP would follow.
            exchange.fail(error, close=exchange.method == b"CONNECT")

    def check_head(self, exchange: Exchange) -> None:
        """Raise what a request will be refused with whatever its body is."""
        self._find_route(exchange)
        self._screen(exchange, exchange.route.operation)

    def _find_route(self, exchange: Any) -> None:
        # An `Exchange`: calls over gRPC come with theirs.
        try:
            exchange.route, exchange.params = self.routes.resolve(exchange.method, exchange.target)
        except WrongVerbError as error:
            exchange.add_header(b"allow", error.verbs.encode())
            raise
        if exchange.route.deprecated is not None:
            for header in exchange.route.deprecated.headers(exchange.params):
                exchange.add_header(*header)

    def welcome(self, call: Asked) -> bool:
        """Whether a call of a known method may go on to send its message; it is refused here if not. Never raises."""
        try:
            self.name(call)
            self._screen(call, call.route.operation)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            call.fail(error)
            return False
        return True

    def _screen(self, exchange: Asked, operation: Operation | None) -> None:
        """What the headers alone say: raises what `check_api_version` and `admit` do."""
        if API_VERSION_HEADER in exchange.headers:
            check_api_version(exchange.headers[API_VERSION_HEADER])
        if b"authorization" in exchange.headers or operation not in self._free:
            self.admit(exchange, operation)

    def admit(self, exchange: Asked, operation: Operation | None) -> None:
        """Raise UNAUTHENTICATED or PERMISSION_DENIED unless whoever asks may do that."""
        if operation is None or (operation in self._free and b"authorization" not in exchange.headers):
            return
        if self._default_credentials and b"authorization" not in exchange.headers:
            # A new mapping: that of a known head belongs to all its requests. Whoever hands this one on needs it.
            exchange.headers = {**exchange.headers, b"authorization": self._default_credentials}
        principal = self.principal(exchange)
        if principal is None:
            raise SalverError(
                "UNAUTHENTICATED",
                "no valid token came with the request"
                if exchange.headers.get(b"authorization")
                else "this server asks for a token",
                "send Authorization: Bearer TOKEN; `salver token create` makes one",
            )
        require(principal, operation)
        exchange.tenant = principal.tenant
        exchange.client = principal.name

    def principal(self, exchange: Asked) -> Principal | None:
        """Whose token came with a request; None without one, or with one that is worth nothing."""
        credentials = exchange.headers.get(b"authorization", b"")
        if credentials[: len(_BEARER)].lower() != _BEARER:
            return None
        return self.authenticate(credentials[len(_BEARER) :].decode("latin-1").strip(), exchange.lane.peer)

    def name(self, exchange: Asked) -> None:
        """Give a request its id: the one it brought, else one unlike all others of all processes."""
        if b"x-request-id" in exchange.headers:
            given = exchange.headers[b"x-request-id"]
            if given and len(given) <= _LONGEST_ID_BYTES and given.isascii() and given.decode().isprintable():
                exchange.id = given
                return
        self._next_id += 1
        exchange.id = b"%b-%x" % (self._id_prefix, self._next_id)

    def sweep(self) -> None:
        """Renew the date and the coarse time, close connections that are too slow; called twice a second."""
        self.date = email.utils.formatdate(self.clock.wall_s(), usegmt=True).encode()
        self.ok_head = b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: application/json\r\ncontent-length: " % self.date
        self.now_s = self.clock.monotonic_s()
        self.access.renew()
        for lane in list(self.lanes):
            try:
                lane.sweep(self.now_s)
            except Exception as error:  # noqa: BLE001 - one connection must not keep the rest from being swept
                self.fault(error)

    def require_room(self) -> None:
        """Raise QUEUE_FULL if more bytes are in flight than may be."""
        most = self.limits.inflight_bytes
        if self.inflight_bytes > most:
            raise SalverError("QUEUE_FULL", f"more than {most} bytes are in flight", "retry later")

    def drain(self) -> None:
        """From now on every reply is the last on its connection, unless more requests have come."""
        self.draining = True

    def close_idle(self) -> None:
        """Close the connections that have been quiet and are owed nothing; to be called until `owes` is 0."""
        now_s = self.clock.monotonic_s()
        for lane in list(self.lanes):
            lane.drain(now_s)

    @property
    def owes(self) -> int:
        """Connections that wait for a reply, for the rest of one, or for a moment of quiet."""
        return len(self.lanes)

    def take_askings(self) -> list[Asking]:
        """What has been asked since the last time this was called."""
        taken, self.askings = self.askings, defaultdict(int)
        now_s = self.clock.wall_s()
        return [Asking(*key, requests, now_s) for key, requests in taken.items()]

    # What connections report.

    def observe(self, exchange: Asked, status: int) -> None:
        """Log a reply that the sample has taken."""
        response = exchange.response
        spent: dict[str, Any] = {}
        if response is not None:
            waits = (*response.waits, ("queue", response.queue_s), ("compute", response.batch.compute_s))
            spent = {f"{cause}_s": round(seconds, 6) for cause, seconds in waits}
        log_event(
            "request",
            id=exchange.id.decode(),
            method=exchange.method.decode(),
            route=exchange.route.template if exchange.route else None,
            endpoint=exchange.endpoint,
            status=status,
            seconds=round(self.clock.monotonic_s() - exchange.received_s, 6),
            bytes_in=exchange.body_bytes,
            **spent,
        )

    def refused(self, endpoint: str | None, error: SalverError) -> None:
        """Count a refusal."""
        self.metrics.refused(endpoint, error.code)

    def fault(self, error: BaseException) -> SalverError:
        """Log an exception that should not have happened; returns what the client is told, without details."""
        log_event("fault", level=logging.ERROR, error=error)
        return SalverError("INTERNAL", "the request met a fault of this server")
