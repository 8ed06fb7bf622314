"""Answers in the JSON of TensorFlow Serving, and what it tells of a model.

The rows of a batch are turned into JSON in one go and shared by its requests. NaN and infinity are
written as the tokens `NaN`, `Infinity` and `-Infinity`, as TensorFlow Serving does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.codecs.slices import SLICE, json_each
from salver.protocol.codecs.tfs_request import SIGNATURE_NAME
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Nonfinite

__all__ = ["DATA_TYPES", "TfsAnswers", "score_output", "signature_def", "value_output"]

DATA_TYPES: Final = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
"""TensorFlow's name for each datatype."""
_METHOD: Final = "tensorflow/serving/predict"
_BINARY_SUFFIX: Final = "_bytes"
"""Outputs with such a name are bytes; TensorFlow itself does not tell bytes from text."""
_FLOATING: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_JSON: Final = msgspec.json.Encoder()
_KEY: Final = "tfs"
"""Of `BatchOutputs.codec_cache`, alone for rows and with the name of an output for its own."""

Rows = list[bytes | None]
"""JSON of each row; None where a row is no text."""


class TfsAnswers:
    """Writes the answers of one version; prepared once per loaded version.

    Every method raises BAD_MODEL_OUTPUT for text that is none. With the policy `null` NaN and
    infinity are null; `error` is for protocols whose JSON is strict and means the tokens here.
    """

    __slots__ = ("_null", "_outputs", "_template")

    def __init__(self, outputs: Mapping[str, TensorSpec], nonfinite: Nonfinite) -> None:
        self._outputs = outputs
        self._null = nonfinite is Nonfinite.NULL
        named = [_JSON.encode(name).replace(b"%", b"%%") + b":%b" for name in outputs]
        self._template = b"{" + b",".join(named) + b"}" if len(named) > 1 else b"%b"

    def rows(self, response: Response) -> bytes:
        """`{"predictions": [...]}`: of one output bare values, of several an object for each row.

        Raises INVALID_PARAMETER if the outputs of a signature without a batch dimension have no common rows.
        """
        if response.stop is None:
            lengths = {array.shape[:1] for array in response.batch.arrays.values()}
            if () in lengths or len(lengths) > 1:
                raise SalverError(
                    "INVALID_PARAMETER", "the outputs have no common rows to answer 'instances' with", "send 'inputs'"
                )
        whole: Rows | None = response.batch.codec_cache.get(_KEY)
        if whole is None:
            columns = [self._column(response.batch, name) for name in self._outputs]
            whole = [None if None in row else self._template % row for row in zip(*columns, strict=True)]
            response.batch.codec_cache[_KEY] = whole
        return b'{"predictions":[%b]}' % self._joined(whole[response.start : response.stop])

    def columns(self, response: Response) -> bytes:
        """`{"outputs": ...}`: of one output its value, of several an object by name."""
        values = []
        for name in self._outputs:
            column = self._column(response.batch, name)[response.start : response.stop]
            value = self._joined(column)
            values.append(b"[%b]" % value if response.batch.arrays[name].ndim else value)
        return b'{"outputs":%b}' % (self._template % tuple(values))

    def classes(self, response: Response, scores: TensorSpec) -> bytes:
        """`{"results": [[[label, score], ...], ...]}`, every class in the order of the model."""
        values = _plain_floats(response.array(scores.name), scores)
        if values.ndim != 2:
            raise _misshapen(scores, values)
        named = self._outputs.get("classes")
        if named is not None and named.datatype == "BYTES" and response.array("classes").shape == values.shape:
            labels = [_texts(named, row) for row in response.array("classes")]
        else:
            given = scores.labels[: values.shape[1]]
            labels = [[*given, *[""] * (values.shape[1] - len(given))]] * len(values)
        pairs = [[*zip(*row, strict=True)] for row in zip(labels, values.tolist(), strict=True)]
        return self._encode({"results": pairs}, values)

    def values(self, response: Response, value: TensorSpec) -> bytes:
        """`{"results": [...]}`, one number for each example."""
        values = _plain_floats(response.array(value.name), value)
        if values.size != len(values):
            raise _misshapen(value, values)
        return self._encode({"results": values.reshape(-1).tolist()}, values)

    def _encode(self, value: object, numbers: np.ndarray[Any, Any]) -> bytes:
        if self._null or np.isfinite(numbers).all():
            return _JSON.encode(value)
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    def _column(self, batch: BatchOutputs, name: str) -> Rows:
        """One output of a whole batch as JSON, row by row; the value itself where it has no dimension."""
        column: Rows | None = batch.codec_cache.get((_KEY, name))
        if column is None:
            column = self._texts_of(np.atleast_1d(batch.arrays[name]), self._outputs[name])
            batch.codec_cache[_KEY, name] = column
        return column

    def _texts_of(self, array: np.ndarray[Any, Any], spec: TensorSpec) -> Rows:
        if spec.datatype == "BYTES":
            encode = _encode_binary if spec.name.endswith(_BINARY_SUFFIX) else _encode_text
            return [encode(row) for row in array.tolist()]
        array = _plain_floats(array, spec)
        has_tokens = not self._null and array.dtype.kind == "f" and not np.isfinite(array).all()
        if array.size > SLICE:
            return [*json_each(array, _with_tokens if has_tokens else _JSON.encode)]
        if has_tokens:
            return [_with_tokens(row) for row in array.tolist()]
        if not len(array):
            return []
        if array.ndim == 1:
            return list(_JSON.encode(array.tolist())[1:-1].split(b","))
        if array.ndim == 2:
            return [b"[%b]" % row for row in _JSON.encode(array.tolist())[2:-2].split(b"],[")]
        return [_JSON.encode(row) for row in array.tolist()]

    def _joined(self, rows: Rows) -> bytes:
        if None in rows:
            texts = [name for name, spec in self._outputs.items() if spec.datatype == "BYTES"]
            raise _no_text(", ".join(map(repr, texts)))
        return b",".join(row for row in rows if row is not None)


def score_output(signature: Signature) -> TensorSpec | None:
    """The output that holds a score for each class, for `:classify`; None if no one can be meant.

    It is the floating-point output with two dimensions that is named `scores`, else the only one with
    labels, else the only one.
    """
    found = [spec for spec in signature.outputs if spec.datatype in _FLOATING and len(spec.shape) == 2]
    return _chosen(signature, found, "scores")


def value_output(signature: Signature) -> TensorSpec | None:
    """The output that holds one number for each row, for `:regress`: named `outputs`, else the only one, else None."""
    found = [spec for spec in signature.outputs if spec.datatype in _FLOATING and spec.shape[1:] in ((), (1,), (-1,))]
    return _chosen(signature, found, "outputs")


def _chosen(signature: Signature, found: list[TensorSpec], name: str) -> TensorSpec | None:
    if not signature.batched:
        return None
    for narrowed in (
        [spec for spec in found if spec.name == name],
        [spec for spec in found if spec.labels],
        found,
    ):
        if len(narrowed) == 1:
            return narrowed[0]
    return None


def signature_def(signature: Signature) -> dict[str, Any]:
    """The signature as a TensorFlow `SignatureDefMap` in JSON, where 64-bit integers are strings."""
    return {
        "signature_def": {
            SIGNATURE_NAME: {
                "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs},
                "outputs": {spec.name: _tensor_info(spec) for spec in signature.outputs},
                "method_name": _METHOD,
                "defaults": {},
            }
        }
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in spec.shape]
    return {
        "dtype": DATA_TYPES[spec.datatype],
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": spec.name,
    }


def _plain_floats(array: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """An output in a type that numpy has; BF16 comes as the bits of its numbers."""
    return (array.astype("<u4") << 16).view("<f4") if spec.datatype == "BF16" else array


def _with_tokens(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode_text(row: Any) -> bytes | None:
    try:
        return _JSON.encode(_decoded(row))
    except UnicodeError:
        return None


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode() if isinstance(value, bytes) else str(value)


def _encode_binary(row: Any) -> bytes:
    return _JSON.encode(_in_base64(row))


def _in_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_base64(each) for each in value]
    data = value if isinstance(value, bytes) else str(value).encode()
    return {"b64": base64.b64encode(data).decode()}


def _texts(spec: TensorSpec, row: np.ndarray[Any, Any]) -> list[str]:
    try:
        return [item.decode() if isinstance(item, bytes) else str(item) for item in row.tolist()]
    except UnicodeError:
        raise _no_text(repr(spec.name)) from None


def _no_text(names: str) -> SalverError:
    return SalverError(
        "BAD_MODEL_OUTPUT",
        f"output {names} is not UTF-8 text, which JSON needs",
        f"outputs whose names end in {_BINARY_SUFFIX} are answered as base64",
    )


def _misshapen(spec: TensorSpec, values: np.ndarray[Any, Any]) -> SalverError:
    return SalverError(
        "BAD_MODEL_OUTPUT", f"output {spec.name!r} has shape {list(values.shape)}, which this method cannot answer with"
    )
