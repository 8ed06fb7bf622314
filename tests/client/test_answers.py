"""What a client makes of answers that a sound server never gives."""

from __future__ import annotations

import pytest
from tests.client.fakes import CLOSE, GOOD, METADATA, Y, answer, refusal, reply, serving

from salver.client import NO_RETRIES, CallError, Retries
from salver.protocol.errors import SalverError


@pytest.mark.parametrize(
    "broken",
    [
        answer(b"no json"),
        answer(b"{}"),
        answer(Y % (b"FP32", b""), b"12345678"),
        answer(Y % (b"FP32", b'"binary_data_size":9'), b"12345678"),
        answer(Y % (b"FP32", b'"binary_data_size":-1'), b"12345678"),
        answer(Y % (b"FP32", b'"binary_data_size":"8"'), b"12345678"),
        answer(Y % (b"FP32", b'"binary_data_size":4'), b"1234"),
        answer(Y % (b"FP32", b'"binary_data_size":8'), b"123456789"),
        answer(Y % (b"BYTES", b'"binary_data_size":8'), b"\xff" * 8),
        answer(Y % (b"FP128", b'"binary_data_size":8'), b"12345678"),
        reply(b"{}", "200 OK", "inference-header-content-length: 3"),
        reply(b"{}", "200 OK", "inference-header-content-length: -1"),
        reply(b"{}", "200 OK", "content-length: 2"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxx",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(kind, broken):
    with serving(reply(METADATA), broken) as fake, kind(fake.url) as client, pytest.raises(SalverError) as caught:
        client.predict("m", [[1.0]])
    assert caught.value.code == "INTERNAL"


@pytest.mark.parametrize(
    ("status", "code"),
    [("502 Bad Gateway", "NOT_READY"), ("403 No", "PERMISSION_DENIED"), ("418 Tea", "BAD_HTTP"), ("599 X", "INTERNAL")],
)
def test_an_answer_without_a_code_gets_the_one_of_its_status(kind, status, code):
    with (
        serving(reply(b"<html>", status)) as fake,
        kind(fake.url, retries=NO_RETRIES) as client,
        pytest.raises(SalverError, match=status[:3]) as caught,
    ):
        client.models()
    assert caught.value.code == code


def test_a_code_from_a_newer_server_falls_back_on_the_status(kind):
    said = reply(b'{"error":"strange"}', "404 Not Found", "x-salver-error: NEVER_HEARD_OF")
    with serving(said) as fake, kind(fake.url) as client, pytest.raises(SalverError, match="strange") as caught:
        client.models()
    assert caught.value.code == "NOT_FOUND"


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\n{", CLOSE])
def test_a_connection_that_breaks_is_an_error_and_no_hang(kind, said):
    with (
        serving(said) as fake,
        kind(fake.url, retries=NO_RETRIES) as client,
        pytest.raises(CallError, match="broke") as caught,
    ):
        client.models()
    assert (caught.value.code, caught.value.may_have_run) == ("NOT_READY", True)


@pytest.mark.parametrize(
    "said",
    [
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n{"mode\r\n9\r\nls":["m"]\r\n1\r\n}\r\n0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"models":["m"]}',
        b'HTTP/1.0 200 OK\r\nx: connection: close\r\n\r\n{"models":["m"]}',
        b'HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{"models":["m"]}',
    ],
)
def test_what_proxies_make_of_an_answer_is_understood(kind, said):
    with serving(said) as fake, kind(fake.url) as client:
        assert client.models() == ["m"]


def test_chunks_that_end_too_early_are_no_answer(kind):
    said = b'HTTP/1.1 200 OK\r\nx: connection: close\r\ntransfer-encoding: chunked\r\n\r\n6\r\n{"mode\r\n'
    with serving(said) as fake, kind(fake.url, retries=NO_RETRIES) as client, pytest.raises(CallError, match="broke"):
        client.models()


def test_a_changed_signature_is_noticed_and_the_request_sent_anew(kind):
    changed = METADATA.replace(b"FP32", b"FP64")
    wrong = refusal("WRONG_DATATYPE", "400 Bad Request")
    with serving(reply(METADATA), GOOD, wrong, reply(changed), GOOD) as fake, kind(fake.url) as client:
        client.predict("m", [[1.0]])
        assert client.predict("m", [[1.0]])["y"].tolist() == [[0.0, 0.0]]
    assert [len(asked.body) > 0 for asked in fake.asked] == [False, True, True, False, True]


def test_a_wrong_request_under_an_unchanged_signature_is_not_sent_anew(kind):
    wrong = refusal("WRONG_SHAPE", "400 Bad Request")
    with serving(reply(METADATA), GOOD, wrong, reply(METADATA)) as fake, kind(fake.url) as client:
        client.predict("m", [[1.0]])
        with pytest.raises(SalverError) as caught:
            client.predict("m", [[1.0]])
    assert caught.value.code == "WRONG_SHAPE"


def test_what_stands_before_the_paths_of_a_server_is_kept(kind):
    with serving(reply(b'{"models":[]}')) as fake, kind(f"{fake.url}/behind/proxy/", retries=Retries()) as client:
        assert client.models() == []
    assert fake.asked[0].line == "GET /behind/proxy/v2/models HTTP/1.1"


def test_a_request_says_who_where_and_until_when(kind):
    with serving(reply(METADATA), GOOD) as fake, kind(fake.url, token="secret", timeout_s=5) as client:
        client.predict("m", [[1.0]], parameters={"mine": 1}, priority=2, timing=True)
    asked = fake.asked[1]
    assert asked.headers["host"] == fake.url.removeprefix("http://")
    assert asked.headers["authorization"] == "bearer secret"
    assert b'"salver_timing":true' in asked.body
    assert b'"mine":1' in asked.body
    assert b'"priority":2' in asked.body
    timeout_us = int(asked.body.partition(b'"timeout":')[2].partition(b",")[0])
    assert 4e6 < timeout_us <= 5e6


def test_the_configuration_says_which_inputs_may_be_left_out(kind):
    config = b'{"max_batch_size":8,"input":[{"name":"X","data_type":"TYPE_FP32","dims":[1],"optional":true}]}'
    with (
        serving(reply(METADATA), reply(config), reply(METADATA), refusal("NOT_FOUND", "404 Not Found")) as fake,
        kind(fake.url) as client,
    ):
        assert client.metadata("m").inputs[0].optional
        assert not client.metadata("m").inputs[0].optional, "a server without the extension does not tell"
