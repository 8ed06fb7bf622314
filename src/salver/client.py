"""A small synchronous client of the Open Inference Protocol over HTTP.

    with salver.Client("http://127.0.0.1:8080") as client:
        scores = client.predict("digits", images)["probabilities"]

Tensors travel in binary both ways. Every failure, the server's or the network's, is raised as a
`SalverError` with a code of the catalogue.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import quote

import httpx2
import msgspec
import numpy as np

from salver.protocol.conversion import fit_datatype
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.names import check_name
from salver.protocol.signature import TensorSpec
from salver.protocol.tensor import Tensor

__all__ = ["Client", "EndpointMetadata", "Prediction"]

_LONGEST_TIMEOUT_S: Final = 3600.0
_LONGEST_ID: Final = 128
_STALE: Final = frozenset({"UNKNOWN_INPUT", "MISSING_INPUT", "WRONG_DATATYPE", "WRONG_SHAPE"})
"""What a server answers when the signature is not what the client remembers."""
_BY_STATUS: Final = {status: code for code, (status, _, _) in reversed(CATALOGUE.items())} | {
    403: "PERMISSION_DENIED",
    500: "INTERNAL",
    502: "NOT_READY",
    503: "NOT_READY",
    504: "DEADLINE_EXCEEDED",
}
"""The code of an answer that names none, such as a proxy's."""
_LOOPBACK: Final = frozenset({"localhost", "::1"})

Scalar = bool | int | float | str
_T = TypeVar("_T")


class EndpointMetadata(msgspec.Struct, frozen=True):
    """What an endpoint takes and gives, as its server describes it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Prediction(Mapping[str, np.ndarray[Any, Any]]):
    """The outputs of one prediction by name, and which version gave them under which request id.

    BYTES outputs are object arrays of bytes, BF16 outputs the `uint16` of their bits. The
    arrays belong to the caller.
    """

    __slots__ = ("_arrays", "endpoint", "model_version", "request_id", "warnings")

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        *,
        endpoint: str,
        model_version: str,
        request_id: str,
        warnings: tuple[str, ...],
    ) -> None:
        self._arrays = dict(arrays)
        self.endpoint = endpoint
        self.model_version = model_version
        self.request_id = request_id
        self.warnings = warnings

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.items())
        return f"<Prediction of {self.endpoint}@{self.model_version}: {outputs}>"


class _Spec(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _Metadata(msgspec.Struct):
    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[_Spec, ...] = ()
    outputs: tuple[_Spec, ...] = ()


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: Any = None


class _Answer(msgspec.Struct):
    outputs: tuple[_Output, ...]
    model_version: str = ""
    parameters: dict[str, Any] = {}


class _Names(msgspec.Struct):
    models: list[str]


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
        self._url = _check_url(url)
        self._timeout_s = _check_timeout(timeout_s)
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
        parameters: Mapping[str, Scalar] | None = None,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Ask an endpoint for one prediction; `inputs` has one row per example.

        `inputs` maps input names to arrays; for a model with one input the array alone will
        do. Python lists become arrays of the model's datatype; an array of another type is
        converted only if no value changes, else INVALID_VALUE says how to convert it on
        purpose. `outputs` names the outputs wanted (default: all), `version` a version or
        ordinal that the endpoint routes to. Raises SalverError.
        """
        wait_s = self._timeout_s if timeout_s is None else _check_timeout(timeout_s)
        asked = {"timeout": max(1, round(wait_s * 1e6))} if wait_s <= _LONGEST_TIMEOUT_S else {}
        parameters = asked | dict(parameters or {})
        wanted = None if outputs is None else list(outputs)
        known, metadata = self._recall(endpoint, version)
        while True:
            try:
                tensors = _tensors(endpoint, inputs, metadata)
                content, headers = _write(tensors, wanted, request_id, parameters)
                path = f"{_path(endpoint, version)}/infer"
                response = self._send("POST", path, content=content, headers=headers, timeout=wait_s)
                return _read(endpoint, response)
            except SalverError as error:
                # A deployment may have changed what the endpoint takes; look again, once.
                if not known or error.code not in _STALE:
                    raise
                known, before = False, metadata
                metadata = self._look_up(endpoint, version)
                if metadata == before:
                    raise

    def metadata(self, endpoint: str, *, version: str | int | None = None) -> EndpointMetadata:
        """What the endpoint takes and gives now; raises SalverError."""
        return self._look_up(endpoint, version)

    def models(self) -> list[str]:
        """The names of all endpoints; raises SalverError."""
        return _decode(self._send("GET", "/v2/models"), _Names).models

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
        found = _decode(self._send("GET", _path(endpoint, version)), _Metadata)
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
            if _is_certificate_error(error):
                raise SalverError(
                    "REFUSED_BY_POLICY",
                    f"the certificate of {self._url} is not trusted: {error}",
                    "pass verify=ssl.create_default_context(cafile=...)",
                ) from None
            if isinstance(error, httpx2.ConnectError):
                raise self._unreachable(f"cannot be reached ({error})") from None
            raise SalverError("NOT_READY", f"the connection to {self._url} broke: {error or 'closed'}") from None
        if response.status_code != httpx2.codes.OK:
            raise _refusal(response)
        return response

    def _unreachable(self, problem: str) -> SalverError:
        return SalverError("NOT_READY", f"{self._url} {problem}", "is `salver serve` running there?")


def _check_url(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, TypeError):
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or "%" in parsed.host or parsed.userinfo:
        raise SalverError(
            "INVALID_SETTING", f"{url!r} is no server's URL", "write http://HOST:PORT or https://HOST:PORT"
        )
    return parsed


def _check_timeout(timeout_s: float) -> float:
    if not timeout_s > 0:
        raise SalverError("INVALID_SETTING", f"timeout_s is {timeout_s!r}", "use more than 0 seconds")
    return timeout_s


def _path(endpoint: str, version: str | int | None) -> str:
    path = f"/v2/models/{check_name(endpoint, 'endpoint')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _tensors(endpoint: str, inputs: Any, metadata: EndpointMetadata) -> list[Tensor]:
    declared = {spec.name: spec for spec in metadata.inputs}
    listed = ", ".join(map(repr, declared))
    if not isinstance(inputs, Mapping):
        if len(declared) != 1:
            raise SalverError(
                "MISSING_INPUT",
                f"endpoint {endpoint!r} takes {len(declared)} inputs; one array does not say which it is for",
                f"pass a mapping with {listed}",
            )
        inputs = {next(iter(declared)): inputs}
    tensors = []
    for name, value in inputs.items():
        if name not in declared:
            raise SalverError(
                "UNKNOWN_INPUT", f"endpoint {endpoint!r} has no input {str(name)[:80]!r}", f"its inputs are {listed}"
            )
        datatype = declared[name].datatype
        tensor = Tensor.from_numpy(name, fit_datatype(name, value, datatype))
        tensors.append(msgspec.structs.replace(tensor, datatype=datatype))  # BF16 looks like its bits
    return tensors


def _write(
    tensors: list[Tensor], outputs: list[str] | None, request_id: str | None, parameters: Mapping[str, Scalar]
) -> tuple[bytes, dict[str, str]]:
    request: dict[str, Any] = {
        "parameters": {**parameters, "binary_data_output": True},
        "inputs": [
            {
                "name": tensor.name,
                "shape": tensor.shape,
                "datatype": tensor.datatype,
                "parameters": {"binary_data_size": len(tensor.data)},
            }
            for tensor in tensors
        ],
    }
    if outputs is not None:
        request["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    headers = {"content-type": "application/octet-stream"}
    if request_id is not None:
        if not (request_id.isascii() and request_id.isprintable() and 0 < len(request_id) <= _LONGEST_ID):
            raise SalverError(
                "INVALID_PARAMETER",
                f"the request id is {request_id[:140]!r}",
                f"use 1-{_LONGEST_ID} printable ASCII characters",
            )
        request["id"] = headers["x-request-id"] = request_id
    head = msgspec.json.encode(request)
    headers["inference-header-content-length"] = str(len(head))
    return b"".join([head, *(tensor.data for tensor in tensors)]), headers


def _read(endpoint: str, response: httpx2.Response) -> Prediction:
    content = response.content
    length = response.headers.get("inference-header-content-length", str(len(content)))
    if not length.isdecimal() or int(length) > len(content):
        raise _unreadable(f"Inference-Header-Content-Length is {length!r} in {len(content)} bytes")
    answer = _decode(response, _Answer, int(length))
    tail = memoryview(content)[int(length) :]
    arrays = {}
    for output in answer.outputs:
        size = output.parameters.get("binary_data_size")
        if not isinstance(size, int) or not 0 <= size <= len(tail):
            raise _unreadable(f"output {output.name!r} has {size!r} bytes of the {len(tail)} that are left")
        try:
            array = Tensor(output.name, output.datatype, output.shape, tail[:size]).numpy()
        except (SalverError, KeyError, ValueError) as error:
            raise _unreadable(f"output {output.name!r}: {error}") from None
        arrays[output.name] = array.copy()  # aligned, writable, and the whole answer can go
        tail = tail[size:]
    if tail:
        raise _unreadable(f"{len(tail)} bytes follow the last tensor")
    return Prediction(
        arrays,
        endpoint=endpoint,
        model_version=answer.model_version,
        request_id=response.headers.get("x-request-id", ""),
        warnings=tuple(filter(None, str(answer.parameters.get("salver_warnings", "")).split("; "))),
    )


def _decode(response: httpx2.Response, kind: type[_T], length: int | None = None) -> _T:
    try:
        return msgspec.json.decode(response.content[:length], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(str(error)) from None


def _unreadable(problem: str) -> SalverError:
    return SalverError("INTERNAL", f"the answer is not the Open Inference Protocol's: {problem}")


def _refusal(response: httpx2.Response) -> SalverError:
    code = response.headers.get("x-salver-error", "")
    if code not in CATALOGUE:
        code = _BY_STATUS.get(response.status_code, "BAD_HTTP" if response.status_code < 500 else "INTERNAL")
    try:
        message = str(cast("dict[str, Any]", msgspec.json.decode(response.content))["error"])
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        message = f"{response.url.host} answered {response.status_code} {response.reason_phrase}"
    error = SalverError(code, message)
    if "x-request-id" in response.headers:
        error.add_note(f"request id {response.headers['x-request-id']}")
    return error


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
