"""Fetching from a server that somebody named: over https, to addresses that were checked, so much and no more.

http is for this machine alone, and a server with a private address has to be allowed. No redirect is followed:
it could lead to where the first address would have been refused.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.formats import MAX_FILES
from salver.security.egress import EgressTarget, parse_target, require_public
from salver.storage.snapshot import full_disk_is_reported

__all__ = ["Server", "resolve_name"]

_CONNECT_S: Final = 10.0
_READ_S: Final = 60.0
_ALTOGETHER_S: Final = 6 * 3600.0
_LARGEST_ANSWER_BYTES: Final = 16 * 2**20
_LARGEST_IMPORT_BYTES: Final = 64 * 2**30
_CHUNK_BYTES: Final = 1 << 20
_OK: Final = 200

Resolve = Callable[[str, int], list[str]]


def resolve_name(host: str, port: int) -> list[str]:
    """All addresses of a host; raises OSError where the system knows none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


class Server:
    """One server, by the URL that its paths begin with. `headers` are sent with each request, and told nobody.

    Raises INVALID_SETTING or REFUSED_BY_POLICY for a URL that is not to be asked, NOT_FOUND for what the server
    has not, CONTROL_UNAVAILABLE where it cannot be reached or does not answer as it should.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        headers: Mapping[str, str] | None = None,
        allow_private: bool = False,
        resolve: Resolve = resolve_name,
        limit_bytes: int = _LARGEST_IMPORT_BYTES,
    ) -> None:
        self._base = url.rstrip("/")
        self._headers = dict(headers or {})
        self._allow_private = allow_private
        self._resolve = resolve
        self._clock = clock
        self._ends_s = clock.monotonic_s() + _ALTOGETHER_S
        self._left_bytes = limit_bytes
        self._left_files = MAX_FILES
        parse_target(self._base, allow_private=True)

    def json(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The table that the server answers with at `path`."""
        content = bytearray()
        with self._open(path, parameters) as chunks:
            for chunk in chunks:
                content += chunk
                if len(content) > _LARGEST_ANSWER_BYTES:
                    raise self._odd(f"its answer is larger than {_LARGEST_ANSWER_BYTES} bytes")
        try:
            return msgspec.json.decode(bytes(content), type=dict[str, Any])
        except msgspec.DecodeError:
            raise self._odd("its answer is no JSON object") from None

    def download(self, path: str, target: Path) -> int:
        """Write what is at `path` into the new file `target`; return its size. All files together have a limit."""
        self._left_files -= 1
        if self._left_files < 0:
            raise SalverError("INVALID_ARTIFACT", f"the model has more than {MAX_FILES} files")
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        size_bytes = 0
        with (
            self._open(path, None) as chunks,
            full_disk_is_reported(),
            os.fdopen(os.open(target, flags, 0o600), "wb") as file,
        ):
            for chunk in chunks:
                size_bytes += len(chunk)
                self._left_bytes -= len(chunk)
                if self._left_bytes < 0:
                    raise SalverError("INVALID_ARTIFACT", "the model is larger than an import may be")
                file.write(chunk)
        return size_bytes

    @contextlib.contextmanager
    def _open(self, path: str, parameters: Mapping[str, str] | None) -> Iterator[Iterator[bytes]]:
        query = f"?{urlencode(parameters)}" if parameters else ""
        target = parse_target(f"{self._base}{path}{query}", allow_private=True)
        address = self._checked(target)
        limits = httpx2.Timeout(_READ_S, connect=_CONNECT_S)
        try:
            with (
                httpx2.Client(
                    verify=ssl.create_default_context(), trust_env=False, follow_redirects=False, timeout=limits
                ) as client,
                client.stream(
                    "GET",
                    target.url_at(address),
                    headers=self._headers | {"host": target.authority, "accept-encoding": "identity"},
                    extensions={"sni_hostname": target.host},  # TLS still asks for the name
                ) as answer,
            ):
                self._require_ok(answer)
                yield self._chunks(answer)
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError) as error:
            raise self._odd(f"it could not be asked: {type(error).__name__}") from None

    def _checked(self, target: EgressTarget) -> str:
        try:
            addresses = self._resolve(target.host, target.port)
        except OSError:
            addresses = []
        if not addresses:
            raise self._odd("its name is not known")
        here = all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses)
        if target.scheme != "https" and not here and not self._allow_private:
            raise SalverError(
                "REFUSED_BY_POLICY", f"{target.host} is asked over http, and is another machine", "use https"
            )
        if not here and not self._allow_private:
            try:
                require_public(target.host, addresses)
            except SalverError as error:
                raise SalverError(
                    error.code, error.message, "add --allow-private if it is a server of your own"
                ) from None
        return addresses[0]

    def _require_ok(self, answer: httpx2.Response) -> None:
        if answer.status_code == _OK:
            return
        if answer.is_redirect:
            raise self._odd("it answers with a redirect, and none is followed; name the place itself")
        if answer.status_code == 404:
            raise SalverError("NOT_FOUND", f"{self._base} has no such thing", "check the name and the version")
        if answer.status_code in (401, 403):
            raise SalverError(
                "PERMISSION_DENIED",
                f"{self._base} answers {answer.status_code}",
                "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            )
        raise self._odd(f"it answers with status {answer.status_code}")

    def _chunks(self, answer: httpx2.Response) -> Iterator[bytes]:
        for chunk in answer.iter_raw(_CHUNK_BYTES):
            if self._clock.monotonic_s() > self._ends_s:
                raise self._odd(f"it took longer than {_ALTOGETHER_S:.0f} s")
            yield chunk

    def _odd(self, what: str) -> SalverError:
        return SalverError("CONTROL_UNAVAILABLE", f"{self._base} does not answer as it should: {what}", "try later")
