"""Triton's generate extension: one JSON object, whose members are the tensors, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from salver.protocol.codecs.by_signature import nested, tensors_of
from salver.protocol.codecs.oip_request import InferBody, checked_parameters
from salver.protocol.codecs.oip_response import warnings_text
from salver.protocol.codecs.plain_answers import encode_plain, plain_columns
from salver.protocol.codecs.plain_json import decode_object
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Nonfinite

__all__ = ["GenerateAnswers", "read_generate"]

_ID: Final = "id"
_PARAMETERS: Final = "parameters"
_TIMING: Final = "salver_timing"


def read_generate(body: bytes, signature: Signature, max_elements: int) -> InferBody:
    """The request that a body means: members with the names of inputs are those, other single values parameters.

    A value with fewer dimensions than its input stands within as many more lists. Raises SalverError (400).
    """
    members = decode_object(body)
    name_of_request = members.pop(_ID, None)
    if not isinstance(name_of_request, str | None):
        raise SalverError("INVALID_JSON", f"id is {str(name_of_request)[:80]!r}", "write a text")
    parameters = members.pop(_PARAMETERS, {})
    if not isinstance(parameters, dict):
        raise SalverError("INVALID_JSON", "parameters is no object", "write it as an object of single values")
    specs = {spec.name: spec for spec in signature.inputs}
    values: dict[str, Any] = {}
    for name, value in members.items():
        if name in specs:
            values[name] = nested(value, len(specs[name].shape))
        elif isinstance(value, list | dict):
            known = ", ".join(map(repr, specs))
            raise SalverError("UNKNOWN_INPUT", f"the model has no input {name[:80]!r}", f"its inputs are {known}")
        elif name in parameters:
            raise SalverError("INVALID_PARAMETER", f"{name[:80]!r} stands beside parameters and in them")
        else:
            parameters[name] = value
    for name, value in parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise SalverError("INVALID_PARAMETER", f"parameter {name[:80]!r} is no single value")
    tensors = tensors_of(values, signature, max_elements)
    return InferBody(tensors, name_of_request, checked_parameters(parameters) if parameters else None, None)


class GenerateAnswers:
    """Writes the answers of one version; prepared once per loaded version."""

    def __init__(self, endpoint: str, version: str, outputs: Mapping[str, TensorSpec], nonfinite: Nonfinite) -> None:
        self._head = {"model_name": endpoint, "model_version": version}
        self._outputs = outputs
        self._nonfinite = nonfinite

    def encode(self, request: Request, response: Response, timing: str = "") -> bytes:
        """The answer as one object: outputs of one element bare, others as nested lists.

        `timing`, if any, is told with it. Raises NONFINITE_OUTPUT and BAD_MODEL_OUTPUT for what JSON cannot carry.
        """
        columns, finite = plain_columns(self._outputs, response, self._nonfinite)
        answer: dict[str, Any] = {} if request.id is None else {_ID: request.id}
        answer |= self._head
        for name, values in columns.items():
            answer[name] = _bare(values)
        if response.warnings:
            answer["salver_warnings"] = warnings_text(response.warnings)
        if timing:
            answer[_TIMING] = timing
        return encode_plain(answer, self._nonfinite, finite=finite)

    def encode_last(self, request: Request, timing: str) -> bytes | None:
        """What stands behind the last part of a stream; None where there is nothing to tell."""
        if not timing:
            return None
        named = {} if request.id is None else {_ID: request.id}
        return encode_plain(named | self._head | {_TIMING: timing}, self._nonfinite, finite=True)


def _bare(values: Any) -> Any:
    """A lone element without the lists around it."""
    inner = values
    while isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    return values if isinstance(inner, list) else inner
