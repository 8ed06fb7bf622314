"""What a model answered as plain JSON values, for protocols whose answers name no datatypes."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.codecs.slices import SLICE, json_array, json_each
from salver.protocol.errors import SalverError
from salver.protocol.request import Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite

__all__ = ["PlainAnswers", "encode_plain", "plain_columns"]

_JSON: Final = msgspec.json.Encoder()


class PlainAnswers:
    """Writes the answers of one version: bare values for one output, objects by name for several."""

    __slots__ = ("_batched", "_nonfinite", "_outputs")

    def __init__(self, outputs: Mapping[str, TensorSpec], nonfinite: Nonfinite, *, batched: bool) -> None:
        self._outputs = outputs
        self._nonfinite = nonfinite
        self._batched = batched

    def encode(self, response: Response) -> bytes:
        """The answer as JSON: of a batched version a list with one value, or one object, for each row.

        Raises NONFINITE_OUTPUT when the policy is `error` and values of this request are not finite,
        BAD_MODEL_OUTPUT for text that is none.
        """
        columns, finite = self._columns(response)
        return self._json(self._value(columns), finite)

    def encode_row(self, response: Response) -> bytes:
        """The answer to a batched request of one row: its value, or object, alone."""
        columns, finite = self._columns(response)
        (row,) = self._value(columns)
        return self._json(row, finite)

    def encode_lines(self, response: Response) -> bytes:
        """The same as JSON by lines, one for each row."""
        columns, finite = self._columns(response)
        value = self._value(columns)
        return b"".join(self._json(row, finite) + b"\n" for row in (value if self._batched else [value]))

    def encode_csv(self, response: Response) -> bytes:
        """The same as CSV without a header: a line for each row, with its values side by side."""
        columns, _ = plain_columns(self._outputs, response, self._nonfinite)
        rows = zip(*columns.values(), strict=True) if self._batched else [tuple(columns.values())]
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([self._field(value) for value in _flat(row)] for row in rows)
        return lines.getvalue().encode()

    def _columns(self, response: Response) -> tuple[dict[str, Any], bool]:
        return plain_columns(self._outputs, response, self._nonfinite, ready=True)

    def _value(self, columns: dict[str, Any]) -> Any:
        if len(columns) == 1:
            (value,) = columns.values()
            return value
        if self._batched:
            names = tuple(columns)
            return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return columns

    def _json(self, value: Any, finite: bool) -> bytes:
        return encode_plain(value, self._nonfinite, finite=finite)

    def _field(self, value: Any) -> Any:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and not math.isfinite(value):
            return "" if self._nonfinite is Nonfinite.NULL else str(value)
        return value


def plain_columns(
    outputs: Mapping[str, TensorSpec], response: Response, nonfinite: Nonfinite, *, ready: bool = False
) -> tuple[dict[str, Any], bool]:
    """The values of each output as nested lists, and whether all are finite.

    With `ready` the rows of large outputs may be JSON already, which takes NaN and infinity as the policy does.
    Raises NONFINITE_OUTPUT when the policy is `error` and they are not, BAD_MODEL_OUTPUT for text that is none.
    """
    arrays, finite, large = {}, True, False
    for name, spec in outputs.items():
        array = response.array(name)
        if spec.datatype == "BF16":
            array = (array.astype("<u4") << 16).view("<f4")
        finite = finite and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))
        large = large or array.size > SLICE
        arrays[name] = array
    if not finite and nonfinite is Nonfinite.ERROR:
        raise SalverError(
            "NONFINITE_OUTPUT",
            "the model answered NaN or infinity, which JSON cannot carry",
            "deploy with --nonfinite null or pass, or ask for binary data over the Open Inference Protocol",
        )
    encode = functools.partial(encode_plain, nonfinite=nonfinite, finite=finite)
    columns: dict[str, Any] = {}
    for name, spec in outputs.items():
        if spec.datatype == "BYTES":
            columns[name] = _texts(spec, arrays[name])
        elif ready and large:
            columns[name] = _ready(arrays[name], encode)
        else:
            columns[name] = arrays[name].tolist()
    return columns, finite or (ready and large)


def _ready(array: np.ndarray[Any, Any], encode: Callable[[Any], bytes]) -> Any:
    """An output whose rows, or which itself, only want to be put in their place."""
    if not array.ndim:
        return msgspec.Raw(json_array(array, encode))
    return [msgspec.Raw(row) for row in json_each(array, encode)]


def encode_plain(value: Any, nonfinite: Nonfinite, *, finite: bool) -> bytes:
    """`value` as JSON, with the tokens NaN and Infinity where the policy passes them."""
    if not finite and nonfinite is Nonfinite.PASS:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return _JSON.encode(value)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _texts(spec: TensorSpec, array: np.ndarray[Any, Any]) -> Any:
    try:
        texts = np.array([item.decode() if isinstance(item, bytes) else str(item) for item in array.flat], object)
        return texts.reshape(array.shape).tolist()
    except UnicodeDecodeError:
        raise SalverError(
            "BAD_MODEL_OUTPUT",
            f"output {spec.name!r} is not UTF-8 text, which JSON needs",
            "ask for binary data over the Open Inference Protocol",
        ) from None
