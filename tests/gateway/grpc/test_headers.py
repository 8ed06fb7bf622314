"""Header blocks: read once, and always as a plain decoder reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import hpack
import pytest
from hpack.hpack import encode_integer
from hypothesis import given
from hypothesis import strategies as st

from salver.gateway.grpc.frames import ErrorCode, Http2Error
from salver.gateway.grpc.headers import Head, HeaderDecoder, encode_headers, literal

USUAL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/inference.GRPCInferenceService/ModelInfer"),
    (":authority", "localhost:8081"),
    ("content-type", "application/grpc"),
]


def decoder(header_bytes: int = 16384, most: int = 100) -> HeaderDecoder:
    return HeaderDecoder(header_bytes, most)


def head(*more: tuple[str, str], start: Iterable[tuple[str, str]] = USUAL) -> Head:
    return decoder().decode(hpack.Encoder().encode([*start, *more]))


def refused(block: bytes, reader: HeaderDecoder | None = None) -> ErrorCode:
    with pytest.raises(Http2Error) as caught:
        (reader or decoder()).decode(block)
    return caught.value.code


# Reading once.

NAMES = st.sampled_from([b"a", b"content-type", b"x-request-id", b"user-agent"])
VALUES = st.sampled_from([b"", b"1", b"application/grpc", b"v" * 60, b"w" * 900])
FIELD = st.tuples(st.sampled_from(["indexed", "plain", "never"]), NAMES, VALUES, st.booleans())
BLOCK = st.tuples(st.lists(st.sampled_from([0, 100, 200, 4096]), max_size=2), st.lists(FIELD, max_size=3))


def string(value: bytes, huffman: bool) -> bytes:
    if huffman:
        coder = hpack.huffman.HuffmanEncoder(
            hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
        )
        value = coder.encode(value)
    prefix = encode_integer(len(value), 7)
    prefix[0] |= 0x80 if huffman else 0
    return bytes(prefix) + value


def block_of(sizes: list[int], fields: list[tuple[str, bytes, bytes, bool]], indices: list[int]) -> bytes:
    updates = b""
    for size in sizes:
        prefix = encode_integer(size, 5)
        prefix[0] |= 0x20
        updates += bytes(prefix)
    first = {"indexed": b"\x40", "plain": b"\x00", "never": b"\x10"}
    literals = b"".join(first[kind] + string(name, h) + string(value, h) for kind, name, value, h in fields)
    references = b"".join(bytes((0x80 | index,)) for index in indices)
    return updates + references + literals


@given(
    st.lists(
        st.one_of(st.integers(0, 5), st.tuples(BLOCK, st.lists(st.integers(62, 66), max_size=2))),
        min_size=1,
        max_size=25,
    )
)
def test_blocks_mean_what_a_plain_decoder_says_however_they_come_again(steps: list) -> None:
    ours, plain = decoder(), hpack.Decoder()
    sent: list[bytes] = []
    for step in steps:
        if isinstance(step, int):
            if not sent:
                continue
            block = sent[step % len(sent)]
        else:
            (sizes, fields), drawn = step
            # References that lead somewhere, as a client's do.
            entries = 0 if sizes else len(plain.header_table.dynamic_entries)
            indices = [62 + index % entries for index in drawn] if entries else []
            block = block_of(sizes, fields, indices)
        sent.append(block)
        try:
            pairs = plain.decode(block, raw=True)
        except hpack.HPACKError:
            assert refused(block, ours) is ErrorCode.COMPRESSION_ERROR
            return
        expected: dict[bytes, bytes] = {}
        for name, value in pairs:
            expected[name] = expected[name] + b"," + value if name in expected else value
        assert ours.decode(block).headers == expected


def test_a_table_emptied_by_a_size_update_is_not_forgotten() -> None:
    reader = decoder()
    add = b"\x40" + string(b"a", False) + string(b"1", False)
    reader.decode(add)
    assert reader.decode(b"\xbe").headers == {b"a": b"1"}
    assert reader.decode(b"\xbe").headers == {b"a": b"1"}
    reader.decode(b"\x20")
    assert refused(b"\xbe", reader) is ErrorCode.COMPRESSION_ERROR


def test_a_block_is_read_anew_when_the_table_has_changed() -> None:
    reader = decoder()
    first, second = (b"\x40" + string(b"a", False) + string(value, False) for value in (b"1", b"2"))
    for _ in range(2):
        reader.decode(first)
        assert reader.decode(b"\xbe").headers == {b"a": b"1"}
        reader.decode(second)
        assert reader.decode(b"\xbe").headers == {b"a": b"2"}


def test_blocks_that_come_again_cost_no_decoding() -> None:
    reader, encoder = decoder(), hpack.Encoder()
    reader.decode(encoder.encode(USUAL))
    again = encoder.encode(USUAL)
    first = reader.decode(again)
    assert reader.decode(again) is first
    assert reader.decode(encoder.encode([*USUAL, ("x", "new")])) is not first
    assert reader.decode(encoder.encode(USUAL)) == first


def test_what_is_remembered_is_bounded() -> None:
    reader = decoder()
    for n in range(1000):
        reader.decode(encode_headers([(b"n", b"%d" % n)]))
    assert len(reader._known) <= 64
    long = encode_headers([(b"n", b"x" * 600)])
    reader.decode(long)
    assert long not in reader._known


# What it says.


def test_a_head_says_what_came() -> None:
    said = head(("x-a", "1"), ("x-a", "2"))
    assert (said.method, said.path) == (b"POST", b"/inference.GRPCInferenceService/ModelInfer")
    assert said.headers == {b"content-type": b"application/grpc", b"x-a": b"1,2"}
    assert said.timeout_s == math.inf
    assert said.is_grpc


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("40m", 0.04), ("50u", 5e-5), ("60n", 6e-8), ("99999999S", 99999999)],
)
def test_a_timeout_has_units(text: str, seconds: float) -> None:
    assert head(("grpc-timeout", text)).timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "S", "-1S", "1.5S", "100000000S", "1s", "1 S", "nan"])
def test_a_timeout_that_is_none_is_no_number(text: str) -> None:
    assert math.isnan(head(("grpc-timeout", text)).timeout_s)


def test_two_timeouts_are_none() -> None:
    assert math.isnan(head(("grpc-timeout", "1S"), ("grpc-timeout", "2S")).timeout_s)


@pytest.mark.parametrize(
    ("kind", "is_grpc"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc;a=b", True),
        ("application/grpc+json", False),
        ("application/grpc-web", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_the_content_type_decides_whether_it_is_grpc(kind: str, is_grpc: bool) -> None:
    assert head(("content-type", kind), start=USUAL[:-1]).is_grpc is is_grpc


def test_only_post_is_grpc() -> None:
    assert not head(start=[(":method", "GET"), *USUAL[1:]]).is_grpc


# What is refused.


@pytest.mark.parametrize(
    "more",
    [
        ("Upper", "1"),
        ("a b", "1"),
        ("", "1"),
        ("a", "1\r\nb: 2"),
        ("a", "\0"),
        ("a", "1\n"),
        (":path", "/behind"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "1"),
        ("proxy-connection", "1"),
    ],
)
def test_names_and_values_that_cannot_be_are_refused(more: tuple[str, str]) -> None:
    block = encode_headers([(n.encode(), v.encode()) for n, v in [*USUAL, more]])
    assert refused(block) is ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("pseudo", [":path", ":status", ":", ":protocol"])
def test_pseudo_headers_come_once_and_are_known(pseudo: str) -> None:
    block = encode_headers([(n.encode(), v.encode()) for n, v in [(pseudo, "/"), *USUAL]])
    assert refused(block) is ErrorCode.PROTOCOL_ERROR


def test_too_many_headers_are_refused() -> None:
    few = encode_headers([(b"a%d" % n, b"") for n in range(100)])
    assert len(decoder().decode(few).headers) == 100
    assert refused(few + literal(b"b", b"")) is ErrorCode.ENHANCE_YOUR_CALM


def test_too_large_headers_are_refused_also_as_a_bomb_of_references() -> None:
    assert refused(literal(b"a", b"x" * 17000)) is ErrorCode.ENHANCE_YOUR_CALM
    reader = decoder()
    reader.decode(b"\x40" + string(b"a", False) + string(b"x" * 3000, False))
    assert refused(b"\xbe" * 90, reader) is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff" * 5000,
        b"\xbe",
        b"\x00\x05abc",
        b"\x00",
        b"\x40\x01a",
        b"\x00\x81\xff\x00",
        b"\x3f\xe2\x1f",
        b"\x82\x20",
        b"\x00\x83\xff\xff\xff\x00",
    ],
    ids=lambda block: block[:6].hex(),
)
def test_what_hpack_cannot_read_is_refused(block: bytes) -> None:
    assert refused(block) is ErrorCode.COMPRESSION_ERROR


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(block: bytes) -> None:
    try:
        decoder().decode(block)
    except Http2Error as error:
        assert error.code in {ErrorCode.COMPRESSION_ERROR, ErrorCode.PROTOCOL_ERROR, ErrorCode.ENHANCE_YOUR_CALM}


# Writing.


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300))))
def test_what_is_written_is_read_back_and_enters_no_table(pairs: list[tuple[bytes, bytes]]) -> None:
    plain = hpack.Decoder(max_header_list_size=2**20)
    assert [tuple(pair) for pair in plain.decode(encode_headers(pairs), raw=True)] == pairs
    assert not plain.header_table.dynamic_entries
