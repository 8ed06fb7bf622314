"""Moments as people write them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final, NamedTuple

from salver.protocol.errors import SalverError

__all__ = ["Moment", "moment"]

_UNITS_S: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}
_AGO: Final = re.compile(r"([0-9]{1,9}) (second|minute|hour|day|week)s? ago")
_SECONDS: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")


class Moment(NamedTuple):
    """A moment, or a day from its beginning to the beginning of the next; wall time."""

    since_s: float
    until_s: float


def moment(text: str, now_s: float) -> Moment:
    """A date (UTC), a date and time with its zone, seconds since 1970, how long ago, or now; raises INVALID_PARAMETER.

    >>> moment("2026-03-03", 0.0)
    Moment(since_s=1772496000.0, until_s=1772582400.0)
    >>> moment("2026-03-03T01:00:00+01:00", 0.0).since_s
    1772496000.0
    >>> moment("3 days ago", 300000.0).since_s
    40800.0
    >>> moment("now", 5.0).until_s
    5.0
    """
    said = text.strip()
    if said == "now":
        return Moment(now_s, now_s)
    ago = _AGO.fullmatch(said)
    if ago:
        at_s = now_s - int(ago[1]) * _UNITS_S[ago[2]]
        return Moment(at_s, at_s)
    if _SECONDS.fullmatch(said):
        return Moment(float(said), float(said))
    try:
        if len(said) == len("2026-03-03"):
            day = dt.datetime.combine(dt.date.fromisoformat(said), dt.time(), dt.UTC)
            return Moment(day.timestamp(), (day + dt.timedelta(days=1)).timestamp())
        found = dt.datetime.fromisoformat(said)
    except (ValueError, OverflowError):
        found = None
    if found is None or found.tzinfo is None:
        missing = "has no zone" if found else "cannot be read"
        raise SalverError(
            "INVALID_PARAMETER",
            f"the time {text[:60]!r} {missing}",
            "write 2026-03-03, 2026-03-03T14:00:00Z, seconds since 1970, '3 days ago' or now",
        )
    return Moment(found.timestamp(), found.timestamp())
