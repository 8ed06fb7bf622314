"""Versions loaded and asked as in production, from a program that serves nobody.

The same host, loader, pools and replicas as in the server process: a data format computes here, users'
code in a worker process, every byte is verified, and what a version answers is checked against its
signature. The event loop has a thread of its own, so that checks are plain functions.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import tempfile
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from salver.clock import Clock
from salver.evaluation.subject.exchanges import Exchanges
from salver.evaluation.subject.rows import Array
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response, Service
from salver.protocol.signature import SignatureCheck
from salver.protocol.tables import DeploymentSpec, Tables, VersionManifest
from salver.protocol.tensor import Tensor
from salver.runtime.host import Host
from salver.runtime.provenance import Provenance, trusted_keys_of
from salver.runtime.recorder import FlightRecorder
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.publication import read_tables
from salver.telemetry.metrics import Metrics

__all__ = ["ServedVersion", "serve_versions"]

_AT_ONCE: Final = 4
"""Requests that wait for an answer at one time."""
_DEADLINE_S: Final = 300.0
_CLOSE_S: Final = 10.0
_WARM_REQUESTS: Final = 10

Result = TypeVar("Result")


class ServedVersion:
    """One loaded version, asked from any thread but its loop's."""

    def __init__(
        self,
        manifest: VersionManifest,
        endpoint: str,
        service: Service,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        batch_rows: int,
    ) -> None:
        self.manifest = manifest
        self._endpoint = endpoint
        self._service = service
        self._loop = loop
        self._clock = clock
        self._check = SignatureCheck(manifest.signature)
        self.batch_rows = batch_rows if manifest.signature.batched else 1
        self._exchanges = Exchanges.of(manifest, endpoint)
        self._outputs = [spec.name for spec in manifest.signature.outputs]

    def __repr__(self) -> str:
        return f"<ServedVersion {self.manifest.reference}>"

    def ask(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for these rows, in requests of a batch at most; raises what the version is refused with."""
        return self._run(self._ask(inputs))

    def exchange(self, body: bytes) -> dict[str, Array]:
        """The answer to a JSON request of the Open Inference Protocol, as a client would get it or be refused it."""
        return self._run(self._exchange(body))

    def latencies_s(self, inputs: Mapping[str, Array], requests: int, budget_s: float) -> list[float]:
        """Seconds from request to answer of single rows, one after the other, after a few that are not counted.

        Fewer than `requests` where the budget was spent.
        """
        return self._run(self._latencies_s(inputs, requests, budget_s))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _ask(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        count = len(next(iter(inputs.values())))
        starts = range(0, count, self.batch_rows)
        answers: list[Response] = []
        for first in range(0, len(starts), _AT_ONCE):
            window = starts[first : first + _AT_ONCE]
            asked = [self._request(inputs, start, start + self.batch_rows) for start in window]
            answers += await asyncio.gather(*map(self._service, asked))
        return {name: self._joined(name, answers) for name in self._outputs}

    async def _exchange(self, body: bytes) -> dict[str, Array]:
        infer, rows = self._exchanges.read(body)
        now_s = self._clock.monotonic_s()
        request = Request(
            self._endpoint,
            infer.inputs,
            self.manifest.version,
            infer.id,
            infer.outputs,
            infer.parameters,
            now_s,
            now_s + _DEADLINE_S,
            rows,
            b"evaluation",
        )
        return self._exchanges.written(request, await self._service(request))

    def _joined(self, name: str, answers: Sequence[Response]) -> Array:
        parts = [answer.array(name) for answer in answers]
        # Without a batch dimension each answer is that of one row.
        return np.concatenate(parts) if self.manifest.signature.batched else np.stack(parts)

    async def _latencies_s(self, inputs: Mapping[str, Array], requests: int, budget_s: float) -> list[float]:
        count = len(next(iter(inputs.values())))
        for index in range(_WARM_REQUESTS):
            await self._service(self._request(inputs, index % count, index % count + 1))
        until_s = self._clock.monotonic_s() + budget_s
        measured: list[float] = []
        while len(measured) < requests and self._clock.monotonic_s() < until_s:
            index = len(measured) % count
            request = self._request(inputs, index, index + 1)
            began_s = self._clock.monotonic_s()
            await self._service(request)
            measured.append(self._clock.monotonic_s() - began_s)
        return measured

    def _request(self, inputs: Mapping[str, Array], start: int, stop: int) -> Request:
        batched = self.manifest.signature.batched
        tensors = {
            name: Tensor.from_numpy(name, array[start:stop] if batched else self._single(name, array[start]))
            for name, array in inputs.items()
        }
        now_s = self._clock.monotonic_s()
        return Request(
            self._endpoint,
            tensors,
            received_s=now_s,
            deadline_s=now_s + _DEADLINE_S,
            rows=self._check.rows(tensors),
            trace=b"evaluation",
        )

    def _single(self, name: str, row: Array) -> Array:
        """One row in the shape of an input that has no batch dimension."""
        spec = next(spec for spec in self.manifest.signature.inputs if spec.name == name)
        return np.asarray(row).reshape(spec.shape) if -1 not in spec.shape else np.asarray(row)[np.newaxis]


@contextlib.contextmanager
def serve_versions(
    home: Home,
    versions: Mapping[str, VersionManifest],
    clock: Clock,
    *,
    batch_rows: int,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, ServedVersion]]:
    """Load versions, each behind the endpoint that is its key, until the block ends.

    REQUIRES manifests with their attestations. `settings` are fields of the deployments. Raises what loading one
    refuses with, as of a version that is not signed by a trusted key or was revoked; UNSUPPORTED for versions that
    keep state, whose answers are no function of a row. Nothing is left behind: no process, no thread, no file.
    """
    for manifest in versions.values():
        _require_plain(manifest)
    ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, dict[str, Service]]] = concurrent.futures.Future()
    stop: concurrent.futures.Future[None] = concurrent.futures.Future()
    with tempfile.TemporaryDirectory(prefix="salver-evaluation-") as scratch:
        tables = _tables(versions, batch_rows, settings or {})
        hosting = functools.partial(_host, home, Path(scratch), versions, clock, tables)
        # A thread that lasts: the kernel ties the life of workers to the one that started them.
        thread = threading.Thread(
            target=lambda: asyncio.run(hosting(ready, stop)), name="salver evaluation", daemon=True
        )
        thread.start()
        try:
            loop, services = ready.result()
            yield {
                name: ServedVersion(versions[name], name, service, loop, clock, batch_rows)
                for name, service in services.items()
            }
        finally:
            stop.set_result(None)
            thread.join()


def _require_plain(manifest: VersionManifest) -> None:
    if manifest.keeps_state or manifest.kind not in ("predict", "embed"):
        raise SalverError(
            "UNSUPPORTED",
            f"{manifest.reference} is of kind {manifest.kind}, and a suite asks for one answer to each row",
            "evaluate versions of kind predict or embed",
        )


async def _host(
    home: Home,
    scratch: Path,
    versions: Mapping[str, VersionManifest],
    clock: Clock,
    tables: Tables,
    ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, dict[str, Service]]],
    stop: concurrent.futures.Future[None],
) -> None:
    host: Host | None = None
    try:
        host = Host(
            open_blobs(home),
            scratch,
            FlightRecorder(scratch / "recorder"),
            Metrics(),
            clock,
            Provenance(trusted_keys_of(home)),
            isolated=(),
            on_change=lambda: None,
            on_hang=lambda _: None,
        )
        published = read_tables(home)
        host.apply(msgspec.structs.replace(tables, revocations=published.revocations if published else ()))
        await host.settled()
        _require_loaded(host, versions)
        ready.set_result((asyncio.get_running_loop(), dict(host.pools())))
        await asyncio.wrap_future(stop)
    except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
        if not ready.done():
            ready.set_exception(error)
    finally:
        if host is not None:
            await host.close(_CLOSE_S)


def _require_loaded(host: Host, names: Iterable[str]) -> None:
    for name in names:
        error = host.error_of(name)
        if error is not None:
            raise error


def _tables(versions: Mapping[str, VersionManifest], batch_rows: int, settings: Mapping[str, Any]) -> Tables:
    deployments = tuple(
        DeploymentSpec(
            name,
            each.model,
            each.version,
            max_batch=max(batch_rows, 1),
            deadline_s=_DEADLINE_S,
            warm_from_traffic=False,
            **settings,
        )
        for name, each in versions.items()
    )
    manifests = tuple({each.reference: each for each in versions.values()}.values())
    return Tables(1, manifests, deployments)
