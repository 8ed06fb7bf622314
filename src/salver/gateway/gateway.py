"""What all connections of the data listener share.

Every request takes two steps here: who is it and may they, then the door of its route.
"""

from __future__ import annotations

import email.utils
import logging
from collections.abc import Callable
from typing import Final

from salver.clock import Clock
from salver.gateway.exchange import Exchange
from salver.gateway.lane import Lane
from salver.gateway.limits import Limits
from salver.gateway.routes import Route, RouteTable
from salver.protocol.errors import SalverError
from salver.security.access import ANONYMOUS, Operation, Principal, allows, require
from salver.telemetry.logs import AccessSample, log_event
from salver.telemetry.metrics import Metrics

__all__ = ["Gateway"]

_LONGEST_ID_BYTES: Final = 128
_BEARER: Final = b"bearer "


class Gateway:
    """The shared state of the data listener.

    `authenticate` maps a token to a principal, or None; with `open_to_anyone` a request without
    a token is the anonymous predictor, and one with a token must still be right.
    """

    def __init__(
        self,
        routes: RouteTable,
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
        *,
        authenticate: Callable[[str], Principal | None],
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
        self.lanes: set[Lane] = set()
        self.inflight_bytes = 0
        self.draining = False
        self.date = b""
        self.now_s = 0.0
        self._id_prefix = id_prefix.encode()
        self._next_id = 0
        self._access = access
        self.sweep()

    def begin(self, exchange: Exchange) -> None:
        """Take a request that was read whole; it will be answered exactly once, and this never raises."""
        exchange.id = self._id_of(exchange)
        try:
            route, exchange.params = self.routes.resolve(exchange.method, exchange.target)
            exchange.route = route
            if route.operation not in self._free or b"authorization" in exchange.headers:
                self._admit(exchange, route)
            route.open(exchange)
        except SalverError as error:
            exchange.refuse(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            self.fault(error)
            exchange.refuse(SalverError("INTERNAL", "the request met a fault of this server"))

    def _admit(self, exchange: Exchange, route: Route) -> None:
        credentials = exchange.headers.get(b"authorization", b"")
        principal: Principal | None = None
        if credentials[: len(_BEARER)].lower() == _BEARER:
            principal = self.authenticate(credentials[len(_BEARER) :].decode("latin-1").strip())
        if principal is None:
            raise SalverError(
                "UNAUTHENTICATED",
                "no valid token came with the request" if credentials else "this server asks for a token",
                "send Authorization: Bearer TOKEN; `salver token create` makes one",
            )
        if route.operation is not None:
            require(principal, route.operation)

    def _id_of(self, exchange: Exchange) -> bytes:
        given = exchange.headers.get(b"x-request-id")
        if given and len(given) <= _LONGEST_ID_BYTES and given.isascii() and given.decode().isprintable():
            return given
        return self.next_id()

    def next_id(self) -> bytes:
        """An id for a request that brought none: unique in this process and unlike other processes'."""
        self._next_id += 1
        return b"%b-%x" % (self._id_prefix, self._next_id)

    def sweep(self) -> None:
        """Renew the date and the coarse time, close connections that are too slow; called twice a second."""
        self.date = email.utils.formatdate(self.clock.wall_s(), usegmt=True).encode()
        self.now_s = self.clock.monotonic_s()
        for lane in list(self.lanes):
            lane.sweep(self.now_s)

    def drain(self) -> None:
        """From now on every reply is the last on its connection."""
        self.draining = True

    def close_idle(self) -> None:
        """Close the connections to which nothing is owed."""
        for lane in list(self.lanes):
            lane.drain()

    @property
    def owes(self) -> int:
        """Connections with a request that has no reply yet."""
        return sum(lane.owes for lane in self.lanes)

    # What connections report.

    def observe(self, exchange: Exchange, status: int) -> None:
        """Note a reply in the sampled access log."""
        if self._access.takes(status):
            log_event(
                "request",
                id=exchange.id.decode(),
                method=exchange.method,
                route=exchange.route.template if exchange.route else None,
                endpoint=exchange.endpoint,
                status=status,
                seconds=round(self.clock.monotonic_s() - exchange.received_s, 6),
                bytes_in=len(exchange.body),
            )

    def refused(self, endpoint: str | None, error: SalverError) -> None:
        """Count a refusal."""
        self.metrics.refused(endpoint, error.code)

    def fault(self, error: BaseException) -> None:
        """Log an exception that should not have happened; the client gets no details."""
        log_event("fault", level=logging.ERROR, error=error)
