"""What SageMaker's clients send beside MLflow's forms: JSON by lines, and features under names of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salver.protocol.codecs.plain_json import decode_value
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature

__all__ = ["decode_lines", "has_features", "unwrapped"]

_FEATURES = "features"


def decode_lines(body: bytes) -> dict[str, Any]:
    """JSON by lines as rows, in MLflow's form `instances`; raises INVALID_JSON naming the line that is none."""
    rows = []
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(decode_value(line, tokens=True))
        except SalverError as error:
            raise SalverError(error.code, f"line {number}: {error.message}", error.remedy) from None
    if not rows:
        raise SalverError("INVALID_JSON", "the body has no lines", "send one JSON value for each row")
    return {"instances": rows}


def has_features(rows: Any, signature: Signature) -> bool:
    """Whether rows look as the built-in algorithms take them, and the signature has no input of that name."""
    names = {spec.name for spec in signature.inputs}
    return isinstance(rows, list) and bool(rows) and _is_wrapped(rows[0]) and names.isdisjoint((_FEATURES, "data"))


def unwrapped(rows: list[Any]) -> list[Any]:
    """The features of each row: `{"features": [...]}`, or `{"data": {"features": {"values": [...]}}}`."""
    found = []
    for row in rows:
        if not _is_wrapped(row):
            raise SalverError("INVALID_JSON", "not all rows have 'features'", "send them all in the same form")
        value = row.get(_FEATURES, row.get("data"))
        if isinstance(value, dict):
            value = value[_FEATURES]["values"]
        found.append(value)
    return found


def _is_wrapped(row: Any) -> bool:
    if not isinstance(row, Mapping) or len(row) != 1:
        return False
    if isinstance(row.get(_FEATURES), list):
        return True
    data = row.get("data")
    inner = data.get(_FEATURES) if isinstance(data, Mapping) else None
    return isinstance(inner, Mapping) and isinstance(inner.get("values"), list)
