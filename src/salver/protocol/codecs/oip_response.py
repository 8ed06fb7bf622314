"""Open Inference Protocol responses, written once per batch wherever that is possible.

The numbers of a whole batch are turned into JSON in one call and cut into rows as text; the
response to one request is then a join of a few byte strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.codecs.slices import SLICE, json_array, json_each
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, RequestedOutput, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite
from salver.protocol.tensor import Tensor, pack_bytes_elements

__all__ = ["ResponseEncoder", "answer_parameters", "classify", "raw_bytes", "raw_rows", "warnings_text"]

_JSON: Final = msgspec.json.Encoder()
_SINGLE: Final = object()
_BINARY: Final = object()
"""Keys of `BatchOutputs.codec_cache` beside the names of outputs."""


class ResponseEncoder:
    """Writes responses of one endpoint; prepared once per loaded version.

    `outputs` are the specifications of the version by name, in order.
    """

    def __init__(
        self, endpoint: str, model: str, version: str, outputs: Mapping[str, TensorSpec], nonfinite: Nonfinite
    ) -> None:
        self._outputs = outputs
        self._all = tuple(RequestedOutput(name) for name in outputs)
        self._nonfinite = nonfinite
        self._prefix = b'{"model_name":%b%b' % (_JSON.encode(endpoint), _named(version))
        self._version = version
        self._model = model if model != endpoint else ""
        self._fixed_size = all(spec.datatype != "BYTES" for spec in outputs.values())

    def encode(self, request: Request, response: Response, timing: str = "") -> tuple[bytes, int | None]:
        """Return the body and, when tensors follow the JSON in binary, the length of the JSON.

        `timing`, if any, is one of its parameters. Raises NONFINITE_OUTPUT when the policy is `error` and
        this request's values are not finite, BAD_MODEL_OUTPUT for its text that is none, WRONG_DATATYPE for
        types JSON cannot carry.
        """
        head = self._head(request, response, timing)
        binary_wanted = bool(request.parameters and request.parameters.get("binary_data_output"))
        if request.outputs is None and response.stop == response.start + 1:
            if not binary_wanted:
                row = self._single_rows(response.batch)[response.start]
                if row is None:
                    raise self._refuse_single(response)
                return b'%b,"outputs":[%b]}' % (head, row), None
            if self._fixed_size:
                described_all, rows = self._single_binary_rows(response.batch)
                text = b'%b,"outputs":[%b]}' % (head, described_all)
                return text + rows[response.start], len(text)
        described: list[bytes] = []
        tail: list[bytes] = []
        for output in request.outputs or self._all:
            binary = binary_wanted if output.binary is None else output.binary
            text, data = self._one_output(output, response, binary)
            described.append(text)
            if data is not None:
                tail.append(data)
        body = b'%b,"outputs":[%b]}' % (head, b",".join(described))
        if not tail:
            return body, None
        return b"".join((body, *tail)), len(body)

    def encode_last(self, request: Request, timing: str = "") -> bytes:
        """What stands behind the last answer of a stream: no outputs, and that it is the end."""
        head = self._prefix
        if request.id is not None:
            head += b',"id":' + _JSON.encode(request.id)
        told = b"" if not timing else b',"salver_timing":' + _JSON.encode(timing)
        return b'%b,"parameters":{"triton_final_response":true%b},"outputs":[]}' % (head, told)

    def _head(self, request: Request, response: Response, timing: str) -> bytes:
        head = self._prefix
        if response.version != self._version:
            # A session goes on with the version that it began with, while that one drains.
            head = head.removesuffix(_named(self._version)) + _named(response.version)
        if request.id is not None:
            head += b',"id":' + _JSON.encode(request.id)
        if self._model or response.warnings or timing:
            head += b',"parameters":' + _JSON.encode(answer_parameters(self._model, response, timing))
        return head

    def _single_rows(self, batch: BatchOutputs) -> list[bytes | None]:
        """All outputs as JSON for each row of the batch alone: the form most answers take.

        None stands for a row whose values JSON cannot carry.
        """
        cached: list[bytes | None] | None = batch.codec_cache.get(_SINGLE)
        if cached is None:
            templates = []
            columns = []
            for name, spec in self._outputs.items():
                array = batch.arrays[name]
                described = _describe(name, spec.datatype, (1, *array.shape[1:]))
                templates.append(described.replace(b"%", b"%%") + b',"data":[%b]}')
                columns.append(self._json_rows(batch, name))
            template = b",".join(templates)
            cached = [None if None in row else template % row for row in zip(*columns, strict=True)]
            batch.codec_cache[_SINGLE] = cached
        return cached

    def _single_binary_rows(self, batch: BatchOutputs) -> tuple[bytes, list[bytes]]:
        """The description that all answers of one row share, and each row's tensors in binary."""
        cached: tuple[bytes, list[bytes]] | None = batch.codec_cache.get(_BINARY)
        if cached is None:
            described, columns = [], []
            for name, spec in self._outputs.items():
                array = batch.arrays[name]
                rows = raw_rows(array, spec.datatype)
                sized = b',"parameters":{"binary_data_size":%d}}' % len(rows[0])
                described.append(_describe(name, spec.datatype, (1, *array.shape[1:])) + sized)
                columns.append(rows)
            cached = b",".join(described), [b"".join(parts) for parts in zip(*columns, strict=True)]
            batch.codec_cache[_BINARY] = cached
        return cached

    def _one_output(self, output: RequestedOutput, response: Response, binary: bool) -> tuple[bytes, bytes | None]:
        spec = self._outputs[output.name]
        if output.classification:
            tensor = classify(spec, response.array(output.name), output.classification, self._nonfinite)
            shape, datatype = tensor.shape, "BYTES"
        else:
            tensor = None
            array = response.array(output.name)
            shape, datatype = array.shape, spec.datatype
        described = _describe(output.name, datatype, shape)
        if binary:
            data = bytes(tensor.data) if tensor else raw_bytes(array, datatype)
            return described + b',"parameters":{"binary_data_size":%d}}' % len(data), data
        if tensor is not None:
            rows: Sequence[bytes | None] = [
                _JSON.encode([element.decode() for element in tensor.numpy().reshape(-1)])[1:-1]
            ]
        elif response.stop is None:
            rows = self._json_rows(BatchOutputs({output.name: array[np.newaxis]}), output.name)
        else:
            rows = self._json_rows(response.batch, output.name)[response.start : response.stop]
        if None in rows:
            raise self._refuse(spec)
        return b'%b,"data":[%b]}' % (described, b",".join(filter(None, rows))), None

    def _json_rows(self, batch: BatchOutputs, name: str) -> Sequence[bytes | None]:
        """Each row of one output as JSON elements without brackets, for the whole batch.

        None stands for a row whose values JSON cannot carry; it is the failure of that row only.
        """
        cached: Sequence[bytes | None] | None = batch.codec_cache.get(name)
        if cached is None:
            cached = self._encode_rows(batch.arrays[name], self._outputs[name])
            batch.codec_cache[name] = cached
        return cached

    def _encode_rows(self, array: np.ndarray[Any, Any], spec: TensorSpec) -> Sequence[bytes | None]:
        kind = DATATYPES[spec.datatype]
        if kind.json_type is None:
            raise SalverError(
                "WRONG_DATATYPE", f"output {spec.name!r} is {kind.name}, which JSON cannot carry", "ask for binary data"
            )
        table = array.reshape(len(array), -1)
        if kind.name == "BYTES":
            return [_text_row(row) for row in table.tolist()]
        if kind.json_type is float and not np.isfinite(table).all():
            return [self._encode_doubtful_row(row) for row in table]
        if table.size > SLICE:
            return json_each(table.reshape(-1)) if table.shape[1] == 1 else [row[1:-1] for row in json_each(table)]
        if table.shape[1] == 1:
            return _JSON.encode(table.reshape(-1).tolist())[1:-1].split(b",")
        return _JSON.encode(table.tolist())[2:-2].split(b"],[")

    def _encode_doubtful_row(self, row: np.ndarray[Any, Any]) -> bytes | None:
        if np.isfinite(row).all() or self._nonfinite is Nonfinite.NULL:
            return json_array(row)[1:-1]
        if self._nonfinite is Nonfinite.PASS:
            return json.dumps(row.tolist(), separators=(",", ":"))[1:-1].encode()
        return None

    def _refuse_single(self, response: Response) -> SalverError:
        """Why one row of all outputs cannot be written: the fault of the first output whose part cannot."""
        for name, spec in self._outputs.items():
            if self._json_rows(response.batch, name)[response.start] is None:
                return self._refuse(spec)
        raise AssertionError("a row was refused of which every part can be written")

    def _refuse(self, spec: TensorSpec) -> SalverError:
        if spec.datatype != "BYTES":
            return _refuse_nonfinite()
        return SalverError(
            "BAD_MODEL_OUTPUT", f"output {spec.name!r} is not UTF-8 text, which JSON needs", "ask for binary data"
        )


def classify(spec: TensorSpec, scores: np.ndarray[Any, Any], k: int, nonfinite: Nonfinite) -> Tensor:
    """The k largest scores along the last dimension as "value:index[:label]"; ties in order of index."""
    if spec.datatype == "BYTES" or not scores.ndim:
        raise SalverError("INVALID_PARAMETER", f"output {spec.name!r} has no scores to classify")
    if spec.datatype == "BF16":
        scores = (scores.astype("<u4") << 16).view("<f4")
    if scores.dtype.kind == "f" and nonfinite is Nonfinite.ERROR and not np.isfinite(scores).all():
        raise _refuse_nonfinite()
    order = _descending(scores)[..., :k]
    best = np.take_along_axis(scores, order, axis=-1)
    labels = spec.labels
    elements = []
    for value, index in zip(best.reshape(-1).tolist(), order.reshape(-1).tolist(), strict=True):
        label = f":{labels[index]}" if index < len(labels) else ""
        number = f"{value:f}" if isinstance(value, float) else f"{value}"
        elements.append(f"{number}:{index}{label}".encode())
    return Tensor(spec.name, "BYTES", order.shape, pack_bytes_elements(elements))


def _refuse_nonfinite() -> SalverError:
    return SalverError(
        "NONFINITE_OUTPUT",
        "the model answered NaN or infinity, which JSON cannot carry",
        "ask for binary data, or deploy with --nonfinite null or pass",
    )


def answer_parameters(model: str, response: Response, timing: str) -> dict[str, str]:
    """The parameters of an answer: the name of the model where the endpoint has another, warnings, timing."""
    told = {
        "salver_model": model,
        "salver_warnings": warnings_text(response.warnings) if response.warnings else "",
        "salver_timing": timing,
    }
    return {name: value for name, value in told.items() if value}


def warnings_text(warnings: Iterable[str]) -> str:
    """The warnings of a response as one parameter, a line each."""
    return "\n".join(map(_in_a_line, warnings))


def _named(version: str) -> bytes:
    return b',"model_version":' + _JSON.encode(version)


def _in_a_line(warning: str) -> str:
    return warning.replace("\n", " ")


def _describe(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    return b'{"name":%b,"datatype":"%b","shape":%b' % (_JSON.encode(name), datatype.encode(), _JSON.encode(shape))


def raw_bytes(array: np.ndarray[Any, Any], datatype: str) -> bytes:
    """An output as it travels in binary."""
    if datatype == "BYTES":
        return bytes(Tensor.from_numpy("", array).data)
    return np.ascontiguousarray(array, dtype=DATATYPES[datatype].dtype).tobytes()


def raw_rows(array: np.ndarray[Any, Any], datatype: str) -> list[bytes]:
    """The rows of an output as they travel in binary, each alone; not for BYTES, whose rows differ in length."""
    raw = raw_bytes(array, datatype)
    width = len(raw) // len(array)
    return [raw[row * width : (row + 1) * width] for row in range(len(array))]


def _text_row(row: Sequence[object]) -> bytes | None:
    """Elements of a BYTES output as JSON strings without brackets; None if one of them is no text."""
    try:
        texts = [element.decode() if isinstance(element, bytes) else str(element) for element in row]
        return _JSON.encode(texts)[1:-1]
    except UnicodeError:
        return None


def _descending(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Indices of the largest scores first along the last dimension, NaN last, equal ones in order."""
    if scores.dtype.kind == "f":
        return np.argsort(-scores, axis=-1, kind="stable")
    # Integers have no negative to sort by (unsigned ones, and the least of the signed): sort the mirror image.
    mirrored = np.argsort(scores[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    order: np.ndarray[Any, Any] = scores.shape[-1] - 1 - mirrored
    return order
