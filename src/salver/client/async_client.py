"""The client of one server, for an event loop: the methods of `Client`, to be awaited."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar, Unpack

import numpy as np

from salver.client.address import Address, check_timeout, check_verify, read_url, tls_context
from salver.client.asking import Asking, PredictOptions, named
from salver.client.client import check_bound, dialect_of
from salver.client.dialect import AsyncTransport, Flow, Pause, Scalar
from salver.client.http_async import AsyncHttpTransport
from salver.client.inputs import cut, rows_of
from salver.client.parts import Part, Parts
from salver.client.prediction import EndpointMetadata, Prediction, join_predictions
from salver.client.retries import Retries
from salver.clock import SYSTEM_CLOCK, Clock
from salver.protocol.errors import SalverError

__all__ = ["AsyncClient"]

_T = TypeVar("_T")


class AsyncClient:
    """A client of one server, with the arguments and methods of `Client`. Any number of tasks may share it.

    It belongs to the event loop of its first call; another loop's call raises CONFLICT. Who cancels a
    call cancels the request: what has not started for it does not start. Close it with `await
    close()`, or use it as an async context manager.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        verify: ssl.SSLContext | bool = True,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        connections: int = 64,
        clock: Clock = SYSTEM_CLOCK,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._address = read_url(url)
        dialect = dialect_of(self._address, token)
        self._asking = Asking(dialect, check_timeout(timeout_s), retries, clock, rng or np.random.default_rng())
        check_bound("connections", connections)
        self._transport = _transport(self._address, check_verify(verify), connections, clock)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client takes no more calls."""
        self._check_loop()
        await self._transport.close()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._address.url}>"

    async def predict(
        self,
        endpoint: str,
        inputs: Any,
        *,
        outputs: Iterable[str] | None = None,
        version: str | int | None = None,
        request_id: str | None = None,
        parameters: Mapping[str, Scalar] | None = None,
        priority: int | None = None,
        timing: bool = False,
        timeout_s: float | None = None,
    ) -> Prediction:
        """See `Client.predict`."""
        return await self._run(
            self._asking.predict(
                endpoint,
                inputs,
                outputs=outputs,
                version=version,
                request_id=request_id,
                parameters=parameters,
                priority=priority,
                timing=timing,
                timeout_s=timeout_s,
            )
        )

    async def predict_all(
        self,
        endpoint: str,
        inputs: Any,
        *,
        rows_per_request: int | None = None,
        parallel: int = 4,
        on_progress: Callable[[int, int], None] | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction:
        """See `Client.predict_all`."""
        check_bound("parallel", parallel)
        if (chosen := options.get("outputs")) is not None:
            options["outputs"] = named(chosen)  # an iterator lasts for one request
        most = await self._run(self._asking.part_rows(endpoint, inputs, options.get("version"), rows_per_request))
        if most is None:
            return await self.predict(endpoint, inputs, **options)
        parts: Parts[Prediction] = Parts(rows_of(inputs)[0], most, on_progress)
        running: dict[asyncio.Task[Prediction], Part] = {}
        try:
            while True:
                while len(running) < parallel and (part := parts.take()) is not None:
                    running[asyncio.create_task(self.predict(endpoint, cut(inputs, *part), **options))] = part
                if not running:
                    return join_predictions(parts.answers()).indexed_like(inputs)
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    _settle(parts, running.pop(task), task)
        finally:
            # A failure, or a caller who has gone: what is under way is cancelled, and its end waited for.
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def max_batch(self, endpoint: str, *, version: str | int | None = None) -> int | None:
        """See `Client.max_batch`."""
        return (await self._run(self._asking.configuration(endpoint, version))).max_batch

    async def metadata(
        self, endpoint: str, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> EndpointMetadata:
        """See `Client.metadata`."""
        return await self._run(self._asking.metadata(endpoint, version, timeout_s))

    async def models(self) -> list[str]:
        """See `Client.models`."""
        return await self._run(self._asking.models())

    async def is_ready(
        self, endpoint: str | None = None, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> bool:
        """See `Client.is_ready`."""
        return await self._run(self._asking.ready(endpoint, version, timeout_s))

    async def _run(self, flow: Flow[_T]) -> _T:
        """Carry out the steps of a flow."""
        self._check_loop()
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    reply = await self._transport.exchange(*step)
                except SalverError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(reply)
        except StopIteration as end:
            answer: _T = end.value
            return answer

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise SalverError(
                "CONFLICT", "this client belongs to another event loop", "make an AsyncClient for each loop"
            )


def _settle(parts: Parts[Prediction], part: Part, task: asyncio.Task[Prediction]) -> None:
    """Take the outcome of a part."""
    try:
        answer = task.result()
    except SalverError as error:
        parts.refused(part, error)
    else:
        parts.answered(part, answer)


def _transport(address: Address, verify: ssl.SSLContext | bool, connections: int, clock: Clock) -> AsyncTransport:
    if address.is_grpc:
        from salver.client.grpc_transport import AsyncGrpcTransport  # noqa: PLC0415 - an extra

        return AsyncGrpcTransport(address, verify)
    return AsyncHttpTransport(address, tls_context(verify) if address.secure else None, connections, clock)
