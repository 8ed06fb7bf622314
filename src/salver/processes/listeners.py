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

    http: tuple[socket.socket, ...]
    """One for each server process."""
    control: socket.socket
    grpc: tuple[socket.socket, ...]
    """Likewise; none without that listener."""
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
    http = _bind_each(server.host, server.http, server.processes, sockets)
    (control,) = _bind_each(server.control_host, server.control, 1, sockets)
    grpc = _bind_each(server.host, server.grpc, server.processes, sockets) if server.grpc is not None else ()
    return Listeners(
        http,
        control,
        grpc,
        f"{scheme}://{_authority(server.host, http[0])}",
        f"{scheme}://{_authority(server.control_host, control)}",
        _authority(server.host, grpc[0]) if grpc else None,
    )


def _authority(host: str, listener: socket.socket) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _bind_each(host: str, port: int, count: int, sockets: contextlib.ExitStack) -> tuple[socket.socket, ...]:
    """`count` listeners at one address, between which the kernel divides new connections."""
    with contextlib.ExitStack() as undo:
        try:
            bound = [undo.enter_context(_bind(host, port, shares=False))]
            if count > 1:
                # Only now: bound with it, the port of another server of the same user would not be refused.
                bound[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = bound[0].getsockname()[1]
                bound += [undo.enter_context(_bind(host, port, shares=True)) for _ in range(count - 1)]
            for listener in bound:
                listener.listen(1024)
        except (OSError, UnicodeError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise SalverError(
                "INVALID_SETTING",
                f"cannot listen on {host[:80]} port {port}: {problem}",
                "free the port, choose another, or use 0 for any free one",
            ) from None
        sockets.enter_context(undo.pop_all())
        return tuple(bound)


def _bind(host: str, port: int, *, shares: bool) -> socket.socket:
    with contextlib.ExitStack() as undo:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        undo.pop_all()
        return listener
