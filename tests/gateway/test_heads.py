"""Heads read before are taken again, and nothing is ever read differently for it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.clock import SYSTEM_CLOCK
from salver.gateway.exchange import Exchange
from salver.gateway.gateway import Gateway
from salver.gateway.limits import Limits
from salver.gateway.reader import Phase, RequestReader
from salver.gateway.routes import HttpRouteTable
from salver.protocol.errors import SalverError
from salver.telemetry.logs import AccessSample
from salver.telemetry.metrics import Metrics


class Collector(RequestReader):
    """Keeps what it reads."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.taken: list[tuple[Any, ...]] = []

    def _take(self, exchange: Exchange) -> None:
        found = (exchange.method, exchange.target, dict(exchange.headers), exchange.body)
        self.taken.append((*found, exchange.keep_alive, exchange.connection, exchange.body_bytes))

    def _invite(self) -> None:
        self.taken.append(("continue",))

    def read(self, *reads: bytes) -> list[tuple[Any, ...]]:
        """Everything found in `reads`, and the code of the error that ended it."""
        for data in reads:
            try:
                self._feed(data)
            except SalverError as error:
                self.taken.append((error.code,))
                break
        return self.taken


class NeverKnown:
    """A memory that finds nothing."""

    def find(self, data: bytes) -> None:
        return None

    def learn(self, data: bytes, exchange: Exchange) -> None:
        return None


def gateway(*, remembers: bool = True, limits: Limits | None = None) -> Gateway:
    made = Gateway(
        HttpRouteTable([]),
        limits or Limits(),
        Metrics(),
        SYSTEM_CLOCK,
        authenticate=lambda _, __: None,
        open_to_anyone=True,
        id_prefix="test",
        access=AccessSample(0),
    )
    if not remembers:
        made.heads = NeverKnown()  # type: ignore[assignment]
    return made


def post(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST /x HTTP/{version}", "Host: a", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_head_read_once_is_not_parsed_again() -> None:
    reader = Collector(gateway())
    reader.read(post(b"one"))
    reader._parser = None

    assert reader.read(post(b"two"))[-1][3] == b"two"


def test_heads_are_shared_between_connections() -> None:
    shared = gateway()
    Collector(shared).read(post(b"one"))
    other = Collector(shared)
    other._parser = None

    assert other.read(post(b"two"))[0][3] == b"two"


@pytest.mark.parametrize(
    "headers",
    [("Connection: close",), ("Expect: 100-continue",), ("X-Request-Id: 7",), ("Upgrade: h2c", "Connection: upgrade")],
    ids=lambda headers: headers[0],
)
def test_heads_that_need_the_parser_are_not_remembered(headers: tuple[str, ...]) -> None:
    made = gateway()
    Collector(made).read(post(b"", *headers))

    assert made.heads.find(post(b"", *headers)) is None


def test_the_memory_is_bounded() -> None:
    made = gateway()
    for number in range(3000):
        Collector(made).read(post(b"", f"X-Number: {number}"))

    assert len(made.heads._heads) <= 1024


def test_a_known_head_is_still_refused_when_the_bodies_in_flight_are_too_many() -> None:
    made = gateway(limits=Limits(inflight_bytes=100))
    reader = Collector(made)
    reader.read(post(b"x" * 40))
    reader.read(post(b"x" * 40))

    assert reader.read(post(b"x" * 40))[-1] == ("QUEUE_FULL",)


@pytest.mark.parametrize("beginning", [b"G", b"POS", b"POST /x HTTP/1.1\r\nHost: a\r\nX: "])
def test_a_known_head_behind_the_beginning_of_another_request_is_no_request(beginning: bytes) -> None:
    reader = Collector(gateway())
    reader.read(post(b"one"))

    found = reader.read(post(b"two") + beginning, post(b"one"))

    assert [one[3] for one in found[:2]] == [b"one", b"two"]
    assert found[2:] in ([("BAD_HTTP",)], [])


PIECES = st.sampled_from(
    [
        b"G",
        b"POST /x",
        post(b"one"),
        post(b"two"),
        post(b"three"),
        post(b"", version="1.0"),
        post(b"old", "Connection: keep-alive", version="1.0"),
        post(b"id", "X-Request-Id: 1"),
        post(b"last", "Connection: close"),
        post(b"waits", "Expect: 100-continue"),
        b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        b"three",
        b"rubbish\r\n\r\n",
    ]
)


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=12), cuts=st.lists(st.integers(0, 400), max_size=10), split=st.booleans())
def test_a_stream_reads_the_same_with_and_without_memory(pieces: list[bytes], cuts: list[int], split: bool) -> None:
    stream = b"".join(pieces)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reads = [stream[a:b] for a, b in itertools.pairwise(edges)] if split else pieces
    remembering, forgetful = Collector(gateway()), Collector(gateway(remembers=False))

    # The pieces once alone, so that their heads are known to the one.
    for piece in pieces:
        Collector(remembering.gateway).read(piece)
    remembering.gateway.inflight_bytes = 0

    assert remembering.read(*reads) == forgetful.read(*reads)
    assert (remembering.phase is Phase.IDLE) == (forgetful.phase is Phase.IDLE)
