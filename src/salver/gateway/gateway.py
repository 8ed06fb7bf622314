"""What all connections of the data listener share.

Every request takes two steps here: who is it and may they, then the door of its route.
"""

from __future__ import annotations

import email.utils
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from salver.clock import Clock
from salver.gateway.connection import Connection
from salver.gateway.exchange import Exchange
from salver.gateway.heads import HeadMemory
from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRoute, HttpRouteTable, WrongVerbError
from salver.protocol.errors import SalverError
from salver.security.access import ANONYMOUS, Operation, Principal, allows, require
from salver.telemetry.logs import AccessSample, log_event
from salver.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from salver.gateway.grpc.call import Call, Method

__all__ = ["Gateway"]

_LONGEST_ID_BYTES: Final = 128
_BEARER: Final = b"bearer "


class Gateway:
    """The shared state of the data listener.

    `authenticate` maps a token, and the address it comes from, to a principal or None; with
    `open_to_anyone` a request without a token is the anonymous predictor, and one with a token
    must still be right.
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
        self.lanes: set[Connection] = set()
        """The connections, from when they are accepted until they are gone."""
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

    def begin(self, exchange: Exchange | Call) -> None:
        """Take a request that was read whole; it will be answered exactly once, and this never raises."""
        try:
            self.name(exchange)
            route: Any = exchange.route
            if route is None:
                route, exchange.params = self.routes.resolve(exchange.method, exchange.target)
                exchange.route = route
            if b"authorization" in exchange.headers or route.operation not in self._free:
                self._admit(exchange, route)
            route.open(exchange)
        except WrongVerbError as error:
            # Behind CONNECT no HTTP would follow.
            exchange.refuse(error, close=exchange.method == b"CONNECT", headers=[(b"allow", error.verbs.encode())])
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            exchange.fail(error, close=exchange.method == b"CONNECT")

    def _admit(self, exchange: Exchange | Call, route: HttpRoute | Method) -> None:
        if route.operation is None:
            return
        credentials = exchange.headers.get(b"authorization", b"")
        principal: Principal | None = None
        if credentials[: len(_BEARER)].lower() == _BEARER:
            principal = self.authenticate(credentials[len(_BEARER) :].decode("latin-1").strip(), exchange.lane.peer)
        if principal is None:
            raise SalverError(
                "UNAUTHENTICATED",
                "no valid token came with the request" if credentials else "this server asks for a token",
                "send Authorization: Bearer TOKEN; `salver token create` makes one",
            )
        require(principal, route.operation)

    def name(self, exchange: Exchange | Call) -> None:
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

    # What connections report.

    def observe(self, exchange: Exchange | Call, status: int) -> None:
        """Log a reply that the sample has taken."""
        response = exchange.response
        spent: dict[str, Any] = {}
        if response is not None:
            spent = {"queue_s": round(response.queue_s, 6), "compute_s": round(response.compute_s, 6)}
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

    def fault(self, error: BaseException) -> None:
        """Log an exception that should not have happened; the client gets no details."""
        log_event("fault", level=logging.ERROR, error=error)
