"""Plain JSON values as the tensors of a signature, for protocols whose requests name no datatypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from salver.protocol.conversion import fit_datatype
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import Tensor, check_shape, pack_bytes_elements

__all__ = ["nested", "repeated", "sole_input", "tensor_of", "tensors_of"]

_REPEATED_BYTES: Final = 2**23
"""What a value that came once may take for all rows: far more than came, so that few bytes must not ask for it."""


def tensors_of(columns: Mapping[str, Any], signature: Signature, max_elements: int) -> dict[str, Tensor]:
    """One tensor for each of `columns`, nested lists or arrays by input name, in the declared datatypes.

    Shapes are what the values have; `SignatureCheck.rows` says whether they fit. Raises UNKNOWN_INPUT
    naming the inputs there are, and what `tensor_of` raises.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    for name in columns:
        if name not in specs:
            known = ", ".join(repr(each) for each in specs)
            raise SalverError("UNKNOWN_INPUT", f"the model has no input {str(name)[:80]!r}", f"its inputs are {known}")
    return {name: tensor_of(values, specs[name], max_elements) for name, values in columns.items()}


def tensor_of(values: Any, spec: TensorSpec, max_elements: int) -> Tensor:
    """The tensor that `values` are, in the datatype of `spec`.

    Raises WRONG_DATATYPE, INVALID_VALUE, WRONG_SHAPE or INVALID_TENSOR, see `fit_datatype`.
    """
    if values is None or isinstance(values, dict):
        kind = "null" if values is None else "an object"
        raise SalverError(
            "WRONG_DATATYPE",
            f"input {spec.name!r} is {kind}; the model takes {spec.datatype}",
            "send an array of values",
        )
    array = fit_datatype(spec.name, values, spec.datatype)
    check_shape(spec.name, array.shape, max_elements)
    if spec.datatype == "BYTES":
        try:
            elements = [item if isinstance(item, bytes) else item.encode() for item in array.reshape(-1).tolist()]
        except UnicodeEncodeError:
            raise SalverError("INVALID_VALUE", f"input {spec.name!r} holds text with a lone surrogate") from None
        data = pack_bytes_elements(elements)
    else:
        data = array.tobytes()
    return Tensor(spec.name, spec.datatype, array.shape, data)


def nested(value: Any, depth: int) -> Any:
    """`value` within as many more lists as make it `depth` deep."""
    inner = value
    while isinstance(inner, list) and depth > 0:
        depth -= 1
        inner = inner[0] if inner else None
    for _ in range(depth):
        value = [value]
    return value


def repeated(tensor: Tensor, rows: int, max_elements: int) -> Tensor:
    """A tensor of one row, the same for each of `rows`; raises INVALID_TENSOR where that is too much."""
    shape = (rows, *tensor.shape[1:])
    check_shape(tensor.name, shape, max_elements)
    if len(tensor.data) * rows > _REPEATED_BYTES:
        raise SalverError(
            "INVALID_TENSOR",
            f"input {tensor.name!r}, given once for {rows} rows, would take {len(tensor.data) * rows} bytes; "
            f"at most {_REPEATED_BYTES} may be",
            "give it row by row, or send fewer rows",
        )
    return Tensor(tensor.name, tensor.datatype, shape, bytes(tensor.data) * rows)


def sole_input(signature: Signature) -> TensorSpec:
    """The one input of a signature that a value without a name can mean.

    Raises MISSING_INPUT naming the inputs where several are required.
    """
    required = [spec for spec in signature.inputs if not spec.optional]
    if len(required) == 1:
        return required[0]
    if not required and len(signature.inputs) == 1:
        return signature.inputs[0]
    names = ", ".join(repr(spec.name) for spec in signature.inputs)
    raise SalverError("MISSING_INPUT", "the values name no input, and the model has several", f"name {names}")
