"""The versions on this machine: brings what is loaded to what the tables ask for.

Level-triggered: `apply` takes the whole desired state and starts what differs. Loading,
warming up and freeing happen off the event loop; the swap between two versions is one
assignment, after which the old one drains and is freed. A load that fails leaves the serving
version as it is; one that nobody wishes for any more is cancelled, its worker killed. A lazy
version is loaded when it is asked, and may be unloaded while it has no work.
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
from salver.protocol.tables import DeploymentSpec, Load, Placement, Tables, VersionManifest
from salver.runtime.aside import be_patient, run_aside
from salver.runtime.curve import Measured
from salver.runtime.endpoint import HostedEndpoint, cause_of, load_error, placement_of, status_of
from salver.runtime.environment import give_back_freed_memory
from salver.runtime.formats import Loaded
from salver.runtime.inprocess import InProcessReplica
from salver.runtime.lazy import LazyVersion
from salver.runtime.loader import load_version
from salver.runtime.memory import MemoryBudget, Occupant, private_bytes
from salver.runtime.pool import Pool
from salver.runtime.provenance import Provenance
from salver.runtime.recent import InputsAtRest, RecentInputs, Sample
from salver.runtime.recorder import FlightRecorder
from salver.runtime.rehearsal import BESIDE_ANOTHER_S, WAITED_FOR_S, may_rehearse, rehearse
from salver.runtime.sessions import Serving, Sessions, pools_of
from salver.runtime.status import EndpointStatus
from salver.runtime.warmup import warm_up
from salver.runtime.worker_replica import WorkerReplica
from salver.storage.blob_store import Blobs
from salver.telemetry.logs import log_event
from salver.telemetry.metrics import Metrics, VersionMetrics

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


class Host:
    """All endpoints of one server process. Lives on the event loop.

    `on_change` is called with nothing whenever an endpoint begins or ceases to serve, or a
    load has failed; `on_hang` with the digest of a version that hung in this process.
    """

    def __init__(
        self,
        blobs: Blobs,
        scratch: Path,
        recorder: FlightRecorder,
        metrics: Metrics,
        clock: Clock,
        provenance: Provenance,
        *,
        isolated: Iterable[str],
        on_change: Callable[[], None],
        on_hang: Callable[[str], None],
        memory_bytes: int = 0,
    ) -> None:
        self._blobs = blobs
        self._scratch = scratch
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._provenance = provenance
        self._isolated = set(isolated)
        self._on_change = on_change
        self._on_hang = on_hang
        self._endpoints: dict[str, HostedEndpoint] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._sizes: dict[Serving, int] = {}
        """Bytes that what was loaded takes, until an endpoint has it."""
        self._at_rest = InputsAtRest()
        self._formats: set[str] = set()
        """Those whose library is in this process already."""
        # By how much the process grew says what a version takes only if one is loaded at a time.
        self._loading = asyncio.Semaphore(1 if memory_bytes else _LOADS_AT_ONCE)
        self._gently = asyncio.Semaphore(1)
        """For versions that are loaded while others serve, which they must not disturb."""
        self._launching = asyncio.Semaphore(_LAUNCHES_AT_ONCE)
        self._memory = MemoryBudget(memory_bytes, clock, self._occupants, self._put_to_rest)

    # Desired state.

    def set_isolated(self, digests: Iterable[str]) -> None:
        """Replace what is isolated; what is loaded already stays where it is."""
        self._isolated = set(digests)

    def apply(self, tables: Tables) -> None:
        """Make `tables` the desired state; returns at once, `settled` waits for the effect."""
        self._provenance.revoke(tables.revocations)
        wanted = {spec.endpoint: (spec, tables.version_of(spec)) for spec in tables.deployments}
        for name in self._endpoints.keys() - wanted.keys():
            self._remove(name)
        for name, pair in wanted.items():
            endpoint = self._endpoints.get(name)
            if endpoint is None:
                endpoint = self._endpoints[name] = HostedEndpoint(*pair)
            elif endpoint.wanted == pair:
                continue
            endpoint.wanted = pair
            endpoint.overtake()
            self._converge_soon(endpoint)

    def _converge_soon(self, endpoint: HostedEndpoint) -> None:
        if endpoint.task is None or endpoint.task.done():
            endpoint.task = asyncio.get_running_loop().create_task(self._converge(endpoint))

    async def _converge(self, endpoint: HostedEndpoint) -> None:
        while (endpoint.reached != endpoint.wanted or endpoint.awake) and not endpoint.removed:
            target = endpoint.wanted
            spec, manifest = target
            if self._stays_cold(endpoint, target):
                continue
            endpoint.load = asyncio.get_running_loop().create_task(self._load(spec, manifest))
            try:
                pool = await endpoint.load
            except asyncio.CancelledError:
                if endpoint.wanted == target and not endpoint.removed:
                    raise
                endpoint.awake = False  # whoever waits wakes the next one
                continue
            except Exception as error:  # noqa: BLE001 - whatever loading raises, the old version serves on
                endpoint.error, endpoint.awake = load_error(error, spec, manifest), False
                log_event(
                    "load_failed",
                    level=logging.WARNING,
                    endpoint=spec.endpoint,
                    version=manifest.reference,
                    problem=str(endpoint.error),
                    cause=cause_of(endpoint.error),
                    error=error,
                )
                if endpoint.lazy is not None and endpoint.is_lazy_for(target):
                    endpoint.lazy.failed(endpoint.error)
            else:
                if endpoint.removed or endpoint.wanted != target:
                    self._memory.release(spec)
                    self._retire(pool, "replaced")
                    continue
                endpoint.error, endpoint.awake = None, False
                old, endpoint.pool = endpoint.pool, pool
                endpoint.size_bytes = self._sizes.pop(pool, 0)
                self._renew_lazy(endpoint, target)
                log_event("serving", endpoint=spec.endpoint, version=manifest.reference, placement=placement_of(pool))
                if old is not None:
                    if isinstance(pool, Sessions) and isinstance(old, Sessions):
                        pool.succeed(old)
                    self._retire(old, "replaced")
            endpoint.reached = target
            self._on_change()
            await self._memory.settle(spec, manifest)

    def _stays_cold(self, endpoint: HostedEndpoint, target: tuple[DeploymentSpec, VersionManifest]) -> bool:
        """Leave a lazy version unloaded if nobody waits for it, and nothing older serves that it must not interrupt."""
        if target[0].load is Load.EAGER or endpoint.pool is not None:
            return False
        if not endpoint.is_lazy_for(target):
            endpoint.awake, endpoint.error = False, None
            self._renew_lazy(endpoint, target)  # by which those who waited for the one before wake it
            endpoint.reached = target
            self._on_change()
        elif endpoint.reached != target:
            endpoint.reached, endpoint.error = target, None
            self._on_change()
        return not endpoint.awake

    def _renew_lazy(self, endpoint: HostedEndpoint, target: tuple[DeploymentSpec, VersionManifest]) -> None:
        """Have whom this version needs to answer while it is cold; nobody if it never is."""
        if endpoint.is_lazy_for(target):
            return
        spec, manifest = target
        before, endpoint.lazy = endpoint.lazy, None
        if spec.load is Load.LAZY:
            counted = self._metrics.version(spec.endpoint, manifest.version)
            wake = functools.partial(self._wake, endpoint)
            endpoint.lazy = LazyVersion(spec, manifest, counted, self._clock, wake)
        if before is not None:
            before.end(endpoint.lazy)

    def _wake(self, endpoint: HostedEndpoint) -> None:
        """Somebody waits for a version that is not loaded."""
        if endpoint.awake or endpoint.removed or endpoint.pool is not None:
            return
        spec, manifest = endpoint.wanted
        endpoint.awake = True
        self._metrics.version(spec.endpoint, manifest.version).loading.cold_starts += 1
        self._converge_soon(endpoint)

    # Memory.

    def _occupants(self) -> list[Occupant]:
        return [endpoint.occupant() for endpoint in self._endpoints.values() if endpoint.pool is not None]

    async def _put_to_rest(self, name: str) -> None:
        """Unload what may leave, and wait until it is free."""
        endpoint = self._endpoints.get(name)
        if endpoint is None or not endpoint.leaves or endpoint.pool is None or endpoint.lazy is None:
            return
        # In one turn of the loop: from here on requests wait for the next load, and none is in the pool.
        endpoint.lazy.rest()
        pool, endpoint.pool, endpoint.size_bytes = endpoint.pool, None, 0
        if isinstance(pool, Pool) and pool.recent is not None:
            self._at_rest.keep(name, pool.manifest.signature, pool.recent.samples())
        self._on_change()
        await asyncio.wait((self._retire(pool, "memory"),))

    def _remove(self, name: str) -> None:
        endpoint = self._endpoints.pop(name)
        endpoint.removed = True
        self._at_rest.forget(name)
        endpoint.overtake()
        if endpoint.task is not None:
            self._keep_until_done(endpoint.task)
        self._on_change()
        if endpoint.lazy is not None:
            endpoint.lazy.end()
        if endpoint.pool is not None:
            self._retire(endpoint.pool, "undeployed")

    # Loading and freeing.

    async def _load(self, spec: DeploymentSpec, manifest: VersionManifest) -> Serving:
        counted = self._metrics.version(spec.endpoint, manifest.version)
        began_s = self._clock.monotonic_s()
        try:
            await self._memory.make_room(spec, manifest)
            pool = await self._load_all(spec, manifest, counted)
        except BaseException:
            self._memory.release(spec)
            raise
        counted.loading.loads += 1
        counted.loading.seconds += self._clock.monotonic_s() - began_s
        if self._sizes[pool] > spec.replicas * manifest.size_bytes:
            self._memory.measured(spec, manifest, self._sizes[pool])
        return pool

    async def _load_all(self, spec: DeploymentSpec, manifest: VersionManifest, counted: VersionMetrics) -> Serving:
        samples, budget_s = self._trial_of(spec, manifest)
        kind = Sessions if manifest.keeps_state else Pool
        # What is only tried is not counted.
        pool = kind(spec, manifest, VersionMetrics() if samples else counted, self._clock)
        pools = pool.pools if isinstance(pool, Sessions) else [pool] * spec.replicas
        load = self._load_in_worker if self._goes_to_worker(spec, manifest) else self._load_in_process
        loads = [asyncio.ensure_future(load(each)) for each in pools]
        try:
            self._sizes[pool] = sum(await asyncio.gather(*loads))
            if samples and isinstance(pool, Pool):
                await rehearse(pool, samples, budget_s, self._clock)
                pool.count_in(counted)
                pool.recent = RecentInputs(samples)  # still the last that it was asked, by anybody but us
        except BaseException:
            self._sizes.pop(pool, None)
            # The first failure decides; what the others have loaded so far goes with it.
            for each in loads:
                each.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            await pool.stop(_taken_away())
            raise
        return pool

    def _trial_of(self, spec: DeploymentSpec, manifest: VersionManifest) -> tuple[tuple[Sample, ...], float]:
        """What the version that serves now, or did last, was asked lately, and for how long to ask this one the same.

        Nothing if this one takes something else, or may not be asked for trial.
        """
        endpoint = self._endpoints.get(spec.endpoint)
        before = endpoint.pool if endpoint else None
        if not spec.warm_from_traffic or not may_rehearse(manifest):
            return (), 0.0
        if before is None:
            return self._at_rest.take(spec.endpoint, manifest.signature), WAITED_FOR_S
        if not isinstance(before, Pool) or before.recent is None or before.manifest.signature != manifest.signature:
            return (), 0.0
        return before.recent.samples(), BESIDE_ANOTHER_S

    async def _load_in_worker(self, pool: Pool) -> int:
        worker = WorkerReplica(pool, self._blobs, self._scratch, self._clock, self._provenance)
        async with self._launching, asyncio.timeout(pool.spec.load_timeout_s):
            await worker.launch()
        pool.add(worker)
        return private_bytes(worker.pid)

    async def _load_in_process(self, pool: Pool) -> int:
        if pool.spec.load is Load.LAZY:
            async with self._gently:
                return await self._load_aside(pool)
        return await self._load_aside(pool)

    async def _load_aside(self, pool: Pool) -> int:
        spec, manifest = pool.spec, pool.manifest
        async with self._loading, asyncio.timeout(spec.load_timeout_s):
            before_bytes, serves = private_bytes(), any(endpoint.pool for endpoint in self._endpoints.values())
            loaded, measured = await run_aside(
                # Threads that a library starts while it loads would stay as patient as the loading one.
                functools.partial(self._load_here, spec, manifest, patient=serves and spec.runtime.threads == 1),
                lambda result: result[0].unload(),
                f"salver load {manifest.reference}",
            )
        pool.learn(measured)
        pool.add(InProcessReplica(pool, loaded, self._clock, self._recorder, self._hung))
        grown_bytes = private_bytes() - before_bytes if manifest.format in self._formats else 0
        self._formats.add(manifest.format)
        return max(grown_bytes, manifest.size_bytes)

    def _goes_to_worker(self, spec: DeploymentSpec, manifest: VersionManifest) -> bool:
        if manifest.runs_user_code or spec.placement is Placement.PROCESS:
            return True
        return spec.placement is Placement.AUTO and manifest.digest in self._isolated

    def _load_here(self, spec: DeploymentSpec, manifest: VersionManifest, *, patient: bool) -> tuple[Loaded, Measured]:
        if patient:
            be_patient()
        self._provenance.require(manifest)
        with self._recorder.computing(manifest.digest):
            loaded = load_version(manifest, spec.runtime, self._blobs, self._scratch)
            try:
                measured = warm_up(loaded, manifest, spec.max_batch, self._clock)
            except BaseException:
                loaded.unload()
                raise
        give_back_freed_memory()  # what was read is held twice until a library has made of it what it needs
        return loaded, measured

    def _retire(self, pool: Serving, reason: str) -> asyncio.Task[None]:
        """Let a version answer what it has, then free it; `reason` is why it goes, for the log."""
        task = asyncio.get_running_loop().create_task(self._drain_and_free(pool, reason))
        self._sizes.pop(pool, None)
        self._keep_until_done(task)
        return task

    def _keep_until_done(self, task: asyncio.Task[None]) -> None:
        """Hold a task that frees something, for `close` to wait for."""
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _drain_and_free(self, pool: Serving, reason: str) -> None:
        try:
            await pool.drain(min(max(_DRAIN_S, pool.spec.deadline_s), _LONGEST_DRAIN_S))
        finally:
            await pool.stop(_taken_away())
            self._metrics.version(pool.spec.endpoint, pool.manifest.version).loading.unloads += 1
            log_event("unloaded", endpoint=pool.spec.endpoint, version=pool.manifest.reference, reason=reason)

    def _hung(self, pool: Pool) -> None:
        """A version hung in this process: if its placement is ours to choose, it moves to a worker."""
        self._isolated.add(pool.manifest.digest)
        self._on_hang(pool.manifest.digest)
        for endpoint in self._endpoints.values():
            if pool in pools_of(endpoint.pool) and pool.spec.placement is Placement.AUTO:
                endpoint.reached = None
                self._converge_soon(endpoint)
        self._on_change()

    # What is.

    def pools(self) -> dict[str, Serving]:
        """The pool that serves each endpoint, for those that have one loaded."""
        return {name: endpoint.pool for name, endpoint in self._endpoints.items() if endpoint.pool is not None}

    def lazy_versions(self) -> dict[str, LazyVersion]:
        """Who answers for each endpoint that need not be loaded."""
        return {name: endpoint.lazy for name, endpoint in self._endpoints.items() if endpoint.lazy is not None}

    def size_bytes(self, name: str) -> int:
        """The memory that the version of an endpoint takes."""
        endpoint = self._endpoints.get(name)
        return endpoint.size_bytes if endpoint else 0

    def error_of(self, name: str) -> SalverError | None:
        """Why the wanted version of an endpoint is not loaded, if it failed."""
        endpoint = self._endpoints.get(name)
        return endpoint.error if endpoint else None

    def wanted_of(self, name: str) -> tuple[VersionManifest, SalverError | None] | None:
        """The version that an endpoint should serve, and why it is not loaded if it failed; None for no endpoint."""
        endpoint = self._endpoints.get(name)
        return (endpoint.wanted[1], endpoint.error) if endpoint else None

    def names(self) -> Iterable[str]:
        """All endpoints, serving or not."""
        return self._endpoints.keys()

    def status(self) -> list[EndpointStatus]:
        """What each endpoint does now."""
        return [status_of(endpoint) for endpoint in self._endpoints.values()]

    def is_ready(self) -> bool:
        """Whether every required endpoint has a healthy replica."""
        return all(endpoint.is_ready for endpoint in self._endpoints.values() if endpoint.wanted[0].required)

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
            if endpoint.lazy is not None:
                endpoint.lazy.end()
            if endpoint.pool is not None:
                self._retire(endpoint.pool, "stopped")
        retiring = set(self._retiring)
        if retiring:
            _, late = await asyncio.wait(retiring, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*retiring, return_exceptions=True)
