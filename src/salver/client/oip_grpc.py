"""The Open Inference Protocol over gRPC, seen from its client: questions written, replies read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from salver.client.dialect import (
    Ask,
    Configuration,
    Inference,
    Question,
    Reply,
    Scalar,
    check_request_id,
    retry_after,
    unreadable,
)
from salver.client.errors import NEVER_RAN, CallError
from salver.client.oip_http import warnings_of
from salver.client.prediction import EndpointMetadata, Prediction, read_timing
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.names import check_name
from salver.protocol.proto import message
from salver.protocol.signature import TensorSpec
from salver.protocol.tensor import Tensor

__all__ = ["OipGrpc"]

_SERVICE: Final = "/inference.GRPCInferenceService/"
_RAW_TAG: Final = b"\x3a"
"""Field 7 of ModelInferRequest, raw_input_contents, of wire type 2: a length and so many bytes."""
_CODES: Final = (
    *("OK", "INTERNAL", "INTERNAL", "BAD_MESSAGE", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "QUEUE_FULL", "LOAD_FAILED", "CONFLICT", "OUTSIDE_PROFILE", "UNSUPPORTED", "INTERNAL"),
    *("NOT_READY", "CORRUPT_ARTIFACT", "UNAUTHENTICATED"),
)
"""The codes of gRPC's statuses 0 to 16, for answers that name none, such as a proxy's."""
_UNAVAILABLE: Final = 14
_NEVER_LEFT: Final = ("failed to connect to all addresses", "DNS resolution failed")
"""How grpcio's messages begin where there was no connection to send anything on."""
_TOO_LARGE: Final = "larger than max"
_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"
_T = TypeVar("_T")


class OipGrpc:
    """See `Dialect`. The deadline travels as gRPC's own."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()

    def infer(self, inference: Inference) -> Ask[Prediction]:
        """ModelInfer with raw tensors, both ways."""
        request = _typed("ModelInferRequest")(
            model_name=check_name(inference.endpoint, "endpoint"), model_version=_version(inference.version)
        )
        headers = self._metadata
        if inference.request_id is not None:
            request.id = check_request_id(inference.request_id)
            headers = (*headers, ("x-request-id", inference.request_id))
        for name, value in inference.parameters.items():
            _set(request.parameters[name], name, value)
        for output in inference.outputs or ():
            request.outputs.add(name=output)
        # Messages of protobuf may be joined as bytes, which spares copying the tensors into one first.
        body: list[bytes | memoryview] = []
        for tensor in inference.tensors:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            body += [_RAW_TAG + _varint(len(tensor.data)), tensor.data]
        question = Question(f"{_SERVICE}ModelInfer", (request.SerializeToString(), *body), headers)
        return Ask(lambda _: question, partial(_read_answer, inference.endpoint))

    def metadata(self, endpoint: str, version: str | int | None) -> Ask[EndpointMetadata]:
        """ModelMetadata."""
        return self._ask("ModelMetadata", _read_metadata, **_named(endpoint, version))

    def configuration(self, endpoint: str, version: str | int | None) -> Ask[Configuration]:
        """ModelConfig."""
        return self._ask("ModelConfig", _read_configuration, **_named(endpoint, version))

    def models(self) -> Ask[list[str]]:
        """ModelStatistics of all: the one method that names every endpoint."""
        return self._ask("ModelStatistics", lambda found: sorted({each.name for each in found.model_stats}))

    def ready(self, endpoint: str | None, version: str | int | None) -> Ask[bool]:
        """ServerReady or ModelReady."""
        if endpoint is None:
            return self._ask("ServerReady", lambda found: bool(found.ready))
        return self._ask("ModelReady", lambda found: bool(found.ready), **_named(endpoint, version))

    def refusal(self, reply: Reply) -> CallError | None:
        """What a server, or grpcio itself, says when a call does not end with OK."""
        if reply.status == 0:
            return None
        named = code = reply.headers.get("x-salver-error", "")
        text = reply.reason
        if code not in CATALOGUE:
            code = _CODES[reply.status] if 0 < reply.status < len(_CODES) else "INTERNAL"
            if _TOO_LARGE in text:
                code = "BODY_TOO_LARGE"
            elif _UNTRUSTED in text:
                code, text = "REFUSED_BY_POLICY", f"the certificate of {self._url} is not trusted"
            elif text.startswith(_NEVER_LEFT):
                text = f"{self._url} cannot be reached ({text})"
            elif code == "NOT_READY":
                text = f"the connection to {self._url} broke: {text}"
            elif code == "DEADLINE_EXCEEDED":
                text = f"{self._url} gave no answer in time"
        return CallError(
            code,
            text or f"{self._url} answered with status {reply.status}",
            "is `salver serve --grpc` running there?" if reply.reason.startswith(_NEVER_LEFT) else "",
            may_have_run=named not in NEVER_RAN and not reply.reason.startswith(_NEVER_LEFT),
            retry_after_s=retry_after(reply.headers),
            request_id=reply.headers.get("x-request-id", ""),
        )

    def _ask(self, method: str, read: Callable[[Any], _T], **fields: str) -> Ask[_T]:
        request = _typed(f"{method}Request")(**fields).SerializeToString()
        question = Question(f"{_SERVICE}{method}", (request,), self._metadata)
        return Ask(lambda _: question, lambda reply: read(_parse(f"{method}Response", reply)))


def _typed(name: str) -> Any:
    return message(f"inference.{name}")


def _parse(name: str, reply: Reply) -> Any:
    try:
        return _typed(name).FromString(bytes(reply.body))
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, which differs between its implementations
        raise unreadable(f"the message is no {name}") from None


def _version(version: str | int | None) -> str:
    return "" if version is None else str(version)


def _named(endpoint: str, version: str | int | None) -> dict[str, str]:
    return {"name": check_name(endpoint, "endpoint"), "version": _version(version)}


def _set(parameter: Any, name: str, value: Scalar) -> None:
    # Booleans are integers to Python, so they come first.
    for kind, field in ((bool, "bool_param"), (int, "int64_param"), (float, "double_param"), (str, "string_param")):
        if isinstance(value, kind):
            try:
                setattr(parameter, field, value)
            except ValueError:
                break  # an integer beyond 64 bits
            return
    raise SalverError(
        "INVALID_PARAMETER", f"parameter {name[:80]!r} is a {type(value).__name__}", "use bool, int, float or str"
    )


def _varint(number: int) -> bytes:
    """Base 128, least significant group first, as protobuf writes lengths."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _read_metadata(found: Any) -> EndpointMetadata:
    inputs, outputs = (
        tuple(TensorSpec(spec.name, spec.datatype, tuple(spec.shape)) for spec in specs)
        for specs in (found.inputs, found.outputs)
    )
    return EndpointMetadata(found.name, tuple(found.versions), found.platform, inputs, outputs)


def _read_configuration(found: Any) -> Configuration:
    declared = found.config.parameters["salver_idempotent"].string_value
    optional = frozenset(each.name for each in found.config.input if each.optional)
    return Configuration(found.config.max_batch_size or None, declared == "true", optional)


def _read_answer(endpoint: str, reply: Reply) -> Prediction:
    answer = _parse("ModelInferResponse", reply)
    raw = answer.raw_output_contents
    if len(raw) != len(answer.outputs):
        raise unreadable(f"{len(raw)} raw_output_contents came with {len(answer.outputs)} outputs")
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for output, content in zip(answer.outputs, raw, strict=True):
        try:
            array = Tensor(output.name, output.datatype, tuple(output.shape), content).numpy()
        except (SalverError, KeyError, ValueError) as error:
            raise unreadable(f"output {output.name!r}: {error}") from None
        arrays[output.name] = array if array.flags.writeable else array.copy()
    parameters = {name: value.string_param for name, value in answer.parameters.items()}
    return Prediction(
        arrays,
        endpoint=endpoint,
        model_version=answer.model_version,
        request_id=reply.headers.get("x-request-id", ""),
        warnings=warnings_of(parameters),
        timing=read_timing(reply.headers.get("server-timing", "")),
    )
