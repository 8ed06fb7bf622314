"""The response cache: a Service that answers identical requests without asking the service below.

Requests are identical when their endpoint, version, tenant, inputs, requested outputs and
parameters are, in whatever order they came. Each deployed version has a cache of its own: another
version, or the same deployed anew, begins with nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import CacheNote, CacheWish, Request, Response, Service
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.runtime.admission import queue_bounds
from salver.runtime.flights import Flight, Flights
from salver.runtime.kept import KeptAnswers
from salver.runtime.sessions import Serving
from salver.telemetry.metrics import CacheCounts, Metrics, VersionMetrics

__all__ = ["ResponseCache", "layer_caches", "request_key"]

_EVERYBODY: Final = CacheWish()
_MOST_INPUT_BYTES: Final = 4 * 2**20
"""Larger inputs are not looked up: SHA-256 reads 1.3 to 1.8 GB a second, so these hold the loop for 3 ms."""
_WITHOUT_EFFECT: Final = frozenset({"timeout", "priority", "salver_timing"})
"""Parameters that say when and how to answer, not what."""


class ResponseCache:
    """The cache of one version behind one endpoint. Lives on the event loop.

    From looking a request up to taking note of it nothing is awaited, so of identical ones
    only the first is passed on. Failures are never kept. REQUIRES that the version's answers are repeatable.
    """

    def __init__(
        self,
        service: Service,
        spec: DeploymentSpec,
        manifest: VersionManifest,
        metrics: VersionMetrics,
        clock: Clock,
    ) -> None:
        self._service = service
        self._manifest = manifest
        self._metrics = metrics
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._counts = metrics.cache = metrics.cache or CacheCounts()
        self._kept = KeptAnswers(spec.cache_bytes, spec.cache_ttl_s, self._counts)
        self._flights = Flights(service, metrics, clock, self._keep, queue_bounds(spec) if spec.priorities else ())
        self._seed = hashlib.sha256(b"%a" % ((spec.endpoint, manifest.reference, manifest.digest, spec.generation),))

    @property
    def available(self) -> bool:
        """What the service below says, see `Service`; kept answers are given even without it."""
        return self._service.available

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        """Answer `request`; see `Service`.

        Raises NOT_CACHED and PRECONDITION_FAILED for wishes that rule every answer out, and what
        the service below raises.
        """
        wish = request.cache or _EVERYBODY
        if not wish.keep or sum([len(tensor.data) for tensor in request.inputs.values()]) > _MOST_INPUT_BYTES:
            return self._pass_by(request, wish)
        began_s = self._clock.monotonic_s()
        key = request_key(self._seed, request)
        flight: Flight | None = None
        if wish.look:
            response = self._kept.find(key, wish, began_s)
            if response is not None:
                return self._hit(request, wish, response, began_s)
            flight = self._flights.find(key, request)
        if wish.only_kept:
            self._counts.misses += 1
            raise _not_cached()
        if flight is not None:
            self._counts.shared += 1
            return self._flights.join(flight, request)
        answer = self._flights.lead(key, request)
        self._counts.misses += 1
        self._counts.miss_s += self._clock.monotonic_s() - began_s
        return answer

    def _pass_by(self, request: Request, wish: CacheWish) -> asyncio.Future[Response]:
        if wish.only_kept:
            raise _not_cached()
        answer = self._service(request)
        return answer if isinstance(answer, asyncio.Future) else asyncio.ensure_future(answer)

    def _hit(self, request: Request, wish: CacheWish, response: Response, began_s: float) -> asyncio.Future[Response]:
        note, now_s = response.cache, self._clock.monotonic_s()
        self._counts.hits += 1
        self._counts.hit_s += now_s - began_s
        if wish.unless and note is not None and (note.tag.encode() in wish.unless or b"*" in wish.unless):
            raise SalverError("PRECONDITION_FAILED", f"the answer is still the one with the tag {note.tag}")
        answer: asyncio.Future[Response] = self._loop.create_future()
        answer.set_result(response)
        self._metrics.answered(now_s - request.received_s)
        return answer

    def _keep(self, key: bytes, response: Response) -> CacheNote:
        began_s = self._clock.monotonic_s()
        note = self._kept.keep(key, response, began_s)
        self._counts.miss_s += self._clock.monotonic_s() - began_s
        return note

    @property
    def size_bytes(self) -> int:
        """Bytes that the kept answers take."""
        return self._kept.size_bytes

    @property
    def answers(self) -> int:
        """How many answers are kept."""
        return len(self._kept)

    def retire(self) -> None:
        """Free the kept answers, and keep no more. Who waits for an answer still gets it."""
        self._kept.clear()

    def __repr__(self) -> str:
        kept = f"{self.answers} kept in {self.size_bytes} bytes"
        return f"<ResponseCache {self._manifest.reference} {kept}, {self._flights.under_way} under way>"


def request_key(seed: Any, request: Request) -> bytes:
    """What all requests identical to `request` have in common, and no others: a digest, begun with `seed`.

    Equal numbers in JSON and in binary are equal here. The request's id and trace, its deadline,
    its priority and what it wishes of the cache are no part of it. All lengths are written before the data, so
    no two requests are spelt alike.
    """
    inputs, parameters = request.inputs, request.parameters
    tensors = list(inputs.values()) if len(inputs) == 1 else [inputs[name] for name in sorted(inputs)]
    spelt: list[object] = [request.tenant, request.outputs, _canonical(parameters) if parameters else []]
    for tensor in tensors:
        spelt += (tensor.name, tensor.datatype, tensor.shape, len(tensor.data))
    digest = seed.copy()
    digest.update(b"%a" % (spelt,))
    for tensor in tensors:
        digest.update(tensor.data)
    key: bytes = digest.digest()
    return key


def _canonical(parameters: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Parameters in one order; 1, 1.0 and true are three values, and integers may be of any size."""
    return [
        (name, type(value).__name__, hex(value) if isinstance(value, int) else ascii(value))
        for name, value in sorted(parameters.items())
        if name not in _WITHOUT_EFFECT
    ]


def layer_caches(
    pools: Iterable[Serving], before: Mapping[Serving, ResponseCache], metrics: Metrics, clock: Clock
) -> dict[Serving, ResponseCache]:
    """The caches of those pools that are to have one: those of `before` if they are there, and new ones.

    The caches of pools that are no more are retired. A version whose answers are not repeatable gets
    none, whatever its deployment says.
    """
    caches: dict[Serving, ResponseCache] = {}
    for pool in pools:
        spec, manifest = pool.spec, pool.manifest
        if spec.cache_bytes and manifest.is_repeatable:
            counted = metrics.version(spec.endpoint, manifest.version)
            caches[pool] = before[pool] if pool in before else ResponseCache(pool, spec, manifest, counted, clock)
    for pool, cache in before.items():
        if pool not in caches:
            cache.retire()
    return caches


def _not_cached() -> SalverError:
    return SalverError("NOT_CACHED", "no answer is kept for this request", "ask without only-if-cached")
