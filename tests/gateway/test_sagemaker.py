"""SageMaker's contract over real sockets: its media types, its headers, several models."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.gateway.computing import Computed
from tests.gateway.scoring import SUM, publish_sums
from tests.gateway.servers import Serve, Served
from tests.gateway.test_mlflow import ask
from tests.gateway.wire import Reply, request

from salver.gateway.limits import Limits
from salver.gateway.repository import ControlAnswer
from salver.gateway.sagemaker import SageMakerPages, sagemaker_routes
from salver.gateway.schemas_scoring import LoadedModel, LoadedModels
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.routing.router import Router, Target
from salver.security.access import ANONYMOUS, Principal, PrincipalKind, Role

WORDS = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("word", "BYTES", (-1,)),))
FRAMED = "application/vnd.sagemaker-triton.binary+json;json-header-size="


def say(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"word": np.array([f'a, "{x:g}"\n'.encode() for x in inputs["x"]], object)}


@pytest.fixture(scope="module")
def ordinary(serve_model: Serve) -> Served:
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits(body_bytes=2**20))


@pytest.fixture(scope="module", autouse=True)
def models(ordinary: Served) -> dict[str, Computed]:
    return publish_sums(ordinary, ("value 9 lies outside the profile of 'é'",), word=(WORDS, say))


def invoke(server: Served, body: bytes, kind: str, *headers: str, endpoint: str = "sum") -> Reply:
    told = (f"Content-Type: {kind}", f"X-Amzn-SageMaker-Target-Model: /{endpoint}.tar.gz", *headers)
    return ask(server, request("POST", "/invocations", body, told))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/csv; header=absent", b"1,2,3\n4,5,6\n"),
        ("text/csv;label_size=0", b"1,2,3\n4,5,6\n"),
        ("text/csv; header=present", b"7,8,9\n1,2,3\n4,5,6\n"),
        ("application/jsonlines", b"[1,2,3]\n[4,5,6]\n"),
        ("application/x-ndjson", b'{"features":[1,2,3]}\n{"features":[4,5,6]}\n'),
        ("application/json", b'{"instances":[{"features":[1,2,3]},{"features":[4,5,6]}]}'),
        ("application/json", b'{"instances":[[1,2,3],[4,5,6]]}'),
    ],
)
def test_the_bodies_of_the_built_in_algorithms_are_understood(server: Served, kind: str, body: bytes) -> None:
    assert invoke(server, body, kind).json == {"predictions": [6, 15]}


def test_csv_without_a_word_on_its_header_must_not_be_taken_for_what_it_is_not(server: Served) -> None:
    refused = invoke(server, b"1.5,2,3\n4,5,6\n", "text/csv")
    assert (refused.status, refused.code) == (400, "INVALID_TENSOR")
    assert "header=absent" in refused.json["message"]


@pytest.mark.parametrize(
    ("accept", "endpoint", "answer"),
    [
        ("text/csv", "sum", b"6.0\n15.0\n"),
        ("text/csv", "both", b"6.0,2.0,4.0,6.0\n15.0,8.0,10.0,12.0\n"),
        ("application/jsonlines", "sum", b"6.0\n15.0\n"),
        ("application/jsonlines", "both", b'{"sum":6.0,"twice":[2.0,4.0,6.0]}\n{"sum":15.0,"twice":[8.0,10.0,12.0]}\n'),
        ("application/x-ndjson;q=1, application/json;q=0", "sum", b"6.0\n15.0\n"),
        ("text/csv, application/json;q=0.1", "sum", b'{"predictions":[6.0,15.0]}'),
    ],
)
def test_answers_are_json_unless_only_another_form_is_accepted(
    server: Served, accept: str, endpoint: str, answer: bytes
) -> None:
    reply = invoke(server, b"[1,2,3]\n[4,5,6]", "application/jsonlines", f"Accept: {accept}", endpoint=endpoint)
    assert (reply.status, reply.body) == (200, answer)


def test_text_in_csv_is_quoted(server: Served) -> None:
    reply = invoke(server, b"1\n2\n", "text/csv; header=absent", "Accept: text/csv", endpoint="word")
    assert reply.headers["content-type"] == "text/csv"
    assert reply.body == b'"a, ""1""\n"\n"a, ""2""\n"\n'


def test_warnings_stand_in_a_header_where_the_body_has_no_place(server: Served) -> None:
    reply = invoke(server, b"[1,2,3]", "application/jsonlines", "Accept: text/csv", endpoint="both")
    assert json.loads(reply.headers["x-salver-warnings"]) == ["value 9 lies outside the profile of 'é'"]


def framed(**more: Any) -> tuple[bytes, int]:
    tensor = struct.pack("<3d", 1, 2, 3)
    inputs = [{"name": "X", "shape": [1, 3], "datatype": "FP64", "parameters": {"binary_data_size": len(tensor)}}]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + tensor, len(head)


def test_binary_tensors_have_the_length_of_their_json_in_the_media_type_both_ways(server: Served) -> None:
    body, length = framed(parameters={"binary_data_output": True})
    reply = invoke(server, body, f"{FRAMED}{length}", f"Accept: {FRAMED}0")
    kind, _, size = reply.headers["content-type"].rpartition("=")
    assert kind + "=" == FRAMED
    assert "inference-header-content-length" not in reply.headers
    assert json.loads(reply.body[: int(size)])["outputs"][0]["name"] == "sum"
    assert struct.unpack("<d", reply.body[int(size) :]) == (6.0,)
    plain = invoke(server, *(framed()[0], f"{FRAMED}{length - 40}"))
    assert plain.status == 400
    body, length = framed()
    reply = invoke(server, body, f"{FRAMED}{length}")
    assert (reply.headers["content-type"], reply.json["outputs"][0]["data"]) == ("application/json", [6.0])


@pytest.mark.parametrize(("status", "endpoint"), [(200, "sum"), (500, "broken"), (404, "nothing")])
def test_custom_attributes_are_kept_whatever_the_answer_is(server: Served, status: int, endpoint: str) -> None:
    told = "X-Amzn-SageMaker-Custom-Attributes: trace=1; x"
    reply = invoke(server, b'{"inputs":[[1,2,3]]}', "application/json", told, endpoint=endpoint)
    assert reply.status == status
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "trace=1; x"


@pytest.mark.parametrize("attributes", ["x" * 1025, "a\tb", "a\x85b"])
def test_attributes_that_are_too_long_or_not_printable_are_dropped(server: Served, attributes: str) -> None:
    data = request("POST", "/invocations", b'{"inputs":[[1,2,3]]}', ("X-Salver-Endpoint: sum", "X-Mark: 1"))
    data = data.replace(b"X-Mark: 1", b"X-Amzn-SageMaker-Custom-Attributes: " + attributes.encode("latin-1"))
    reply = ask(server, data)
    assert "x-amzn-sagemaker-custom-attributes" not in reply.headers


BAD: list[tuple[bytes, str, int, str]] = [
    (b"", "application/jsonlines", 400, "INVALID_JSON"),
    (b"[1,2,3]\n{", "application/jsonlines", 400, "INVALID_JSON"),
    (b"[1,2,3]\n[4,5]", "application/jsonlines", 400, "WRONG_SHAPE"),
    (b'{"features":[1,2,3]}\n[4,5,6]', "application/jsonlines", 400, "INVALID_JSON"),
    (b'{"features":[1,2,"x"]}', "application/jsonlines", 400, "WRONG_DATATYPE"),
    (b"[" * 100_000, "application/jsonlines", 400, "INVALID_JSON"),
    (b"1,2", "text/csv; header=absent", 400, "MISSING_INPUT"),
    (b"1,2,x", "text/csv; header=absent", 400, "INVALID_VALUE"),
    (b"", "text/csv; header=absent", 400, "WRONG_SHAPE"),
    (b"\xff,1,2", "text/csv; header=absent", 400, "INVALID_VALUE"),
    (b"1,2,3", "text/csv; header=maybe", 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"0,1,2,3", "text/csv; label_size=1", 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"1,2,3", "text/csv; columns=3", 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"1", "application/x-recordio-protobuf", 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"{}", FRAMED[:-18], 400, "INVALID_TENSOR"),
    (b"{}", FRAMED + "-1", 400, "INVALID_TENSOR"),
    (b"{}", FRAMED + "3", 400, "INVALID_TENSOR"),
    (b"{}", FRAMED + "9" * 40, 400, "INVALID_TENSOR"),
    (b"{}", FRAMED + "2", 400, "INVALID_JSON"),
    (b"{}", FRAMED + "2;extra=1", 415, "UNSUPPORTED_MEDIA_TYPE"),
]


@pytest.mark.parametrize(("body", "kind", "status", "code"), BAD)
def test_what_is_wrong_is_told_and_the_server_lives(
    server: Served, body: bytes, kind: str, status: int, code: str
) -> None:
    reply = invoke(server, body, kind)
    assert (reply.status, reply.code) == (status, code), reply
    assert invoke(server, b"[1,2,3]", "application/jsonlines").json == {"predictions": [6]}


# Several models.


def test_a_model_is_invoked_by_its_name(server: Served) -> None:
    told = ("Content-Type: application/jsonlines", "X-Amzn-SageMaker-Target-Model: some/archive.tar.gz")
    reply = ask(server, request("POST", "/models/sum/invoke", b"[1,2,3]", told))
    assert reply.json == {"predictions": [6]}
    missing = ask(server, request("POST", "/models/nothing/invoke", b"[1,2,3]", told))
    assert (missing.status, missing.json["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


def test_what_is_loaded_is_listed_and_found_by_name(server: Served) -> None:
    listed = msgspec.json.decode(server.get("/models").body, type=LoadedModels)
    assert LoadedModel("sum", "sum@1.2.3") in listed.models
    assert msgspec.json.decode(server.get("/models/sum").body, type=LoadedModel).modelUrl == "sum@1.2.3"
    assert server.get("/models/nothing").code == "NOT_FOUND"


def test_where_no_controller_takes_changes_nothing_can_be_loaded(server: Served) -> None:
    reply = server.post("/models", b'{"model_name":"a","url":"b"}')
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


class Asked:
    """A controller that answers what the test says and remembers what it was asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes, bytes]] = []
        self.answer = ControlAnswer(200, {}, b'{"status":"registered"}')
        self.then = lambda: None

    async def __call__(self, path: str, body: bytes, asking: Any) -> ControlAnswer:
        self.heard.append((path, body, asking.headers.get(b"authorization", b"")))
        self.then()
        return self.answer


def targets(*names: str) -> dict[str, Target]:
    service = Computed(lambda inputs: {"sum": inputs["X"].sum(axis=1)}, batched=True)
    return {
        name: Target(
            DeploymentSpec(name, name, "1.0.0"),
            VersionManifest(name, "1.0.0", 1, "ab" * 32, "onnx", (), SUM, metadata={"url": f"/models/{name}"}),
            service,
        )
        for name in names
    }


@pytest.fixture
def controller() -> Asked:
    return Asked()


@pytest.fixture
def router() -> Router:
    made = Router()
    made.publish(targets("taken"), {"coming": None})
    return made


@pytest.fixture
def several(serve_routes: Serve, controller: Asked, router: Router, ordinary: Served) -> Served:
    pages = SageMakerPages(router, controller)
    served = serve_routes(*sagemaker_routes(pages, SimpleNamespace(open=print), loads=True))
    operator = Principal("o", Role.OPERATOR, "default", PrincipalKind.TOKEN)
    served.gateway.authenticate = lambda token, _: {"operator": operator, "anybody": ANONYMOUS}.get(token)
    return served


def load(server: Served, name: str = "new", url: str = "/opt/ml/models/new/model", token: str = "operator") -> Reply:
    body = json.dumps({"model_name": name, "url": url}).encode()
    return server.post("/models", body, f"Authorization: Bearer {token}")


def test_loading_is_handed_to_the_controller_with_the_token_of_who_asks(several: Served, controller: Asked) -> None:
    reply = load(several, url="/opt/ml/models/a b&x=1/model")
    assert (reply.status, reply.json) == (200, {"modelName": "new", "modelUrl": "/opt/ml/models/a b&x=1/model"})
    path = "/models?model_name=new&url=%2Fopt%2Fml%2Fmodels%2Fa+b%26x%3D1%2Fmodel&initial_workers=1&synchronous=true"
    assert controller.heard == [(path, b"", b"Bearer operator")]


@pytest.mark.parametrize("name", ["taken", "coming"])
def test_a_name_that_is_loaded_is_a_conflict_and_nobody_is_asked(several: Served, controller: Asked, name: str) -> None:
    reply = load(several, name)
    assert (reply.status, reply.code) == (409, "ALREADY_EXISTS")
    assert not controller.heard


@pytest.mark.parametrize("code", ["OUT_OF_MEMORY", "STORAGE_FULL"])
def test_too_little_room_is_507_so_that_others_are_unloaded(several: Served, controller: Asked, code: str) -> None:
    body = json.dumps({"code": 507, "type": "InsufficientStorageException", "message": "too large"}).encode()
    controller.answer = ControlAnswer(507, {"x-salver-error": code}, body)
    reply = load(several)
    assert (reply.status, reply.code, reply.error) == (507, code, "too large")


@pytest.mark.parametrize(
    "answer", [ControlAnswer(500, {}, b"nonsense"), ControlAnswer(404, {"x-salver-error": "?"}, b"[]")]
)
def test_an_answer_of_the_controller_that_says_nothing_is_its_failure(
    several: Served, controller: Asked, answer: ControlAnswer
) -> None:
    controller.answer = answer
    assert load(several).code == "CONTROL_UNAVAILABLE"


def test_unloading_is_answered_once_the_name_is_free(several: Served, controller: Asked, router: Router) -> None:
    several.thread.run(lambda: None)
    controller.then = lambda: several.thread.loop.call_later(0.12, router.publish, {}, {}) and None
    reply = several.ask(request("DELETE", "/models/taken", None, ("Authorization: Bearer operator",)))
    assert (reply.status, reply.json) == (200, {"modelName": "taken"})
    assert controller.heard == [("/v2/repository/models/taken/unload", b"", b"Bearer operator")]
    assert router.names() == []
    again = several.ask(request("DELETE", "/models/taken", None, ("Authorization: Bearer operator",)))
    assert (again.status, again.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model_name":"a"}',
        b'{"model_name":1,"url":"x"}',
        b'{"model_name":"a","url":null}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_body_that_names_no_model_is_refused(several: Served, controller: Asked, body: bytes) -> None:
    reply = several.post("/models", body, "Authorization: Bearer operator")
    assert (reply.status, reply.code) == (400, "INVALID_JSON")
    assert not controller.heard


def test_only_operators_load_and_unload(several: Served, controller: Asked) -> None:
    assert load(several, token="anybody").code == "PERMISSION_DENIED"
    assert several.post("/models", b"{}").code == "UNAUTHENTICATED"
    assert several.ask(request("DELETE", "/models/taken")).code == "UNAUTHENTICATED"
    assert not controller.heard


def test_a_default_token_is_that_of_those_who_bring_none_and_is_handed_on(several: Served, controller: Asked) -> None:
    several.gateway._default_credentials = b"Bearer operator"
    assert several.post("/models", b'{"model_name":"a","url":"b"}').status == 200
    assert controller.heard[-1][2] == b"Bearer operator"
    assert load(several, token="anybody").code == "PERMISSION_DENIED"


def test_many_models_are_listed_in_pages(several: Served, router: Router) -> None:
    names = [f"m{at:03}" for at in range(250)]
    several.thread.run(lambda: router.publish(targets(*names), {}))
    found, token = [], ""
    for size in (100, 100, 50):
        reply = several.get(f"/models?next_page_token={token}").json
        assert len(reply["models"]) == size
        found += [each["modelName"] for each in reply["models"]]
        token = reply.get("nextPageToken", "")
    assert (found, token) == (names, "")
    assert reply["models"][0]["modelUrl"] == "/models/m200"
    assert several.get("/models?next_page_token=zzz").json == {"models": []}
    assert several.get("/models?" + "&".join("a=b" for _ in range(50))).status == 400
