"""Texts that mean something else somewhere: names that lead out, odd encodings, and what an answer may never tell."""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec

__all__ = ["LEAKS", "ODD_TARGETS", "ODD_TEXTS", "SHARP_TEXTS", "bodies", "strings_in"]

SHARP_TEXTS = {
    "up": "../../../../etc/passwd",
    "nul": "double\0",
    "newlines": "a\r\nx-salver-error: none\r\n\r\n",
    "quote": "double' OR '1'='1",
    "lookalike": "dоuble",  # noqa: RUF001 - a Cyrillic o
    "right to left": "a\u202eelbuod",
    "high": "\U0010ffff\ufffe",
    "very long": "a" * 5000,
}
"""Those that have broken most; each goes into every text of every route."""
ODD_TEXTS = SHARP_TEXTS | {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "many dots": "....//....//etc/passwd",
    "absolute": "/etc/passwd",
    "slash": "/",
    "backslashes": "..\\..\\windows\\win.ini",
    "share": "\\\\host\\share",
    "drive": "C:/x",
    "file url": "file:///etc/passwd",
    "proc": "/proc/self/environ",
    "encoded": "%2e%2e%2fsalver.db",
    "encoded twice": "%252e%252e%252fsalver.db",
    "percent": "%",
    "semicolon": "..;/salver.db",
    "tilde": "~root",
    "device": "con",
    "dash": "--help",
    "space": " double ",
    "wildcard": "doubl*",
    "like": "doubl%",
    "brackets": "{model}{0.__class__}",
    "shell": "$(id);`id`|id",
    "percent format": "%s%n%(name)s",
    "markup": "<script>alert(1)</script>",
    "bell": "a\x07b\x1b[31m",
    "accent": "dou\u0308ble",
    "fullwidth": "．．／salver.db",  # noqa: RUF001
    "division slash": "a\u2215b",
    "zero width": "dou\u200bble",
    "nothing": "null",
    "number": "-1",
    "large number": "9" * 400,
    "infinity": "1e999",
    "not a number": "nan",
}
ODD_TARGETS = (
    *("%2e%2e", "%2E%2E%2F", "..%2f..%2f", "%252e%252e", "..%5c", "%5c..%5c", "%00", "double%00", "%c0%ae%c0%ae"),
    *("%c0%af", "%e0%80%af", "%ff", "%ed%a0%80", "%", "%zz", "%2", "..;", ".%00./", "%0d%0aset-cookie:x", "%u002e"),
    *("%2f%2fetc%2fpasswd", "double%2f..%2fdouble", "%25%32%65", "double%20", "double%09", "double?x=..", "double;x"),
)
"""Segments of a target as they travel, right or wrong."""

LEAKS = re.compile(
    r"Traceback|File \\?\"|site-packages|\.py\b|sqlalchemy|sqlite3|psycopg|\bSELECT\b|\bINSERT INTO\b|root:x:0"
    r"|0x[0-9a-f]{8,}"
)
"""What tells an outsider how it is inside."""

_VALID: dict[str, Any] = {
    "model": "double",
    "version": "1.0.0",
    "name": "double",
    "target": "validation",
    "role": "predictor",
    "sha256": "1" * 64,
    "url": "https://a.example/",
    "path": "model.onnx",
    "format": "onnx",
    "why": "a test",
    "datatype": "FP32",
}


def bodies(kind: Any, text: str) -> list[Any]:
    """JSON documents of a type, each with `text` in the place of another one of its strings."""
    return [_filled(kind, text, place) for place in range(strings_in(kind))]


@functools.cache
def _type_of(kind: Any) -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(kind)


def strings_in(kind: Any) -> int:
    """How many strings a document of a type has."""
    counter = [0]
    _sample(_type_of(kind), "", counter, -1, "", 0)
    return counter[0]


def _filled(kind: Any, text: str, place: int) -> Any:
    return _sample(_type_of(kind), text, [0], place, "", 0)


def _text(odd: str, counter: list[int], place: int, name: str) -> str:
    counter[0] += 1
    return odd if counter[0] - 1 == place else _VALID.get(name, "a")


def _sample(of: Any, odd: str, counter: list[int], place: int, name: str, depth: int) -> Any:
    """A document of this type; the string number `place` in it is `odd`."""
    types = msgspec.inspect
    if isinstance(of, types.Metadata):
        return _sample(of.type, odd, counter, place, name, depth)
    if isinstance(of, types.UnionType):
        some = [each for each in of.types if not isinstance(each, types.NoneType)]
        return _sample(some[0], odd, counter, place, name, depth)
    if isinstance(of, types.StructType):
        needed = [each for each in of.fields if each.required or depth < 2]
        return {each.encode_name: _sample(each.type, odd, counter, place, each.name, depth + 1) for each in needed}
    if isinstance(of, types.DictType):
        key = _text(odd, counter, place, "")
        return {key: _sample(of.value_type, odd, counter, place, "", depth + 1)}
    if isinstance(of, types.VarTupleType | types.ListType | types.SetType | types.FrozenSetType):
        return [_sample(of.item_type, odd, counter, place, name, depth + 1)]
    if isinstance(of, types.TupleType):
        return [_sample(each, odd, counter, place, name, depth + 1) for each in of.item_types]
    if isinstance(of, types.IntType):
        return of.ge or 1
    if isinstance(of, types.FloatType):
        return 1.0
    if isinstance(of, types.BoolType):
        return False
    return _text(odd, counter, place, name)
