"""One endpoint of a server process: what is wanted, what serves, and what is told of it."""

from __future__ import annotations

import asyncio

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec, Load, VersionManifest
from salver.runtime.batch import problem_of
from salver.runtime.lazy import LazyVersion
from salver.runtime.memory import Occupant
from salver.runtime.sessions import Serving, Sessions
from salver.runtime.status import EndpointStatus, LoadState
from salver.runtime.streams import open_streams
from salver.runtime.worker_process import LoadFailedError

__all__ = ["HostedEndpoint", "cause_of", "load_error", "placement_of", "status_of"]


class HostedEndpoint:
    """What is wanted, what serves, and the task that brings the two together."""

    def __init__(self, spec: DeploymentSpec, manifest: VersionManifest) -> None:
        self.wanted = (spec, manifest)
        self.reached: tuple[DeploymentSpec, VersionManifest] | None = None
        self.pool: Serving | None = None
        self.lazy: LazyVersion | None = None
        """Who answers while nothing is loaded, and passes on to the pool afterwards; None for an eager version."""
        self.awake = False
        """Whether somebody waits for a cold version."""
        self.size_bytes = 0
        """Of memory that the pool takes."""
        self.error: SalverError | None = None
        self.task: asyncio.Task[None] | None = None
        self.load: asyncio.Task[Serving] | None = None
        self.removed = False

    def overtake(self) -> None:
        """End the load that is under way: something else is wanted."""
        if self.load is not None:
            self.load.cancel()

    @property
    def is_cold(self) -> bool:
        """Whether it is as it should be with nothing loaded."""
        return self.pool is None and self.lazy is not None and self.reached == self.wanted

    @property
    def is_ready(self) -> bool:
        """Whether something is there that answers, at once or after a load."""
        if self.pool is not None:
            return self.pool.available
        return self.is_cold and self.lazy is not None and self.lazy.available

    def is_lazy_for(self, target: tuple[DeploymentSpec, VersionManifest]) -> bool:
        """Whether `lazy` is that of this version."""
        return self.lazy is not None and (self.lazy.spec, self.lazy.manifest) == target

    @property
    def leaves(self) -> bool:
        """Whether its version may be unloaded now: it loads again when it is asked, and has no work."""
        pool = self.pool
        if pool is None or self.lazy is None or self.task is None or not self.task.done():
            return False
        if pool.spec.load is not Load.LAZY or pool.waiting or pool.running or open_streams(pool):
            return False
        return not (isinstance(pool, Sessions) and pool.open)

    def occupant(self) -> Occupant:
        """What it is to the memory budget."""
        used_s = float("inf") if self.lazy is None else self.lazy.used_s
        return Occupant(self.wanted[0].endpoint, self.size_bytes, self.leaves, used_s)


def placement_of(pool: Serving) -> str:
    """Where a pool computes at present."""
    return "+".join(sorted({str(replica.placement) for replica in pool.replicas})) or "none"


def status_of(endpoint: HostedEndpoint) -> EndpointStatus:
    """What it does now."""
    spec, manifest = endpoint.wanted
    pool = endpoint.pool
    state = LoadState.LOADING
    if endpoint.reached == endpoint.wanted:
        cold = LoadState.LOADING if endpoint.awake else LoadState.COLD
        state = LoadState.FAILED if endpoint.error else LoadState.READY if pool else cold
    replicas = pool.replicas if pool else []
    return EndpointStatus(
        spec.endpoint,
        state,
        spec.required,
        manifest.reference,
        pool.manifest.reference if pool else None,
        endpoint.is_ready,
        endpoint.error.code if endpoint.error else None,
        str(endpoint.error) if endpoint.error else None,
        placement_of(pool) if pool else None,
        len(replicas),
        pool.waiting if pool else endpoint.lazy.waiting if endpoint.lazy else 0,
        pool.running if pool else 0,
        tuple(replica.pid for replica in replicas if replica.pid is not None),
        sum(replica.restarts for replica in replicas),
        endpoint.reached[0].generation if endpoint.reached else 0,
        {str(rows): seconds for rows, seconds in pool.curve.points().items()} if pool else {},
        pool.batch_limit if pool else 0,
        pool.counts_cost if pool else False,
        pool.curve.line() if pool else None,
        endpoint.size_bytes,
        cause_of(endpoint.error),
    )


def load_error(error: Exception, spec: DeploymentSpec, manifest: VersionManifest) -> SalverError:
    """Why a version was not loaded, for people."""
    if isinstance(error, SalverError):
        return error
    if isinstance(error, TimeoutError):
        return SalverError("LOAD_FAILED", f"{manifest.reference} did not load within {spec.load_timeout_s:g} s")
    problem = f"{manifest.reference} raised {type(error).__name__} while it was loaded"
    return LoadFailedError("LOAD_FAILED", problem, "`salver status` and the server's log say more", problem_of(error))


def cause_of(error: SalverError | None) -> str | None:
    """What was raised, behind what everybody is told, if it is known; for those who run the server."""
    return error.cause or None if isinstance(error, LoadFailedError) else None
