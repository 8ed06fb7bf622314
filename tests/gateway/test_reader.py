"""What is no request, what is too large a one, and what two readers could read differently."""

from __future__ import annotations

import json

import pytest
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import eventually, request, row

from salver.gateway.limits import Limits
from salver.gateway.routes import HttpRoute

SENTINEL = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nX-Request-Id: sentinel\r\n\r\n"
GET = b"GET /v2/health/live HTTP/1.1\r\n"
POST = b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

UNREADABLE = {
    # Two lengths, or a length and chunks.
    "CL.TE": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "TE.CL": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST",
    "two lengths that differ": POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "two lengths that agree": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "lengths in a list": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "lengths that differ in a list": POST + b"Content-Length: 0, 44\r\n\r\n",
    "length with a plus": POST + b"Content-Length: +5\r\n\r\nabcde",
    "length in hexadecimal": POST + b"Content-Length: 0x10\r\n\r\n0123456789abcdef",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "length with a space": POST + b"Content-Length: 3 3\r\n\r\nabc",
    "length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "length beyond 64 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\nx",
    "length of 5000 digits": POST + b"Content-Length: " + b"0" * 4999 + b"3\r\n\r\nabc",
    "length of 19 digits": POST + b"Content-Length: 0000000000000000003\r\n\r\nabc",
    "fraction as length": POST + b"Content-Length: 3.0\r\n\r\nabc",
    "length in superscript": POST + "Content-Length: \N{SUPERSCRIPT TWO}\r\n\r\nab".encode("latin-1"),
    # Transfer codings.
    "TE xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE identity, chunked": POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "TE gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
    "TE with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE twice, then identity": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "TE empty": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "TE with a parameter": POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "TE behind a space": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE behind a bare LF": POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "TE with NUL": POST + b"Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": b"POST /v2/models/toy/infer HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0 kept alive": b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    # Chunks.
    "chunk of size 0x1": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk of size +1": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "chunk of size -1": CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
    "chunk of size 1_0": CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "chunk size with a space before": CHUNKED + b" 1\r\na\r\n0\r\n\r\n",
    "chunk size with a space behind": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": CHUNKED + b"10000000000000001\r\na\r\n0\r\n\r\n",
    "chunk without size": CHUNKED + b"\r\na\r\n0\r\n\r\n",
    "chunk size ended by LF": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "chunk size ended by CR": CHUNKED + b"1\ra\r\n0\r\n\r\n",
    "chunk extension with LF": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "chunk extension with CR": CHUNKED + b"1;a\rb\r\na\r\n0\r\n\r\n",
    "chunk ended by LF": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "chunk ended by other bytes": CHUNKED + b"1\r\naXX0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"1\r\naa\r\n0\r\n\r\n",
    "last chunk ended by LF": CHUNKED + b"0\n\n",
    "trailer with Content-Length": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "trailers ended by LF": CHUNKED + b"0\r\n\n",
    # Lines.
    "bare LF everywhere": b"GET /v2/health/live HTTP/1.1\nHost: a\n\n",
    "bare LF behind the request line": b"GET /v2/health/live HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF behind a header": GET + b"Host: a\nX: y\r\n\r\n",
    "bare LF at the end": GET + b"Host: a\r\n\n",
    "bare CR in a value": GET + b"Host: a\rX: y\r\n\r\n",
    "bare CR behind a header": GET + b"Host: a\r\r\n\r\n",
    "folded header": GET + b"Host: a\r\nX: b\r\n c\r\n\r\n",
    "folded first header": GET + b" Host: a\r\n\r\n",
    "space before the colon": GET + b"Host : a\r\n\r\n",
    "tab in a name": GET + b"Ho\tst: a\r\n\r\n",
    "no name": GET + b"Host: a\r\n: b\r\n\r\n",
    "no colon": GET + b"Host: a\r\nbare\r\n\r\n",
    "NUL in a name": GET + b"Host: a\r\nX\0: y\r\n\r\n",
    "NUL in a value": GET + b"Host: a\r\nX: y\0z\r\n\r\n",
    "control character in a value": GET + b"Host: a\r\nX: \x01\r\n\r\n",
    "letters beyond ASCII in a name": GET + "Host: a\r\nNäme: x\r\n\r\n".encode(),
    # Hosts.
    "no host": GET + b"\r\n",
    "two hosts": GET + b"Host: a\r\nHost: a\r\n\r\n",
    "host with a path": GET + b"Host: a/b\r\n\r\n",
    "host with a user": GET + b"Host: b@a\r\n\r\n",
    "host with a space": GET + b"Host: a b\r\n\r\n",
    "hosts in a list": GET + b"Host: a, b\r\n\r\n",
    # Request lines.
    "HTTP/0.9": b"GET /v2/health/live\r\n\r\n",
    "HTTP/0.9 by name": b"GET /v2/health/live HTTP/0.9\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET /v2/health/live HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET /v2/health/live HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2.0 kept alive": b"GET /v2/health/live HTTP/2.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n",
    "http/1.1": b"GET /v2/health/live http/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
    "unknown method": b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n",
    "method in lower case": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tabs in the request line": b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "space behind the version": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the target": b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "target without a slash": b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n",
    "no request but TLS": bytes.fromhex("16030100c8010000c40303"),
    # What else changes how a request is read.
    "two authorizations": GET + b"Host: a\r\nAuthorization: Bearer x\r\nAuthorization: Bearer y\r\n\r\n",
    "two content types": GET + b"Host: a\r\nContent-Type: text/plain\r\nContent-Type: application/json\r\n\r\n",
    "two content codings": GET + b"Host: a\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n",
    "two JSON lengths": POST + b"Inference-Header-Content-Length: 1\r\nInference-Header-Content-Length: 2\r\n\r\n",
    "unknown expectation": POST + b"Expect: 200-ok\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("attack", UNREADABLE)
def test_what_two_readers_could_read_differently_ends_the_connection(server: Served, attack: str) -> None:
    client = server.connect()
    client.try_send(UNREADABLE[attack] + SENTINEL)
    reply = client.read()
    assert (reply.status, reply.code) == (400, "BAD_HTTP")
    assert reply.headers["connection"] == "close"
    assert "x-request-id" in reply.headers
    assert client.is_closed()
    assert server.get("/v2/health/live").status == 200


@pytest.mark.parametrize("attack", UNREADABLE)
def test_an_attack_in_single_bytes_fares_no_better(server: Served, attack: str) -> None:
    client = server.connect()
    data = UNREADABLE[attack] + SENTINEL
    # The last bytes that matter one by one; behind the reply the rest is thrown away.
    for at in range(max(0, len(data) - 160)):
        if at % 32 == 0:
            client.try_send(data[at : min(at + 32, len(data) - 160)])
    for at in range(max(0, len(data) - 160), len(data)):
        client.try_send(data[at : at + 1])
    assert client.read().code == "BAD_HTTP"
    assert client.is_closed()


READABLE = {
    "chunk extension": CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n",
    "chunk size with zeros": CHUNKED + b"0002\r\n{}\r\n000\r\n\r\n",
    "chunks of one byte": CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    "chunked in capitals": POST + b"Transfer-Encoding: ChUnKeD\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"2\r\n{}\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n",
    "length with zeros": POST + b"Content-Length: 002\r\n\r\n{}",
    "length with space around": POST + b"Content-Length:   2  \r\n\r\n{}",
    "no host in HTTP/1.0, kept alive": b"POST /v2/models/toy/infer HTTP/1.0\r\nConnection: keep-alive\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    "empty lines before": b"\r\n\r\n" + POST + b"Content-Length: 2\r\n\r\n{}",
    "header without value": POST + b"X-Empty:\r\nContent-Length: 2\r\n\r\n{}",
    "host with a port": POST.replace(b"Host: a", b"Host: [::1]:8080") + b"Content-Length: 2\r\n\r\n{}",
    "empty host": POST.replace(b"Host: a", b"Host:") + b"Content-Length: 2\r\n\r\n{}",
    "header of many values": POST + b"X: a\r\nX: b\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("oddity", READABLE)
@pytest.mark.parametrize("step", [10_000, 1])
def test_what_is_merely_odd_is_read_and_the_next_request_too(server: Served, oddity: str, step: int) -> None:
    client = server.connect()
    data = READABLE[oddity] + SENTINEL
    for at in range(0, len(data), step):
        client.send(data[at : at + step])
    reply = client.read()
    assert reply.code == "INVALID_JSON"  # the body {} arrived: it lacks inputs
    assert "inputs" in reply.error
    assert client.read().headers["x-request-id"] == "sentinel"


def test_a_trailer_is_no_header(serve_routes: Serve) -> None:
    seen = []

    def look(exchange):
        seen.append(dict(exchange.headers))
        exchange.reply_json({})

    server = serve_routes(HttpRoute("POST", "/look", None, look, "Look"))
    client = server.connect()
    client.send(b"POST /look HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"0\r\nAuthorization: Bearer x\r\nHost: b\r\nX-Request-Id: smuggled\r\n\r\n")
    reply = client.read()
    assert reply.status == 200
    assert reply.headers["x-request-id"] != "smuggled"
    assert client.ask(request("POST", "/look", b"")).status == 200
    assert seen == [{b"host": b"a", b"transfer-encoding": b"chunked"}, {b"host": b"localhost", b"content-length": b"0"}]


# Bodies: F23.


def test_a_body_declared_too_large_is_refused_before_it_comes(server: Served) -> None:
    client = server.connect()
    client.send(POST + b"X-Request-Id: mine\r\nContent-Length: 4194305\r\n\r\n")
    reply = client.read()
    assert (reply.status, reply.code) == (413, "BODY_TOO_LARGE")
    assert "4194305" in reply.error
    assert "4194304" in reply.error
    assert reply.headers["x-request-id"] == "mine"
    assert client.is_closed()


def test_the_largest_body_declared_allocates_nothing(server: Served) -> None:
    client = server.connect()
    client.send(POST + b"Content-Length: 4194304\r\n\r\nx")
    eventually(lambda: server.gateway.inflight_bytes)
    assert server.gateway.inflight_bytes == 1


def test_a_chunked_body_is_refused_where_it_becomes_too_large(server: Served) -> None:
    client = server.connect()
    client.send(CHUNKED)
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    client.try_send(chunk * 70)
    reply = client.read()
    assert (reply.status, reply.code) == (413, "BODY_TOO_LARGE")
    assert client.is_closed()


def test_a_chunk_declared_larger_than_any_body_is_refused_as_its_bytes_come(server: Served) -> None:
    client = server.connect()
    client.send(CHUNKED + b"ffffffff\r\n")
    client.try_send(b" " * (4 * 2**20 + 1))
    assert client.read().code == "BODY_TOO_LARGE"


def test_more_bytes_than_declared_are_the_next_request(server: Served) -> None:
    client = server.connect()
    client.send(POST + b"Content-Length: 2\r\n\r\n{}}}")
    assert client.read().code == "INVALID_JSON"
    assert client.read().code == "BAD_HTTP"
    assert client.is_closed()


def test_fewer_bytes_than_declared_are_waited_for_and_then_dropped(server: Served) -> None:
    client = server.connect()
    client.send(POST + b"Content-Length: 100\r\n\r\n{}")
    eventually(lambda: server.gateway.inflight_bytes)
    client.close()
    eventually(server.is_quiet)


def test_a_body_in_many_parts_arrives_whole(server: Served) -> None:
    body = json.dumps(row(5, 6, 7, 1)).encode()
    client = server.connect()
    client.send(request("POST", "/v2/models/toy/infer", body)[: -len(body)])
    for at in range(len(body)):
        client.send(body[at : at + 1])
    assert client.read().json["outputs"][1]["data"] == [6, 7, 8]
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert client.ask(CHUNKED + chunks).json["outputs"][1]["data"] == [6, 7, 8]


def test_all_bodies_together_are_bounded_as_they_come(server: Served) -> None:
    """Each was declared while there was room for it; 16 MiB are allowed in all."""
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.send(POST + b"Content-Length: 4194304\r\n\r\n")
    eventually(lambda: len(server.gateway.lanes) == 5)
    for client in clients[:4]:
        client.send(b" " * (4 * 2**20 - 1))
    eventually(lambda: server.gateway.inflight_bytes == 16 * 2**20 - 4)
    clients[4].try_send(b" " * 5)
    reply = clients[4].read()
    assert (reply.status, reply.code) == (429, "QUEUE_FULL")
    assert reply.headers["retry-after"] == "1"
    assert "16777217" in reply.error
    eventually(lambda: server.gateway.inflight_bytes == 16 * 2**20 - 4)
    refused = server.infer(row())
    assert refused.code == "QUEUE_FULL"  # already by what its header declares


def test_endless_chunk_framing_is_refused(server: Served) -> None:
    for beginning, more in ((b"1;", b"a"), (b"", b"0"), (b"0\r\nX-Trailer: ", b"a"), (b"0\r\n", b"X: y\r\n")):
        client = server.connect()
        client.send(CHUNKED + beginning)
        for _ in range(20):
            client.try_send(more * (40_000 // len(more)))
        reply = client.read()
        assert reply.code == "BAD_HTTP"
        assert client.is_closed()


# Headers: F26.


def test_headers_beyond_16_kib_are_refused(server: Served) -> None:
    reply = server.ask(request("GET", "/v2/health/live", headers=(f"Cookie: {'a' * 100_000}",)))
    assert (reply.status, reply.code) == (431, "HEADERS_TOO_LARGE")
    assert "16384" in reply.error


@pytest.mark.parametrize("step", [100, 5000])
def test_headers_that_never_end_are_refused_before_they_complete(server: Served, step: int) -> None:
    client = server.connect()
    client.send(GET + b"Host: a\r\nX: ")
    for _ in range(20_000 // step):
        client.try_send(b"a" * step)
    assert client.read().status == 431
    assert client.is_closed()


def test_headers_of_a_request_sent_ahead_are_counted_too(server: Served) -> None:
    client = server.connect()
    client.send(request("GET", "/v2/health/live") + request("GET", "/", headers=(f"X: {'a' * 20_000}",)))
    assert client.read().status == 200
    assert client.read().status == 431


def test_many_requests_sent_ahead_are_not_one_large_one(server: Served) -> None:
    client = server.connect()
    one = request("GET", "/v2/health/live", headers=("X: " + "a" * 1000,))
    client.send(one * 30 + one[:-2])
    assert [client.read().status for _ in range(30)] == [200] * 30
    client.send(b"\r\n")
    assert client.read().status == 200


def test_empty_lines_without_end_are_refused(server: Served) -> None:
    client = server.connect()
    client.try_send(b"\r\n" * 10_000)
    assert client.read().status == 431


def test_100_headers_are_read_and_101_are_not(server: Served) -> None:
    many = tuple(f"X-{n}: y" for n in range(99))
    assert server.get("/v2/health/live", *many).status == 200
    reply = server.get("/v2/health/live", *many, "X-99: y")
    assert (reply.status, reply.code) == (431, "HEADERS_TOO_LARGE")


def test_one_header_repeated_101_times_counts_101_times(server: Served) -> None:
    assert server.get("/v2/health/live", *["X: y"] * 100).status == 431


def test_10_000_headers_are_refused(server: Served) -> None:
    client = server.connect()
    client.try_send(GET + b"Host: a\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n")
    assert client.read().status == 431


@pytest.mark.parametrize("length", [8192, 12_000, 100_000])
def test_a_long_target_is_refused(server: Served, length: int) -> None:
    client = server.connect()
    client.try_send(request("GET", "/" + "a" * length))
    reply = client.read()
    assert (reply.status, reply.code) == (414, "URI_TOO_LONG")
    assert client.is_closed()


def test_the_limits_are_those_that_are_set(serve_routes: Serve) -> None:
    server = serve_routes(limits=Limits(header_bytes=200, uri_bytes=50, headers=3))
    assert server.get("/").status == 200
    assert server.get("/", f"X: {'a' * 200}").status == 431
    assert server.get("/", "A: b", "C: d", "E: f").status == 431
    assert server.get("/" + "a" * 50).status == 414


def test_a_mutation_of_the_corpus_is_answered_or_waited_for_but_breaks_nothing(server: Served) -> None:
    """Every attack cut short at every third byte: the server keeps its head."""
    for attack in list(UNREADABLE.values())[::4]:
        for end in range(1, len(attack), max(3, len(attack) // 12)):
            client = server.connect()
            client.try_send(attack[:end])
            client.close()
            server.clients.remove(client)
    assert server.get("/v2/health/live").status == 200
