"""The client of one server."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self, TypedDict, Unpack

import httpx2

from salver.client import wire
from salver.client.parts import in_parts, rows_of
from salver.client.prediction import EndpointMetadata, Prediction, join_predictions
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec

__all__ = ["Client"]

_LONGEST_TIMEOUT_S: Final = 3600.0
_STALE: Final = frozenset({"UNKNOWN_INPUT", "MISSING_INPUT", "WRONG_DATATYPE", "WRONG_SHAPE"})
"""What a server answers when the signature is not what the client remembers."""
_PART_BYTES: Final = 16 * 2**20
"""Requests that `predict_all` makes stay below this, if a row does: servers bound the size of bodies."""
_LOOPBACK: Final = frozenset({"localhost", "::1"})


class PredictOptions(TypedDict, total=False):
    """The options of `Client.predict`."""

    outputs: Iterable[str] | None
    version: str | int | None
    request_id: str | None
    parameters: Mapping[str, wire.Scalar] | None
    timeout_s: float | None


class Client:
    """A client of one server. May be shared by threads; close it, or use it as a context manager.

    `url` is the root of the data listener, `token` what `salver token create` printed.
    `timeout_s` bounds each wait for the server and is told to it as the request's deadline.
    `verify` is what TLS certificates are checked against: an `ssl.SSLContext` such as
    `ssl.create_default_context(cafile=...)`, True for the usual authorities, False for none.
    Raises INVALID_SETTING for an URL that is none.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout_s: float = 30.0, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._url = wire.check_url(url)
        self._timeout_s = wire.check_timeout(timeout_s)
        headers = {"accept-encoding": "identity"}  # packing numbers costs more than it saves
        if token is not None:
            if not (token.isascii() and token.isprintable() and token.strip() == token != ""):
                raise SalverError("INVALID_SETTING", "the token is none", "pass what `salver token create` printed")
            headers["authorization"] = f"Bearer {token}"
        host = self._url.host
        self._http = httpx2.Client(
            base_url=self._url,
            headers=headers,
            timeout=timeout_s,
            verify=verify,
            # Proxies of the environment are not for servers on this machine.
            trust_env=not (host in _LOOPBACK or host.startswith("127.")),
        )
        self._remembered: dict[tuple[str, str], EndpointMetadata] = {}
        self._remembering = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __repr__(self) -> str:
        return f"<Client of {self._url}>"

    def predict(
        self,
        endpoint: str,
        inputs: Any,
        *,
        outputs: Iterable[str] | None = None,
        version: str | int | None = None,
        request_id: str | None = None,
        parameters: Mapping[str, wire.Scalar] | None = None,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Ask an endpoint for one prediction; `inputs` has one row per example.

        `inputs` maps input names to arrays; for a model with one input the array alone will
        do. Python lists become arrays of the model's datatype; an array of another type is
        converted only if no value changes, else INVALID_VALUE says how to convert it on
        purpose. This is one request: TOO_MANY_ROWS where it has more rows than the endpoint runs
        together, see `predict_all`. `outputs` names the outputs wanted (default: all), `version` a version or
        ordinal that the endpoint routes to. Raises SalverError.
        """
        wait_s = self._timeout_s if timeout_s is None else wire.check_timeout(timeout_s)
        asked = {"timeout": max(1, round(wait_s * 1e6))} if wait_s <= _LONGEST_TIMEOUT_S else {}
        parameters = asked | dict(parameters or {})
        wanted = None if outputs is None else list(outputs)
        known, metadata = self._recall(endpoint, version)
        while True:
            try:
                tensors = wire.to_tensors(endpoint, inputs, metadata)
                content, headers = wire.write_request(tensors, wanted, request_id, parameters)
                path = f"{wire.endpoint_path(endpoint, version)}/infer"
                response = self._send("POST", path, content=content, headers=headers, timeout=wait_s)
                return wire.read_answer(endpoint, response)
            except SalverError as error:
                # A deployment may have changed what the endpoint takes; look again, once.
                if not known or error.code not in _STALE:
                    raise
                known, before = False, metadata
                metadata = self._look_up(endpoint, version)
                if metadata == before:
                    raise

    def predict_all(
        self,
        endpoint: str,
        inputs: Any,
        *,
        rows_per_request: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction:
        """Ask for predictions of any number of rows, in as many requests as it takes, one after another.

        `inputs` and `options` are those of `predict`. Each request has as many rows as the
        endpoint runs together, or `rows_per_request` if that is less; `on_progress` is called with
        the rows answered and all rows. The answers come as one; a warning begins with the rows it
        is about. Raises what `predict` raises, and CONFLICT when the endpoint went to another
        version meanwhile; answers that had come are lost then.
        """
        if (chosen := options.get("outputs")) is not None:
            options["outputs"] = list(chosen)  # an iterator lasts for one request
        rows, row_bytes = rows_of(inputs)
        try:
            most = self.max_batch(endpoint, version=options.get("version")) if rows > 1 else None
        except SalverError as error:
            # No such endpoint, or a server without this extension: the prediction itself will tell.
            if error.code != "NOT_FOUND":
                raise
            most = None
        if most is None:
            return self.predict(endpoint, inputs, **options)
        if rows_per_request is not None:
            most = min(most, max(1, rows_per_request))
        parts = in_parts(
            rows,
            min(most, max(1, _PART_BYTES // max(1, row_bytes))),
            lambda start, stop: self.predict(endpoint, _cut(inputs, start, stop), **options),
            on_progress,
        )
        return join_predictions(parts)

    def max_batch(self, endpoint: str, *, version: str | int | None = None) -> int | None:
        """Rows that one request may have; None where a request is not made of rows. Raises SalverError."""
        configuration = self._send("GET", f"{wire.endpoint_path(endpoint, version)}/config")
        return wire.decode(configuration, wire.Configuration).max_batch_size or None

    def metadata(self, endpoint: str, *, version: str | int | None = None) -> EndpointMetadata:
        """What the endpoint takes and gives now; raises SalverError."""
        return self._look_up(endpoint, version)

    def models(self) -> list[str]:
        """The names of all endpoints; raises SalverError."""
        return wire.decode(self._send("GET", "/v2/models"), wire.Names).models

    def is_ready(self) -> bool:
        """Whether the server answers and every required endpoint has a healthy replica.

        Raises SalverError only for what waiting will not cure, such as an untrusted certificate.
        """
        try:
            self._send("GET", "/v2/health/ready")
        except SalverError as error:
            if error.code not in ("NOT_READY", "DEADLINE_EXCEEDED"):
                raise
            return False
        return True

    def _recall(self, endpoint: str, version: str | int | None) -> tuple[bool, EndpointMetadata]:
        with self._remembering:
            found = self._remembered.get((endpoint, str(version)))
        return (True, found) if found else (False, self._look_up(endpoint, version))

    def _look_up(self, endpoint: str, version: str | int | None) -> EndpointMetadata:
        found = wire.decode(self._send("GET", wire.endpoint_path(endpoint, version)), wire.Metadata)
        inputs, outputs = (
            tuple(TensorSpec(spec.name, spec.datatype, spec.shape) for spec in specs)
            for specs in (found.inputs, found.outputs)
        )
        metadata = EndpointMetadata(found.name, found.versions, found.platform, inputs, outputs)
        with self._remembering:
            self._remembered[endpoint, str(version)] = metadata
        return metadata

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx2.TimeoutException as error:
            if isinstance(error, httpx2.ConnectTimeout):
                raise self._unreachable("does not answer") from None
            raise SalverError("DEADLINE_EXCEEDED", f"{self._url} gave no answer in time", "raise timeout_s") from None
        except httpx2.HTTPError as error:
            if wire.is_certificate_error(error):
                raise SalverError(
                    "REFUSED_BY_POLICY",
                    f"the certificate of {self._url} is not trusted: {error}",
                    "pass verify=ssl.create_default_context(cafile=...)",
                ) from None
            if isinstance(error, httpx2.ConnectError):
                raise self._unreachable(f"cannot be reached ({error})") from None
            raise SalverError("NOT_READY", f"the connection to {self._url} broke: {error or 'closed'}") from None
        if response.status_code != httpx2.codes.OK:
            raise wire.refusal_of(response)
        return response

    def _unreachable(self, problem: str) -> SalverError:
        return SalverError("NOT_READY", f"{self._url} {problem}", "is `salver serve` running there?")


def _cut(inputs: Any, start: int, stop: int) -> Any:
    if isinstance(inputs, Mapping):
        return {name: value[start:stop] for name, value in inputs.items()}
    return inputs[start:stop]
