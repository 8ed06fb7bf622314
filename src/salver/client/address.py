"""Where a server is, and how it is spoken to: what an URL says."""

from __future__ import annotations

import ssl
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from salver.protocol.errors import SalverError

__all__ = ["Address", "check_timeout", "check_token", "check_verify", "is_certificate_error", "read_url", "tls_context"]

_PORTS: Final = {"http": 80, "https": 443, "grpc": 8081, "grpcs": 8081}


class Address(NamedTuple):
    """The root of a data listener."""

    url: str
    """As it was given, for messages."""
    scheme: str
    host: str
    port: int
    prefix: str
    """What stands before every path, without a slash at its end."""

    @property
    def is_grpc(self) -> bool:
        """Whether it is a listener of gRPC."""
        return self.scheme in ("grpc", "grpcs")

    @property
    def secure(self) -> bool:
        """Whether it is behind TLS."""
        return self.scheme in ("https", "grpcs")

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if not self.is_grpc and self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def read_url(url: str) -> Address:
    """An URL of http, https, grpc or grpcs; raises INVALID_SETTING."""
    refused = SalverError(
        "INVALID_SETTING",
        f"{url!r} is no server's URL",
        "write http://HOST:PORT, https://HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT",
    )
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise refused
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
        port = parts.port
    except ValueError:
        raise refused from None
    prefix = parts.path.rstrip("/")
    if (
        parts.scheme not in _PORTS
        or not host
        or "%" in host
        or port == 0
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not prefix.isascii()
        or (prefix and parts.scheme.startswith("grpc"))
    ):
        raise refused
    return Address(url, parts.scheme, host, port or _PORTS[parts.scheme], prefix)


def check_timeout(timeout_s: float) -> float:
    """More than no time; raises INVALID_SETTING."""
    if not timeout_s > 0:
        raise SalverError("INVALID_SETTING", f"timeout_s is {timeout_s!r}", "use more than 0 seconds")
    return timeout_s


def check_token(token: str) -> str:
    """A token that a header can carry; raises INVALID_SETTING."""
    if not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise SalverError("INVALID_SETTING", "the token is none", "pass what `salver token create` printed")
    return token


def check_verify(verify: ssl.SSLContext | bool) -> ssl.SSLContext | bool:
    """What certificates may be checked against: nothing but False turns that off. Raises INVALID_SETTING."""
    if not isinstance(verify, bool | ssl.SSLContext):
        raise SalverError(
            "INVALID_SETTING",
            f"verify is {verify!r}",
            "pass True, False or ssl.create_default_context(cafile=...)",
        )
    return verify


def tls_context(verify: ssl.SSLContext | bool) -> ssl.SSLContext:
    """What a connection is checked against: a context as it is, True for the usual authorities, False for none."""
    if isinstance(verify, ssl.SSLContext):
        return verify
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def is_certificate_error(error: BaseException | None) -> bool:
    """Whether a connection failed because the certificate is not trusted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
