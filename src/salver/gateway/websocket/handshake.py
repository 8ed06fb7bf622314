"""Who may turn a connection of HTTP into one of WebSocket: RFC 6455, section 4.2.

A browser opens WebSockets to any server for the page of any site and says in `Origin` whose page it
is. Only pages that this server's own name or address leads to are let in, and those of origins that
are set.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection
from typing import Final

from salver.gateway.exchange import Exchange
from salver.protocol.errors import SalverError
from salver.security.binding import allowed_host

__all__ = ["SUBPROTOCOL", "accept_head", "lift_token"]

SUBPROTOCOL: Final = b"salver"
"""What a client names that hands its token over as a subprotocol: browsers can set no headers."""
_BEARER: Final = b"bearer."
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
_EVERY_ADDRESS: Final = ""
_ORIGIN: Final = re.compile(r"https?://([^/?#@\s]+)", re.IGNORECASE)
_VERSION: Final = b"sec-websocket-version"


def lift_token(headers: dict[bytes, bytes]) -> None:
    """Make a token that came as a subprotocol, `bearer.TOKEN`, the one that everything else looks at.

    Raises BAD_HTTP where there are two that might differ.
    """
    tokens = [each for each in _offered(headers) if each.startswith(_BEARER)]
    if not tokens:
        return
    if len(tokens) > 1 or b"authorization" in headers:
        raise SalverError("BAD_HTTP", "more than one token came with the request", "send one")
    headers[b"authorization"] = b"Bearer " + tokens[0].removeprefix(_BEARER)


def accept_head(exchange: Exchange, origins: Collection[str], *, encrypted: bool) -> bytes:
    """The head of the answer 101.

    Raises BAD_HTTP for a request that is no handshake, REFUSED_BY_POLICY for another site's page.
    """
    headers = exchange.headers
    if headers.get(b"upgrade", b"").lower() != b"websocket":
        raise SalverError("BAD_HTTP", "this route speaks WebSocket", "ask with Upgrade: websocket")
    if headers.get(_VERSION) != b"13":
        shown = headers.get(_VERSION, b"")[:40].decode("latin-1")
        raise SalverError("BAD_HTTP", f"Sec-WebSocket-Version is {shown!r}", "use 13")
    key = headers.get(b"sec-websocket-key", b"")
    try:
        sound = len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        sound = False
    if not sound:
        raise SalverError("BAD_HTTP", "Sec-WebSocket-Key is no 16 bytes in base64")
    _check_origin(headers, origins, encrypted=encrypted)
    proof = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    chosen = b"sec-websocket-protocol: %b\r\n" % SUBPROTOCOL if SUBPROTOCOL in _offered(headers) else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %b\r\n%bx-request-id: %b\r\n%b\r\n" % (proof, chosen, exchange.id, exchange.also)
    )


def _offered(headers: dict[bytes, bytes]) -> list[bytes]:
    return [each.strip() for each in headers.get(b"sec-websocket-protocol", b"").split(b",")]


def _check_origin(headers: dict[bytes, bytes], origins: Collection[str], *, encrypted: bool) -> None:
    if b"origin" not in headers:
        # No browser.
        return
    origin = headers[b"origin"].decode("latin-1")
    if origin.lower() in origins:
        return
    host = headers.get(b"host", b"").decode("latin-1")
    match = _ORIGIN.fullmatch(origin)
    same = match is not None and match[1].lower() == host.lower()
    # A name that somebody else has made lead here would be the same, too: then only what cannot be made so
    # counts, unless a certificate or a token says that this is the server that was meant.
    if same and (encrypted or b"authorization" in headers or allowed_host(host, _EVERY_ADDRESS)):
        return
    raise SalverError(
        "REFUSED_BY_POLICY",
        f"a page of {origin[:80]!r} may not open a WebSocket here",
        "serve the page from this server's address, or name its origin in server.allowed_origins",
    )
