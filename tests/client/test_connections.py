"""Connections are kept, bounded, never left with half an answer, and closed by who is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.client.fakes import CLOSE, GOOD, HOLD, METADATA, reply, serving
from tests.conftest import until

from salver.client import NO_RETRIES, AsyncClient, CallError, Client
from salver.client.address import read_url
from salver.client.dialect import Question
from salver.client.http_sync import IDLE_S, HttpTransport
from salver.protocol.errors import SalverError
from salver.testing import ManualClock, eventually

NAMES = reply(b'{"models":["m"]}', close=False)


def test_a_connection_is_used_again_and_its_signature_asked_once(kind):
    good = GOOD.replace(b"connection: close\r\n", b"")
    with serving(reply(METADATA, close=False), good, good, good) as fake, kind(fake.url) as client:
        for _ in range(3):
            client.predict("m", [[1.0]])
    assert [asked.line.split()[0] for asked in fake.asked] == ["GET", "POST", "POST", "POST"]
    assert fake.connections == 1


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used(kind):
    with serving(NAMES, CLOSE, NAMES) as fake, kind(fake.url, retries=NO_RETRIES) as client:
        client.models()
        # As a server does that stops: the connection ends while nothing is owed.
        with pytest.raises(SalverError):
            client.models()
        assert client.models() == ["m"]
    assert fake.connections == 2


def test_a_server_that_closes_without_an_answer_may_speak_something_else(kind):
    # HTTP/2's SETTINGS and GOAWAY, whose words make the fake close.
    goodbye = b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x19\x07\0\0\0\0\0" + b"\0\0\0\0\0\0\0\x01connection: close"
    with serving(CLOSE, goodbye, NAMES, CLOSE) as fake, kind(fake.url, retries=NO_RETRIES) as client:
        for _ in range(2):
            with pytest.raises(CallError) as caught:
                client.models()
            assert caught.value.remedy == "does it speak TLS (https://) or gRPC (grpc://)?"
        client.models()
        with pytest.raises(CallError) as caught:
            client.models()
        assert caught.value.remedy == ""


def test_an_idle_connection_that_ends_is_noticed_before_it_is_used(kind):
    # Not announced: the server closes it all the same.
    last = reply(b'{"models":["m"]}', "200 OK", "x: connection: close", close=False)
    with serving(last, NAMES) as fake, kind(fake.url, retries=NO_RETRIES) as client:
        client.models()
        until(lambda: fake.gone == 1, "the server has closed it")
        assert client.models() == ["m"]
    assert fake.connections == 2


def test_connections_that_were_quiet_for_long_are_not_used(kind):
    clock = ManualClock()
    with serving(NAMES, NAMES, NAMES) as fake, kind(fake.url, clock=clock) as client:
        client.models()
        clock.advance(IDLE_S - 1)
        client.models()
        clock.advance(IDLE_S + 1)
        client.models()
    assert [asked.connection for asked in fake.asked] == [0, 0, 1]


def test_no_more_connections_are_open_than_may_be(url, rows):
    with Client(url, connections=2) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.predict("iris", rows[:1]), range(40)))
        assert len(answers) == 40
        assert len(client._transport._idle) <= 2

    async def main():
        async with AsyncClient(url, connections=2) as client:
            await asyncio.gather(*(client.predict("iris", rows[:1]) for _ in range(40)))
            return len(client._transport._idle)

    assert asyncio.run(main()) <= 2


def test_who_finds_all_connections_in_use_waits_until_the_deadline_and_no_longer():
    with serving(HOLD) as fake, Client(fake.url, connections=1, retries=NO_RETRIES) as client:
        holder = threading.Thread(target=lambda: client.is_ready(timeout_s=0.5))
        holder.start()
        until(lambda: fake.asked, "the connection is in use")
        begun_s = time.monotonic()
        with pytest.raises(SalverError) as caught:
            client.metadata("m", timeout_s=0.05)
        assert time.monotonic() - begun_s < 0.4
        assert (caught.value.code, caught.value.may_have_run) == ("DEADLINE_EXCEEDED", False)
        holder.join()
    assert fake.connections == 1


class Hurrying(ManualClock):
    """A clock that moves on by a second with each look."""

    def monotonic_s(self) -> float:
        self.advance(1.0)
        return super().monotonic_s()


def test_an_answer_that_comes_drop_by_drop_does_not_outlive_the_deadline():
    def drip():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            while True:
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        address = read_url(f"http://127.0.0.1:{listener.getsockname()[1]}")
        transport = HttpTransport(address, None, 1, Hurrying())
        with pytest.raises(CallError) as caught:
            transport.exchange(Question("/"), 20.0)
        transport.close()
        thread.join()
    assert (caught.value.code, caught.value.may_have_run) == ("DEADLINE_EXCEEDED", True)


def test_a_cancelled_call_closes_its_connection_and_frees_its_place():
    async def main(fake):
        async with AsyncClient(fake.url, connections=1) as client:
            call = asyncio.create_task(client.models())
            await eventually(lambda: fake.asked)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await eventually(lambda: fake.gone == 1)
            assert await client.models() == ["m"]

    with serving(HOLD, NAMES) as fake:
        asyncio.run(main(fake))
    assert fake.connections == 2


def test_parts_are_cancelled_with_their_caller():
    config = reply(b'{"max_batch_size":1}', close=False)

    async def main(fake):
        async with AsyncClient(fake.url) as client:
            await client.metadata("m")
            call = asyncio.create_task(client.predict_all("m", [[1.0]] * 9, parallel=3))
            await eventually(lambda: len(fake.asked) == 6)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await eventually(lambda: fake.gone == 3)

    with serving(reply(METADATA, close=False), config, config, HOLD, HOLD, HOLD) as fake:
        asyncio.run(main(fake))


def test_an_event_loop_has_a_client_of_its_own(url):
    client = AsyncClient(url)

    async def once():
        await client.models()
        await client._transport.close()

    asyncio.run(once())
    with pytest.raises(SalverError, match="another event loop") as caught:
        asyncio.run(once())
    assert caught.value.code == "CONFLICT"


def test_a_closed_client_says_so(kind, root):
    with kind(root) as client:
        client.models()
    with kind(root) as client:
        client.models()
        client.close()
        with pytest.raises(SalverError, match="closed") as caught:
            client.models()
        assert caught.value.code == "CONFLICT"


def test_closing_ends_who_waits_for_a_retry():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}")
    client._closed.set()
    with pytest.raises(SalverError, match="closed"):
        client.models()
    client.close()


@pytest.mark.parametrize("option", [{"connections": 0}, {"connections": 1.5}, {"connections": 10**6}])
def test_what_is_no_number_of_connections_is_refused(kind, option):
    with pytest.raises(SalverError) as caught:
        kind("http://127.0.0.1:1", **option)
    assert caught.value.code == "INVALID_SETTING"
