"""The composition root of the server process: the only place where its concrete things meet."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from salver.clock import Clock
from salver.config import Settings
from salver.gateway.descriptions import Descriptions
from salver.gateway.gateway import Gateway
from salver.gateway.infer import InferDoor
from salver.gateway.oip import OipPages, oip_routes
from salver.gateway.pages import page_routes
from salver.gateway.repository import Controller, repository_routes
from salver.gateway.routes import HttpRouteTable
from salver.protocol.errors import SalverError
from salver.protocol.tables import Tables
from salver.routing.router import Router, Target
from salver.runtime.host import Host
from salver.runtime.recorder import FlightRecorder
from salver.runtime.status import EndpointStatus
from salver.security.access import Principal
from salver.security.guessing import GuessLimit
from salver.security.tokens import TokenVerifier
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.storage.isolation import Cause, FollowedIsolation, isolate
from salver.storage.publication import PublishedTables
from salver.telemetry.exposition import CONTENT_TYPE_LATEST, Gauges, render_metrics
from salver.telemetry.logs import AccessSample, log_event
from salver.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from salver.gateway.grpc.call import Method

__all__ = ["DataPlane"]

_SWEEP_S: Final = 0.5
_POLL_S: Final = 0.25
"""How often the published snapshot is looked at: one stat(2)."""


class DataPlane:
    """The data path of one server process, wired together. Lives on the event loop."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        recorder: FlightRecorder,
        scratch: Path,
        clock: Clock,
        *,
        pepper: bytes,
        open_to_anyone: bool,
        controller: Controller | None = None,
    ) -> None:
        self._home = home
        self._clock = clock
        self._recorder = recorder
        self._pepper = pepper
        self._verifier = TokenVerifier((), pepper, clock)
        self._guesses = GuessLimit(clock)
        self._tables = PublishedTables(home)
        self._isolation = FollowedIsolation(home)
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.metrics = Metrics()
        self.router = Router()
        self.host = Host(
            BlobStore(home.blobs_path),
            home.blobs_path,
            scratch,
            recorder,
            self.metrics,
            clock,
            isolated=(),
            on_change=self._publish,
            on_hang=self._isolate,
        )
        limits = settings.limits
        self._controller = controller
        self._descriptions = Descriptions(
            self.router,
            self.metrics,
            server_name=settings.server.name,
            is_ready=self.host.is_ready,
            has_repository=controller is not None,
        )
        door = InferDoor(self.router, limits.tensor_elements, limits.body_bytes)
        routes = oip_routes(OipPages(self._descriptions), door)
        if controller is not None:
            routes += repository_routes(controller)
        self.gateway = Gateway(
            HttpRouteTable(page_routes(self._metrics_text, routes)),
            limits,
            self.metrics,
            clock,
            authenticate=self._authenticate,
            open_to_anyone=open_to_anyone,
            id_prefix=os.urandom(4).hex(),
            access=AccessSample(settings.server.access_log_every),
        )
        self.swept = [self.gateway]
        """The gateways whose slow and idle connections are closed here."""

    def grpc_methods(self) -> dict[bytes, Method]:
        """Every method of the gRPC listener by its path."""
        # Only servers with that listener pay for protobuf.
        from salver.gateway.grpc.methods import all_methods  # noqa: PLC0415

        return all_methods(self.router, self._descriptions, self._controller, self.gateway.limits.tensor_elements)

    # Tables in.

    def read_tables(self) -> None:
        """Apply the published snapshot if it has changed; a damaged one changes nothing."""
        try:
            tables = self._tables.news()
            if tables is not None:
                self.apply(tables)
        except (SalverError, KeyError) as error:
            log_event("tables_unreadable", level=logging.ERROR, problem=str(error))

    def _read_isolation(self) -> None:
        """Take note of versions that were isolated, or are so no longer, by another process."""
        try:
            digests = self._isolation.news()
        except SalverError as error:
            # Worth a crash to learn again; not worth refusing to serve.
            log_event("isolation_unreadable", level=logging.ERROR, problem=str(error))
        else:
            if digests is not None:
                self.host.set_isolated(digests)

    def apply(self, tables: Tables) -> None:
        """Make a snapshot the desired state."""
        self._verifier = TokenVerifier(tables.tokens, self._pepper, self._clock, self._verifier)
        self.host.apply(tables)
        self._publish()

    def _publish(self) -> None:
        """Tell the router what serves now."""
        pools = self.host.pools()
        targets = {name: Target(pool.spec, pool.manifest, pool) for name, pool in pools.items()}
        without = {name: self.host.error_of(name) for name in self.host.names() if name not in pools}
        self.router.publish(targets, without)

    def _authenticate(self, token: str, peer: str | None) -> Principal | None:
        """Whose token this is; who sends too many wrong ones from the address `peer` is slowed down."""
        return self._guesses.principal(peer, token, self._verifier)

    def _isolate(self, digest: str) -> None:
        """Record that a version hung; beside the loop, for the disk and for the lock."""
        self._loop.run_in_executor(None, self._record_isolation, digest)

    def _record_isolation(self, digest: str) -> None:
        try:
            isolate(self._home, {digest}, Cause.HUNG, self._clock.wall_s())
        except (SalverError, OSError) as error:
            # It holds for the life of this process; a full disk must not stop the answers.
            log_event("isolation_not_recorded", level=logging.ERROR, problem=str(error))

    # Beating.

    def start(self) -> None:
        """Begin to watch the snapshot, the connections and the loop itself."""
        self._sweep(self._clock.monotonic_s())
        self._poll()

    # Each schedules its next turn first: a fault in one turn is reported by the loop and ends nothing.

    def _sweep(self, due_s: float) -> None:
        now_s = self._clock.monotonic_s()
        self._timers["sweep"] = self._loop.call_later(_SWEEP_S, self._sweep, now_s + _SWEEP_S)
        self.metrics.loop_lag_s = max(0.0, now_s - due_s)
        self.metrics.connections = len(self.gateway.lanes)
        self._recorder.beat(now_s)
        for gateway in self.swept:
            gateway.sweep()

    def _poll(self) -> None:
        self._timers["poll"] = self._loop.call_later(_POLL_S, self._poll)
        self._read_isolation()  # first: it says where what is deployed will load
        self.read_tables()

    def stop(self) -> None:
        """Stop watching."""
        for timer in self._timers.values():
            timer.cancel()

    # What is.

    def status(self) -> list[EndpointStatus]:
        """What each endpoint does now."""
        return self.host.status()

    def _metrics_text(self) -> tuple[bytes, str]:
        return render_metrics(self.metrics, self._gauges), CONTENT_TYPE_LATEST

    def _gauges(self) -> list[Gauges]:
        return [
            Gauges(
                name,
                pool.manifest.version,
                pool.waiting,
                pool.running,
                len(pool.replicas),
                pool.available,
                sum(replica.restarts for replica in pool.replicas),
            )
            for name, pool in sorted(self.host.pools().items())
        ]
