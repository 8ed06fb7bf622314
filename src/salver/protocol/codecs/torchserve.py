"""TorchServe's requests for predictions, and its way to write errors.

A body is what a handler would find in it: a file, a form whose part `data` is one, or JSON. The JSON is
one row or, nested one deeper, rows; an object has values by input name, or the rows under `instances`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from salver.protocol.codecs.by_signature import sole_input, tensors_of
from salver.protocol.codecs.files import decode_upload, file_input
from salver.protocol.codecs.plain_json import decode_value
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import Tensor

__all__ = ["TorchServeError", "Upload", "read_prediction", "torchserve_error"]

_KINDS: Final = {
    400: "BadRequestException",
    401: "InvalidTokenException",
    403: "InvalidTokenException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    409: "ConflictStatusException",
    413: "RequestEntityTooLargeException",
    429: "ServiceUnavailableException",
    500: "InternalServerException",
    501: "NotImplementedException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
    507: "InsufficientStorageException",
}
"""By status: TorchServe's names, and names in their manner where it has none."""
_HELD: Final = frozenset({"data", "body"})
"""Where a handler looks for what was sent."""


class TorchServeError(SalverError):
    """An error that TorchServe has a name of its own for."""

    def __init__(self, error: SalverError, kind: str) -> None:
        super().__init__(error.code, error.message, error.remedy, retry_after_s=error.retry_after_s)
        self.kind = kind


def torchserve_error(error: SalverError) -> dict[str, Any]:
    """What TorchServe's clients read."""
    kind = getattr(error, "kind", "") or _KINDS.get(error.http)
    if kind is None:
        kind = "BadRequestException" if error.http < 500 else "InternalServerException"
    return {"code": error.http, "type": kind, "message": str(error)}


class Upload(NamedTuple):
    """What was asked, and how the answer looks: one row's alone, those of all, or under `predictions`."""

    inputs: dict[str, Tensor]
    alone: bool
    in_envelope: bool = False


def read_prediction(content_type: bytes | None, body: bytes, signature: Signature, max_elements: int) -> Upload:
    """The inputs that a body holds; raises SalverError (400) for what cannot be inputs of the signature."""
    media = (content_type or b"").partition(b";")[0].strip().lower()
    is_json = media == b"application/json"
    if media == b"multipart/form-data" or (not is_json and file_input(signature) is not None):
        inputs = decode_upload(content_type, body, signature, max_elements)
        return Upload(inputs, signature.batched and all(tensor.shape[0] == 1 for tensor in inputs.values()))
    value = decode_value(body, tokens=True)
    names = {spec.name for spec in signature.inputs}
    if isinstance(value, dict) and len(value) == 1 and not value.keys() & names and value.keys() <= _HELD:
        (value,) = value.values()
    if isinstance(value, dict) and "instances" in value and "instances" not in names:
        return _of_instances(value["instances"], signature, max_elements)
    columns = value if isinstance(value, dict) else {sole_input(signature).name: value}
    return _of_columns(columns, signature, max_elements)


def _of_instances(rows: Any, signature: Signature, max_elements: int) -> Upload:
    """KServe's envelope, which TorchServe's handlers take as well."""
    if not isinstance(rows, list) or not rows:
        raise SalverError("INVALID_JSON", "'instances' is no list, or an empty one", "send one element for each row")
    if not isinstance(rows[0], dict):
        return Upload(tensors_of({sole_input(signature).name: rows}, signature, max_elements), False, True)
    if not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise SalverError("INVALID_JSON", "the elements of 'instances' have different members", "send the same in each")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Upload(tensors_of(columns, signature, max_elements), False, True)


def _of_columns(columns: Mapping[str, Any], signature: Signature, max_elements: int) -> Upload:
    specs = {spec.name: spec for spec in signature.inputs}
    alone = signature.batched and all(_is_row(value, specs[name]) for name, value in columns.items() if name in specs)
    given = {name: [value] for name, value in columns.items()} if alone else columns
    return Upload(tensors_of(given, signature, max_elements), alone)


def _is_row(value: Any, spec: TensorSpec) -> bool:
    """Whether a value is nested as deeply as one row is."""
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth == len(spec.shape) - 1
