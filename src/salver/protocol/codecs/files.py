"""Files as they are, and forms with files, as the inputs of a model that takes bytes.

A body of any media type is one element of the model's BYTES input. A form (multipart/form-data,
RFC 7578) names the inputs: each of its parts is a row, files for BYTES, text for all datatypes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from salver.protocol.codecs.by_signature import nested, repeated, tensor_of
from salver.protocol.codecs.plain_json import decode_value
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import Tensor, check_shape, pack_bytes_elements

__all__ = ["decode_upload", "file_input"]

if TYPE_CHECKING:
    from salver.protocol.codecs.forms import Part

_FORM: Final = b"multipart/form-data"


def decode_upload(
    content_type: bytes | None, body: bytes, signature: Signature, max_elements: int
) -> dict[str, Tensor]:
    """The inputs that a body holds: the parts of a form, or one file of whatever type.

    Raises BAD_MESSAGE for a form that is none, UNKNOWN_INPUT, MISSING_INPUT, WRONG_DATATYPE,
    INVALID_VALUE or INVALID_TENSOR for one that does not suit the signature.
    """
    if content_type is not None and content_type.partition(b";")[0].strip().lower() == _FORM:
        # Only servers that are sent forms pay for their parser.
        from salver.protocol.codecs.forms import read_form  # noqa: PLC0415

        return _of_form(read_form(content_type, body), signature, max_elements)
    spec = file_input(signature)
    if spec is None:
        raise _no_file(signature)
    if not body:
        # An empty file is a part of a form: nothing at all is what a client sends that has lost its file.
        raise SalverError("MISSING_INPUT", "the body is empty", "send a file, or a form with a part for each input")
    return {spec.name: _files(spec, [body], max_elements)}


def _of_form(parts: list[Part], signature: Signature, max_elements: int) -> dict[str, Tensor]:
    given: dict[str, list[Part]] = {}
    for part in parts:
        given.setdefault(part.name, []).append(part)
    if not given:
        raise SalverError("MISSING_INPUT", "the form has no parts", "send one for each input")
    specs = {spec.name: spec for spec in signature.inputs}
    unknown = [name for name in given if name not in specs]
    files = [spec for spec in signature.inputs if spec.datatype == "BYTES"]
    if len(unknown) == len(files) == 1 and files[0].name not in given and all(p.is_file for p in given[unknown[0]]):
        # Whatever the field is called, only one input can be meant.
        given[files[0].name] = given.pop(unknown[0])
    elif unknown:
        raise SalverError(
            "UNKNOWN_INPUT",
            f"the model has no input {unknown[0][:80]!r}",
            f"its inputs are {', '.join(map(repr, specs))}",
        )
    inputs = {name: _rows(specs[name], rows, signature, max_elements) for name, rows in given.items()}
    return _spread(inputs, max_elements) if signature.batched else inputs


def _rows(spec: TensorSpec, parts: list[Part], signature: Signature, max_elements: int) -> Tensor:
    """The parts of one name as the rows of an input."""
    if spec.datatype == "BYTES":
        return _files(spec, [part.data for part in parts], max_elements)
    values = []
    for part in parts:
        if part.is_file:
            raise SalverError(
                "WRONG_DATATYPE",
                f"input {spec.name!r} takes {spec.datatype}, no files",
                "send a field without a filename",
            )
        try:
            values.append(decode_value(part.data, tokens=True))
        except SalverError:
            raise SalverError(
                "INVALID_VALUE",
                f"the field {spec.name!r} holds {part.data[:80].decode(errors='replace')!r}, no {spec.datatype}",
                "write a number, or a list in JSON",
            ) from None
    if not signature.batched:
        if len(values) > 1:
            raise SalverError("WRONG_SHAPE", f"the field {spec.name!r} stands {len(values)} times", "send it once")
        return tensor_of(values[0], spec, max_elements)
    return tensor_of([nested(value, len(spec.shape) - 1) for value in values], spec, max_elements)


def _spread(inputs: dict[str, Tensor], max_elements: int) -> dict[str, Tensor]:
    """Fields given once beside several files hold for each of them."""
    rows = max(tensor.shape[0] for tensor in inputs.values())
    return {
        name: repeated(tensor, rows, max_elements)
        if tensor.datatype != "BYTES" and tensor.shape[0] == 1 < rows
        else tensor
        for name, tensor in inputs.items()
    }


def _files(spec: TensorSpec, files: list[bytes], max_elements: int) -> Tensor:
    """Files as elements of a BYTES input, one in a row."""
    if not set(spec.shape[1:]) <= {1, -1}:
        raise SalverError(
            "WRONG_SHAPE", f"a row of input {spec.name!r} has the shape {list(spec.shape[1:])}; a file is one element"
        )
    shape = (len(files), *(1 for _ in spec.shape[1:]))
    check_shape(spec.name, shape, max_elements)
    return Tensor(spec.name, "BYTES", shape, pack_bytes_elements(files))


def file_input(signature: Signature) -> TensorSpec | None:
    """The BYTES input that a body without a name is meant for, if no other is required; None where there is none."""
    for spec in signature.inputs:
        if spec.datatype == "BYTES" and all(other.optional or other is spec for other in signature.inputs):
            return spec
    return None


def _no_file(signature: Signature) -> SalverError:
    inputs = ", ".join(f"{spec.name!r} {spec.datatype} {list(spec.shape)}" for spec in signature.inputs)
    return SalverError(
        "WRONG_DATATYPE",
        f"the model does not take a file alone; it takes {inputs}",
        "send a form with a part for each input, or JSON to the path that ends in /infer",
    )
