"""The listeners of a `salver serve`: may they open, and opening them."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from typing import NamedTuple

from salver.config import ServerSettings
from salver.protocol.errors import SalverError
from salver.security.binding import Binding, check_binding
from salver.telemetry.logs import log_event

__all__ = ["Listeners", "check_listeners", "open_listeners", "tls_context"]


class Listeners(NamedTuple):
    """The open sockets and what clients call them."""

    http: socket.socket
    control: socket.socket
    grpc: socket.socket | None
    http_url: str
    control_url: str
    grpc_target: str | None
    """HOST:PORT, as clients of gRPC take it."""


def check_listeners(server: ServerSettings) -> bool:
    """Whether only --insecure allows these listeners.

    Raises REFUSED_BY_POLICY for unsafe ones and INVALID_SETTING for a certificate or key that
    cannot be used.
    """
    tls_context(server)
    has_tls = bool(server.tls_cert)
    bindings: list[Binding] = [
        check_binding(
            server.host,
            has_tls=has_tls,
            # The first start makes an administrator's token before anything is answered.
            has_credentials=server.require_token,
            insecure=server.insecure,
        ),
        # The control listener always asks for a token.
        check_binding(server.control_host, has_tls=has_tls, has_credentials=True, insecure=server.insecure),
    ]
    insecure = any(binding.insecure for binding in bindings)
    if insecure:
        log_event("insecure", level=logging.WARNING, problem="listening beyond this machine without TLS or tokens")
    return insecure


def tls_context(server: ServerSettings, protocol: str = "http/1.1") -> ssl.SSLContext | None:
    """What a data listener of `protocol` speaks TLS with, if it does; raises INVALID_SETTING for unusable files."""
    if not server.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except (OSError, ValueError) as error:
        raise SalverError(
            "INVALID_SETTING",
            f"the certificate {server.tls_cert!r} and key {server.tls_key!r} cannot be used: {error}",
            "give a certificate chain and its unencrypted private key, both in PEM",
        ) from None
    context.set_alpn_protocols([protocol])
    return context


def open_listeners(server: ServerSettings, sockets: contextlib.ExitStack) -> Listeners:
    """Bind them all; `sockets` closes them. Raises INVALID_SETTING for an address that cannot be had."""
    scheme = "https" if server.tls_cert else "http"
    http = sockets.enter_context(_bind(server.host, server.http))
    control = sockets.enter_context(_bind(server.control_host, server.control))
    grpc = sockets.enter_context(_bind(server.host, server.grpc)) if server.grpc is not None else None
    return Listeners(
        http,
        control,
        grpc,
        f"{scheme}://{_authority(server.host, http)}",
        f"{scheme}://{_authority(server.control_host, control)}",
        _authority(server.host, grpc) if grpc else None,
    )


def _authority(host: str, listener: socket.socket) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _bind(host: str, port: int) -> socket.socket:
    with contextlib.ExitStack() as undo:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1024)
        except (OSError, UnicodeError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise SalverError(
                "INVALID_SETTING",
                f"cannot listen on {host[:80]} port {port}: {problem}",
                "free the port, choose another, or use 0 for any free one",
            ) from None
        undo.pop_all()
        return listener
