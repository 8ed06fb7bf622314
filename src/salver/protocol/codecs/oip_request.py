"""Open Inference Protocol requests: JSON, and JSON followed by binary tensors.

Decoding is strict where silence would change a user's numbers: a string or a boolean is no
number, a fraction is no integer, a value that does not fit its datatype is refused. Numbers go
straight from JSON into packed bytes; see `salver.protocol.tensor`.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.codecs.plain_json import refuse_duplicate_keys
from salver.protocol.datatypes import DATATYPES, Datatype
from salver.protocol.errors import SalverError
from salver.protocol.request import RequestedOutput
from salver.protocol.signature import Signature
from salver.protocol.tensor import MAX_RANK, Tensor, check_shape, pack_bytes_elements, unpack_bytes_elements

__all__ = [
    "InferBody",
    "checked_binary",
    "checked_parameters",
    "decode_json",
    "decode_raw_tensor",
    "decode_with_binary",
    "known_datatype",
    "requested_output",
]

Scalar = bool | int | float | str
_PACKABLE_ELEMENTS: Final = 4096
"""Up to here one `struct` call packs the values; compiled formats beyond it would fill the cache."""
_LONGEST_NAME: Final = 256
_SPARE_LISTS: Final = 4096
"""So many are read to say more exactly what is wrong with them."""
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class _JsonTensor(msgspec.Struct, gc=False):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Scalar] | msgspec.UnsetType = msgspec.UNSET


class _JsonOutput(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Scalar] | msgspec.UnsetType = msgspec.UNSET


class _JsonRequest(msgspec.Struct, gc=False):
    inputs: list[_JsonTensor]
    id: str | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Scalar] | msgspec.UnsetType = msgspec.UNSET
    outputs: list[_JsonOutput] | msgspec.UnsetType = msgspec.UNSET


class InferBody(msgspec.Struct, gc=False):
    """What the body of an inference request says."""

    inputs: dict[str, Tensor]
    id: str | None
    parameters: dict[str, Scalar] | None
    outputs: tuple[RequestedOutput, ...] | None


_REQUEST: Final = msgspec.json.Decoder(_JsonRequest)


def decode_json(body: bytes, max_elements: int) -> InferBody:
    """Decode a JSON body; raises SalverError (400) for anything but a sound request."""
    return _assemble(_decode_envelope(body), memoryview(b""), max_elements)


def decode_with_binary(body: bytes, json_bytes: int, max_elements: int) -> InferBody:
    """Decode `json_bytes` of JSON and the little-endian tensors behind it, in input order."""
    if json_bytes > len(body):
        raise SalverError(
            "INVALID_TENSOR",
            f"Inference-Header-Content-Length is {json_bytes} but the body has {len(body)} bytes",
        )
    return _assemble(_decode_envelope(body[:json_bytes]), memoryview(body)[json_bytes:], max_elements)


def decode_raw_tensor(body: bytes, signature: Signature, max_elements: int) -> InferBody:
    """Decode a body that is nothing but the one input of `signature`, as a batch of one row.

    All outputs are answered in binary. A single free dimension behind the batch is inferred.
    """
    if len(signature.inputs) != 1:
        raise SalverError(
            "INVALID_TENSOR", f"a raw body suits a model with one input; this one has {len(signature.inputs)}"
        )
    spec = signature.inputs[0]
    kind = DATATYPES[spec.datatype]
    shape = [1, *spec.shape[1:]] if signature.batched else list(spec.shape)
    if spec.datatype == "BYTES":
        tensor = Tensor(spec.name, "BYTES", tuple(1 for _ in shape), pack_bytes_elements([body]))
        return InferBody({spec.name: tensor}, None, {"binary_data_output": True}, None)
    if -1 in shape:
        known = -np.prod(shape, dtype=object)
        shape[shape.index(-1)] = len(body) // (kind.itemsize * max(int(known), 1))
    size = check_shape(spec.name, shape, max_elements)
    tensor = Tensor(spec.name, spec.datatype, tuple(shape), checked_binary(spec.name, kind, size, memoryview(body)))
    return InferBody({spec.name: tensor}, None, {"binary_data_output": True}, None)


def _decode_envelope(body: bytes) -> _JsonRequest:
    try:
        request = _REQUEST.decode(body)
    except msgspec.ValidationError as error:
        raise SalverError("INVALID_JSON", f"the request is not an inference request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_JSON", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise SalverError("INVALID_JSON", "the JSON is nested too deeply") from None
    # Every JSON member has one colon, so as many colons as decoded members means that no key
    # came twice. Strings with colons and keys we ignore merely lead to the exact check.
    if body.count(b":") != _members(request):
        refuse_duplicate_keys(body)
    return request


def _members(request: _JsonRequest) -> int:
    count = 1 + _parameter_members(request.parameters)
    if request.id is not msgspec.UNSET:
        count += 1
    for tensor in request.inputs:
        count += 4 if tensor.data else 3
        if tensor.parameters is not msgspec.UNSET:
            count += _parameter_members(tensor.parameters)
    if request.outputs is not msgspec.UNSET:
        count += 1
        for output in request.outputs:
            count += 1 + _parameter_members(output.parameters)
    return count


def _parameter_members(parameters: dict[str, Scalar] | msgspec.UnsetType) -> int:
    return 0 if parameters is msgspec.UNSET else 1 + len(parameters)


def _assemble(request: _JsonRequest, tail: memoryview, max_elements: int) -> InferBody:
    inputs: dict[str, Tensor] = {}
    for tensor in request.inputs:
        kind = DATATYPES.get(tensor.datatype)
        if kind is None or len(tensor.name) > _LONGEST_NAME:
            kind = known_datatype(tensor.name, tensor.datatype)
        size = check_shape(tensor.name, tensor.shape, max_elements)
        data: bytes | memoryview
        if tensor.parameters is not msgspec.UNSET and "binary_data_size" in tensor.parameters:
            data, tail = _take_binary(tensor, kind, size, tail)
        else:
            data = _pack_json(tensor, kind, size)
        inputs[tensor.name] = Tensor(tensor.name, tensor.datatype, tensor.shape, data)
    if len(inputs) != len(request.inputs):
        raise SalverError("INVALID_TENSOR", "an input is given twice", "name each input once")
    if tail:
        raise SalverError("INVALID_TENSOR", f"{len(tail)} bytes follow the last binary tensor")
    return InferBody(
        inputs,
        None if request.id is msgspec.UNSET else request.id,
        None if request.parameters is msgspec.UNSET else checked_parameters(request.parameters),
        None if request.outputs is msgspec.UNSET else _requested(request.outputs),
    )


def checked_parameters(parameters: dict[str, Scalar]) -> dict[str, Scalar]:
    """The parameters of a request; raises INVALID_PARAMETER for a value that ours cannot have."""
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise SalverError("INVALID_PARAMETER", f"binary_data_output is {_shown(binary)}", "write true or false")
    return parameters


def requested_output(name: str, parameters: dict[str, Scalar]) -> RequestedOutput:
    """One output as a client asks for it; raises SalverError for parameters that it cannot have."""
    binary = parameters.get("binary_data")
    classes = parameters.get("classification", 0)
    if "shared_memory_region" in parameters:
        raise SalverError("UNSUPPORTED", "this server offers no shared memory to clients")
    if not isinstance(binary, bool | None) or type(classes) is not int or classes < 0:
        raise SalverError(
            "INVALID_PARAMETER",
            f"output {_shown(name)} has binary_data={_shown(binary)} and classification={_shown(classes)}",
            "binary_data is true or false, classification a number of classes",
        )
    return RequestedOutput(name, binary, classes)


def _requested(outputs: list[_JsonOutput]) -> tuple[RequestedOutput, ...] | None:
    requested = [
        requested_output(output.name, {} if output.parameters is msgspec.UNSET else output.parameters)
        for output in outputs
    ]
    if len({output.name for output in requested}) != len(requested):
        raise SalverError("INVALID_TENSOR", "an output is requested twice", "name each output once")
    return tuple(requested) or None


def _take_binary(tensor: _JsonTensor, kind: Datatype, size: int, tail: memoryview) -> tuple[memoryview, memoryview]:
    assert tensor.parameters is not msgspec.UNSET
    length = tensor.parameters["binary_data_size"]
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= len(tail):
        raise SalverError(
            "INVALID_TENSOR",
            f"input {tensor.name!r} has binary_data_size {_shown(length)}; {len(tail)} bytes of tensor data are left",
        )
    if tensor.data:
        raise SalverError("INVALID_TENSOR", f"input {tensor.name!r} has both data and binary_data_size")
    return checked_binary(tensor.name, kind, size, tail[:length]), tail[length:]


def known_datatype(name: str, datatype: str) -> Datatype:
    """The datatype of an input; raises WRONG_DATATYPE for an unknown one, INVALID_TENSOR for a name beyond reason."""
    if len(name) > _LONGEST_NAME:
        raise SalverError("INVALID_TENSOR", f"the name of an input has {len(name)} characters, no model's has")
    kind = DATATYPES.get(datatype)
    if kind is None:
        raise SalverError(
            "WRONG_DATATYPE",
            f"input {name!r} has the unknown datatype {datatype[:20]!r}",
            f"use one of {', '.join(DATATYPES)}",
        )
    return kind


def checked_binary(name: str, kind: Datatype, size: int, data: memoryview) -> memoryview:
    """`data` if it can be `size` elements of the datatype; raises INVALID_TENSOR or INVALID_VALUE."""
    if kind.name == "BYTES":
        unpack_bytes_elements(data, size, name)
    elif len(data) != size * kind.itemsize:
        raise SalverError(
            "INVALID_TENSOR",
            f"input {name!r} has {len(data)} bytes; its shape and {kind.name} need {size * kind.itemsize}",
        )
    elif kind.name == "BOOL" and bytes(data).translate(None, b"\x00\x01"):
        raise SalverError("INVALID_VALUE", f"BOOL input {name!r} has bytes other than 0 and 1")
    return data


@functools.cache
def _values_decoder(json_type: type, rank: int) -> msgspec.json.Decoder[Any]:
    nested: Any = json_type
    for _ in range(rank):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


@functools.lru_cache(maxsize=4096)
def _packer(code: str, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{code}")


def _pack_json(tensor: _JsonTensor, kind: Datatype, size: int) -> bytes:
    if kind.json_type is None:
        raise SalverError(
            "WRONG_DATATYPE", f"input {tensor.name!r} is {kind.name}, which JSON cannot carry", "send it as binary data"
        )
    if not tensor.data:
        if tensor.parameters is not msgspec.UNSET and "shared_memory_region" in tensor.parameters:
            raise SalverError("UNSUPPORTED", "this server offers no shared memory to clients")
        raise SalverError("INVALID_TENSOR", f"input {tensor.name!r} has no data")
    try:
        values: list[Any] = _values_decoder(kind.json_type, 1).decode(tensor.data)
    except msgspec.DecodeError:
        values = _flatten_nested(tensor, kind.json_type)
    if len(values) != size:
        raise SalverError(
            "WRONG_SHAPE",
            f"input {tensor.name!r} has {len(values)} elements; its shape {list(tensor.shape)} needs {size}",
        )
    if kind.name == "BYTES":
        return pack_bytes_elements([value.encode() for value in values])
    try:
        if size <= _PACKABLE_ELEMENTS:
            return _packer(kind.struct_code, size).pack(*values)
        with np.errstate(over="raise"):
            return np.array(values, dtype=kind.dtype).tobytes()
    except (struct.error, OverflowError, FloatingPointError):
        raise SalverError(
            "INVALID_VALUE",
            f"input {tensor.name!r} holds {_shown(_misfit(values, kind))}, which {kind.name} cannot",
        ) from None


def _flatten_nested(tensor: _JsonTensor, json_type: type) -> list[Any]:
    rank = len(tensor.shape)
    if not 2 <= rank <= MAX_RANK:
        rank = 1
    _check_lists(tensor, rank)
    try:
        values: list[Any] = _values_decoder(json_type, rank).decode(tensor.data)
    except msgspec.DecodeError as error:
        raise SalverError(
            "INVALID_VALUE",
            f"the data of input {tensor.name!r} are not {tensor.datatype}: {str(error).replace('$', 'data')}",
        ) from None
    fits = rank == 1 or len(values) == tensor.shape[0]
    for dimension in tensor.shape[1:rank]:
        fits = fits and all(len(value) == dimension for value in values)
        values = list(itertools.chain.from_iterable(values))
    if not fits:
        raise SalverError(
            "WRONG_SHAPE", f"the nested data of input {tensor.name!r} do not have the shape {list(tensor.shape)}"
        )
    return values


def _check_lists(tensor: _JsonTensor, rank: int) -> None:
    """Refuse data of more lists than their shape has before they are made: an empty one takes two bytes here."""
    lists, those = 1, 1
    for dimension in tensor.shape[: rank - 1]:
        those *= dimension
        lists += those
    data = bytes(tensor.data)
    if data.count(b"[") > lists + _SPARE_LISTS and _STRING.sub(b"", data).count(b"[") > lists + _SPARE_LISTS:
        raise SalverError(
            "WRONG_SHAPE", f"the nested data of input {tensor.name!r} do not have the shape {list(tensor.shape)}"
        )


def _shown(value: object) -> str:
    """A client's own value as far as an error repeats it."""
    return repr(value)[:80]


def _misfit(values: list[Any], kind: Datatype) -> object:
    for value in values:
        try:
            struct.pack(f"<{kind.struct_code}", value)
        except (struct.error, OverflowError):
            return value
    return "a value"
