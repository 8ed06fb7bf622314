"""The composition root of the server process: the only place where its concrete things meet."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from salver.clock import Clock
from salver.config import Settings
from salver.gateway.choosing import EndpointChoice
from salver.gateway.descriptions import Descriptions
from salver.gateway.files import FilesDoor, files_routes
from salver.gateway.gateway import Gateway
from salver.gateway.generate import GenerateDoor, generate_routes
from salver.gateway.infer import InferDoor
from salver.gateway.jobs.door import JobDoor, job_routes
from salver.gateway.jobs.runner import JobRunner
from salver.gateway.jobs.waits import JobWaits
from salver.gateway.mlflow import MlflowDoor, mlflow_routes
from salver.gateway.oip import OipPages, oip_routes
from salver.gateway.openai import OPENAI_STRAYS, EmbeddingsDoor, openai_routes
from salver.gateway.pages import page_routes
from salver.gateway.platforms import platform_routes
from salver.gateway.repository import REPOSITORY_STRAY, Controller, repository_routes
from salver.gateway.routes import HttpRoute, HttpRouteTable
from salver.gateway.tfs import TfsDoor
from salver.gateway.v1_models import V1Pages, v1_routes
from salver.gateway.websocket.door import WebSocketDoor, websocket_routes
from salver.protocol.api_versions import retirement_headers
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits
from salver.protocol.request import Service
from salver.protocol.tables import Tables
from salver.protocol.usage import Asking
from salver.routing.router import Router, Target
from salver.runtime.cache import ResponseCache, layer_caches
from salver.runtime.host import Host
from salver.runtime.lazy import LazyVersion
from salver.runtime.provenance import Provenance, trusted_keys_of
from salver.runtime.recorder import FlightRecorder
from salver.runtime.sessions import Serving, Sessions
from salver.runtime.status import EndpointStatus
from salver.runtime.streams import StreamingPool, layer_streams, open_streams
from salver.security.access import Principal
from salver.security.guessing import FREE_GUESSES, GuessLimit
from salver.security.tokens import TokenVerifier
from salver.storage.home import Home
from salver.storage.isolation import Cause, FollowedIsolation, isolate
from salver.storage.job_ledger import JobLedger
from salver.storage.opening import open_blobs
from salver.storage.owners import this_process
from salver.storage.publication import PublishedTables
from salver.storage.usage_spool import UsageSpool
from salver.telemetry.counts import KeptCounts, Picture, read_picture
from salver.telemetry.exposition import CONTENT_TYPE_LATEST, Gauges, render_metrics
from salver.telemetry.logs import AccessSample, log_event
from salver.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from salver.gateway.grpc.call import Method

__all__ = ["DataPlane"]

_SWEEP_S: Final = 0.5
_USAGE_S: Final = 10.0
"""How often what was asked is handed to the controller."""
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
        siblings: Callable[[], Awaitable[list[Picture]]] | None = None,
        counts_path: Path | None = None,
    ) -> None:
        self._home = home
        self._clock = clock
        self._recorder = recorder
        self._pepper = pepper
        self._verifier = TokenVerifier((), pepper, clock)
        # Its share: an address may come to every process.
        self._guesses = GuessLimit(clock, free=max(1, FREE_GUESSES // settings.server.processes))
        self._siblings = siblings
        self._kept = None if counts_path is None else KeptCounts(counts_path, clock)
        self._tables = PublishedTables(home)
        self._isolation = FollowedIsolation(home)
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._caches: dict[Serving, ResponseCache] = {}
        self._streams: dict[Serving, StreamingPool] = {}
        self._pools: dict[str, Serving] = {}
        self._notices: dict[tuple[str, str], tuple[tuple[bytes, bytes], ...]] = {}
        """What the answers of versions say beside, that are to be retired."""
        self.metrics = Metrics()
        self.router = Router()
        self.host = Host(
            open_blobs(home),
            scratch,
            recorder,
            self.metrics,
            clock,
            Provenance(trusted_keys_of(home)),
            isolated=(),
            on_change=self._publish,
            on_hang=self._isolate,
            # Each process loads every version.
            memory_bytes=settings.server.memory_bytes // settings.server.processes,
        )
        self._usage = UsageSpool(home.usage_path)
        self._controller = controller
        self._descriptions = Descriptions(
            self.router,
            self.metrics,
            server_name=settings.server.name,
            is_ready=self.host.is_ready,
            has_repository=controller is not None,
        )
        self.gateway = self._make_gateway(settings, open_to_anyone)
        self.swept = [self.gateway]
        """The gateways whose slow and idle connections are closed here."""

    def _make_gateway(self, settings: Settings, open_to_anyone: bool) -> Gateway:
        """What all connections of the data listener share; its doors lead to the host's versions through the router."""
        return Gateway(
            HttpRouteTable(page_routes(self._metrics_text, self._routes(settings)), (*OPENAI_STRAYS, REPOSITORY_STRAY)),
            settings.limits,
            self.metrics,
            self._clock,
            authenticate=self._authenticate,
            open_to_anyone=open_to_anyone,
            id_prefix=os.urandom(4).hex(),
            access=AccessSample(settings.server.access_log_every),
            tells_timing=settings.server.timing,
            default_token=settings.server.default_token,
        )

    def _routes(self, settings: Settings) -> list[HttpRoute]:
        """Every protocol's routes on the data listener, all onto the same endpoints."""
        server, router, most = settings.server, self.router, settings.limits.tensor_elements
        infer, embeddings, tfs = InferDoor(router, most), EmbeddingsDoor(router, most), TfsDoor(router, most)
        choice = EndpointChoice(router, server.default_endpoint)
        has_header = server.csv_header == "present"
        scoring = MlflowDoor(router, choice, self._descriptions, infer, embeddings, most, csv_header=has_header)
        self._jobs_door = self._make_jobs(settings.jobs, infer)
        return [
            # In front: what a platform chooses is its to choose.
            *platform_routes(
                router,
                choice,
                scoring,
                tfs,
                self._controller,
                most,
                health_route=server.health_route,
                predict_route=server.predict_route,
            ),
            *oip_routes(OipPages(self._descriptions), infer),
            *generate_routes(GenerateDoor(router, infer, most)),
            *websocket_routes(WebSocketDoor(infer, most, server.allowed_origins)),
            *mlflow_routes(scoring),
            *openai_routes(embeddings),
            *files_routes(FilesDoor(router, most)),
            *v1_routes(V1Pages(router, self.host.wanted_of), tfs),
            *job_routes(self._jobs_door),
            *(repository_routes(self._controller) if self._controller is not None else ()),
        ]

    def _make_jobs(self, limits: JobLimits, door: InferDoor) -> JobDoor:
        ledger, waits = JobLedger(self._home.jobs_path, limits, self._clock, this_process()), JobWaits()
        metrics = self.metrics.jobs
        self.jobs = JobRunner(ledger, self.router, door, limits, metrics, self._clock, self._waiting, waits.ended)
        return JobDoor(ledger, door, self.jobs, waits, limits, metrics, self._clock)

    def _waiting(self, endpoint: str) -> int:
        """How many requests wait for the model of an endpoint."""
        pool = self._pools.get(endpoint)
        return pool.waiting if pool else 0

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
        self._notices = {
            (each.model, each.version): retirement_headers(each.proposed_s, each.due_s) for each in tables.retirements
        }
        self._jobs_door.webhooks = {webhook.name: webhook for webhook in tables.webhooks}
        self._publish()

    def _publish(self) -> None:
        """Tell the router what serves now."""
        pools = self._pools = self.host.pools()
        self._caches = layer_caches(pools.values(), self._caches, self.metrics, self._clock)
        self._streams = layer_streams(pools.values(), self._streams)
        targets = {
            name: self._target(pool, self._caches.get(pool) or self._streams.get(pool) or pool)
            for name, pool in pools.items()
        }
        for name, lazy in self.host.lazy_versions().items():
            # It stays when its version is unloaded, so it is the one that is asked.
            if name in targets:
                lazy.serve(targets[name].service)
            targets[name] = self._target(lazy, lazy)
        without = {name: self.host.error_of(name) for name in self.host.names() if name not in targets}
        self.router.publish(targets, without)

    def _target(self, serving: Serving | LazyVersion, service: Service) -> Target:
        spec, manifest = serving.spec, serving.manifest
        return Target(spec, manifest, service, self._notices.get((manifest.model, manifest.version), ()))

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
        self._timers["usage"] = self._loop.call_later(_USAGE_S, self._hand_over_usage)
        self.jobs.start(self.gateway)

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

        if self._kept is not None and self._kept.due:
            self.leave_counts()

    def _hand_over_usage(self) -> None:
        self._timers["usage"] = self._loop.call_later(_USAGE_S, self._hand_over_usage)
        askings = self.gateway.take_askings()
        if askings:
            self._loop.run_in_executor(None, self._leave_usage, askings)

    def _leave_usage(self, askings: list[Asking]) -> None:
        try:
            if self._usage.put(askings):
                return
            problem = "nobody fetches them: the controller is away"
        except (SalverError, OSError) as error:
            problem = str(error)
        log_event(
            "usage_dropped", level=logging.WARNING, requests=sum(each.requests for each in askings), problem=problem
        )

    def stop(self) -> None:
        """Stop watching, and hand over what was counted. Blocks for a moment."""
        for timer in self._timers.values():
            timer.cancel()
        self.jobs.stop()
        askings = self.gateway.take_askings()
        if askings:
            self._leave_usage(askings)

    # What is.

    def status(self) -> list[EndpointStatus]:
        """What each endpoint does now."""
        return self.host.status()

    def leave_counts(self) -> bytes:
        """Write down what this process and those before it in its place have counted; returns the picture of it.

        To be called before it is told, or what was shown could fall. REQUIRES a path for the counts.
        """
        assert self._kept is not None
        return self._kept.keep(Picture(self.metrics, self._gauges()))

    def _metrics_text(self) -> tuple[bytes, str] | Awaitable[tuple[bytes, str]]:
        if self._siblings is not None:
            return self._merged_metrics(self._siblings)
        return render_metrics(self.metrics, self._gauges), CONTENT_TYPE_LATEST

    async def _merged_metrics(self, siblings: Callable[[], Awaitable[list[Picture]]]) -> tuple[bytes, str]:
        """Of all server processes."""
        others = await siblings()
        whole = sum(others, read_picture(self.leave_counts()))
        return render_metrics(whole.metrics, lambda: whole.gauges), CONTENT_TYPE_LATEST

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
                (self._caches[pool].size_bytes, self._caches[pool].answers) if pool in self._caches else None,
                sessions=pool.open if isinstance(pool, Sessions) else None,
                streams=open_streams(pool),
                size_bytes=self.host.size_bytes(name),
            )
            for name, pool in sorted(self.host.pools().items())
        ]
