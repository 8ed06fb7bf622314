"""Where this server may be sent to: addresses that others chose, checked before each connection.

A name is checked by what it resolves to, every address of it, at the moment of connecting; whoever
connects must then use a checked address and not ask again, or the answer may be another one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from salver.protocol.errors import SalverError

__all__ = ["EgressTarget", "is_public", "parse_target", "require_public"]

_PORTS: Final = {"http": 80, "https": 443}
_LONGEST_URL: Final = 2048
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_NOT_GLOBAL: Final = (ipaddress.IPv4Network("192.88.99.0/24"), ipaddress.IPv6Network("fec0::/10"))
"""Relays and addresses of a site, which some versions of Python take for global."""


class EgressTarget(NamedTuple):
    """A checked URL in its parts."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """What belongs into a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def url_at(self, address: str) -> str:
        """The URL with an address that was checked in place of the name, so that nobody resolves the name again.

        >>> EgressTarget("https", "a.example", 443, "/x?y").url_at("2606:2800:220:1::1")
        'https://[2606:2800:220:1::1]:443/x?y'
        """
        host = f"[{address}]" if ":" in address else address
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_target(url: str, *, allow_private: bool = False) -> EgressTarget:
    """The parts of an https URL without user, fragment or anything odd; raises INVALID_SETTING.

    With `allow_private` it may be http as well: inside, who listens is the operator's to say.
    """
    problem = ""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise _refused(url, "it cannot be read") from None
    host = parts.hostname or ""
    if len(url) > _LONGEST_URL or not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        problem = f"it has more than {_LONGEST_URL} characters, or odd ones"
    elif parts.scheme not in _PORTS:
        problem = "its scheme is neither https nor http"
    elif parts.scheme != "https" and not allow_private:
        problem = "its scheme is not https (http is for --allow-private alone)"
    elif parts.username is not None or parts.password is not None or "@" in parts.netloc:
        problem = "it names a user"
    elif parts.fragment or "#" in url:
        problem = "it has a fragment"
    elif not _HOST.fullmatch(host):
        problem = "it names no host"
    if problem:
        raise _refused(url, problem)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return EgressTarget(parts.scheme, host, port, path)


def _refused(url: str, problem: str) -> SalverError:
    shown = url[:80].encode("ascii", "replace").decode()
    return SalverError("INVALID_SETTING", f"the URL {shown!r} is refused: {problem}", "use https://host/path")


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, and not of this machine, its network or its cloud.

    >>> [is_public(a) for a in ("93.184.216.34", "2606:2800:220:1::1", "10.0.0.1", "::ffff:127.0.0.1")]
    [True, True, False, False]
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if any(found in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.teredo is not None or int(found) < 2**32:
            return False
    if any(found.version == network.version and found in network for network in _NOT_GLOBAL):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def require_public(host: str, addresses: Sequence[str]) -> None:
    """Raise REFUSED_BY_POLICY unless every address of `host` is public, and there is one."""
    if not addresses or not all(map(is_public, addresses)):
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{host} has an address that is not public",
            "an operator may allow it for one webhook: salver webhook create --allow-private",
        )
