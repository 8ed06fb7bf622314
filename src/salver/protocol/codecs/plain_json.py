"""JSON that has no fixed shape, read strictly, for protocols that send plain values.

msgspec reads it as fast as it gets, and refuses everything that is not JSON. What it would
overlook - a key that stands twice - is looked for here, at the price of a count.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["decode_object", "decode_value", "refuse_duplicate_keys"]

_DECODER: Final = msgspec.json.Decoder()
_TOKEN: Final = re.compile(rb"\b(?:NaN|Infinity)\b")
_LONGEST_INTEGER: Final = 320
"""Digits; no double has more before its point, and Python takes quadratic time to read them."""


def decode_value(body: bytes, *, tokens: bool = False) -> Any:
    """The JSON value that `body` is.

    With `tokens` also what Python and JavaScript programs write for numbers that JSON lacks:
    NaN, Infinity and -Infinity. Raises INVALID_JSON or DUPLICATE_KEY.
    """
    try:
        value = _DECODER.decode(body)
    except msgspec.DecodeError as error:
        if not (tokens and _TOKEN.search(body)):
            raise SalverError("INVALID_JSON", f"the body is not JSON: {error}") from None
        return _decode_with_tokens(body)
    except UnicodeDecodeError as error:
        raise SalverError("INVALID_JSON", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise SalverError("INVALID_JSON", "the JSON is nested too deeply") from None
    # Every member has one colon: as many colons as members means that no key came twice.
    if body.count(b":") != _members(value):
        refuse_duplicate_keys(body)
    return value


def decode_object(body: bytes, *, tokens: bool = False, remedy: str = 'send an object: {"...": ...}') -> dict[str, Any]:
    """The JSON object that `body` is; raises what `decode_value` does, and INVALID_JSON for another value."""
    value = decode_value(body, tokens=tokens)
    if not isinstance(value, dict):
        raise SalverError("INVALID_JSON", "the body is JSON, but no object", remedy)
    return value


def refuse_duplicate_keys(body: bytes) -> None:
    """Raise DUPLICATE_KEY if an object in `body` names a key twice, INVALID_JSON if it is no JSON."""
    # The numbers do not matter here, and one of thousands of digits would not convert.
    _load(body, _nothing, parse_int=len, parse_float=len)


def _decode_with_tokens(body: bytes) -> Any:
    return _load(body, dict, parse_int=_integer, parse_float=_float)


def _load(body: bytes, make: Any, **parsers: Any) -> Any:
    def unique(pairs: list[tuple[str, object]]) -> object:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise SalverError("DUPLICATE_KEY", f"the key {name[:80]!r} stands twice in one JSON object")
            seen.add(name)
        return make(pairs)

    try:
        return json.loads(body, object_pairs_hook=unique, **parsers)
    except RecursionError:
        raise SalverError("INVALID_JSON", "the JSON is nested too deeply") from None
    except ValueError as error:
        raise SalverError("INVALID_JSON", f"the body is not JSON: {error}") from None


def _nothing(_: object) -> None:
    return None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else _float(digits)


def _float(digits: str) -> float:
    value = float(digits)
    # Only the token means infinity; a number that no double holds does not become it in silence.
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


def _members(value: Any) -> int:
    """How many members the objects in a value have; too few where objects stand behind other values in a list.

    Whoever compares must look closer then: a list of a million numbers is not walked through.
    """
    if isinstance(value, dict):
        return len(value) + sum(_members(each) for each in value.values() if isinstance(each, dict | list))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return sum(_members(each) for each in value)
    return 0
