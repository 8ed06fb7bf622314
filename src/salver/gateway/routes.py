"""The route table of the data listener: every path, its verbs, its rule of access, its door.

The table is the single source: requests are dispatched from it, OpenAPI is generated from it,
and an entry without an operation cannot be written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from salver.gateway.exchange import Exchange, Refusal, plain_refusal
from salver.protocol.api_versions import Deprecation
from salver.protocol.errors import SalverError
from salver.security.access import Operation

__all__ = ["HttpRoute", "HttpRouteTable", "Resolution", "Stray", "UnroutedError", "WrongVerbError"]

_REMEMBERED: Final = 1024
_PARAMETER: Final = re.compile(r"{(\w+)}")
_VERSION: Final = re.compile(rb"/(v[0-9]+)(?=/|\Z)")
_ORIGIN: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class HttpRoute(NamedTuple):
    """One path and verb.

    `open` answers the exchange, now or later. What it raises before it returns becomes the answer
    (`Gateway.begin`); in what it leaves for later, nobody else catches: that ends in `Exchange.fail`.
    `template` has parameters in braces; each matches a path segment, or its part before a colon, percent-decoded once.
    """

    method: str
    template: str
    operation: Operation | None
    """What the caller must be allowed to do; None for what anybody may, such as health."""
    open: Callable[[Exchange], None]
    summary: str
    request: Any = None
    """The msgspec type of a JSON body, for OpenAPI."""
    response: Any = None
    """The msgspec type of the JSON answer, for OpenAPI."""
    refusal: Callable[[SalverError], Refusal] = plain_refusal
    """How the protocol of this route writes errors."""
    deprecated: Deprecation | None = None
    """That this route will go, and when: told in headers of its answers and in OpenAPI."""
    any_case: bool = False
    """Whether the template fits in any case; the values of parameters keep theirs."""
    upgrades: bool = False
    """Whether it is for the offer to speak WebSocket, which others ignore."""


class Resolution(NamedTuple):
    """A route and the values of its path parameters."""

    route: HttpRoute
    params: Mapping[str, str]


class Stray(NamedTuple):
    """Paths of a protocol where no route is, and what is told who asks for one."""

    pattern: re.Pattern[bytes]
    """How such paths begin."""
    remedy: str
    refusal: Callable[[SalverError], Refusal] = plain_refusal


class UnroutedError(SalverError):
    """No route takes a request; `refusal` is how the protocol of its path writes errors."""

    def __init__(
        self, code: str, message: str, remedy: str, refusal: Callable[[SalverError], Refusal] = plain_refusal
    ) -> None:
        super().__init__(code, message, remedy)
        self.refusal = refusal


class WrongVerbError(UnroutedError):
    """METHOD_NOT_ALLOWED, with the verbs that are."""

    def __init__(
        self, path: str, method: str, verbs: str, refusal: Callable[[SalverError], Refusal] = plain_refusal
    ) -> None:
        super().__init__("METHOD_NOT_ALLOWED", f"{path} does not take {method}", f"use {verbs}", refusal)
        self.verbs = verbs


class HttpRouteTable:
    """All routes; resolved targets are remembered, because clients repeat few of them."""

    def __init__(self, routes: Iterable[HttpRoute], strays: Iterable[Stray] = ()) -> None:
        self.routes = tuple(routes)
        self._strays = tuple(strays)
        self._patterns = [(_pattern(route), route) for route in self.routes]
        versions = (_VERSION.match(route.template.encode()) for route in self.routes)
        self._versions = {version[0] for version in versions if version is not None}
        self._remembered: dict[tuple[bytes, bytes], Resolution] = {}

    def resolve(self, method: bytes, target: bytes) -> Resolution:
        """The route for a verb and request target; raises NOT_FOUND or METHOD_NOT_ALLOWED."""
        found = self._remembered.get((method, target))
        if found is None:
            found = self._look_up(method.decode(), target)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[method, target] = found
        return found

    def _look_up(self, method: str, target: bytes) -> Resolution:
        path = _path(target)
        wanted = "GET" if method == "HEAD" else method
        verbs = set()
        refusal: Callable[[SalverError], Refusal] = plain_refusal
        for pattern, route in self._patterns:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method == wanted:
                return Resolution(route, {name: _decode(value) for name, value in match.groupdict().items()})
            verbs.add(route.method)
            refusal = route.refusal
        if path == b"*":
            verbs = {route.method for route in self.routes}
        shown = path[:200].decode("ascii", "replace")
        if verbs:
            also = {"HEAD"} if "GET" in verbs else set()
            raise WrongVerbError(shown, method, ", ".join(sorted(verbs | also)), refusal)
        version = _VERSION.match(path)
        if version is not None and version[0] not in self._versions:
            raise UnroutedError(
                "NOT_FOUND",
                f"there is no version {version[1][:20].decode()} of an interface here, and so no {shown}",
                f"paths begin with {', '.join(sorted(each.decode() for each in self._versions))}",
            )
        for stray in self._strays:
            if stray.pattern.match(path):
                raise UnroutedError("NOT_FOUND", f"there is no {shown}", stray.remedy, stray.refusal)
        raise UnroutedError("NOT_FOUND", f"there is no {shown}", "see /docs for what there is")


def _path(target: bytes) -> bytes:
    """The path of a request target; in absolute form it stands behind scheme and authority."""
    origin = _ORIGIN.match(target)
    if origin is not None:
        target = target[origin.end() :]
        target = target if target.startswith(b"/") else b"/" + target
    return target.partition(b"?")[0]


def _pattern(route: HttpRoute) -> re.Pattern[bytes]:
    # No name has a colon: behind one some protocols put what is to be done with the named.
    parts = _PARAMETER.split(route.template)
    pattern = "".join(f"(?P<{part}>[^/:]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(pattern.encode(), re.IGNORECASE if route.any_case else 0)


def _decode(segment: bytes) -> str:
    """Percent-decode a path segment once; what decodes to a separator or to no text names nothing."""
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        text = "/"
    if any(character in text for character in "/\\\0%") or text in (".", ".."):
        raise SalverError("NOT_FOUND", f"the path segment {segment[:80].decode('ascii', 'replace')!r} names nothing")
    return text
