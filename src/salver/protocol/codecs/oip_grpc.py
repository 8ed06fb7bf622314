"""Open Inference Protocol messages of gRPC: the same requests and responses in protobuf.

Decoding is as strict as for JSON. Encoding joins what was encoded once per version (names), once
per shape (descriptions of outputs) and once per batch (the tensors): protobuf's own rule that
messages may be joined as bytes makes that one message.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from salver.protocol.codecs.oip_request import (
    InferBody,
    checked_binary,
    checked_parameters,
    known_datatype,
    requested_output,
)
from salver.protocol.codecs.oip_response import answer_parameters, classify, raw_bytes, raw_rows
from salver.protocol.codecs.protobuf_fields import check_fields
from salver.protocol.codecs.slices import SLICE
from salver.protocol.datatypes import Datatype
from salver.protocol.errors import SalverError
from salver.protocol.proto import message
from salver.protocol.request import BatchOutputs, Request, RequestedOutput, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite
from salver.protocol.tensor import Tensor, check_shape, pack_bytes_elements

__all__ = ["GrpcEncoder", "decode_infer"]

_REQUEST: Final = message("inference.ModelInferRequest")
_RESPONSE: Final = message("inference.ModelInferResponse")
_OUTPUT: Final = message("inference.ModelInferResponse.InferOutputTensor")
_RAW_TAG: Final = b"\x32"
"""Field 6, raw_output_contents, of wire type 2: a length and so many bytes."""
_INFER_RESPONSE_TAG: Final = b"\x12"
"""Field 2 of ModelStreamInferResponse, of wire type 2."""
_FINAL: Final = _RESPONSE(parameters={"triton_final_response": {"bool_param": True}}).SerializeToString()
"""For clients that ask which answer of a request is the last: of a version that does not stream each is."""
_NOT_FINAL: Final = _RESPONSE(parameters={"triton_final_response": {"bool_param": False}}).SerializeToString()
_ASKS_FOR_LAST: Final = "triton_enable_empty_final_response"
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the values of a datatype stand; FP16 and BF16 travel raw only."""
_ROWS: Final = object()
"""Key of `BatchOutputs.codec_cache`."""
_DESCRIPTIONS: Final = 256


class DecodedInfer(InferBody):
    """What a ModelInferRequest says."""

    model: str = ""
    version: str | None = None
    typed: bool = False
    """Whether the tensors came as typed contents: then the answer's do too."""


def decode_infer(data: bytes, max_elements: int) -> DecodedInfer:
    """Decode a ModelInferRequest; raises SalverError for anything but a sound request."""
    check_fields(data)
    try:
        request = _REQUEST.FromString(data)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, which differs between its implementations
        raise SalverError("BAD_MESSAGE", "the message is no ModelInferRequest") from None
    raw = request.raw_input_contents
    tensors = request.inputs
    if raw and len(raw) != len(tensors):
        raise SalverError(
            "INVALID_TENSOR", f"{len(raw)} raw_input_contents came with {len(tensors)} inputs", "give one for each"
        )
    inputs: dict[str, Tensor] = {}
    for at, tensor in enumerate(tensors):
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        kind = known_datatype(name, datatype)
        size = check_shape(name, shape, max_elements)
        if tensor.parameters and "shared_memory_region" in tensor.parameters:
            raise SalverError("UNSUPPORTED", "this server offers no shared memory to clients", "send the tensors")
        content: bytes | memoryview
        if raw:
            if tensor.HasField("contents"):
                raise SalverError("INVALID_TENSOR", f"input {name!r} has contents beside raw_input_contents")
            content = checked_binary(name, kind, size, memoryview(raw[at]))
        else:
            content = _packed(tensor.contents, name, kind, size)
        inputs[name] = Tensor(name, datatype, shape, content)
    if len(inputs) != len(tensors):
        raise SalverError("INVALID_TENSOR", "an input is given twice", "name each input once")
    return DecodedInfer(
        inputs,
        request.id or None,
        checked_parameters(_plain(request.parameters)) if request.parameters else None,
        _outputs(request.outputs) if request.outputs else None,
        request.model_name,
        request.model_version or None,
        not raw,
    )


def _packed(contents: Any, name: str, kind: Datatype, size: int) -> bytes:
    """Typed contents as the bytes of a tensor; values beyond their datatype are refused."""
    field = _CONTENTS.get(kind.name)
    if field is None:
        raise SalverError("WRONG_DATATYPE", f"input {name!r} is {kind.name}, which travels raw only")
    filled = [found.name for found, _ in contents.ListFields()]
    if filled not in ([], [field]):
        raise SalverError("INVALID_TENSOR", f"input {name!r} is {kind.name}; its values came in {', '.join(filled)}")
    values = getattr(contents, field)
    if len(values) != size:
        raise SalverError("WRONG_SHAPE", f"input {name!r} has {len(values)} elements; its shape needs {size}")
    if kind.name == "BYTES":
        return pack_bytes_elements(values)
    try:
        if size <= SLICE:
            return struct.pack(f"<{size}{kind.struct_code}", *values)
        packed = bytearray()
        for at in range(0, size, SLICE):
            part = values[at : at + SLICE]
            packed += struct.pack(f"<{len(part)}{kind.struct_code}", *part)
        return bytes(packed)
    except struct.error:
        raise SalverError("INVALID_VALUE", f"input {name!r} holds a value that {kind.name} cannot") from None


def _plain(parameters: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    plain: dict[str, bool | int | float | str] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise SalverError("INVALID_PARAMETER", f"parameter {name[:80]!r} has no value")
        plain[name] = getattr(parameter, choice)
    return plain


def _outputs(outputs: Any) -> tuple[RequestedOutput, ...]:
    requested = tuple(requested_output(output.name, _plain(output.parameters)) for output in outputs)
    if len({output.name for output in requested}) != len(requested):
        raise SalverError("INVALID_TENSOR", "an output is requested twice", "name each output once")
    return requested


class GrpcEncoder:
    """Writes responses of one endpoint; prepared once per loaded version."""

    def __init__(
        self, endpoint: str, model: str, version: str, outputs: Mapping[str, TensorSpec], nonfinite: Nonfinite
    ) -> None:
        self._outputs = outputs
        self._all = tuple(RequestedOutput(name) for name in outputs)
        self._nonfinite = nonfinite
        self._prefix = _RESPONSE(model_name=endpoint, model_version=version).SerializeToString()
        self._version = version
        self._model = model if model != endpoint else ""
        self._fixed_size = all(spec.datatype != "BYTES" for spec in outputs.values())
        self._typable = all(spec.datatype in _CONTENTS for spec in outputs.values())

    def encode(self, request: Request, response: Response, *, typed: bool, timing: str = "") -> bytes:
        """The ModelInferResponse, with typed contents if asked and the datatypes have them, else raw."""
        head: bytes = self._prefix
        if response.version != self._version:
            # A session goes on with the version that it began with, while that one drains. The last of a field counts.
            head += _RESPONSE(model_version=response.version).SerializeToString()
        if request.id is not None:
            head += _RESPONSE(id=request.id).SerializeToString()
        if self._model or response.warnings or timing:
            head += self._parameters(response, timing)
        if typed and self._typable:
            return head + self._typed(request, response)
        if request.outputs is None and self._fixed_size and response.stop == response.start + 1:
            described, rows = self._single_rows(response.batch)
            return b"%b%b%b" % (head, described, rows[response.start])
        parts = [head]
        contents = []
        for output in request.outputs or self._all:
            datatype, array = self._one(output, response)
            parts.append(_described(output.name, datatype, array.shape))
            contents.append(_raw_field(raw_bytes(array, datatype)))
        return b"".join((*parts, *contents))

    def encode_streamed(
        self, request: Request, response: Response, *, typed: bool, final: bool = True, timing: str = ""
    ) -> bytes:
        """The same as an answer to one message of a stream, the only one unless `final` is false."""
        encoded = self.encode(request, response, typed=typed, timing=timing)
        if request.parameters and request.parameters.get(_ASKS_FOR_LAST):
            encoded += _FINAL if final else _NOT_FINAL
        return _streamed(encoded)

    def encode_last(self, request: Request, timing: str = "") -> bytes | None:
        """What says, without outputs, that there were all answers; None for who asks neither that nor `timing`."""
        if not timing and not (request.parameters and request.parameters.get(_ASKS_FOR_LAST)):
            return None
        last = _RESPONSE(id=request.id or "")
        if timing:
            last.parameters["salver_timing"].string_param = timing
        named: bytes = last.SerializeToString()
        return _streamed(self._prefix + named + _FINAL)

    def _parameters(self, response: Response, timing: str) -> bytes:
        answer = _RESPONSE()
        for name, value in answer_parameters(self._model, response, timing).items():
            answer.parameters[name].string_param = value
        encoded: bytes = answer.SerializeToString()
        return encoded

    def _single_rows(self, batch: BatchOutputs) -> tuple[bytes, list[bytes]]:
        """The description that all answers of one row share, and each row's tensors."""
        cached: tuple[bytes, list[bytes]] | None = batch.codec_cache.get(_ROWS)
        if cached is None:
            described, columns = [], []
            for name, spec in self._outputs.items():
                array = batch.arrays[name]
                described.append(_described(name, spec.datatype, (1, *array.shape[1:])))
                columns.append([_raw_field(row) for row in raw_rows(array, spec.datatype)])
            cached = b"".join(described), [b"".join(parts) for parts in zip(*columns, strict=True)]
            batch.codec_cache[_ROWS] = cached
        return cached

    def _one(self, output: RequestedOutput, response: Response) -> tuple[str, np.ndarray[Any, Any]]:
        spec = self._outputs[output.name]
        array = response.array(output.name)
        if output.classification:
            return "BYTES", classify(spec, array, output.classification, self._nonfinite).numpy()
        return spec.datatype, array

    def _typed(self, request: Request, response: Response) -> bytes:
        answer = _RESPONSE()
        for output in request.outputs or self._all:
            datatype, array = self._one(output, response)
            tensor = answer.outputs.add(name=output.name, datatype=datatype, shape=array.shape)
            flat, contents = array.reshape(-1), getattr(tensor.contents, _CONTENTS[datatype])
            for at in range(0, max(1, len(flat)), SLICE):
                values = flat[at : at + SLICE].tolist()
                if datatype == "BYTES":
                    values = [value if isinstance(value, bytes) else str(value).encode() for value in values]
                contents.extend(values)
        encoded: bytes = answer.SerializeToString()
        return encoded


_described_before: Final[dict[tuple[str, str, tuple[int, ...]], bytes]] = {}


def _described(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """An output without its values, as a part of a response; few differ, so they are remembered."""
    key = (name, datatype, shape)
    found = _described_before.get(key)
    if found is None:
        if len(_described_before) >= _DESCRIPTIONS:
            _described_before.clear()
        output = _OUTPUT(name=name, datatype=datatype, shape=shape)
        found = _described_before[key] = _RESPONSE(outputs=[output]).SerializeToString()
    return found


def _streamed(encoded: bytes) -> bytes:
    return b"%b%b%b" % (_INFER_RESPONSE_TAG, _varint(len(encoded)), encoded)


def _raw_field(data: bytes) -> bytes:
    return b"%b%b%b" % (_RAW_TAG, _varint(len(data)), data)


def _varint(number: int) -> bytes:
    """Base 128, least significant group first, as protobuf writes lengths."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
