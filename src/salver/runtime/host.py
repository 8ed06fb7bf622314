"""The versions on this machine: brings what is loaded to what the tables ask for.

Level-triggered: `apply` takes the whole desired state and starts what differs. Loading,
warming up and freeing happen off the event loop; the swap between two versions is one
assignment, after which the old one drains and is freed. A load that fails leaves the serving
version as it is; one that nobody wishes for any more is cancelled, its worker killed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec, Placement, Tables, VersionManifest
from salver.runtime.aside import run_aside
from salver.runtime.curve import Measured
from salver.runtime.formats import Loaded
from salver.runtime.inprocess import InProcessReplica
from salver.runtime.loader import load_version
from salver.runtime.pool import Pool
from salver.runtime.recorder import FlightRecorder
from salver.runtime.status import EndpointStatus, LoadState
from salver.runtime.warmup import warm_up
from salver.runtime.worker_replica import WorkerReplica
from salver.storage.blobs import BlobStore
from salver.telemetry.logs import log_event
from salver.telemetry.metrics import Metrics

__all__ = ["Host", "placement_of"]

_DRAIN_S = 30.0
"""How long a replaced version may still answer what it has, at least: its requests have their deadline."""
_LONGEST_DRAIN_S = 3600.0
"""And at most, whatever the deadline: two versions in memory are meant to be a passing state."""
_PROCESSORS = os.cpu_count() or 1
_LOADS_AT_ONCE = max(2, _PROCESSORS // 2)
"""Loads inside the server process, of all endpoints; each takes processor time from serving."""
_LAUNCHES_AT_ONCE = max(4, _PROCESSORS)
"""Workers that load, of all endpoints. Apart from the former, and more than one even on one processor:
a version that takes minutes to load must not keep all others waiting."""


def _taken_away() -> SalverError:
    return SalverError("NOT_READY", "the version was taken away before it could answer", "retry")


class _Endpoint:
    """One endpoint: what is wanted, what serves, and the task that brings the two together."""

    def __init__(self, spec: DeploymentSpec, manifest: VersionManifest) -> None:
        self.wanted = (spec, manifest)
        self.reached: tuple[DeploymentSpec, VersionManifest] | None = None
        self.pool: Pool | None = None
        self.error: SalverError | None = None
        self.task: asyncio.Task[None] | None = None
        self.load: asyncio.Task[Pool] | None = None
        self.removed = False

    def overtake(self) -> None:
        """End the load that is under way: something else is wanted."""
        if self.load is not None:
            self.load.cancel()


class Host:
    """All endpoints of one server process. Lives on the event loop.

    `on_change` is called with nothing whenever an endpoint begins or ceases to serve, or a
    load has failed; `on_hang` with the digest of a version that hung in this process.
    """

    def __init__(
        self,
        blobs: BlobStore,
        blobs_path: Path,
        scratch: Path,
        recorder: FlightRecorder,
        metrics: Metrics,
        clock: Clock,
        *,
        isolated: Iterable[str],
        on_change: Callable[[], None],
        on_hang: Callable[[str], None],
    ) -> None:
        self._blobs = blobs
        self._blobs_path = blobs_path
        self._scratch = scratch
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._isolated = set(isolated)
        self._on_change = on_change
        self._on_hang = on_hang
        self._endpoints: dict[str, _Endpoint] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Semaphore(_LOADS_AT_ONCE)
        self._launching = asyncio.Semaphore(_LAUNCHES_AT_ONCE)

    # Desired state.

    def set_isolated(self, digests: Iterable[str]) -> None:
        """Replace what is isolated; what is loaded already stays where it is."""
        self._isolated = set(digests)

    def apply(self, tables: Tables) -> None:
        """Make `tables` the desired state; returns at once, `settled` waits for the effect."""
        wanted = {spec.endpoint: (spec, tables.version_of(spec)) for spec in tables.deployments}
        for name in self._endpoints.keys() - wanted.keys():
            self._remove(name)
        for name, pair in wanted.items():
            endpoint = self._endpoints.get(name)
            if endpoint is None:
                endpoint = self._endpoints[name] = _Endpoint(*pair)
            elif endpoint.wanted == pair:
                continue
            endpoint.wanted = pair
            endpoint.overtake()
            self._converge_soon(endpoint)

    def _converge_soon(self, endpoint: _Endpoint) -> None:
        if endpoint.task is None or endpoint.task.done():
            endpoint.task = asyncio.get_running_loop().create_task(self._converge(endpoint))

    async def _converge(self, endpoint: _Endpoint) -> None:
        while endpoint.reached != endpoint.wanted and not endpoint.removed:
            target = endpoint.wanted
            spec, manifest = target
            endpoint.load = asyncio.get_running_loop().create_task(self._load(spec, manifest))
            try:
                pool = await endpoint.load
            except asyncio.CancelledError:
                if endpoint.wanted == target and not endpoint.removed:
                    raise
                continue
            except Exception as error:  # noqa: BLE001 - whatever loading raises, the old version serves on
                endpoint.error = _load_error(error, spec, manifest)
                log_event(
                    "load_failed",
                    level=logging.WARNING,
                    endpoint=spec.endpoint,
                    version=manifest.reference,
                    problem=str(endpoint.error),
                    error=error,
                )
            else:
                if endpoint.removed or endpoint.wanted != target:
                    self._retire(pool)
                    continue
                endpoint.error = None
                old, endpoint.pool = endpoint.pool, pool
                log_event("serving", endpoint=spec.endpoint, version=manifest.reference, placement=placement_of(pool))
                if old is not None:
                    self._retire(old)
            endpoint.reached = target
            self._on_change()

    def _remove(self, name: str) -> None:
        endpoint = self._endpoints.pop(name)
        endpoint.removed = True
        endpoint.overtake()
        if endpoint.task is not None:
            self._keep_until_done(endpoint.task)
        self._on_change()
        if endpoint.pool is not None:
            self._retire(endpoint.pool)

    # Loading and freeing.

    async def _load(self, spec: DeploymentSpec, manifest: VersionManifest) -> Pool:
        pool = Pool(spec, manifest, self._metrics.version(spec.endpoint, manifest.version), self._clock)
        load = self._load_in_worker if self._goes_to_worker(spec, manifest) else self._load_in_process
        loads = [asyncio.ensure_future(load(pool)) for _ in range(spec.replicas)]
        try:
            await asyncio.gather(*loads)
        except BaseException:
            # The first failure decides; what the others have loaded so far goes with it.
            for each in loads:
                each.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            await pool.stop(_taken_away())
            raise
        return pool

    async def _load_in_worker(self, pool: Pool) -> None:
        worker = WorkerReplica(pool, self._blobs_path, self._scratch, self._clock)
        async with self._launching, asyncio.timeout(pool.spec.load_timeout_s):
            await worker.launch()
        pool.add(worker)

    async def _load_in_process(self, pool: Pool) -> None:
        spec, manifest = pool.spec, pool.manifest
        async with self._loading, asyncio.timeout(spec.load_timeout_s):
            loaded, measured = await run_aside(
                functools.partial(self._load_here, spec, manifest),
                lambda result: result[0].unload(),
                f"salver load {manifest.reference}",
            )
        pool.learn(measured)
        pool.add(InProcessReplica(pool, loaded, self._clock, self._recorder, self._hung))

    def _goes_to_worker(self, spec: DeploymentSpec, manifest: VersionManifest) -> bool:
        if manifest.runs_user_code or spec.placement is Placement.PROCESS:
            return True
        return spec.placement is Placement.AUTO and manifest.digest in self._isolated

    def _load_here(self, spec: DeploymentSpec, manifest: VersionManifest) -> tuple[Loaded, Measured]:
        with self._recorder.computing(manifest.digest):
            loaded = load_version(manifest, spec.runtime, self._blobs, self._scratch)
            try:
                measured = warm_up(loaded, manifest, spec.max_batch, self._clock)
            except BaseException:
                loaded.unload()
                raise
        return loaded, measured

    def _retire(self, pool: Pool) -> None:
        self._keep_until_done(asyncio.get_running_loop().create_task(self._drain_and_free(pool)))

    def _keep_until_done(self, task: asyncio.Task[None]) -> None:
        """Hold a task that frees something, for `close` to wait for."""
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _drain_and_free(self, pool: Pool) -> None:
        try:
            await pool.drain(min(max(_DRAIN_S, pool.spec.deadline_s), _LONGEST_DRAIN_S))
        finally:
            await pool.stop(_taken_away())
            log_event("unloaded", version=pool.manifest.reference)

    def _hung(self, pool: Pool) -> None:
        """A version hung in this process: if its placement is ours to choose, it moves to a worker."""
        self._isolated.add(pool.manifest.digest)
        self._on_hang(pool.manifest.digest)
        for endpoint in self._endpoints.values():
            if endpoint.pool is pool and pool.spec.placement is Placement.AUTO:
                endpoint.reached = None
                self._converge_soon(endpoint)
        self._on_change()

    # What is.

    def pools(self) -> dict[str, Pool]:
        """The pool that serves each endpoint, for those that serve."""
        return {name: endpoint.pool for name, endpoint in self._endpoints.items() if endpoint.pool is not None}

    def error_of(self, name: str) -> SalverError | None:
        """Why the wanted version of an endpoint is not loaded, if it failed."""
        endpoint = self._endpoints.get(name)
        return endpoint.error if endpoint else None

    def names(self) -> Iterable[str]:
        """All endpoints, serving or not."""
        return self._endpoints.keys()

    def status(self) -> list[EndpointStatus]:
        """What each endpoint does now."""
        return [_status(endpoint) for endpoint in self._endpoints.values()]

    def is_ready(self) -> bool:
        """Whether every required endpoint has a healthy replica."""
        return all(
            endpoint.pool is not None and endpoint.pool.available
            for endpoint in self._endpoints.values()
            if endpoint.wanted[0].required
        )

    async def settled(self) -> None:
        """Wait until every endpoint serves what is wanted or has definitively failed to."""
        while tasks := [e.task for e in self._endpoints.values() if e.task is not None and not e.task.done()]:
            await asyncio.wait(tasks)

    async def close(self, timeout_s: float) -> None:
        """Stop loading, answer what is queued for so long, then free everything."""
        endpoints, self._endpoints = list(self._endpoints.values()), {}
        loading = [endpoint.task for endpoint in endpoints if endpoint.task is not None]
        for endpoint in endpoints:
            endpoint.removed = True
            if endpoint.task is not None:
                endpoint.task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        for endpoint in endpoints:
            if endpoint.pool is not None:
                self._retire(endpoint.pool)
        retiring = set(self._retiring)
        if retiring:
            _, late = await asyncio.wait(retiring, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*retiring, return_exceptions=True)


def placement_of(pool: Pool) -> str:
    """Where a pool computes at present."""
    return "+".join(sorted({str(replica.placement) for replica in pool.replicas})) or "none"


def _status(endpoint: _Endpoint) -> EndpointStatus:
    spec, manifest = endpoint.wanted
    pool = endpoint.pool
    state = LoadState.LOADING
    if endpoint.reached == endpoint.wanted:
        state = LoadState.FAILED if endpoint.error else LoadState.READY
    replicas = pool.replicas if pool else []
    return EndpointStatus(
        spec.endpoint,
        state,
        spec.required,
        manifest.reference,
        pool.manifest.reference if pool else None,
        pool.available if pool else False,
        endpoint.error.code if endpoint.error else None,
        str(endpoint.error) if endpoint.error else None,
        placement_of(pool) if pool else None,
        len(replicas),
        pool.waiting if pool else 0,
        pool.running if pool else 0,
        tuple(replica.pid for replica in replicas if replica.pid is not None),
        sum(replica.restarts for replica in replicas),
        endpoint.reached[0].generation if endpoint.reached else 0,
        {str(rows): seconds for rows, seconds in pool.curve.points().items()} if pool else {},
    )


def _load_error(error: Exception, spec: DeploymentSpec, manifest: VersionManifest) -> SalverError:
    if isinstance(error, SalverError):
        return error
    if isinstance(error, TimeoutError):
        return SalverError("LOAD_FAILED", f"{manifest.reference} did not load within {spec.load_timeout_s:g} s")
    return SalverError("LOAD_FAILED", f"failed to load {manifest.reference}: {type(error).__name__}", "see the log")
