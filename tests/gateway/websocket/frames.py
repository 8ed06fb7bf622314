"""A client of WebSocket that sends whatever frames it is told to, and checks those that come."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any, NamedTuple

from tests.gateway.servers import Served
from tests.gateway.wire import RawClient

KEY = base64.b64encode(b"0123456789abcdef").decode()
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PATH = "/v2/models/talk/ws"


class Frame(NamedTuple):
    opcode: int
    payload: bytes


def frame(payload: bytes | str, opcode: int = TEXT, *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    """One frame, right or wrong."""
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data)
    head = bytes([(fin << 7) | (rsv << 4) | opcode])
    marked = 0x80 if mask else 0
    if size < 126:
        head += bytes([marked | size])
    elif size < 65536:
        head += bytes([marked | 126]) + struct.pack(">H", size)
    else:
        head += bytes([marked | 127]) + struct.pack(">Q", size)
    if not mask:
        return head + data
    key = b"\x12\x34\x56\x78"
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(data))


def handshake(path: str = PATH, *more: str, key: str = KEY, version: str = "13", host: str = "localhost") -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Version: {version}",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Socket:
    """A connection behind its handshake."""

    def __init__(self, raw: RawClient, *more: str, path: str = PATH, before: bytes = b"") -> None:
        self.raw = raw
        raw.send(before + handshake(path, *more))
        if before:
            raw.read()
        status, self.headers = raw.head()
        assert status == 101
        assert (
            self.headers["sec-websocket-accept"]
            == base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        )

    def send(self, *frames: bytes) -> None:
        self.raw.send(b"".join(frames))

    def ask(self, body: Any) -> None:
        self.send(frame(json.dumps(body)))

    def _exactly(self, size: int) -> bytes:
        raw = self.raw
        while len(raw.received) < size:
            assert raw._more(), "the connection ended inside a frame"
        found, raw.received = raw.received[:size], raw.received[size:]
        return found

    def frame(self) -> Frame | None:
        """The next frame, None at the end of the connection."""
        if not self.raw.received and not self.raw._more():
            return None
        first, size = self._exactly(2)
        assert first & 0xF0 == 0x80, "a server sends whole messages without reserved bits"
        assert size < 0x80, "a server masks nothing"
        if size == 126:
            (size,) = struct.unpack(">H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._exactly(8))
        return Frame(first & 15, self._exactly(size))

    def told(self) -> Any:
        got = self.frame()
        assert got is not None
        assert got.opcode == TEXT, got
        return json.loads(got.payload)

    def closed(self) -> tuple[int, str]:
        """Wait for the server's last word, answer it, and wait for the end."""
        got = self.frame()
        while got is not None and got.opcode == PING:
            got = self.frame()
        assert got is not None
        assert got.opcode == CLOSE, got
        code = struct.unpack_from(">H", got.payload)[0] if got.payload else 1005
        self.raw.try_send(frame(got.payload[:2], CLOSE))
        assert self.frame() is None
        return code, got.payload[2:].decode()


def dial(server: Served, *more: str, path: str = PATH, **raw: Any) -> Socket:
    return Socket(server.connect(**raw), *more, path=path)
