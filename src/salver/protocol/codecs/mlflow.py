"""MLflow's scoring protocol: frames and tensors in JSON, frames in CSV.

What comes is either one nameless value, or columns by name. Columns that carry the names of the
inputs are those inputs; a model with one two-dimensional input takes as many columns as it is
wide side by side, which is what MLflow does for a signature of one tensor.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from salver.protocol.codecs.by_signature import nested, repeated, sole_input, tensor_of
from salver.protocol.codecs.sagemaker import has_features, unwrapped
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import Tensor

__all__ = ["FORMS", "SCORING_REMEDY", "decode_csv", "decode_scoring", "is_open_inference"]

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""The members of which a body has exactly one."""
SCORING_REMEDY: Final = f"send exactly one of {', '.join(FORMS)}; or Azure's input_data"
"""What to do about a body that is none of these."""

_CSV_NUMBER: Final = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?|[+-]?(?:inf|Infinity)", re.ASCII)
"""Possessive throughout: what is no number is read once, however long it is."""
_CSV_INTEGER: Final = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_CSV_MISSING: Final = frozenset({"", "NaN", "nan", "NA", "N/A", "null", "NULL", "None"})
"""What CSV files have where a number is missing."""
_CSV_BOOLEANS: Final = {"true": True, "false": False}
_SPARSE_CELLS: Final = 2**18
_CELLS_PER_MEMBER: Final = 8
"""Records may leave out so much that columns have so many times the values that came, and a few in any case."""

Columns = dict[str, list[Any]]
Reader = Callable[[str, TensorSpec], Any]
"""Makes a value of the text of a field."""


def is_open_inference(body: Mapping[str, Any]) -> bool:
    """Whether a JSON body is one of the Open Inference Protocol, whose `inputs` describe themselves."""
    inputs = body.get("inputs")
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(each, dict) and {"name", "datatype", "shape"} <= each.keys() for each in inputs)
    )


def decode_scoring(body: Mapping[str, Any], signature: Signature, max_elements: int) -> dict[str, Tensor]:
    """The inputs that a JSON body holds, in the datatypes of `signature`.

    Raises INVALID_JSON for another shape than the protocol's, INVALID_TENSOR for frames that contradict
    themselves, MISSING_INPUT, and what `tensor_of` raises.
    """
    forms = [form for form in FORMS if form in body]
    if len(forms) != 1:
        members = ", ".join(repr(str(key)[:40]) for key in list(body)[:8])
        raise SalverError(
            "INVALID_JSON",
            f"the body has the members {members}" if members else "the body has no members",
            SCORING_REMEDY,
        )
    form, value = forms[0], body[forms[0]]
    if form == "instances" and has_features(value, signature):
        value = unwrapped(value)
    params = body.get("params")
    if not isinstance(params, dict | None):
        raise SalverError("INVALID_JSON", "'params' is no object", 'send "params": {"name": value}')
    if form == "dataframe_split":
        inputs = _of_columns(_split(value), signature, max_elements)
    elif form == "inputs" and isinstance(value, dict):
        inputs = _of_named_tensors(value, signature, max_elements)
    elif form == "dataframe_records" or _is_records(value):
        columns = _records(form, value)
        inputs = _of_columns(columns, signature, max_elements, frame=form == "dataframe_records")
    else:
        if form == "instances" and not isinstance(value, list):
            raise SalverError("INVALID_JSON", "'instances' is no list", "send one element for each row")
        spec = sole_input(signature)
        inputs = {spec.name: _tensor(value, spec, max_elements)}
    return inputs | _parameters(params or {}, inputs, signature, max_elements)


def decode_csv(
    body: bytes, signature: Signature, max_elements: int, has_header: bool | None = True
) -> dict[str, Tensor]:
    """The inputs that a CSV file holds; raises as `decode_scoring` does.

    Without a header the columns are the inputs in their order, or side by side those of the only one. None
    for `has_header` means that there should be one and that nobody said so: a first line of numbers, other than
    pandas' own names, is refused then. To take it for names would lose a row, for values invent one.
    """
    lines = _csv_lines(body, max_elements)
    if has_header is False:
        return _of_bare_rows(lines, signature, max_elements)
    if not lines or not any(lines[0]):
        raise SalverError("INVALID_TENSOR", "the CSV has no header", "begin with a line of column names")
    names, rows = lines[0], lines[1:]
    if has_header is None and _are_values(names):
        raise SalverError(
            "INVALID_TENSOR",
            "the first line of the CSV is all numbers, which may be names or values",
            "send text/csv; header=absent or text/csv; header=present, or set server.csv_header",
        )
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise SalverError(
                "INVALID_TENSOR", f"row {number} of the CSV has {len(row)} fields; its header has {len(names)}"
            )
    columns = _columns(names, rows)
    # pandas writes its index as a column without a name.
    columns.pop("", None)
    return _of_columns(columns, signature, max_elements, read=_read_csv)


def _csv_lines(body: bytes, max_elements: int) -> list[list[str]]:
    """The fields of each line that has some."""
    lines, fields = [], 0
    try:
        # A line alone is read in one go: what one could hold is looked at before.
        if body.count(b",") <= max_elements:
            for line in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True):
                fields += len(line)
                if fields > max_elements:
                    break
                if line:
                    lines.append(line)
            else:
                return lines
    except UnicodeDecodeError:
        raise SalverError("INVALID_VALUE", "the CSV is not UTF-8", "encode it in UTF-8") from None
    except csv.Error as error:
        raise SalverError("INVALID_TENSOR", f"the body is not CSV: {error}") from None
    raise SalverError(
        "INVALID_TENSOR", f"the CSV has more than {max_elements} fields, which are the most that are taken"
    )


def _are_values(names: list[str]) -> bool:
    return all(_CSV_NUMBER.fullmatch(name.strip()) for name in names) and names != [str(at) for at in range(len(names))]


def _of_bare_rows(rows: list[list[str]], signature: Signature, max_elements: int) -> dict[str, Tensor]:
    width = len(rows[0]) if rows else 0
    for number, row in enumerate(rows):
        if len(row) != width:
            raise SalverError("INVALID_TENSOR", f"row {number} of the CSV has {len(row)} fields; the first has {width}")
    required = [spec.name for spec in signature.inputs if not spec.optional]
    names = required if len(required) == width > 1 else [str(at) for at in range(width)]
    return _of_columns(_columns(names, rows), signature, max_elements, read=_read_csv)


def _split(frame: Any) -> Columns:
    if not isinstance(frame, dict) or "data" not in frame or frame.keys() - {"columns", "data", "index"}:
        raise SalverError(
            "INVALID_JSON",
            "'dataframe_split' is not what pandas writes with orient='split'",
            'send {"columns": [...], "data": [[...], ...]}',
        )
    rows = frame["data"]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise SalverError("INVALID_JSON", "'data' of the frame is no list of rows", "send one list for each row")
    width = len(rows[0]) if rows else 0
    names = frame.get("columns")
    if names is None:
        names = list(range(width))
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise SalverError("INVALID_JSON", "'columns' of the frame is no list of names", "name each column with a text")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise SalverError(
                "INVALID_TENSOR", f"row {number} of the frame has {len(row)} values; there are {len(names)} columns"
            )
    return _columns([str(name) for name in names], rows)


def _columns(names: list[str], rows: list[list[Any]]) -> Columns:
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise SalverError("INVALID_TENSOR", f"the column {twice[:80]!r} stands twice", "name each column once")
    return {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)} if rows else {}


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _records(form: str, records: Any) -> Columns:
    """The columns of a list of objects; one that lacks a member has null there, as in pandas."""
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise SalverError("INVALID_JSON", f"{form!r} is no list of objects", 'send [{"column": value, ...}, ...]')
    names = dict.fromkeys(name for record in records for name in record)
    members = sum(map(len, records))
    if len(names) * len(records) > max(_SPARSE_CELLS, members * _CELLS_PER_MEMBER):
        raise SalverError(
            "INVALID_TENSOR",
            f"the {len(records)} records have {len(names)} names between them, and each has few of those",
            "send the inputs of the model, the same in each record",
        )
    return {name: [record.get(name) for record in records] for name in names}


def _of_columns(
    columns: Columns, signature: Signature, max_elements: int, *, read: Reader | None = None, frame: bool = True
) -> dict[str, Tensor]:
    """The inputs that columns are: by name, or side by side where the model has one input.

    A `frame` of a single column is the model's one input whatever the column is called.
    """
    if not columns:
        raise SalverError("WRONG_SHAPE", "the request has 0 rows", "send at least one")
    required = [spec for spec in signature.inputs if not spec.optional]
    named = _has_all(columns, required)
    sole = required[0] if len(required) == 1 else None
    if sole is not None and _is_wide(columns, sole, named):
        table = [list(row) for row in zip(*columns.values(), strict=True)]
        return {sole.name: _tensor(_typed(table, sole, read), sole, max_elements)}
    if named:
        chosen = {spec: columns[spec.name] for spec in signature.inputs if spec.name in columns}
    elif sole is not None and len(columns) == 1 and frame and (_is_nested(columns) or _takes_single(sole)):
        chosen = {sole: next(iter(columns.values()))}
    else:
        raise _missing(columns, sole, required)
    return {
        spec.name: _tensor(_stood(_typed(values, spec, read), spec), spec, max_elements)
        for spec, values in chosen.items()
    }


def _of_named_tensors(tensors: Mapping[str, Any], signature: Signature, max_elements: int) -> dict[str, Tensor]:
    """Whole tensors by name. Columns in their place are taken as `_of_columns` takes those of a frame."""
    required = [spec for spec in signature.inputs if not spec.optional]
    if _has_all(tensors, required):
        given = (spec for spec in signature.inputs if spec.name in tensors)
        return {spec.name: _tensor(_stood(tensors[spec.name], spec), spec, max_elements) for spec in given}
    lengths = {len(value) if isinstance(value, list) else 0 for value in tensors.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise _missing(tensors, None, required)
    return _of_columns(dict(tensors), signature, max_elements, frame=False)


def _has_all(columns: Mapping[str, Any], required: list[TensorSpec]) -> bool:
    return bool(required) and all(spec.name in columns for spec in required)


def _is_wide(columns: Columns, sole: TensorSpec, named: bool) -> bool:
    """Whether columns of single values, side by side, are the rows of an input."""
    if len(sole.shape) != 2 or _is_nested(columns):
        return False
    return sole.shape[1] == len(columns) > 1 or (sole.shape[1] == -1 and not named)


def _is_nested(columns: Columns) -> bool:
    return any(isinstance(values[0], list) for values in columns.values())


def _takes_single(spec: TensorSpec) -> bool:
    """Whether a row of an input may be a single value."""
    return len(spec.shape) != 2 or spec.shape[1] in (1, -1)


def _missing(columns: Mapping[str, Any], sole: TensorSpec | None, required: list[TensorSpec]) -> SalverError:
    if sole is not None and len(sole.shape) == 2 and sole.shape[1] > 0:
        return SalverError(
            "MISSING_INPUT",
            f"there are {len(columns)} columns; input {sole.name!r} of the model takes rows of {sole.shape[1]}",
            "send the features in the order in which the model was trained, and no others",
        )
    absent = ", ".join(repr(spec.name) for spec in required if spec.name not in columns)
    return SalverError(
        "MISSING_INPUT",
        f"of the inputs of the model, {absent} is missing",
        f"send {', '.join(repr(spec.name) for spec in required)}",
    )


def _parameters(
    params: Mapping[str, Any], inputs: Mapping[str, Tensor], signature: Signature, max_elements: int
) -> dict[str, Tensor]:
    """Inputs that are given once for all rows; MLflow ignores the parameters that a model does not declare."""
    found = {}
    rows = next((tensor.shape[0] for tensor in inputs.values() if tensor.shape), 0)
    for spec in signature.inputs:
        if spec.name not in params or spec.name in inputs:
            continue
        value = params[spec.name]
        if not signature.batched:
            found[spec.name] = _tensor(value, spec, max_elements)
            continue
        one = _tensor(nested(value, len(spec.shape)), spec, max_elements)
        found[spec.name] = repeated(one, rows, max_elements)
    return found


def _stood(values: Any, spec: TensorSpec) -> Any:
    """A column of single values, each as a row of its own where the input has rows of one."""
    if len(spec.shape) == 2 and _takes_single(spec) and isinstance(values, list):
        return [value if isinstance(value, list) else [value] for value in values]
    return values


def _tensor(values: Any, spec: TensorSpec, max_elements: int) -> Tensor:
    if DATATYPES[spec.datatype].dtype.kind == "f" or spec.datatype == "BF16":
        values = _with_nan(values)
    return tensor_of(values, spec, max_elements)


def _with_nan(values: Any) -> Any:
    """`values` with NaN for null, which is how pandas writes a missing number."""
    if not isinstance(values, list):
        return values
    if any(isinstance(value, list) for value in values):
        return [_with_nan(value) for value in values]
    return [float("nan") if value is None else value for value in values] if None in values else values


def _typed(values: list[Any], spec: TensorSpec, read: Reader | None) -> list[Any]:
    if read is None:
        return values
    if values and isinstance(values[0], list):
        return [[read(value, spec) for value in row] for row in values]
    return [read(value, spec) for value in values]


def _read_csv(text: str, spec: TensorSpec) -> Any:
    """One field of a CSV file as a value of the input's datatype."""
    kind = DATATYPES[spec.datatype]
    value: Any = None
    if spec.datatype == "BYTES":
        return text
    text = text.strip()
    if kind.name == "BOOL":
        value = _CSV_BOOLEANS.get(text.lower())
    elif kind.name == "BF16" or kind.dtype.kind == "f":
        value = float("nan") if text in _CSV_MISSING else _csv_float(text)
    elif _CSV_INTEGER.fullmatch(text):
        value = int(text)
    else:
        value = _csv_float(text)
    if value is None:
        raise SalverError("INVALID_VALUE", f"input {spec.name!r} has {text[:80]!r} in the CSV, which is no {kind.name}")
    return value


def _csv_float(text: str) -> float | None:
    """The number that a field is; None for what is none, and for one so large that a double would be infinite."""
    if not _CSV_NUMBER.fullmatch(text):
        return None
    value = float(text)
    return None if math.isinf(value) and "i" not in text.lower() else value
