"""One response of HTTP/1.1 as it comes, from whatever socket: bodies go where they stay."""

from __future__ import annotations

from typing import Any, Final

import httptools
import numpy as np

from salver.client.dialect import Reply

__all__ = ["BadResponseError", "ResponseReader"]

_HEAD_BYTES: Final = 64 * 2**10
_LARGEST_BYTES: Final = 2**31 - 1
"""An answer that would be larger is refused, whatever a server announces."""
_INFORMATIONAL: Final = range(100, 200)
_NO_BODY: Final = (204, 304)
_ALIGNED: Final = 64
"""Bytes: where numpy and processors like arrays to begin."""


class BadResponseError(Exception):
    """What came is no response of HTTP/1.1."""


class ResponseReader:
    """Reads responses, one after another.

    REQUIRES in a loop: read bytes into `buffer()`, then call `received` with their number, until it returns a
    reply. A body of known length is received where it stays, and so that the tensors behind the
    JSON of an inference begin on a boundary: nothing copies them again.
    """

    def __init__(self) -> None:
        self._scratch = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._scratch)
        self.keep_alive = True
        """Whether the connection can take another request after the response."""
        self.begun = False
        """Whether any of the response has come."""
        self.understood = False
        """Whether a head of HTTP has ever come on this connection."""
        self._reset()

    def _reset(self) -> None:
        self.begun = False
        self._have = 0
        self._headers: dict[str, str] = {}
        self._reason = b""
        self._parser: Any = None
        self._status = 0
        self._body: memoryview | None = None
        self._filled = 0
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._complete = False

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._body is not None:
            return self._body[self._filled :]
        return self._view if self._parser is not None else self._view[self._have :]

    def received(self, count: int) -> Reply | None:
        """`count` bytes came; the reply once it is whole. Raises BadResponseError."""
        self.begun = True
        if self._body is not None:
            self._filled += count
            return self._finish(self._body) if self._filled == len(self._body) else None
        if self._parser is not None:
            return self._parse(bytes(self._view[:count]))
        before, self._have = self._have, self._have + count
        return self._head(max(0, before - 3))

    def ended(self) -> Reply | None:
        """The server has closed the connection: the reply if that is how it ends, None if it is broken."""
        if self._parser is None or self._body is not None or "transfer-encoding" in self._headers:
            return None
        return self._finish(memoryview(b"".join(self._pieces)))

    def _head(self, look_from: int) -> Reply | None:
        end = self._scratch.find(b"\r\n\r\n", look_from, self._have)
        if end < 0:
            if self._have == len(self._scratch):
                raise BadResponseError(f"its headers exceed {_HEAD_BYTES} bytes")
            return None
        self._parser = httptools.HttpResponseParser(self)
        self._feed(bytes(self._view[: end + 4]))
        self.understood = True
        status = self._parser.get_status_code()
        rest = bytes(self._view[end + 4 : self._have])
        if status in _INFORMATIONAL:
            self._reset()
            self._scratch[: len(rest)] = rest
            self._have = len(rest)
            return self._head(0) if rest else None
        self._status = status
        self.keep_alive = bool(self._parser.should_keep_alive())
        if status in _NO_BODY:
            return self._finish(memoryview(b""))
        length = self._headers.get("content-length")
        if length is None or "transfer-encoding" in self._headers:
            return self._parse(rest)
        return self._sized(int(length), rest)

    def _sized(self, length: int, rest: bytes) -> Reply | None:
        """A body of known length, whose beginning has come."""
        if length > _LARGEST_BYTES:
            raise BadResponseError(f"it has {length} bytes; at most {_LARGEST_BYTES} are taken")
        if len(rest) > length:
            raise BadResponseError("more bytes came than were announced")
        text = self._headers.get("inference-header-content-length", "")
        shift = -int(text) % _ALIGNED if text.isascii() and text.isdigit() and len(text) < 12 else 0
        memory = np.empty(shift + length + _ALIGNED, np.uint8)
        at = -memory.ctypes.data % _ALIGNED + shift
        self._body = memory.data[at : at + length]
        self._body[: len(rest)] = rest
        self._filled = len(rest)
        return self._finish(self._body) if self._filled == length else None

    def _parse(self, data: bytes) -> Reply | None:
        """A body in chunks, or one that ends with its connection."""
        if data:
            self._feed(data)
        if self._pieces_bytes > _LARGEST_BYTES:
            raise BadResponseError(f"it has more than {_LARGEST_BYTES} bytes")
        return self._finish(memoryview(b"".join(self._pieces))) if self._complete else None

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BadResponseError(str(error)) from None

    def _finish(self, body: memoryview) -> Reply:
        reply = Reply(self._status, self._headers, body, self._reason.decode("latin-1"))
        self._reset()
        return reply

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those that stand several times are joined."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_status(self, reason: bytes) -> None:
        """The words behind the status, or some of them."""
        self._reason += reason

    def on_body(self, data: bytes) -> None:
        """Bytes of a body of unknown length."""
        self._pieces.append(data)
        self._pieces_bytes += len(data)

    def on_message_complete(self) -> None:
        """The last chunk has come."""
        self._complete = True
