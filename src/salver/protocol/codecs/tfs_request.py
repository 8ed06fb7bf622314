"""Requests in the JSON of TensorFlow Serving, which KServe's first protocol and Vertex AI share.

Rows stand under `instances`, columns under `inputs`, and what `:classify` and `:regress` take under
`examples`. A value of several inputs is an object by name; one of a sole input needs no name. Bytes
are objects `{"b64": "..."}`. What TensorFlow Serving refuses is refused in its words.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from math import prod
from typing import Any, Final, NamedTuple

from salver.protocol.codecs.by_signature import repeated, sole_input, tensors_of
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.protocol.tensor import MAX_RANK, Tensor

__all__ = ["SIGNATURE_NAME", "PredictBody", "read_examples", "read_predict"]

SIGNATURE_NAME: Final = "serving_default"
"""The one signature a version has."""
_B64: Final = "b64"


class PredictBody(NamedTuple):
    """What `:predict` was asked."""

    inputs: dict[str, Tensor]
    by_row: bool
    """Asked in rows, `instances`, and answered in rows, `predictions`; else in columns both ways."""


def read_predict(document: Mapping[str, Any], signature: Signature, max_elements: int) -> PredictBody:
    """The tensors that the body of `:predict` means; members it does not know are ignored.

    Raises SalverError (400) for what contradicts itself or cannot be tensors of the signature;
    `SignatureCheck.rows` says whether they fit.
    """
    _require_default_signature(document)
    by_row = "instances" in document
    if by_row == ("inputs" in document):
        raise SalverError(
            "INVALID_JSON",
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if by_row
            else "Missing 'inputs' or 'instances' key",
            "send rows as 'instances' or columns as 'inputs'",
        )
    if by_row:
        columns = _columns_of_rows(_filled_list(document, "instances"), signature)
    else:
        given = document["inputs"]
        columns = given if _is_named(given) else {_unnamed("inputs", signature): given}
    return PredictBody(_tensors(columns, signature, max_elements), by_row)


def read_examples(document: Mapping[str, Any], signature: Signature, max_elements: int) -> dict[str, Tensor]:
    """The tensors that the body of `:classify` or `:regress` means: features by input, example by example.

    `context` holds features that all examples share. A feature is a value or a flat list of them;
    an input with more dimensions takes its elements in row-major order.
    """
    _require_default_signature(document)
    context = document.get("context", {})
    examples = _filled_list(document, "examples")
    for at, example in enumerate([context, *examples]):
        if not isinstance(example, dict):
            what = f"item {at - 1} of 'examples'" if at else "'context'"
            raise SalverError("INVALID_JSON", f"Example must be JSON object: {what} is none")
        if at and not context.keys().isdisjoint(example):
            raise SalverError("INVALID_JSON", f"item {at - 1} of 'examples' has a feature of 'context' again")
    shapes = {spec.name: spec.shape[1:] for spec in signature.inputs}
    _require_same_keys(examples, "examples")
    columns = {name: [_feature(name, example[name]) for example in examples] for name in examples[0]}
    shared = {name: [_feature(name, value)] for name, value in context.items()}
    tensors = {
        name: repeated(tensor, len(examples), max_elements)
        for name, tensor in _tensors(shared, signature, max_elements).items()
    } | _tensors(columns, signature, max_elements)
    return {name: _with_row_shape(tensor, shapes[name]) for name, tensor in tensors.items()}


def _require_default_signature(document: Mapping[str, Any]) -> None:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise SalverError("INVALID_JSON", "'signature_name' key must be a string value.")
    if name not in ("", SIGNATURE_NAME):
        raise SalverError(
            "INVALID_PARAMETER",
            f'Serving signature name: "{name[:80]}" not found in signature def',
            f'leave it out, or name "{SIGNATURE_NAME}"',
        )


def _filled_list(document: Mapping[str, Any], key: str) -> list[Any]:
    values = document.get(key)
    if not isinstance(values, list):
        missing = f"key '{key}' is expected and was not found" if key not in document else ""
        raise SalverError("INVALID_JSON", missing or f"Expecting '{key}' value to be an list/array")
    if not values:
        raise SalverError("INVALID_JSON", f"No values in '{key}' array", "send at least one")
    return values


def _columns_of_rows(rows: list[Any], signature: Signature) -> dict[str, list[Any]]:
    if not _is_named(rows[0]):
        for at, row in enumerate(rows):
            if _is_named(row):
                raise SalverError("INVALID_JSON", f"Expecting value/list but got object at item {at} of input list")
        return {_unnamed("instances", signature): rows}
    _require_same_keys(rows, "instances")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _require_same_keys(rows: list[Any], key: str) -> None:
    names = rows[0].keys()
    for at, row in enumerate(rows):
        if not _is_named(row):
            raise SalverError("INVALID_JSON", f"Expecting object but got value/list at item {at} of input list")
        if row.keys() != names:
            raise SalverError(
                "INVALID_JSON",
                f"Failed to process element: {at} of '{key}' list. "
                f"JSON object: keys must be equal to: {','.join(sorted(names))[:300]}",
            )


def _unnamed(key: str, signature: Signature) -> str:
    """The input that values without a name mean."""
    if sum(not spec.optional for spec in signature.inputs) > 1:
        names = ", ".join(repr(spec.name) for spec in signature.inputs)
        raise SalverError(
            "MISSING_INPUT",
            f"{key} is a plain list, but expecting "
            f"{'list of objects' if key == 'instances' else 'an object'} as multiple input tensors required",
            f"name {names}",
        )
    return sole_input(signature).name


def _is_named(value: Any) -> bool:
    """Whether a value is an object of values by name, not one value of bytes."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get(_B64), str))


def _tensors(columns: Mapping[str, Any], signature: Signature, max_elements: int) -> dict[str, Tensor]:
    texts = {spec.name for spec in signature.inputs if spec.datatype == "BYTES"}
    plain = {name: _with_bytes(name, values) if name in texts else values for name, values in columns.items()}
    return tensors_of(plain, signature, max_elements)


def _with_bytes(name: str, value: Any, depth: int = 0) -> Any:
    """A value, nested as it is, with the bytes that its base64 objects hold."""
    if isinstance(value, list):
        if depth > MAX_RANK:
            raise SalverError("WRONG_SHAPE", f"input {name!r} is nested too deeply")
        return [_with_bytes(name, each, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    if _is_named(value):
        raise SalverError(
            "INVALID_VALUE",
            f"input {name!r} holds an object not formatted correctly for base64 data",
            'send {"b64": ...}',
        )
    try:
        text = "".join(value[_B64].split()).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise SalverError("INVALID_VALUE", f"Unable to base64 decode a value of input {name!r}") from None


def _feature(name: str, value: Any) -> list[Any]:
    """A feature as the flat list that it is in an Example."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, list) for each in values):
        raise SalverError(
            "INVALID_VALUE",
            f"Feature: {name[:80]} has element with unexpected JSON type: Array",
            "send its elements as one flat list",
        )
    return values


def _with_row_shape(tensor: Tensor, row_shape: tuple[int, ...]) -> Tensor:
    """Flat features in the shape that the model takes; as they are where they cannot have it."""
    rows, width = tensor.shape
    if -1 in row_shape or prod(row_shape) != width:
        return tensor
    return Tensor(tensor.name, tensor.datatype, (rows, *row_shape), tensor.data)
