"""The client of one server, for threads."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, Self, TypeVar, Unpack

import numpy as np

from salver.client.address import Address, check_timeout, check_token, check_verify, read_url, tls_context
from salver.client.asking import Asking, PredictOptions, named
from salver.client.dialect import Dialect, Flow, Pause, Scalar, Transport
from salver.client.http_sync import HttpTransport
from salver.client.inputs import cut, rows_of
from salver.client.oip_http import OipHttp
from salver.client.parts import Part, Parts, in_parts
from salver.client.prediction import EndpointMetadata, Prediction, join_predictions
from salver.client.retries import Retries
from salver.clock import SYSTEM_CLOCK, Clock
from salver.protocol.errors import SalverError

__all__ = ["Client", "check_bound", "dialect_of"]

_MOST_CONNECTIONS: Final = 10_000
_T = TypeVar("_T")


class Client:
    """A client of one server. May be shared by threads; close it, or use it as a context manager.

    `url` is the root of the data listener: http:// or https:// speak HTTP, grpc:// or grpcs:// speak
    gRPC, which takes the extra `salver[grpc]`. `token` is what `salver token create` printed.
    `timeout_s` bounds each call, retries included, and is told to the server as the request's
    deadline. `verify` is what TLS certificates are checked against: an `ssl.SSLContext` such as
    `ssl.create_default_context(cafile=...)`, True for the usual authorities, False for none.
    `retries` says when to ask again, `connections` how many may be open at a time over HTTP.
    `rng` draws the waits before retries. Raises INVALID_SETTING for what is none of these.

    Failures are `SalverError`; those that a server answered, or that happened on the way to it, are
    `CallError` with `retry_after_s` and `request_id` besides.
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
        self._closed = threading.Event()
        check_bound("connections", connections)
        self._transport = _transport(self._address, check_verify(verify), connections, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls that wait for a retry end; the client takes no more."""
        self._closed.set()
        self._transport.close()

    def __repr__(self) -> str:
        return f"<Client of {self._address.url}>"

    def predict(
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
        """Ask an endpoint for one prediction; `inputs` has one row per example.

        `inputs` maps input names to arrays; for a model with one input the array alone will
        do. Python lists become arrays of the model's datatype; an array of another type is
        converted only if no value changes, else INVALID_VALUE says how to convert it on
        purpose. A DataFrame is the one matrix of a model, its columns in order, or else has a
        column for each input. This is one request: TOO_MANY_ROWS where it has more rows than the
        endpoint runs together, see `predict_all`. `outputs` names the outputs wanted (default: all),
        `version` a version or ordinal that the endpoint routes to. `priority` is 1 for the most
        urgent, as far as the endpoint has levels; with `timing` the answer says where its time went.
        Raises SalverError.
        """
        return self._run(
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

    def predict_all(
        self,
        endpoint: str,
        inputs: Any,
        *,
        rows_per_request: int | None = None,
        parallel: int = 4,
        on_progress: Callable[[int, int], None] | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction:
        """Ask for predictions of any number of rows, in as many requests as it takes, `parallel` at a time.

        `inputs` and `options` are those of `predict`; `timeout_s` bounds each request. Each has as many
        rows as the endpoint runs together, or `rows_per_request` if that is less; `on_progress` is
        called, in this thread, with the rows answered and all rows. The answers come as one; a warning
        begins with the rows it is about. Raises what `predict` raises, and CONFLICT when the endpoint
        went to another version meanwhile; answers that had come are lost then.
        """
        check_bound("parallel", parallel)
        if (chosen := options.get("outputs")) is not None:
            options["outputs"] = named(chosen)  # an iterator lasts for one request
        most = self._run(self._asking.part_rows(endpoint, inputs, options.get("version"), rows_per_request))
        if most is None:
            return self.predict(endpoint, inputs, **options)
        rows, _ = rows_of(inputs)

        def ask(start: int, stop: int) -> Prediction:
            return self.predict(endpoint, cut(inputs, start, stop), **options)

        if parallel == 1 or rows <= most:
            answers = in_parts(rows, most, ask, on_progress)
        else:
            answers = _at_once(Parts(rows, most, on_progress), parallel, ask)
        return join_predictions(answers).indexed_like(inputs)

    def max_batch(self, endpoint: str, *, version: str | int | None = None) -> int | None:
        """Rows that one request may have; None where a request is not made of rows. Raises SalverError."""
        return self._run(self._asking.configuration(endpoint, version)).max_batch

    def metadata(
        self, endpoint: str, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> EndpointMetadata:
        """What the endpoint takes and gives now; raises SalverError."""
        return self._run(self._asking.metadata(endpoint, version, timeout_s))

    def models(self) -> list[str]:
        """The names of all endpoints; raises SalverError."""
        return self._run(self._asking.models())

    def is_ready(
        self, endpoint: str | None = None, *, version: str | int | None = None, timeout_s: float | None = None
    ) -> bool:
        """Whether an endpoint has a healthy replica; without one, whether the server and all required ones have.

        Asked once, without retries. Raises SalverError only for what waiting will not cure, such as an
        untrusted certificate or an endpoint that is not there.
        """
        return self._run(self._asking.ready(endpoint, version, timeout_s))

    def _run(self, flow: Flow[_T]) -> _T:
        """Carry out the steps of a flow."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    if self._closed.wait(step.seconds):
                        raise SalverError("CONFLICT", "the client is closed", "make another one")
                    step = flow.send(None)
                    continue
                try:
                    reply = self._transport.exchange(*step)
                except SalverError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(reply)
        except StopIteration as end:
            answer: _T = end.value
            return answer


def check_bound(name: str, number: int) -> int:
    """A number of things that may be at one time; raises INVALID_SETTING."""
    if not (isinstance(number, int) and 1 <= number <= _MOST_CONNECTIONS):
        raise SalverError("INVALID_SETTING", f"{name} is {number!r}", f"use 1 to {_MOST_CONNECTIONS}")
    return number


def dialect_of(address: Address, token: str | None) -> Dialect:
    """How a server at an address is spoken to; raises INVALID_SETTING for a token that is none."""
    token = None if token is None else check_token(token)
    if address.is_grpc:
        from salver.client.oip_grpc import OipGrpc  # noqa: PLC0415 - protobuf takes a while to import

        return OipGrpc(address.url, token)
    return OipHttp(address, token)


def _transport(address: Address, verify: ssl.SSLContext | bool, connections: int, clock: Clock) -> Transport:
    if address.is_grpc:
        from salver.client.grpc_transport import GrpcTransport  # noqa: PLC0415 - an extra

        return GrpcTransport(address, verify)
    return HttpTransport(address, tls_context(verify) if address.secure else None, connections, clock)


def _at_once(
    parts: Parts[Prediction], parallel: int, ask: Callable[[int, int], Prediction]
) -> list[tuple[int, Prediction]]:
    """Ask for all parts, several at a time. A failure waits for what is under way and no more."""
    running: dict[Future[Prediction], Part] = {}
    with ThreadPoolExecutor(parallel, thread_name_prefix="salver-predict") as threads:
        while True:
            while len(running) < parallel and (part := parts.take()) is not None:
                running[threads.submit(ask, *part)] = part
            if not running:
                return parts.answers()
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                part = running.pop(done)
                try:
                    answer = done.result()
                except SalverError as error:
                    parts.refused(part, error)
                else:
                    parts.answered(part, answer)
