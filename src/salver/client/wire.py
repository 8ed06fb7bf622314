"""Requests written and answers read: the Open Inference Protocol over HTTP, seen from its client."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import httpx2
import msgspec

from salver.client.prediction import EndpointMetadata, Prediction
from salver.protocol.conversion import fit_datatype
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.names import check_name
from salver.protocol.tensor import Tensor

__all__ = [
    "Configuration",
    "Metadata",
    "Names",
    "Scalar",
    "check_timeout",
    "check_url",
    "decode",
    "endpoint_path",
    "is_certificate_error",
    "read_answer",
    "refusal_of",
    "to_tensors",
    "write_request",
]

_LONGEST_ID: Final = 128
_BY_STATUS: Final = {status: code for code, (status, _, _) in reversed(CATALOGUE.items())} | {
    403: "PERMISSION_DENIED",
    500: "INTERNAL",
    502: "NOT_READY",
    503: "NOT_READY",
    504: "DEADLINE_EXCEEDED",
}
"""The code of an answer that names none, such as a proxy's."""
Scalar = bool | int | float | str
_T = TypeVar("_T")


class _Spec(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]


class Metadata(msgspec.Struct):
    """The answer to `GET /v2/models/{model}`."""

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


class Configuration(msgspec.Struct):
    """What is of use in the answer to `GET /v2/models/{model}/config`."""

    max_batch_size: int = 0


class Names(msgspec.Struct):
    """The answer to `GET /v2/models`."""

    models: list[str]


def check_url(url: str) -> httpx2.URL:
    """An URL of http or https; raises INVALID_SETTING."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, TypeError):
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or "%" in parsed.host or parsed.userinfo:
        raise SalverError(
            "INVALID_SETTING", f"{url!r} is no server's URL", "write http://HOST:PORT or https://HOST:PORT"
        )
    return parsed


def check_timeout(timeout_s: float) -> float:
    """More than no time; raises INVALID_SETTING."""
    if not timeout_s > 0:
        raise SalverError("INVALID_SETTING", f"timeout_s is {timeout_s!r}", "use more than 0 seconds")
    return timeout_s


def endpoint_path(endpoint: str, version: str | int | None) -> str:
    """The path of an endpoint, or of a version behind it; raises INVALID_NAME."""
    path = f"/v2/models/{check_name(endpoint, 'endpoint')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def to_tensors(endpoint: str, inputs: Any, metadata: EndpointMetadata) -> list[Tensor]:
    """What a caller gives as `inputs`, in the datatypes of the model's; see `Client.predict`."""
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


def write_request(
    tensors: list[Tensor], outputs: list[str] | None, request_id: str | None, parameters: Mapping[str, Scalar]
) -> tuple[bytes, dict[str, str]]:
    """The body and headers of an inference whose tensors follow its JSON; raises INVALID_PARAMETER."""
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


def read_answer(endpoint: str, response: httpx2.Response) -> Prediction:
    """The answer to an inference; raises INTERNAL where it is none."""
    content = response.content
    length = response.headers.get("inference-header-content-length", str(len(content)))
    if not length.isdecimal() or int(length) > len(content):
        raise _unreadable(f"Inference-Header-Content-Length is {length!r} in {len(content)} bytes")
    answer = decode(response, _Answer, int(length))
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
        warnings=tuple(filter(None, str(answer.parameters.get("salver_warnings", "")).split("\n"))),
    )


def decode(response: httpx2.Response, kind: type[_T], length: int | None = None) -> _T:
    """The first `length` bytes of a body, or all of them, as JSON; raises INTERNAL where they are none."""
    try:
        return msgspec.json.decode(response.content[:length], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(str(error)) from None


def _unreadable(problem: str) -> SalverError:
    return SalverError("INTERNAL", f"the answer is not the Open Inference Protocol's: {problem}")


def refusal_of(response: httpx2.Response) -> SalverError:
    """What a server or a proxy says when it does not answer with 200."""
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


def is_certificate_error(error: BaseException | None) -> bool:
    """Whether a connection failed because the certificate is not trusted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
