"""A client that speaks HTTP no better than it is told to, and checks every error it is given."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from salver.protocol.errors import CATALOGUE

PATIENCE_S = 10.0
_LEAK = re.compile(
    r"Traceback|\.py\b|site-packages|/(?:root|home|tmp|usr|work|var|etc)/|<class|object at 0x"
    r"|\b[A-Z]\w*(?:Error|Exception)\b|\bmsgspec\b|\bnumpy\b|\bonnx"
)


def eventually(fact: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Wait until `fact` is true; the only way to wait for anything here."""
    until = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < until, "it did not become true"
        time.sleep(0.005)
    return found


class Reply:
    """One HTTP response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        return self.headers.get("x-salver-error")

    @property
    def error(self) -> str:
        return self.json["error"]

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.code or ''} {self.body[:200]!r}>"


class RawClient:
    """A connection on which anything may be sent. Every error read is checked to be a proper one."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE_S)
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def try_send(self, data: bytes) -> None:
        """Send as much as the other side lets us."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def _more(self) -> bool:
        try:
            part = self.socket.recv(65536)
        except ConnectionResetError:
            part = b""
        self.received += part
        return bool(part)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            assert self._more(), f"the connection ended after {self.received!r}"
        found, _, self.received = self.received.partition(mark)
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        """The status line and headers of a reply."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        headers = dict(pairs)
        assert len(headers) == len(pairs), "a header came twice"
        return int(status), headers

    def read(self, *, to_head: bool = False) -> Reply:
        """The next final reply."""
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
        length = 0 if to_head else int(headers["content-length"])
        while len(self.received) < length:
            assert self._more(), "the connection ended inside a reply"
        reply = Reply(status, headers, self.received[:length])
        self.received = self.received[length:]
        if status >= 400 and not to_head and not reply.body.startswith(b'{"live"') and b'"ready":' not in reply.body:
            self.check(reply)
        return reply

    def check(self, reply: Reply) -> None:
        """See that a reply of 400 or more is a proper one; protocols with other errors have clients of their own."""
        check_error(reply)

    def ask(self, data: bytes) -> Reply:
        self.send(data)
        return self.read()

    def is_closed(self) -> bool:
        """Wait for the end of the connection; False if bytes come instead."""
        return not self.received and not self._more()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Vanish with a reset instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def check_error(reply: Reply) -> None:
    assert set(reply.json) == {"error"}
    assert isinstance(reply.error, str)
    assert reply.error
    assert reply.headers["content-type"] == "application/json"
    assert reply.code in CATALOGUE, reply
    assert CATALOGUE[reply.code].http == reply.status, reply
    assert not _LEAK.search(reply.error), reply.error


def request(verb: str, path: str, body: bytes | None = None, headers: tuple[str, ...] = ()) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def row(*values: float) -> dict[str, Any]:
    """The body of a request with one row."""
    return {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": list(values or (1, 2, 3, 0))}]}


def held_request(**more: Any) -> bytes:
    return request("POST", "/v2/models/held/infer", json.dumps({**row(), **more}).encode())
