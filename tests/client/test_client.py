from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import numpy as np
import onnxruntime
import pytest

from salver import Client as TheClient
from salver.client import Client
from salver.protocol.errors import SalverError


def test_the_package_offers_the_client():
    assert TheClient is Client


def test_a_prediction_is_what_the_runtime_itself_answers(client, rows, onnx_models):
    label, probabilities = onnxruntime.InferenceSession(onnx_models["iris"]).run(None, {"X": rows})
    answer = client.predict("iris", rows)
    assert np.array_equal(answer["label"], label)
    assert np.array_equal(answer["probabilities"], probabilities)
    assert answer.model_version == "1.0.0"
    assert answer.endpoint == "iris"
    assert answer.warnings == ()
    assert list(answer) == ["label", "probabilities"]
    assert repr(answer) == "<Prediction of iris@1.0.0: label int64[60], probabilities float32[60, 2]>"


def test_lists_do_as_well_as_arrays(client, rows):
    assert np.array_equal(client.predict("iris", rows[:2].tolist())["label"], client.predict("iris", rows[:2])["label"])


def test_the_arrays_of_an_answer_belong_to_the_caller(client, rows):
    answer = client.predict("iris", rows)
    answer["probabilities"][:] = 0
    assert answer["probabilities"].flags.aligned


def test_several_inputs_come_in_a_mapping(client):
    answer = client.predict("sum", {"b": np.int32([[1, 2]]), "a": [[10, 20]]})
    assert answer["y"].tolist() == [[11, 22]]


def test_one_array_for_two_inputs_is_refused_before_anything_is_sent(client):
    with pytest.raises(SalverError, match=r"takes 2 inputs.*'a', 'b'") as caught:
        client.predict("sum", [[1, 2]])
    assert caught.value.code == "MISSING_INPUT"


def test_text_and_half_floats_travel_in_binary(client):
    assert client.predict("text", [["é", b"\x00b"]])["y"].tolist() == [["é".encode(), b"\x00b"]]
    half = np.float16([[1.5, np.inf]])
    assert np.array_equal(client.predict("half", half)["y"], half)


def test_outputs_can_be_chosen(client, rows):
    assert list(client.predict("iris", rows, outputs=["label"])) == ["label"]


def test_a_version_can_be_named_by_number_or_ordinal(client, rows):
    for version in ("1.0.0", 1, "1"):
        assert client.predict("iris", rows[:1], version=version).model_version == "1.0.0"
    with pytest.raises(SalverError) as caught:
        client.predict("iris", rows[:1], version="1.0.0+x/..")
    assert caught.value.code == "NOT_FOUND"


def test_a_request_id_comes_back_with_answers_and_with_errors(client, rows):
    assert client.predict("iris", rows[:1], request_id="mine-1").request_id == "mine-1"
    assert client.predict("iris", rows[:1]).request_id
    with pytest.raises(SalverError) as caught:
        client.predict("iris", rows[:1, :1], request_id="mine-2")
    assert caught.value.__notes__ == ["request id mine-2"]


@pytest.mark.parametrize("bad", ["", "a\nb", "é", "x" * 129])
def test_a_request_id_that_no_header_can_carry_is_refused(client, rows, bad):
    with pytest.raises(SalverError) as caught:
        client.predict("iris", rows[:1], request_id=bad)
    assert caught.value.code == "INVALID_PARAMETER"


def test_values_unlike_the_training_data_bring_a_warning(client, rows):
    assert "X" in client.predict("iris", rows[:1] + 100).warnings[0]


def test_any_number_of_rows_come_as_one_answer(client, rows, onnx_models):
    many = np.concatenate([rows] * 10)
    with pytest.raises(SalverError) as caught:
        client.predict("iris", many)
    assert caught.value.code == "TOO_MANY_ROWS"
    label, probabilities = onnxruntime.InferenceSession(onnx_models["iris"]).run(None, {"X": many})
    told = []
    answer = client.predict_all("iris", many, on_progress=lambda done, all_rows: told.append((done, all_rows)))
    assert np.array_equal(answer["label"], label)
    assert np.array_equal(answer["probabilities"], probabilities)
    assert told == [(256, 600), (512, 600), (600, 600)]
    assert (answer.endpoint, answer.model_version) == ("iris", "1.0.0")
    assert client.predict_all("iris", many.tolist())["label"].tolist() == label.tolist()
    assert list(client.predict_all("iris", many, outputs=iter(["label"]))) == ["label"]
    both = {"a": np.ones((600, 2), np.int32), "b": np.arange(1200, dtype=np.int32).reshape(600, 2)}
    assert np.array_equal(client.predict_all("sum", both)["y"], both["b"] + 1)
    assert len(client.predict_all("text", [["é", b"x"]] * 600)["y"]) == 600


def test_the_parts_are_as_small_as_asked_for_and_a_few_rows_are_one_request(client, rows):
    told = []
    client.predict_all("iris", rows, rows_per_request=25, on_progress=lambda *each: told.append(each))
    assert told == [(25, 60), (50, 60), (60, 60)]
    assert client.predict_all("iris", rows[:1]).request_id
    assert client.predict_all("iris", rows, request_id="mine", rows_per_request=30).request_id == "mine"


def test_a_warning_of_a_part_says_which_rows_it_is_about(client, rows):
    odd = rows.copy()
    odd[[3, 40]] += 100
    answer = client.predict_all("iris", odd, rows_per_request=20)
    assert [warning.partition(":")[0] for warning in answer.warnings] == ["rows 0-19", "rows 40-59"]


@pytest.mark.parametrize(
    ("endpoint", "inputs", "code"),
    [
        ("nowhere", [[1.0], [2.0]], "NOT_FOUND"),
        ("iris", [[1.0], [2.0]], "WRONG_SHAPE"),
        ("iris", 5.0, "WRONG_SHAPE"),
        ("iris", np.empty((0, 3), np.float32), "WRONG_SHAPE"),
        ("sum", {"a": [[1, 2]] * 3, "b": [[1, 2]]}, "WRONG_SHAPE"),
        ("sum", {"a": [[1, 2]] * 3}, "MISSING_INPUT"),
    ],
)
def test_rows_that_do_not_come_apart_are_refused_as_one_request_would_be(client, endpoint, inputs, code):
    with pytest.raises(SalverError) as caught:
        client.predict_all(endpoint, inputs)
    assert caught.value.code == code


def test_the_rows_of_a_request_are_known(client):
    assert client.max_batch("iris") == 256


@pytest.mark.parametrize(
    ("endpoint", "inputs", "options", "code"),
    [
        ("nowhere", [[1.0]], {}, "NOT_FOUND"),
        ("../x", [[1.0]], {}, "INVALID_NAME"),
        ("iris", [[1.0]], {}, "WRONG_SHAPE"),
        ("iris", {"Z": [[1.0]]}, {}, "UNKNOWN_INPUT"),
        ("sum", {"a": [[1, 2]]}, {}, "MISSING_INPUT"),
        ("iris", [[1.0, 2.0, 3.0]], {"outputs": ["zzz"]}, "UNKNOWN_OUTPUT"),
        ("iris", [[1.0, 2.0, 3.0]], {"parameters": {"timeout": -1}}, "INVALID_PARAMETER"),
        ("iris", [[1.0, 2.0, 3.0]], {"timeout_s": 0}, "INVALID_SETTING"),
    ],
)
def test_errors_carry_their_code(client, endpoint, inputs, options, code):
    with pytest.raises(SalverError) as caught:
        client.predict(endpoint, inputs, **options)
    assert caught.value.code == code


def test_metadata_and_models_describe_the_server(client):
    assert client.models() == ["half", "iris", "sum", "text"]
    described = client.metadata("sum")
    assert described.versions == ("1.0.0",)
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [
        ("a", "INT32", (-1, 2)),
        ("b", "INT32", (-1, 2)),
    ]


def test_the_metadata_is_looked_up_once(url, rows, monkeypatch):
    asked = []
    send = httpx2.Client.request
    monkeypatch.setattr(httpx2.Client, "request", lambda *a, **k: asked.append(a[1]) or send(*a, **k))
    with Client(url) as client:
        for _ in range(3):
            client.predict("iris", rows)
    assert asked == ["GET", "POST", "POST", "POST"]


def test_threads_share_one_client_and_each_gets_its_own_answer(client):
    words = [[f"word {number}", "x"] for number in range(100)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda row: client.predict("text", [row])["y"].tolist(), words))
    assert answers == [[[word.encode(), b"x"]] for word, _ in words]


def test_a_server_with_tls_and_tokens_answers_who_has_both(guarded):
    trust = ssl.create_default_context()
    guarded.authority.configure_trust(trust)
    pair = {"a": [[1, 2]], "b": [[3, 4]]}
    with Client(guarded.url, token=guarded.token, verify=trust) as client:
        assert client.predict("sum", pair)["y"].tolist() == [[4, 6]]
    with Client(guarded.url, verify=trust) as client:
        assert client.is_ready()
        with pytest.raises(SalverError) as caught:
            client.predict("sum", pair)
    assert caught.value.code == "UNAUTHENTICATED"


def test_an_untrusted_certificate_is_named_as_the_reason(guarded):
    with Client(guarded.url, token=guarded.token) as client:
        for ask in (client.is_ready, client.models):
            with pytest.raises(SalverError, match="not trusted") as caught:
                ask()
            assert caught.value.code == "REFUSED_BY_POLICY"


def test_nobody_there_is_not_ready():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client:
        assert not client.is_ready()
        with pytest.raises(SalverError, match="salver serve") as caught:
            client.models()
        assert caught.value.code == "NOT_READY"


def test_a_silent_server_runs_into_the_timeout():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05) as client,
    ):
        with pytest.raises(SalverError) as caught:
            client.models()
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert not client.is_ready()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://x", "http://", "http://me:secret@x", "http://[", 7])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(SalverError) as caught:
        Client(url)
    assert caught.value.code == "INVALID_SETTING"


@pytest.mark.parametrize("token", ["", " a", "a\r\nx: y", "é"])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(SalverError) as caught:
        Client("http://127.0.0.1:1", token=token)
    assert caught.value.code == "INVALID_SETTING"


# Servers that answer what a sound one never would.

METADATA = (
    b'{"name":"m","versions":["1.0.0"],"platform":"p","inputs":[{"name":"X","datatype":"FP32","shape":[-1,1]}],'
    b'"outputs":[]}'
)


@contextmanager
def answering(*answers: bytes):
    """A server that gives `answers` in order, one for each request."""
    left = list(answers)
    started, stop = threading.Event(), []
    address = []

    async def one(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        await reader.readexactly(int(length[0]) if length else 0)
        writer.write(left.pop(0))
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        address.append(server.sockets[0].getsockname()[1])
        done = asyncio.Event()
        stop.append((asyncio.get_running_loop(), done))
        started.set()
        async with server:
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    started.wait()
    try:
        with Client(f"http://127.0.0.1:{address[0]}") as client:
            yield client
    finally:
        loop, done = stop[0]
        loop.call_soon_threadsafe(done.set)
        thread.join()
    assert left == []


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answer(json: bytes, tail: bytes = b"") -> bytes:
    return reply(json + tail, "200 OK", f"inference-header-content-length: {len(json)}")


Y = b'{"model_version":"1.0.0","outputs":[{"name":"y","datatype":"%b","shape":[1,2],"parameters":{%b}}]}'


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
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(broken):
    with answering(reply(METADATA), broken) as client, pytest.raises(SalverError) as caught:
        client.predict("m", [[1.0]])
    assert caught.value.code == "INTERNAL"


@pytest.mark.parametrize(
    ("status", "code"),
    [("502 Bad Gateway", "NOT_READY"), ("403 No", "PERMISSION_DENIED"), ("418 Tea", "BAD_HTTP"), ("599 X", "INTERNAL")],
)
def test_an_answer_without_a_code_gets_the_one_of_its_status(status, code):
    with answering(reply(b"<html>", status)) as client, pytest.raises(SalverError, match=status[:3]) as caught:
        client.models()
    assert caught.value.code == code


def test_a_code_from_a_newer_server_falls_back_on_the_status():
    refusal = reply(b'{"error":"strange"}', "404 Not Found", "x-salver-error: NEVER_HEARD_OF")
    with answering(refusal) as client, pytest.raises(SalverError, match="strange") as caught:
        client.models()
    assert caught.value.code == "NOT_FOUND"


def test_a_connection_that_breaks_is_an_error_and_no_hang():
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{") as client, pytest.raises(SalverError) as caught:
        client.models()
    assert caught.value.code == "NOT_READY"


def test_a_changed_signature_is_noticed_and_the_request_sent_anew():
    changed = METADATA.replace(b"FP32", b"FP64")
    wrong = reply(b'{"error":"no"}', "400 Bad Request", "x-salver-error: WRONG_DATATYPE")
    good = answer(Y % (b"FP32", b'"binary_data_size":8'), b"\0" * 8)
    with answering(reply(METADATA), good, wrong, reply(changed), good) as client:
        client.predict("m", [[1.0]])
        assert client.predict("m", [[1.0]])["y"].tolist() == [[0.0, 0.0]]


def test_a_wrong_request_under_an_unchanged_signature_is_not_sent_anew():
    wrong = reply(b'{"error":"no"}', "400 Bad Request", "x-salver-error: WRONG_SHAPE")
    good = answer(Y % (b"FP32", b'"binary_data_size":8'), b"\0" * 8)
    with answering(reply(METADATA), good, wrong, reply(METADATA)) as client:
        client.predict("m", [[1.0]])
        with pytest.raises(SalverError) as caught:
            client.predict("m", [[1.0]])
    assert caught.value.code == "WRONG_SHAPE"
