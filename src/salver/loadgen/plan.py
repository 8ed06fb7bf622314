"""What to send, to whom, how fast and for how long: finite in every respect."""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from salver import __version__
from salver.protocol.arrivals import Arrivals
from salver.protocol.errors import SalverError

__all__ = ["LoadPlan", "Mode", "Server"]

_RANGES: Final = {
    "duration_s": (0.01, 600.0),
    "warmup_s": (0.0, 60.0),
    "timeout_s": (0.01, 600.0),
    "connections": (1, 4096),
    "max_backlog": (1, 1_000_000),
    "max_samples": (100, 20_000_000),
}
_HIGHEST_RATE: Final = 1_000_000.0
_LARGEST_BODY: Final = 256 * 2**20
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[ \t\x21-\x7e]*[\x21-\x7e])?|")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_OURS: Final = frozenset({"content-length", "transfer-encoding", "connection", "expect", "upgrade"})


class Mode(enum.StrEnum):
    """Who decides when a request leaves."""

    CLOSED = "closed"
    """Each connection sends its next request when the answer to the last is there."""
    OPEN = "open"
    """Requests leave at given times, whatever the server does: what independent users do."""


class Server(NamedTuple):
    """Where a plan's requests go."""

    host: str
    port: int
    tls: bool
    authority: str


class LoadPlan(msgspec.Struct, frozen=True):
    """One measurement. `check` says whether it can be carried out."""

    url: str
    path: str
    body: bytes = b""
    """Sent with POST; an empty one is sent with GET."""
    headers: tuple[tuple[str, str], ...] = ()
    mode: Mode = Mode.CLOSED
    connections: int = 64
    rate_per_s: float = 0.0
    """Requests a second of an open loop."""
    arrivals: Arrivals = Arrivals.POISSON
    duration_s: float = 10.0
    warmup_s: float = 1.0
    """Load before the measurement begins; not counted."""
    timeout_s: float = 10.0
    """How long one request may take, from the moment it was meant to leave."""
    more_bodies: tuple[bytes, ...] = ()
    """Further bodies, sent in turn with the first: a server is not asked the same all the time."""
    within_s: float = 0.0
    """Count the successful answers that came within so many seconds, too; 0 does not."""
    seed: int = 0
    """Of the arrival times, when `run_load` is given no generator."""
    max_backlog: int = 100_000
    """Requests of an open loop that wait for a free connection at most; more are not sent and counted."""
    max_samples: int = 4_000_000
    """Latencies kept exactly (8 bytes each); beyond, a uniform sample of so many."""

    def check(self) -> Server:
        """Where the requests go; raises INVALID_SETTING naming the setting, the value and what is allowed."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise SalverError("INVALID_SETTING", f"{name} is {value}", f"use {least:g} to {most:g}")
        if self.mode is Mode.OPEN and not 0 < self.rate_per_s <= _HIGHEST_RATE:
            raise SalverError(
                "INVALID_SETTING",
                f"rate_per_s of an open loop is {self.rate_per_s}",
                f"use more than 0 and at most {_HIGHEST_RATE:g} requests a second",
            )
        size = max(map(len, (self.body, *self.more_bodies)))
        if size > _LARGEST_BODY:
            raise SalverError("INVALID_SETTING", f"the body has {size} bytes", f"use at most {_LARGEST_BODY}")
        if _TARGET.fullmatch(self.path) is None:
            raise SalverError(
                "INVALID_SETTING", f"path is {self.path[:80]!r}", "begin with '/', percent-encode the rest"
            )
        for name, value in self.headers:
            if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None or name.lower() in _OURS:
                raise SalverError("INVALID_SETTING", f"the header {name[:80]!r} cannot be sent", "use another header")
        return _server_of(self.url)

    def requests(self, server: Server) -> list[bytes]:
        """The bytes of each request, to be sent in turn."""
        return [self._request(server, body) for body in (self.body, *self.more_bodies)]

    def _request(self, server: Server, body: bytes) -> bytes:
        given = {name.lower() for name, _ in self.headers}
        headers = list(self.headers)
        if "host" not in given:
            headers.insert(0, ("host", server.authority))
        if "user-agent" not in given:
            headers.append(("user-agent", f"salver-bench/{__version__}"))
        method = "POST" if body else "GET"
        if body:
            headers.append(("content-length", str(len(body))))
        lines = [f"{method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        return "\r\n".join(lines).encode("ascii") + body


def _server_of(url: str) -> Server:
    refused = SalverError("INVALID_SETTING", f"{url[:200]!r} is no server's URL", "write http://HOST:PORT or https://…")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refused from None
    plain = parts.scheme in ("http", "https") and parts.path in ("", "/") and not (parts.query or parts.fragment)
    if not plain or not parts.hostname or not parts.netloc.isascii() or "@" in parts.netloc:
        raise refused
    tls = parts.scheme == "https"
    return Server(parts.hostname, port or (443 if tls else 80), tls, parts.netloc)
