"""The rule for listeners: loopback is free, anywhere else needs TLS and credentials.

Also the check of the Host header that stops DNS rebinding: a page of another site can make a
browser resolve that site's name to 127.0.0.1, but cannot make it send another Host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["Binding", "allowed_host", "check_binding"]

_HOST_HEADER: Final = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?)(?::([0-9]{1,5}))?")
_LONGEST_HOST_HEADER: Final = 261
"""A DNS name of 255 characters, a colon and a port."""
_HIGHEST_PORT: Final = 65535


class Binding(msgspec.Struct, frozen=True):
    """A listener that may be opened.

    `insecure` is true when only the override allowed it: log it and show it as a metric.
    """

    host: str
    loopback: bool
    insecure: bool


def check_binding(host: str, *, has_tls: bool, has_credentials: bool, insecure: bool) -> Binding:
    """Decide whether a listener may open on `host`.

    Names other than localhost count as elsewhere, and so do "" and the wildcards. Raises
    REFUSED_BY_POLICY for a listener elsewhere without TLS or without credentials, unless
    `insecure` overrides.
    """
    if _is_loopback(host):
        return Binding(host, loopback=True, insecure=False)
    if has_tls and has_credentials:
        return Binding(host, loopback=False, insecure=False)
    if insecure:
        return Binding(host, loopback=False, insecure=True)
    missing = " and ".join(word for word, there in (("TLS", has_tls), ("credentials", has_credentials)) if not there)
    raise SalverError(
        "REFUSED_BY_POLICY",
        f"listening on {host[:80]!r} without {missing} would open this server to others",
        "give --tls-cert, --tls-key and --require-token, listen on 127.0.0.1, or override with --insecure",
    )


def allowed_host(host_header: str, bound_host: str, extra: Iterable[str] = ()) -> bool:
    """Whether a request with this Host header is meant for the listener on `bound_host`.

    A listener on loopback answers to the loopback names; one on an address or name to that;
    one on all addresses to the loopback names and to any address literal, which a rebinding
    page cannot send. `extra` lists further names. Ports are checked for form only, because
    tunnels and containers change them. An absent header is passed as "" and refused.
    """
    asked = _host_of(host_header)
    if asked is None:
        return False
    if asked in {_host_of(name) for name in extra}:
        return True
    bound = bound_host.strip("[]").lower().removesuffix(".")
    if _is_loopback(bound):
        return _is_loopback(asked)
    if bound in ("", "0.0.0.0", "::"):  # noqa: S104 - recognised, not bound
        return asked == "localhost" or _address(asked) is not None
    address = _address(bound)
    return asked == bound if address is None else _address(asked) == address


def _host_of(header: str) -> str | None:
    """The host of a Host header, lower case, without brackets, port and final dot; None for garbage."""
    match = _HOST_HEADER.fullmatch(header) if len(header) <= _LONGEST_HOST_HEADER else None
    if match is None or (match[2] is not None and not 0 < int(match[2]) <= _HIGHEST_PORT):
        return None
    if match[1].startswith("["):
        literal = match[1][1:-1]
        return literal.lower() if _address(literal) is not None else None
    return match[1].lower().removesuffix(".") or None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_loopback(host: str) -> bool:
    name = host.strip("[]").lower().removesuffix(".")
    address = _address(name)
    return name == "localhost" if address is None else address.is_loopback
