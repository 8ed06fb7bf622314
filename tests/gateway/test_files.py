"""Files and forms with files over real sockets."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest
from tests.gateway.computing import Computed, publish
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import Reply, request

from salver.gateway.limits import Limits
from salver.protocol.signature import Signature, TensorSpec

SIZES = Signature((TensorSpec("file", "BYTES", (-1,)),), (TensorSpec("size", "INT64", (-1,)),))
COPY = Signature((TensorSpec("file", "BYTES", (-1,)),), (TensorSpec("copy", "BYTES", (-1,)),))
NUMBERS = Signature((TensorSpec("X", "FP32", (-1, 2)),), (TensorSpec("size", "INT64", (-1,)),))
KIND = "Content-Type: multipart/form-data; boundary=AaB03x"


def sizes(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"size": np.array([len(file) for file in inputs["file"]], np.int64)}


@pytest.fixture(scope="module")
def ordinary(serve_model: Serve) -> Served:
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits(body_bytes=2**20))


@pytest.fixture(scope="module", autouse=True)
def models(ordinary: Served) -> dict[str, Computed]:
    return publish(
        ordinary,
        sizes=(SIZES, sizes),
        copy=(COPY, lambda inputs: {"copy": inputs["file"]}),
        numbers=(NUMBERS, lambda inputs: {"size": inputs["X"].sum(axis=1).astype(np.int64)}),
    )


def form(*files: bytes, name: str = "file") -> bytes:
    parts = [
        b'--AaB03x\r\nContent-Disposition: form-data; name="%b"; filename="f"\r\n\r\n%b\r\n' % (name.encode(), data)
        for data in files
    ]
    return b"".join(parts) + b"--AaB03x--\r\n"


def send(server: Served, body: bytes, *headers: str, model: str = "sizes", version: str = "") -> Reply:
    at = f"/versions/{version}" if version else ""
    return server.post(f"/v2/models/{model}{at}/predict", body, *headers)


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/json", "text/plain", "x"])
def test_a_raw_body_of_any_type_is_one_row_and_the_answer_is_the_open_inference_protocol_s(
    server: Served, kind: str
) -> None:
    reply = send(server, b"\x89PNG", f"Content-Type: {kind}")
    assert reply.json == {
        "model_name": "sizes",
        "model_version": "1.2.3",
        "outputs": [{"name": "size", "datatype": "INT64", "shape": [1], "data": [4]}],
    }
    nothing = send(server, b"", f"Content-Type: {kind}")
    assert (nothing.status, nothing.code) == (400, "MISSING_INPUT")
    assert send(server, b"abc", version="4").json["outputs"][0]["data"] == [3]


def test_files_of_a_form_are_rows(server: Served) -> None:
    assert send(server, form(b"a", b"", b"\r\n"), KIND).json["outputs"][0]["data"] == [1, 0, 2]
    assert send(server, form(b"abc", name="data"), KIND).json["outputs"][0]["data"] == [3]


def test_large_ones_are_read_beside_the_loop_and_come_whole(server: Served, models: dict[str, Computed]) -> None:
    data = os.urandom(900_000)
    assert send(server, form(data, b"a"), KIND).json["outputs"][0]["data"] == [900_000, 1]
    assert models["sizes"].asked[-1].inputs["file"].numpy().tolist() == [data, b"a"]
    assert send(server, data, "Content-Type: video/mp4").json["outputs"][0]["data"] == [900_000]
    assert send(server, form(data)[:-10], KIND).code == "BAD_MESSAGE"


def test_what_leaves_as_bytes_is_binary_for_those_who_accept_it(server: Served) -> None:
    assert send(server, "\u00e9".encode(), model="copy").json["outputs"][0]["data"] == ["\u00e9"]
    refused = send(server, b"\xff", model="copy")
    assert (refused.status, refused.code) == (500, "BAD_MODEL_OUTPUT")
    reply = send(server, b"\xff\x00", "Accept: application/octet-stream", model="copy")
    length = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 6}
    assert reply.body[length:] == b"\x02\x00\x00\x00\xff\x00"
    assert send(server, b"", "Accept: image/png").code == "NOT_ACCEPTABLE"


def test_codings_deadlines_and_timing_are_those_of_every_protocol(server: Served, models: dict[str, Computed]) -> None:
    reply = send(server, gzip.compress(b"abc"), "Content-Encoding: gzip", "Request-Timeout: 3", "X-Salver-Timing: 1")
    assert reply.json["outputs"][0]["data"] == [3]
    assert "total;dur=" in reply.headers["server-timing"]
    asked = models["sizes"].asked[-1]
    assert asked.deadline_s - asked.received_s == pytest.approx(3)


BAD: list[tuple[bytes, tuple[str, ...], str, int, str]] = [
    (b"x", (), "numbers", 400, "WRONG_DATATYPE"),
    (b"x", (), "toy", 400, "WRONG_DATATYPE"),
    (b"x", (), "nothing", 404, "NOT_FOUND"),
    (b"", (KIND,), "sizes", 400, "BAD_MESSAGE"),
    (b"x", (KIND,), "sizes", 400, "BAD_MESSAGE"),
    (form(b"a"), ("Content-Type: multipart/form-data",), "sizes", 400, "BAD_MESSAGE"),
    (form(b"a"), ("Content-Type: multipart/form-data; boundary=other",), "sizes", 400, "BAD_MESSAGE"),
    (form(b"a")[:-4], (KIND,), "sizes", 400, "BAD_MESSAGE"),
    (form(), (KIND,), "sizes", 400, "MISSING_INPUT"),
    (form(b"a", name="X"), (KIND,), "numbers", 400, "WRONG_DATATYPE"),
    (form(b"a", name="other"), (KIND,), "numbers", 400, "UNKNOWN_INPUT"),
    (form(*[b""] * 5000), (KIND,), "sizes", 400, "BAD_MESSAGE"),
    (b"\x1f\x8b", ("Content-Encoding: gzip",), "sizes", 400, "BAD_HTTP"),
    (b"x", ("Content-Encoding: br",), "sizes", 415, "UNSUPPORTED_MEDIA_TYPE"),
    (gzip.compress(bytes(2**21)), ("Content-Encoding: gzip",), "sizes", 413, "BODY_TOO_LARGE"),
]


@pytest.mark.parametrize(("body", "headers", "model", "status", "code"), BAD)
def test_what_is_wrong_is_told_and_the_server_lives(
    server: Served, body: bytes, headers: tuple[str, ...], model: str, status: int, code: str
) -> None:
    reply = send(server, body, *headers, model=model)
    assert (reply.status, reply.code) == (status, code), reply
    assert send(server, b"abc").json["outputs"][0]["data"] == [3]


def test_clients_that_leave_while_a_form_is_read_hold_nothing(server: Served) -> None:
    data = request("POST", "/v2/models/sizes/predict", form(os.urandom(900_000)), (KIND,))
    for _ in range(3):
        client = server.connect()
        client.send(data)
        client.reset()
    server.settle()
    assert server.gateway.inflight_bytes == 0
