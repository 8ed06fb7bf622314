"""The version of Salver's own interface, and what is said of a route that will go.

The foreign protocols have their versions in their paths; what is Salver's - the control listener, the
headers and parameters of its own - has this one. The policy is docs/api-versions.md.
"""

from __future__ import annotations

import calendar
import datetime as dt
import email.utils
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from salver.protocol.errors import SalverError

__all__ = [
    "API_VERSIONS",
    "API_VERSION_HEADER",
    "NOTICE_DAYS",
    "POLICY_PATH",
    "Deprecation",
    "check_api_version",
    "retirement_headers",
]

API_VERSION_HEADER: Final = b"x-salver-api-version"
API_VERSIONS: Final = ("1",)
"""All that are answered, the newest last."""
NOTICE_DAYS: Final = 180
"""How long a route is answered at least after it was announced that it will go."""
POLICY_PATH: Final = "/docs#api-versions"
"""Where each listener says what this means."""


def check_api_version(asked: bytes) -> None:
    """Raise INVALID_PARAMETER unless the version that a client was written for is one that is answered."""
    if asked.decode("latin-1").strip() not in API_VERSIONS:
        raise SalverError(
            "INVALID_PARAMETER",
            f"X-Salver-Api-Version is {asked[:40].decode('latin-1')!r}",
            f"this server answers {', '.join(API_VERSIONS)}; leave the header out for the newest",
        )


class Deprecation(msgspec.Struct, frozen=True):
    """That a route will go: announced when, gone not before when, and what to use `instead`.

    `instead` is a path whose parameters are among those of the route, or empty where nothing takes its place.
    """

    since: dt.date
    sunset: dt.date
    instead: str = ""

    def __post_init__(self) -> None:
        """Hold the table of routes to the policy: this is raised when the module is imported."""
        if (self.sunset - self.since).days < NOTICE_DAYS:
            raise ValueError(f"from {self.since} to {self.sunset} are less than {NOTICE_DAYS} days")

    def headers(self, params: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
        """Deprecation (RFC 9745), Sunset (RFC 8594) and Link (RFC 8288), for a request with these path parameters."""
        links = [f'<{POLICY_PATH}>; rel="deprecation"; type="text/html"', f'<{POLICY_PATH}>; rel="sunset"']
        if self.instead:
            path = self.instead.format_map({name: quote(value, safe="") for name, value in params.items()})
            links.append(f'<{path}>; rel="successor-version"')
        return (
            (b"deprecation", b"@%d" % _midnight_s(self.since)),
            (b"sunset", email.utils.formatdate(_midnight_s(self.sunset), usegmt=True).encode()),
            (b"link", ", ".join(links).encode()),
        )


def retirement_headers(proposed_s: float, due_s: float) -> tuple[tuple[bytes, bytes], ...]:
    """Deprecation (RFC 9745) and Sunset (RFC 8594) of a version that is to be retired, both by wall time."""
    return (
        (b"deprecation", b"@%d" % int(proposed_s)),
        (b"sunset", email.utils.formatdate(due_s, usegmt=True).encode()),
    )


def _midnight_s(date: dt.date) -> int:
    return calendar.timegm(date.timetuple())
