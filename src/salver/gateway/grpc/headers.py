"""Header blocks of HTTP/2 (RFC 7541): those that come again are decoded once.

A client sends the same headers with every call. Once they stand in the dynamic table, their
block is the same few bytes each time, and those bytes mean the same until the table changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import hpack
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from salver.gateway.grpc.frames import ErrorCode, Http2Error

__all__ = ["Head", "HeaderDecoder", "encode_headers", "literal"]

_MOST_BLOCKS: Final = 64
_LONGEST_BLOCK_BYTES: Final = 512
_PSEUDO: Final = frozenset({b":method", b":path", b":scheme", b":authority"})
_OF_HTTP_1: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_FORBIDDEN: Final = re.compile(rb"[\r\n\0]")
_NAME: Final = re.compile(rb":?[a-z0-9!#$%&'*+.^_`|~-]+")
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(?:\+proto)?(?:;.*)?")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Head(NamedTuple):
    """What the headers of a call say. Shared by all calls with these headers: nobody may change them."""

    method: bytes
    path: bytes
    headers: Mapping[bytes, bytes]
    """Without the pseudo headers; repeated ones are joined by commas."""
    timeout_s: float
    """From grpc-timeout; infinite without one, NaN for one that cannot be read."""
    is_grpc: bool
    """Whether it is a gRPC call at all: POST, and of gRPC's content type."""


class _CountedTable(HeaderTable):
    """A dynamic table that knows when its entries have changed."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    def _shrink(self) -> None:
        self.changes += 1
        super()._shrink()


class HeaderDecoder:
    """Decodes the header blocks of one connection, all of them, in order."""

    __slots__ = ("_decoder", "_known", "_most", "_table")

    def __init__(self, header_bytes: int, most_headers: int) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=header_bytes)
        self._table = self._decoder.header_table = _CountedTable()
        self._most = most_headers
        self._known: dict[bytes, Head] = {}
        """Blocks that neither changed the table nor were followed by one that did."""

    def decode(self, block: bytes) -> Head:
        """What `block` says; raises Http2Error, after which the connection cannot be read on."""
        head = self._known.get(block)
        if head is not None:
            return head
        resized = bool(block) and block[0] & 0xE0 == 0x20
        before = self._table.changes
        try:
            head = self._read(self._decoder.decode(block, raw=True))
        except hpack.OversizedHeaderListError:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "the headers exceed their limit") from None
        except (hpack.HPACKError, ValueError, IndexError):
            raise Http2Error(ErrorCode.COMPRESSION_ERROR, "a header block that HPACK cannot read") from None
        if self._table.changes != before or resized:
            self._known.clear()
        elif len(block) <= _LONGEST_BLOCK_BYTES:
            if len(self._known) >= _MOST_BLOCKS:
                self._known.clear()
            self._known[block] = head
        return head

    def _read(self, pairs: Iterable[tuple[bytes, bytes]]) -> Head:
        pseudo: dict[bytes, bytes] = {}
        headers: dict[bytes, bytes] = {}
        count = 0
        for name, value in pairs:
            count += 1
            if not _NAME.fullmatch(name) or _FORBIDDEN.search(value):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a header name or value that cannot be")
            if name.startswith(b":"):
                if headers or name in pseudo or name not in _PSEUDO:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a pseudo header that cannot be")
                pseudo[name] = value
            elif name in _OF_HTTP_1:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a header of HTTP/1.1")
            else:
                headers[name] = b"%b,%b" % (headers[name], value) if name in headers else value
        if count > self._most:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"more than {self._most} headers")
        return Head(
            pseudo.get(b":method", b""),
            pseudo.get(b":path", b""),
            headers,
            _timeout_s(headers[b"grpc-timeout"]) if b"grpc-timeout" in headers else float("inf"),
            pseudo.get(b":method") == b"POST" and bool(_CONTENT_TYPE.fullmatch(headers.get(b"content-type", b""))),
        )


def _timeout_s(text: bytes) -> float:
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _UNIT_S[match[2]] if match else float("nan")


def literal(name: bytes, value: bytes) -> bytes:
    """One header that enters no table (RFC 7541 section 6.2.2), not compressed."""
    return b"\0%b%b%b%b" % (_length(len(name)), name, _length(len(value)), value)


def _length(size: int) -> bytes:
    return bytes((size,)) if size < 127 else bytes(encode_integer(size, 7))


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block that leaves the peer's table as it is."""
    return b"".join([literal(name, value) for name, value in headers])
