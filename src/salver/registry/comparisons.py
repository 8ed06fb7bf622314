"""What values of a filter are, and when a value that is known stands in a relation to one of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import fnmatch
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from salver.clock import DAY_S
from salver.protocol.names import SemanticVersion
from salver.protocol.stages import Stage
from salver.registry.fields import Kind

__all__ = ["Span", "comparison", "pattern", "read_value"]

_TRUTHS: Final = {"true": True, "false": False}


class Span(NamedTuple):
    """A moment, or a day from its beginning to the beginning of the next."""

    first_s: float
    end_s: float


def pattern(text: str) -> re.Pattern[str]:
    """What `~` compares with."""
    return re.compile(fnmatch.translate(text.casefold()))


def read_value(kind: Kind, text: str, *, quoted: bool) -> Any:
    """The value that a text is for a field of some kind; raises ValueError or SalverError."""
    if kind is Kind.NUMBER:
        return _number(text)
    if kind is Kind.TIME:
        return _span(text)
    if kind is Kind.VERSION:
        return SemanticVersion.parse(text)
    if kind is Kind.STAGE:
        return Stage(text).value
    truth = _TRUTHS.get(text.lower())
    if kind is Kind.TRUTH and truth is None:
        raise ValueError(text)
    if kind is Kind.TRUTH or (kind is Kind.ANY and not quoted and truth is not None):
        return truth
    if kind is Kind.ANY and not quoted:
        with contextlib.suppress(ValueError):
            return _number(text)
    return text


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0 or "_" in text:
        raise ValueError(text)
    return value


def _span(text: str) -> Span:
    if len(text) == len("2026-03-01"):
        first_s = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC).timestamp()
        return Span(first_s, first_s + DAY_S)
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return Span(moment.timestamp(), moment.timestamp())


def comparison(operator: str, value: Any) -> Callable[[Any], bool]:
    """Whether a value of a field stands in this relation to the one in the filter."""
    if operator == "~":
        return lambda found: value.match(_text_of(found).casefold()) is not None
    if isinstance(value, Span):
        return _within(operator, value)
    compared = _ORDERS[operator]

    def passes(found: Any) -> bool:
        alike = _alike(found, value)
        return alike is not None and compared(alike, value)

    return passes


def _alike(found: Any, value: Any) -> Any:
    """`found` as something that `value` can be compared with; None where it cannot."""
    if isinstance(value, bool):
        # A tag says "true" in letters.
        return found if isinstance(found, bool) else _TRUTHS.get(str(found).lower())
    if isinstance(found, bool):
        return str(found).lower() if isinstance(value, str) else None
    if isinstance(value, float):
        try:
            return float(found)
        except (ValueError, TypeError, OverflowError):
            return None
    if isinstance(value, str):
        return _text_of(found)
    return found if isinstance(found, type(value)) else None


def _text_of(found: Any) -> str:
    return f"{found:g}" if isinstance(found, float) else str(found)


def _within(operator: str, span: Span) -> Callable[[Any], bool]:
    first_s, end_s = span
    last = first_s == end_s
    tests: dict[str, Callable[[Any], bool]] = {
        "=": lambda at_s: first_s <= at_s < end_s or (last and at_s == first_s),
        "<": lambda at_s: at_s < first_s,
        "<=": lambda at_s: at_s < end_s or (last and at_s == first_s),
        ">": lambda at_s: at_s >= end_s and not (last and at_s == first_s),
        ">=": lambda at_s: at_s >= first_s,
    }
    return tests[operator]


_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": lambda found, value: found == value,
    "<": lambda found, value: found < value,
    "<=": lambda found, value: found <= value,
    ">": lambda found, value: found > value,
    ">=": lambda found, value: found >= value,
}
