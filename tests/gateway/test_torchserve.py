"""TorchServe's inference interface over real sockets: bodies, answers, errors."""

from __future__ import annotations

import numpy as np
import pytest
from tests.gateway.computing import Computed
from tests.gateway.scoring import SUM, publish_sums
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import RawClient, Reply, request

from salver.gateway.limits import Limits
from salver.protocol.errors import CATALOGUE
from salver.protocol.signature import Signature, TensorSpec

FILES = Signature((TensorSpec("file", "BYTES", (-1,)),), (TensorSpec("size", "INT64", (-1,)),))


class TorchServeClient(RawClient):
    """Errors are what TorchServe's clients read."""

    def check(self, reply: Reply) -> None:
        assert set(reply.json) == {"code", "type", "message"}, reply
        assert reply.code is not None
        assert reply.json["code"] == reply.status == CATALOGUE[reply.code].http
        assert reply.json["type"].endswith("Exception")
        assert "Traceback" not in reply.json["message"]


@pytest.fixture(scope="module")
def ordinary(serve_model: Serve) -> Served:
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits(body_bytes=2**20))


@pytest.fixture(scope="module", autouse=True)
def models(ordinary: Served) -> dict[str, Computed]:
    return publish_sums(
        ordinary,
        (),
        files=(FILES, lambda inputs: {"size": np.array([len(file) for file in inputs["file"]], np.int64)}),
        nan=(SUM, lambda inputs: {"sum": inputs["X"].sum(axis=1) * np.nan}),
    )


def ask(server: Served, path: str, body: bytes = b"", *headers: str, verb: str = "POST") -> Reply:
    return TorchServeClient(server.connect().socket).ask(request(verb, path, body, headers))


@pytest.mark.parametrize("verb", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/predictions/sum", "/predictions/sum/1.2.3", "/predictions/sum/4"])
def test_one_row_is_answered_by_its_value_alone(server: Served, verb: str, path: str) -> None:
    reply = ask(server, path, b"[1,2,3]", "Content-Type: application/json", verb=verb)
    assert (reply.status, reply.json) == (200, 6)
    assert reply.headers["x-salver-version"] == "sum@1.2.3"


def test_several_outputs_are_an_object_and_rows_are_a_list(server: Served) -> None:
    assert ask(server, "/predictions/both", b"[1,2,3]").json == {"sum": 6, "twice": [2, 4, 6]}
    assert ask(server, "/predictions/sum", b"[[1,2,3],[4,5,6]]").json == [6, 15]
    assert ask(server, "/predictions/sum", b'{"instances":[[1,2,3]]}').json == {"predictions": [6]}


def test_a_file_is_taken_as_it_is_or_as_the_part_of_a_form(server: Served) -> None:
    assert ask(server, "/predictions/files", b"\x89PNG\x00", verb="PUT").json == 5
    part = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\n\r\n12345678\r\n'
    form = "Content-Type: multipart/form-data; boundary=x"
    assert ask(server, "/predictions/files", part + b"--x--\r\n", form).json == 8
    assert ask(server, "/predictions/files", part * 2 + b"--x--\r\n", form).json == [8, 8]


def test_nan_is_the_token_that_python_writes(server: Served) -> None:
    assert ask(server, "/predictions/nan", b"[1,2,3]").body == b"NaN"


def test_a_model_or_version_that_is_not_there_has_torchserve_s_name_for_it(server: Served) -> None:
    assert ask(server, "/predictions/nothing", b"[]").json["type"] == "ModelNotFoundException"
    assert ask(server, "/predictions/sum/9.9.9", b"[]").json["type"] == "ModelVersionNotFoundException"
    failed = ask(server, "/predictions/broken", b"[1,2,3]").json
    assert (failed["code"], failed["type"]) == (500, "InternalServerException")


@pytest.mark.parametrize("verb", ["POST", "PUT"])
def test_explanations_are_not_implemented(server: Served, verb: str) -> None:
    for path in ("/explanations/sum", "/explanations/sum/1.2.3"):
        assert ask(server, path, b"[1,2,3]", verb=verb).json["type"] == "NotImplementedException"
    assert ask(server, "/explanations/nothing", b"", verb=verb).json["code"] == 404


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", (), 400, "INVALID_JSON"),
        (b"{", (), 400, "INVALID_JSON"),
        (b"\x89PNG\xff", ("Content-Type: image/png",), 400, "INVALID_JSON"),
        (b"[" * 100_000, (), 400, "INVALID_JSON"),
        (b'{"X":[1,2,3],"X":[1,2,3]}', (), 400, "DUPLICATE_KEY"),
        (b"[1,2]", (), 400, "WRONG_SHAPE"),
        (b"[]", (), 400, "WRONG_SHAPE"),
        (b"[1,2,1e999]", (), 400, "INVALID_JSON"),
        (b'[1,2,"3"]', (), 400, "WRONG_DATATYPE"),
        (b'{"Z":[1,2,3]}', (), 400, "UNKNOWN_INPUT"),
        (b"--x", ("Content-Type: multipart/form-data; boundary=x",), 400, "BAD_MESSAGE"),
        (b"[1,2,3]", ("Content-Encoding: br",), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"[1,2,3]", ("Accept: image/png",), 406, "NOT_ACCEPTABLE"),
        (b"[1,2,3]", ("Priority: u=0", "Request-Timeout: never"), 400, "INVALID_PARAMETER"),
    ],
)
def test_what_is_wrong_is_told_in_torchserve_s_shape_and_the_server_lives(
    server: Served, body: bytes, headers: tuple[str, ...], status: int, code: str
) -> None:
    reply = ask(server, "/predictions/sum", body, *headers)
    assert (reply.status, reply.code) == (status, code), reply
    assert ask(server, "/predictions/sum", b"[1,2,3]").json == 6
