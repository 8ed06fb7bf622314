"""Media types and compression, asked for and sent, and what compression may hide."""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from typing import Any

import pytest
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import eventually, request, row

from salver.gateway.limits import Limits
from salver.gateway.negotiation import check_accept, check_content_type, decompress, wanted_encoding
from salver.protocol.errors import SalverError

BODY = json.dumps(row(1, 2, 3, 4)).encode()
SCORES = [5, 6, 7]
PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "GZip": gzip.compress}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def scores(reply) -> list[float]:
    return reply.json["outputs"][1]["data"]


# Compressed requests: F24.


@pytest.mark.parametrize("coding", PACK)
def test_a_compressed_body_is_read(server: Served, coding: str) -> None:
    assert scores(server.infer(PACK[coding](BODY), f"Content-Encoding: {coding}")) == SCORES


def test_identity_is_no_coding(server: Served) -> None:
    assert scores(server.infer(BODY, "Content-Encoding: identity")) == SCORES


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_large_compressed_body_is_read(server: Served, coding: str) -> None:
    rows = 256
    body = {"inputs": [{"name": "X", "shape": [rows, 4], "datatype": "FP32", "data": [0.123456] * (4 * rows)}]}
    body["id"] = "".join(map(str, range(20_000)))  # to be larger than what is decompressed on the loop
    packed = PACK[coding](json.dumps(body).encode())
    assert len(packed) > 20_000
    reply = server.infer(packed, f"Content-Encoding: {coding}")
    assert len(scores(reply)) == 3 * rows


def test_binary_tensors_behind_compressed_json_are_measured_uncompressed(server: Served) -> None:
    head = json.dumps(
        {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}
    ).encode()
    body = gzip.compress(head + struct.pack("<4f", 1, 2, 3, 4))
    reply = server.infer(body, "Content-Encoding: gzip", f"Inference-Header-Content-Length: {len(head)}")
    assert scores(reply) == SCORES


@pytest.mark.parametrize("coding", ["gzip, gzip", "gzip,deflate", "br", "zstd", "compress", "gzip;q=1", "", "\xe9"])
def test_other_codings_and_several_are_not_understood(server: Served, coding: str) -> None:
    data = request("POST", "/v2/models/toy/infer", gzip.compress(BODY), ("Content-Encoding: @",))
    reply = server.ask(data.replace(b"@", coding.encode("latin-1"), 1))
    assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_coding_inside_a_coding_is_no_json(server: Served) -> None:
    reply = server.infer(gzip.compress(gzip.compress(BODY)), "Content-Encoding: gzip")
    assert (reply.status, reply.code) == (400, "INVALID_JSON")


def wrong_sum(packed: bytes) -> bytes:
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


DAMAGED = {
    "cut short": ("gzip", gzip.compress(BODY)[:-9]),
    "without its end": ("gzip", gzip.compress(BODY)[:-1]),
    "followed by other bytes": ("gzip", gzip.compress(BODY) + b"more"),
    "followed by another member": ("gzip", gzip.compress(BODY) + gzip.compress(b"{}")),
    "of a wrong sum": ("gzip", wrong_sum(gzip.compress(BODY))),
    "of a wrong length": ("gzip", gzip.compress(BODY)[:-1] + b"\1"),
    "empty": ("gzip", b""),
    "not compressed": ("gzip", BODY),
    "zlib called gzip": ("gzip", zlib.compress(BODY)),
    "gzip called deflate": ("deflate", gzip.compress(BODY)),
    "raw deflate": ("deflate", zlib.compress(BODY)[2:-4]),
    "zlib of a wrong sum": ("deflate", zlib.compress(BODY)[:-1] + b"\0"),
    "zlib cut short": ("deflate", zlib.compress(BODY)[:-5]),
    "zlib with a dictionary": ("deflate", bytes.fromhex("78bb") + zlib.compress(BODY)[2:]),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_compressed_body_is_refused(server: Served, damage: str) -> None:
    coding, body = DAMAGED[damage]
    client = server.connect()
    reply = client.ask(request("POST", "/v2/models/toy/infer", body, (f"Content-Encoding: {coding}",)))
    assert (reply.status, reply.code) == (400, "BAD_HTTP")
    assert coding in reply.error
    # The stream is in order, only the body was not: the connection goes on.
    assert client.ask(request("GET", "/v2/health/live")).status == 200


def test_a_large_damaged_body_is_refused_from_where_it_is_read(server: Served) -> None:
    reply = server.infer(bytes(100_000), "Content-Encoding: gzip")
    assert (reply.status, reply.code) == (400, "BAD_HTTP")


@pytest.mark.parametrize("size", [10 * 2**20, 3 * 2**30])
def test_a_bomb_is_refused_after_its_first_bytes(server: Served, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = zlib.compressobj(9, wbits=31)
    first = encoder.compress(bytes(2**20)) + encoder.flush(zlib.Z_FULL_FLUSH)
    # Behind a full flush the same block can come again and again.
    block = encoder.compress(bytes(2**20)) + encoder.flush(zlib.Z_FULL_FLUSH)
    bomb = first + block * (size >> 20)
    assert len(bomb) < 4 * 2**20
    produced: list[int] = []

    class Counted:
        def __init__(self, bits: int) -> None:
            self._decoder = decompressobj(bits)

        def decompress(self, *given: Any) -> bytes:
            plain = self._decoder.decompress(*given)
            produced.append(len(plain))
            return plain

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counted)
    reply = server.infer(bomb, "Content-Encoding: gzip")
    assert (reply.status, reply.code) == (413, "BODY_TOO_LARGE")
    assert produced == [int(re.search(r"exceeds (\d+) bytes", reply.error)[1]) + 1]
    assert produced[0] < size
    assert server.get("/v2/health/live").status == 200


def test_a_body_may_expand_a_hundredfold_and_no_more() -> None:
    plain = bytes(3 * 2**20)
    with pytest.raises(SalverError, match="1048576 bytes"):
        decompress(zlib.compress(plain), b"deflate", 2**30)
    stored = zlib.compress(plain[: 2**20])
    assert len(decompress(stored, b"deflate", 2**30)) == 2**20
    loose = zlib.compress(plain, 0)
    assert decompress(loose, b"deflate", 2**30) == plain
    with pytest.raises(SalverError, match="2097152 bytes"):
        decompress(loose, b"deflate", 2**21)


def test_what_a_body_expands_to_counts_among_the_bodies_in_flight(serve_model: Serve) -> None:
    server = serve_model(Limits(body_bytes=2**20, inflight_bytes=2**20))
    body = zlib.compress(b" " * (2**20 - 200) + BODY)
    first = server.connect()
    first.send(request("POST", "/v2/models/held/infer", body, ("Content-Encoding: deflate",)))
    eventually(lambda: server.held.asked)
    assert server.gateway.inflight_bytes == 2**20 - 200 + len(BODY)
    reply = server.infer(body, "Content-Encoding: deflate")
    assert (reply.status, reply.code) == (429, "QUEUE_FULL")
    server.answer_held()
    assert first.read().status == 200
    eventually(lambda: server.gateway.inflight_bytes == 0)
    assert server.infer(body, "Content-Encoding: deflate").status == 200


# Compressed answers.


def many_rows(count: int) -> dict:
    return {"inputs": [{"name": "X", "shape": [count, 4], "datatype": "FP32", "data": [0.1] * (4 * count)}]}


@pytest.mark.parametrize("coding", UNPACK)
def test_an_answer_is_compressed_for_those_who_ask(server: Served, coding: str) -> None:
    plain = server.infer(many_rows(200))
    packed = server.infer(many_rows(200), f"Accept-Encoding: {coding}")
    assert packed.headers["content-encoding"] == coding
    assert packed.headers["vary"] == "accept-encoding"
    assert len(packed.body) < len(plain.body) / 2
    assert UNPACK[coding](packed.body) == plain.body


def test_binary_answers_are_compressed_too(server: Served) -> None:
    body = {**many_rows(200), "parameters": {"binary_data_output": True}}
    plain = server.infer(body)
    packed = server.infer(body, "Accept-Encoding: gzip")
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["inference-header-content-length"] == plain.headers["inference-header-content-length"]


def test_a_large_answer_is_compressed_off_the_loop(server: Served) -> None:
    server.held.width = 300_000
    client = server.connect()
    client.send(request("POST", "/v2/models/held/infer", BODY, ("Accept-Encoding: gzip",)))
    server.answer_held()
    reply = client.read()
    assert len(json.loads(gzip.decompress(reply.body))["outputs"][0]["data"]) == 300_000


def test_a_client_that_goes_while_its_answer_is_compressed_leaves_nothing(server: Served) -> None:
    server.held.width = 300_000
    for _ in range(5):
        client = server.connect()
        client.send(request("POST", "/v2/models/held/infer", BODY, ("Accept-Encoding: gzip",)))
        server.answer_held()
        client.reset()
    eventually(server.is_quiet)


@pytest.mark.parametrize("accept", ["identity", "br", "gzip;q=0", "gzip;q=0.000, deflate;q=0", "*;q=0", ""])
def test_an_answer_is_not_compressed_for_others(server: Served, accept: str) -> None:
    reply = server.infer(many_rows(200), f"Accept-Encoding: {accept}")
    assert "content-encoding" not in reply.headers
    assert len(scores(reply)) == 600


def test_a_small_answer_is_not_worth_compressing(server: Served) -> None:
    assert "content-encoding" not in server.infer(BODY, "Accept-Encoding: gzip").headers


def test_the_coding_a_client_prefers_is_taken() -> None:
    assert wanted_encoding(b"gzip;q=0.1, deflate;q=0.5", 10_000) == b"deflate"
    assert wanted_encoding(b"br;q=1.0, GZIP;q=0.05", 10_000) == b"gzip"
    assert wanted_encoding(b"gzip;q=nonsense", 10_000) is None


# Media types.


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json; charset=utf-8; version=2",
        "application/octet-stream",
        "text/plain",
        "application/x-www-form-urlencoded",
    ],
)
def test_a_body_of_these_types_is_read(server: Served, content_type: str) -> None:
    assert scores(server.infer(BODY, f"Content-Type: {content_type}")) == SCORES


@pytest.mark.parametrize(
    "content_type",
    ["text/csv", "multipart/form-data", "application/json; charset=latin-1", "json", "*/*", ""],
)
def test_a_body_of_other_types_is_not(server: Served, content_type: str) -> None:
    reply = server.infer(BODY, f"Content-Type: {content_type}")
    assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert content_type in reply.error


def test_the_type_of_a_body_is_checked_by_itself() -> None:
    check_content_type(b"application/json")
    with pytest.raises(SalverError, match="text/html"):
        check_content_type(b"text/html")


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/json",
        "application/*;q=0.05",
        "text/html, application/json;q=0.9",
        "Application/JSON",
        "text/*;q=0, */*;q=0.1",
        "application/json;q=1.",
    ],
)
def test_json_is_acceptable(server: Served, accept: str) -> None:
    assert server.infer(BODY, f"Accept: {accept}").status == 200
    assert server.get("/v2", f"Accept: {accept}").status == 200


@pytest.mark.parametrize(
    "accept", ["text/html", "application/octet-stream", "application/json;q=0, */*", "application/json;q=x", ""]
)
def test_json_is_not_acceptable(server: Served, accept: str) -> None:
    for reply in (server.infer(BODY, f"Accept: {accept}"), server.get("/v2", f"Accept: {accept}")):
        assert (reply.status, reply.code) == (406, "NOT_ACCEPTABLE")
        assert "application/json" in reply.error


def test_binary_answers_are_another_type(server: Served) -> None:
    body = {**row(), "parameters": {"binary_data_output": True}}
    assert server.infer(body, "Accept: application/json").code == "NOT_ACCEPTABLE"
    reply = server.infer(body, "Accept: application/octet-stream")
    assert reply.headers["content-type"] == "application/octet-stream"


def test_the_most_specific_range_decides() -> None:
    check_accept(b"*/*;q=0, application/json", b"application/json")
    with pytest.raises(SalverError, match="rules out"):
        check_accept(b"application/*;q=0, */*", b"application/json")


def test_probes_are_answered_whatever_they_accept(server: Served) -> None:
    assert server.get("/v2/health/live", "Accept: text/html").status == 200
    assert server.get("/v2/health/ready", "Accept: text/html").status == 200
