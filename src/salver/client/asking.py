"""What a client asks, step by step, free of sockets, threads and event loops.

Each method is a flow: a generator that yields what is to be sent or waited for, and returns what
was asked for. `Client` and `AsyncClient` carry flows out; deadlines, retries, what is remembered
of endpoints, encoding and decoding are written here once.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict, TypeVar

import msgspec
import numpy as np

from salver.client.address import check_timeout
from salver.client.dialect import Ask, Configuration, Dialect, Flow, Inference, Pause, Reply, Scalar, Transmit
from salver.client.errors import CallError
from salver.client.inputs import rows_of, to_tensors
from salver.client.prediction import EndpointMetadata, Prediction
from salver.client.retries import NO_RETRIES, Retries, RetryBudget, pause_before_retry
from salver.clock import Clock
from salver.protocol.errors import SalverError

__all__ = ["Asking", "PredictOptions", "named"]

_STALE: Final = frozenset({"UNKNOWN_INPUT", "MISSING_INPUT", "WRONG_DATATYPE", "WRONG_SHAPE"})
"""What a server answers when the signature is not what the client remembers."""
_ABSENT: Final = frozenset({"NOT_FOUND", "UNSUPPORTED", "METHOD_NOT_ALLOWED"})
"""What servers without an extension say when it is asked for."""
_REMEMBERED: Final = 1000
"""Endpoints, or versions of them, whose signatures are remembered."""
_PART_BYTES: Final = 16 * 2**20
"""Requests that `predict_all` makes stay below this, if a row does: servers bound the size of bodies."""
_T = TypeVar("_T")
_Key = tuple[str, str]


class PredictOptions(TypedDict, total=False):
    """The options of `Client.predict`."""

    outputs: Iterable[str] | None
    version: str | int | None
    request_id: str | None
    parameters: Mapping[str, Scalar] | None
    priority: int | None
    timing: bool
    timeout_s: float | None


def named(outputs: Iterable[str]) -> list[str]:
    """The outputs a caller wants; one may be given as it is, and is not its letters."""
    return [outputs] if isinstance(outputs, str) else list(outputs)


class Asking:
    """The flows of one client. May be shared by threads: each flow is used by one."""

    def __init__(
        self, dialect: Dialect, timeout_s: float, retries: Retries, clock: Clock, rng: np.random.Generator
    ) -> None:
        self._dialect = dialect
        self._timeout_s = check_timeout(timeout_s)
        self._retries = retries
        self._budget = RetryBudget(retries.budget_ratio, retries.budget_reserve)
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        """Guards what follows, and the generator of random numbers."""
        self._signatures: dict[_Key, EndpointMetadata] = {}
        self._idempotent: dict[_Key, bool] = {}

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
    ) -> Flow[Prediction]:
        """See `Client.predict`."""
        deadline_s = self._deadline(timeout_s)
        said: dict[str, Scalar] = {} if priority is None else {"priority": priority}
        if timing:
            said["salver_timing"] = True
        said |= parameters or {}
        wanted = None if outputs is None else named(outputs)
        key = (endpoint, str(version))
        with self._lock:
            known = self._signatures.get(key)
        metadata = known or (yield from self._look_up(endpoint, version, deadline_s))
        while True:
            try:
                tensors = to_tensors(endpoint, inputs, metadata)
                ask = self._dialect.infer(Inference(endpoint, version, tensors, wanted, said, request_id))
                answer = yield from self._attempts(ask, deadline_s, self._retries, (endpoint, version))
                return answer.indexed_like(inputs)
            except SalverError as error:
                # A deployment may have changed what the endpoint takes; look again, once.
                if known is None or error.code not in _STALE:
                    raise
                before, known = known, None
                metadata = yield from self._look_up(endpoint, version, deadline_s)
                if metadata == before:
                    raise

    def metadata(self, endpoint: str, version: str | int | None, timeout_s: float | None) -> Flow[EndpointMetadata]:
        """What an endpoint takes and gives now; remembered for predictions."""
        deadline_s = self._deadline(timeout_s)
        metadata = yield from self._look_up(endpoint, version, deadline_s)
        try:
            # The protocol's metadata does not tell which inputs may be left out; its extension does.
            ask = self._dialect.configuration(endpoint, version)
            optional = (yield from self._attempts(ask, deadline_s, self._retries, None)).optional
        except SalverError as error:
            if error.code not in _ABSENT:
                raise
            return metadata
        inputs = tuple(
            msgspec.structs.replace(spec, optional=True) if spec.name in optional else spec for spec in metadata.inputs
        )
        return msgspec.structs.replace(metadata, inputs=inputs)

    def configuration(self, endpoint: str, version: str | int | None) -> Flow[Configuration]:
        """How an endpoint is deployed now."""
        return self._attempts(self._dialect.configuration(endpoint, version), self._deadline(None), self._retries, None)

    def part_rows(self, endpoint: str, inputs: Any, version: str | int | None, wanted: int | None) -> Flow[int | None]:
        """Rows of each request of `predict_all`; None where it is to be one as it is."""
        rows, row_bytes = rows_of(inputs)
        if rows <= 1:
            return None
        try:
            most = (yield from self.configuration(endpoint, version)).max_batch
        except SalverError as error:
            # No such endpoint, or a server without this extension: the prediction itself will tell.
            if error.code != "NOT_FOUND":
                raise
            return None
        if most is None:
            return None
        if wanted is not None:
            most = min(most, max(1, wanted))
        return min(most, max(1, _PART_BYTES // max(1, row_bytes)))

    def models(self) -> Flow[list[str]]:
        """The names of all endpoints."""
        return self._attempts(self._dialect.models(), self._deadline(None), self._retries, None)

    def ready(self, endpoint: str | None, version: str | int | None, timeout_s: float | None) -> Flow[bool]:
        """Whether predictions would be answered now: asked once."""
        deadline_s = self._deadline(timeout_s)
        try:
            ready = yield from self._attempts(self._dialect.ready(endpoint, version), deadline_s, NO_RETRIES, None)
            if not ready and endpoint is not None:
                # gRPC says the same of what is not there, and that waiting will not cure: this raises for it.
                yield from self._attempts(self._dialect.metadata(endpoint, version), deadline_s, NO_RETRIES, None)
        except SalverError as error:
            if error.code not in ("NOT_READY", "DEADLINE_EXCEEDED"):
                raise
            return False
        else:
            return ready

    def _deadline(self, timeout_s: float | None) -> float:
        wait_s = self._timeout_s if timeout_s is None else check_timeout(timeout_s)
        return self._clock.monotonic_s() + wait_s

    def _look_up(self, endpoint: str, version: str | int | None, deadline_s: float) -> Flow[EndpointMetadata]:
        ask = self._dialect.metadata(endpoint, version)
        metadata = yield from self._attempts(ask, deadline_s, self._retries, None)
        with self._lock:
            if len(self._signatures) >= _REMEMBERED:
                self._signatures.clear()
            self._signatures[endpoint, str(version)] = metadata
        return metadata

    def _attempts(
        self, ask: Ask[_T], deadline_s: float, retries: Retries, runs: tuple[str, str | int | None] | None
    ) -> Flow[_T]:
        """Ask until there is an answer, a failure that asking again does not cure, or no time or budget left.

        `runs` is the endpoint, and version, whose model would run once more; None where none does.
        """
        self._budget.earn()
        for attempt in itertools.count(1):
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                raise CallError("DEADLINE_EXCEEDED", "no time is left to ask", "raise timeout_s", may_have_run=False)
            try:
                reply: Reply = yield Transmit(ask.write(left_s), left_s)
                refusal = self._dialect.refusal(reply)
                if refusal is None:
                    return ask.read(reply)
                raise refusal
            except CallError as error:
                yield from self._before_retry(attempt, error, deadline_s, retries, runs)
        raise AssertionError("unreachable")

    def _before_retry(
        self,
        attempt: int,
        error: CallError,
        deadline_s: float,
        retries: Retries,
        runs: tuple[str, str | int | None] | None,
    ) -> Flow[None]:
        """Wait until it is time to ask again; raises `error` where that will not be."""
        with self._lock:
            left_s = deadline_s - self._clock.monotonic_s()
            pause_s = pause_before_retry(retries, attempt, error, left_s, self._rng)
        if pause_s is None or not self._budget.spend():
            raise error
        yield Pause(pause_s)
        if runs is not None and error.may_have_run:
            may_run_twice = yield from self._may_run_twice(*runs, deadline_s)
            if not may_run_twice:
                raise error

    def _may_run_twice(self, endpoint: str, version: str | int | None, deadline_s: float) -> Flow[bool]:
        """Whether a request may run again after it may have run: what the model's author declared."""
        if self._retries.idempotent is not None:
            return self._retries.idempotent
        key = (endpoint, str(version))
        with self._lock:
            found = self._idempotent.get(key)
        if found is None:
            try:
                ask = self._dialect.configuration(endpoint, version)
                found = (yield from self._attempts(ask, deadline_s, self._retries, None)).idempotent
            except SalverError:
                return False
            with self._lock:
                if len(self._idempotent) >= _REMEMBERED:
                    self._idempotent.clear()
                self._idempotent[key] = found
        return found
