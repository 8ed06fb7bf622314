"""The Open Inference Protocol over HTTP, seen from its client: questions written, replies read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import msgspec

from salver.client.address import Address
from salver.client.dialect import (
    Ask,
    Configuration,
    Inference,
    Question,
    Reply,
    check_request_id,
    retry_after,
    unreadable,
)
from salver.client.errors import NEVER_RAN, CallError
from salver.client.prediction import EndpointMetadata, Prediction, read_timing
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.names import check_name
from salver.protocol.signature import TensorSpec
from salver.protocol.tensor import Tensor

__all__ = ["OipHttp", "warnings_of"]

_OK: Final = 200
_SERVER_ERROR: Final = 500
_BY_STATUS: Final = {status: code for code, (status, _, _) in reversed(CATALOGUE.items())} | {
    403: "PERMISSION_DENIED",
    500: "INTERNAL",
    502: "NOT_READY",
    503: "NOT_READY",
    504: "DEADLINE_EXCEEDED",
}
"""The code of an answer that names none, such as a proxy's."""
_LONGEST_TIMEOUT_S: Final = 3600.0
_T = TypeVar("_T")


class _Metadata(msgspec.Struct):
    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


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


class _Parameter(msgspec.Struct):
    string_value: str = ""


class _Input(msgspec.Struct):
    name: str
    optional: bool = False


class _Configuration(msgspec.Struct):
    max_batch_size: int = 0
    input: tuple[_Input, ...] = ()
    parameters: dict[str, _Parameter] = {}


class _Names(msgspec.Struct):
    models: list[str]


class OipHttp:
    """See `Dialect`."""

    def __init__(self, address: Address, token: str | None) -> None:
        self._address = address
        self._headers = (
            ("accept-encoding", "identity"),  # packing numbers costs more than it saves
            *([("authorization", f"Bearer {token}")] if token is not None else ()),
        )

    def infer(self, inference: Inference) -> Ask[Prediction]:
        """A prediction whose tensors follow its JSON, both ways."""
        if inference.request_id is not None:
            check_request_id(inference.request_id)
        target = f"{self._path(inference.endpoint, inference.version)}/infer"
        return Ask(partial(self._write_infer, target, inference), partial(_read_answer, inference.endpoint))

    def _write_infer(self, target: str, inference: Inference, left_s: float) -> Question:
        tensors, identity = inference.tensors, inference.request_id
        document: dict[str, Any] = {
            "parameters": _timeout(left_s) | {**inference.parameters, "binary_data_output": True},
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
        if inference.outputs is not None:
            document["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in inference.outputs]
        if identity is not None:
            document["id"] = identity
        head = msgspec.json.encode(document)
        headers = (
            *self._headers,
            ("content-type", "application/octet-stream"),
            ("inference-header-content-length", str(len(head))),
            *([("x-request-id", identity)] if identity is not None else ()),
        )
        return Question(target, (head, *(tensor.data for tensor in tensors)), headers, "POST")

    def metadata(self, endpoint: str, version: str | int | None) -> Ask[EndpointMetadata]:
        """GET /v2/models/{model}."""
        return self._get(self._path(endpoint, version), _read_metadata)

    def configuration(self, endpoint: str, version: str | int | None) -> Ask[Configuration]:
        """GET /v2/models/{model}/config."""
        return self._get(f"{self._path(endpoint, version)}/config", _read_configuration)

    def models(self) -> Ask[list[str]]:
        """GET /v2/models."""
        return self._get(f"{self._address.prefix}/v2/models", lambda reply: _decode(reply, _Names).models)

    def ready(self, endpoint: str | None, version: str | int | None) -> Ask[bool]:
        """GET /v2/health/ready, or that of an endpoint; a refusal says it is not."""
        if endpoint is None:
            return self._get(f"{self._address.prefix}/v2/health/ready", lambda _: True)
        return self._get(f"{self._path(endpoint, version)}/ready", lambda _: True)

    def refusal(self, reply: Reply) -> CallError | None:
        """What a server or a proxy says when it does not answer with 200."""
        if reply.status == _OK:
            return None
        named = code = reply.headers.get("x-salver-error", "")
        if code not in CATALOGUE:
            code = _BY_STATUS.get(reply.status, "BAD_HTTP" if reply.status < _SERVER_ERROR else "INTERNAL")
        try:
            message = str(cast("dict[str, Any]", msgspec.json.decode(reply.body))["error"])
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
            message = f"{self._address.host} answered {reply.status} {reply.reason}"
        return CallError(
            code,
            message,
            may_have_run=named not in NEVER_RAN and reply.status >= _SERVER_ERROR,
            retry_after_s=retry_after(reply.headers),
            request_id=reply.headers.get("x-request-id", ""),
        )

    def _get(self, target: str, read: Any) -> Ask[Any]:
        question = Question(target, (), self._headers)
        return Ask(lambda _: question, read)

    def _path(self, endpoint: str, version: str | int | None) -> str:
        """The path of an endpoint, or of a version behind it; raises INVALID_NAME."""
        path = f"{self._address.prefix}/v2/models/{check_name(endpoint, 'endpoint')}"
        return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _timeout(left_s: float) -> dict[str, int]:
    """The parameter that tells a server the deadline; none where it is further away than it can say."""
    return {"timeout": max(1, round(left_s * 1e6))} if left_s <= _LONGEST_TIMEOUT_S else {}


def _read_metadata(reply: Reply) -> EndpointMetadata:
    found = _decode(reply, _Metadata)
    return EndpointMetadata(found.name, found.versions, found.platform, found.inputs, found.outputs)


def _read_configuration(reply: Reply) -> Configuration:
    found = _decode(reply, _Configuration)
    declared = found.parameters.get("salver_idempotent", _Parameter()).string_value
    optional = frozenset(each.name for each in found.input if each.optional)
    return Configuration(found.max_batch_size or None, declared == "true", optional)


def _read_answer(endpoint: str, reply: Reply) -> Prediction:
    content = memoryview(reply.body)
    length = reply.headers.get("inference-header-content-length", str(len(content)))
    if not length.isdecimal() or int(length) > len(content):
        raise unreadable(f"Inference-Header-Content-Length is {length!r} in {len(content)} bytes")
    answer = _decode(reply, _Answer, int(length))
    tail = content[int(length) :]
    arrays = {}
    for output in answer.outputs:
        size = output.parameters.get("binary_data_size")
        if not isinstance(size, int) or not 0 <= size <= len(tail):
            raise unreadable(f"output {output.name!r} has {size!r} bytes of the {len(tail)} that are left")
        try:
            array = Tensor(output.name, output.datatype, output.shape, tail[:size]).numpy()
        except (SalverError, KeyError, ValueError) as error:
            raise unreadable(f"output {output.name!r}: {error}") from None
        # The transport lays the first tensor where arrays are fast; what lies badly is copied.
        arrays[output.name] = array if array.flags.aligned and array.flags.writeable else array.copy()
        tail = tail[size:]
    if tail:
        raise unreadable(f"{len(tail)} bytes follow the last tensor")
    return Prediction(
        arrays,
        endpoint=endpoint,
        model_version=answer.model_version,
        request_id=reply.headers.get("x-request-id", ""),
        warnings=warnings_of(answer.parameters),
        timing=read_timing(reply.headers.get("server-timing", "")),
    )


def warnings_of(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The warnings in the parameters of an answer."""
    return tuple(filter(None, str(parameters.get("salver_warnings", "")).split("\n")))


def _decode(reply: Reply, kind: type[_T], length: int | None = None) -> _T:
    """The first `length` bytes of a body, or all of them, as JSON."""
    try:
        return msgspec.json.decode(memoryview(reply.body)[:length], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unreadable(str(error)) from None
