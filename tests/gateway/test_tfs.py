"""Inference in TensorFlow Serving's REST interface, which KServe's first protocol and Vertex AI share."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
from tests.gateway.conftest import WEIGHTS
from tests.gateway.servers import Layered, Served
from tests.gateway.wire import Reply, eventually, request

from salver.gateway.v1_models import v1_refusal
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.request import BatchOutputs, Request, Response

PREDICT = "/v1/models/toy:predict"


def ask(server: Served, body: object, *headers: str, path: str = PREDICT) -> Reply:
    return server.post(path, body if isinstance(body, bytes) else json.dumps(body).encode(), *headers)


# Right answers.


def test_rows_are_answered_by_row_and_columns_by_column(server: Served) -> None:
    rows = [[1, 2, 3, 0], [0, 5, 0, 1]]
    by_row = [{"label": 2, "scores": [1.0, 2.0, 3.0]}, {"label": 1, "scores": [1.0, 6.0, 1.0]}]
    by_column = {"label": [2, 1], "scores": [[1.0, 2.0, 3.0], [1.0, 6.0, 1.0]]}
    for body, answer in (
        ({"instances": rows}, {"predictions": by_row}),
        ({"instances": [{"X": row} for row in rows]}, {"predictions": by_row}),
        ({"inputs": rows}, {"outputs": by_column}),
        ({"inputs": {"X": rows}, "signature_name": "serving_default"}, {"outputs": by_column}),
        ({"instances": rows, "parameters": {"sampling": {"rate": 1}}}, {"predictions": by_row}),
    ):
        reply = ask(server, body)
        assert (reply.status, reply.json) == (200, answer)
        assert reply.headers["x-salver-version"] == "toy@1.0.0"
        assert reply.headers["content-type"] == "application/json"


def test_examples_are_classified_with_all_classes_in_the_models_order(server: Served) -> None:
    body = {"signature_name": "serving_default", "examples": [{"X": [1, 2, 3, 0]}, {"X": [0, 5, 0, 1]}]}
    reply = ask(server, body, path="/v1/models/toy:classify")
    assert reply.json == {
        "results": [[["ant", 1.0], ["bee", 2.0], ["cat", 3.0]], [["ant", 1.0], ["bee", 6.0], ["cat", 1.0]]]
    }
    shared = ask(server, {"context": {"X": [1, 2, 3, 0]}, "examples": [{}]}, path="/v1/models/toy:classify")
    assert shared.json["results"] == reply.json["results"][:1]


def test_examples_are_regressed_to_one_number_each(server: Served) -> None:
    client = server.connect()
    body = json.dumps({"examples": [{"X": [1, 2, 3, 0]}, {"X": [0, 5, 0, 1]}]}).encode()
    client.send(request("POST", "/v1/models/held:regress", body))
    server.answer_held()
    assert client.read().json == {"results": [0.5, 0.5]}


@pytest.mark.parametrize("path", ["/v1/models/toy/versions/1:predict", "/V1/Models/toy/VERSIONS/1.0.0:Predict"])
def test_a_version_may_be_named_and_the_case_of_the_path_does_not_matter(server: Served, path: str) -> None:
    assert ask(server, {"instances": [[1, 2, 3, 0]]}, path=path).json["predictions"][0]["label"] == 2


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8", ""]
)
def test_the_media_type_of_a_body_does_not_matter(server: Served, content_type: str) -> None:
    headers = [f"Content-Type: {content_type}"] if content_type else []
    assert ask(server, {"instances": [[1, 2, 3, 0]]}, *headers).status == 200


def test_a_compressed_body_and_a_large_one_are_read_like_any_other(server: Served) -> None:
    rows = np.arange(4 * 20_000, dtype=np.float32).reshape(-1, 4) / 16
    body = json.dumps({"inputs": rows[:200].tolist()}).encode()
    reply = ask(server, zlib.compress(body), "Content-Encoding: deflate")
    assert reply.json["outputs"]["scores"] == (rows[:200] @ WEIGHTS).tolist()
    large = json.dumps({"inputs": rows.tolist()}).encode()
    assert len(large) > 2**18
    assert ask(server, large).code == "TOO_MANY_ROWS"


def test_nan_and_infinity_come_and_go_as_tokens(server: Served) -> None:
    reply = ask(server, b'{"instances": [[NaN, Infinity, -Infinity, 0], [1, 2, 3, 0]]}')
    # NaN spreads over every score of its row, because each of them is a sum over all inputs.
    assert b'"scores":[NaN,NaN,NaN]' in reply.body
    assert reply.body.endswith(b'{"label":2,"scores":[1.0,2.0,3.0]}]}')
    assert b'"scores":[[NaN,NaN,NaN],' in ask(server, b'{"inputs": [[NaN, 0, 0, 0], [1, 2, 3, 0]]}').body
    results = ask(server, b'{"examples": [{"X": [NaN, 0, 0, 0]}]}', path="/v1/models/toy:classify").body
    assert results == b'{"results":[[["ant",NaN],["bee",NaN],["cat",NaN]]]}'


def test_warnings_stand_beside_the_answer(server: Served) -> None:
    async def warned(request: Request) -> Response:
        return Response("held", "1.0.0", BatchOutputs({"Y": np.ones((1, 1), np.float32)}), 0, 1, ("X[0] is high",))

    with replaced(server, warned):
        reply = ask(server, {"instances": [[1, 2, 3, 4]]}, path="/v1/models/held:predict")
    assert reply.json == {"predictions": [[1.0]], "salver_warnings": ["X[0] is high"]}


class replaced:  # noqa: N801 - reads as a word
    """Another service behind the endpoint `held`, for a while."""

    def __init__(self, server: Served, act: Any) -> None:
        assert server.plane is not None
        self.server, self.act, self.router = server, act, server.plane.router

    def publish(self, service: Any) -> None:
        targets = dict(self.router.targets())
        targets["held"] = targets["held"]._replace(service=service)
        failed = {"broken": self.server.plane.host.error_of("broken")}
        self.server.thread.run(lambda: self.router.publish(targets, failed))

    def __enter__(self) -> None:
        self.publish(Layered(self.act))

    def __exit__(self, *_: object) -> None:
        self.publish(self.server.held)


# The path of every request.


def test_a_request_meets_its_deadline_and_says_how_long_it_took(server: Served) -> None:
    client = server.connect()
    body = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()
    headers = ("Request-Timeout: 7", "X-Salver-Timing: 1")
    client.send(request("POST", "/v1/models/held:predict", body, headers))
    eventually(lambda: server.held.asked)
    asked: Request = server.held.asked[0][0]
    assert asked.deadline_s - asked.received_s == pytest.approx(7)
    server.answer_held()
    assert client.read().headers["server-timing"].startswith("queue;dur=250.000")


def test_a_departed_client_is_not_computed_for(server: Served) -> None:
    client = server.connect()
    client.send(request("POST", "/v1/models/held:predict", json.dumps({"instances": [[1, 2, 3, 4]]}).encode()))
    eventually(lambda: server.held.asked)
    client.reset()
    eventually(lambda: server.held.asked[0][1].cancelled())


def test_an_answer_that_the_client_rules_out_is_refused(server: Served) -> None:
    assert ask(server, {"instances": [[1, 2, 3, 0]]}, "Accept: text/csv").status == 406
    assert ask(server, {"instances": [[1, 2, 3, 0]]}, "Accept: application/json").status == 200


# Wrong requests.

BAD = {
    "nothing": b"",
    "no JSON": b"instances = [1, 2]",
    "no object": b"[1]",
    "cut short": b'{"instances": [[1, 2',
    "not UTF-8": b'{"instances": ["\xff"]}',
    "neither key": b"{}",
    "both keys": b'{"instances": [[1, 2, 3, 0]], "inputs": [[1, 2, 3, 0]]}',
    "a key twice": b'{"instances": [[1, 2, 3, 0]], "instances": [[1, 2, 3, 0]]}',
    "an input twice": b'{"instances": [{"X": [1, 2, 3, 0], "X": [1, 2, 3, 0]}]}',
    "instances no list": b'{"instances": 5}',
    "instances null": b'{"instances": null}',
    "instances an object": b'{"instances": {"X": [1, 2, 3, 0]}}',
    "no rows": b'{"instances": []}',
    "inputs null": b'{"inputs": null}',
    "inputs empty": b'{"inputs": {}}',
    "inputs no rows": b'{"inputs": []}',
    "signature unknown": b'{"signature_name": "other", "instances": [[1, 2, 3, 0]]}',
    "signature no name": b'{"signature_name": 100, "instances": [[1, 2, 3, 0]]}',
    "mixed rows": b'{"instances": [[1, 2, 3, 0], {"X": [1, 2, 3, 0]}]}',
    "mixed rows, objects first": b'{"instances": [{"X": [1, 2, 3, 0]}, [1, 2, 3, 0]]}',
    "unlike rows": b'{"instances": [{"X": [1, 2, 3, 0]}, {"Y": [1, 2, 3, 0]}]}',
    "empty rows": b'{"instances": [{}]}',
    "unknown input": b'{"instances": [{"Z": [1, 2, 3, 0]}]}',
    "unknown column": b'{"inputs": {"X": [[1, 2, 3, 0]], "Z": [1]}}',
    "ragged": b'{"instances": [[1, 2, 3, 0], [1, 2]]}',
    "too narrow": b'{"instances": [[1, 2, 3]]}',
    "too deep": b'{"instances": [[[1, 2, 3, 0]]]}',
    "scalars": b'{"instances": [1, 2]}',
    "a scalar": b'{"inputs": 5}',
    "text": b'{"instances": [["1", "2", "3", "0"]]}',
    "booleans": b'{"instances": [[true, false, true, false]]}',
    "null": b'{"instances": [[1, 2, null, 0]]}',
    "an object in a row": b'{"instances": [[1, 2, {"x": 3}, 0]]}',
    "bytes for numbers": b'{"instances": [{"b64": "AAAA"}]}',
    "beyond FP32": b'{"instances": [[1e39, 2, 3, 0]]}',
    "beyond any number": b'{"instances": [[1e999, 2, 3, 0]]}',
    "beyond any number beside a token": b'{"instances": [[1e999, NaN, 3, 0]]}',
    "thousands of digits beside a token": b'{"instances": [[' + b"9" * 4000 + b", NaN, 3, 0]]}",
    "thousands of digits": b'{"instances": [[' + b"9" * 5000 + b", 2, 3, 0]]}",
    "a bomb of lists": b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a small bomb of lists": b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}",
    "a bomb of objects": b'{"instances":[' + b'{"X":' * 5000 + b"1" + b"}" * 5000 + b"]}",
    "a bomb with tokens": b'{"instances": NaN, "inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a token that is none": b'{"instances": [[nan, 2, 3, 0]]}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_a_bad_body_is_refused_clearly_and_the_server_lives(server: Served, body: bytes) -> None:
    client = server.connect()
    reply = client.ask(request("POST", PREDICT, body))
    assert reply.status == 400
    assert len(reply.error) < 500
    assert client.ask(request("POST", PREDICT, b'{"instances": [[1, 2, 3, 0]]}')).status == 200


BAD_EXAMPLES = {
    "none": b"{}",
    "empty": b'{"examples": []}',
    "no list": b'{"examples": {"X": [1, 2, 3, 0]}}',
    "no object": b'{"examples": [[1, 2, 3, 0]]}',
    "b64 for an object": b'{"examples": [{"b64": "AAAA"}]}',
    "context no object": b'{"context": 1, "examples": [{"X": [1, 2, 3, 0]}]}',
    "context again": b'{"context": {"X": [1, 2, 3, 0]}, "examples": [{"X": [1, 2, 3, 0]}]}',
    "unlike features": b'{"examples": [{"X": [1, 2, 3, 0]}, {}]}',
    "nested": b'{"examples": [{"X": [[1, 2], [3, 0]]}]}',
    "too narrow": b'{"examples": [{"X": 1}]}',
    "ragged": b'{"examples": [{"X": [1, 2, 3, 0]}, {"X": [1]}]}',
    "unknown feature": b'{"examples": [{"Z": 1}]}',
    "null": b'{"examples": [{"X": null}]}',
    "signature unknown": b'{"signature_name": "classify_x_to_y", "examples": [{"X": [1, 2, 3, 0]}]}',
}


@pytest.mark.parametrize("body", BAD_EXAMPLES.values(), ids=BAD_EXAMPLES.keys())
def test_bad_examples_are_refused_clearly(server: Served, body: bytes) -> None:
    assert ask(server, body, path="/v1/models/toy:classify").status == 400


def test_a_model_that_cannot_classify_or_regress_says_what_it_would_need(server: Served) -> None:
    reply = ask(server, {"examples": [{"X": [1, 2, 3, 0]}]}, path="/v1/models/toy:regress")
    assert reply.status == 400
    assert reply.error.startswith(
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict; "
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/nothing:predict", "Servable not found for request: Latest(nothing)"),
        ("/v1/models/nothing:regress", "Servable not found for request: Latest(nothing)"),
        ("/v1/models/toy/versions/7:predict", "Servable not found for request: Specific(toy, 7)"),
        ("/v1/models/toy/labels/stable:predict", "Unrecognized servable version label: stable"),
        ("/v1/models/toy/labels/latest:classify", "Unrecognized servable version label: latest"),
    ],
)
def test_what_is_not_there_is_named_in_tensorflow_servings_words(server: Served, path: str, words: str) -> None:
    reply = ask(server, {"instances": [[1, 2, 3, 0]]}, path=path)
    assert (reply.status, reply.error) == (404, words)


def test_an_endpoint_that_is_not_ready_is_unavailable(server: Served) -> None:
    reply = ask(server, {"instances": [[1]]}, path="/v1/models/broken:predict")
    assert (reply.status, reply.code) == (503, "NOT_READY")


def test_there_are_no_explanations(server: Served) -> None:
    assert ask(server, {"instances": [[1, 2, 3, 0]]}, path="/v1/models/toy:explain").status == 501
    assert ask(server, {"instances": [[1, 2, 3, 0]]}, path="/v1/models/nothing:explain").status == 404


def test_the_wrong_verb_is_told_the_right_one(server: Served) -> None:
    reply = server.get(PREDICT)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_VALUE", 400),
        ("OUTSIDE_PROFILE", 400),
        ("POISON_INPUT", 400),
        ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403),
        ("NOT_FOUND", 404),
        ("CONFLICT", 409),
        ("QUEUE_FULL", 429),
        ("MODEL_ERROR", 500),
        ("UNSUPPORTED", 501),
        ("NOT_READY", 503),
        ("DEADLINE_EXCEEDED", 504),
    ],
)
def test_statuses_are_those_of_tensorflow_serving(code: str, status: int) -> None:
    refusal = v1_refusal(SalverError(code, "what", "do"))
    assert (refusal.status, json.loads(refusal.body)) == (status, {"error": "what; do"})


def test_no_error_is_unprocessable() -> None:
    changed = {code for code, row in CATALOGUE.items() if v1_refusal(SalverError(code, "")).status != row.http}
    assert changed == {code for code, row in CATALOGUE.items() if row.http == 422}


# CloudEvents.

ATTRIBUTES = {"specversion": "1.0", "id": "7", "source": "here", "type": "a.request"}
BODY = {"instances": [[1, 2, 3, 0]]}
ANSWER = {"predictions": [{"label": 2, "scores": [1.0, 2.0, 3.0]}]}
BINARY = tuple(f"ce-{name}: {value}" for name, value in ATTRIBUTES.items())
STRUCTURED = "Content-Type: application/cloudevents+json"


@pytest.mark.parametrize(
    "data", [{"data": BODY}, {"data_base64": base64.b64encode(json.dumps(BODY).encode()).decode()}]
)
def test_a_structured_event_is_answered_by_one(server: Served, data: dict[str, Any]) -> None:
    reply = ask(server, {**ATTRIBUTES, **data}, STRUCTURED + "; charset=utf-8", "X-Request-Id: abc")
    assert reply.headers["content-type"] == "application/cloudevents+json"
    event = reply.json
    assert event.pop("time").endswith("Z")
    assert event == {
        "specversion": "1.0",
        "id": "abc",
        "source": "io.kserve.inference.toy",
        "type": "io.kserve.inference.response",
        "datacontenttype": "application/json",
        "data": ANSWER,
    }


def test_a_binary_event_is_answered_by_one(server: Served) -> None:
    reply = ask(server, BODY, *BINARY, "Content-Type: application/json")
    assert (reply.json, reply.headers["content-type"]) == (ANSWER, "application/json")
    assert reply.headers["ce-specversion"] == "1.0"
    assert reply.headers["ce-id"] == reply.headers["x-request-id"]
    assert reply.headers["ce-source"] == "io.kserve.inference.toy"
    assert reply.headers["ce-type"] == "io.kserve.inference.response"
    assert "ce-time" in reply.headers


def test_a_request_with_some_attributes_only_is_no_event(server: Served) -> None:
    reply = ask(server, BODY, *BINARY[1:])
    assert reply.json == ANSWER
    assert "ce-id" not in reply.headers


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", (STRUCTURED,), 400),
        (b"[]", (STRUCTURED,), 400),
        (json.dumps(BODY).encode(), (STRUCTURED,), 400),
        (json.dumps(ATTRIBUTES).encode(), (STRUCTURED,), 400),
        (json.dumps({**ATTRIBUTES, "id": 7, "data": BODY}).encode(), (STRUCTURED,), 400),
        (json.dumps({**ATTRIBUTES, "specversion": "2.0", "data": BODY}).encode(), (STRUCTURED,), 400),
        (json.dumps({**ATTRIBUTES, "data": json.dumps(BODY)}).encode(), (STRUCTURED,), 400),
        (json.dumps({**ATTRIBUTES, "data_base64": "?"}).encode(), (STRUCTURED,), 400),
        (json.dumps({**ATTRIBUTES, "data_base64": 5}).encode(), (STRUCTURED,), 400),
        (json.dumps({**ATTRIBUTES, "data_base64": "W10="}).encode(), (STRUCTURED,), 400),
        (b"[]", ("Content-Type: application/cloudevents-batch+json",), 415),
        (json.dumps(BODY).encode(), ("ce-specversion: 9", *BINARY[1:]), 400),
        (json.dumps({**ATTRIBUTES, "data": BODY}).encode(), (STRUCTURED, "Accept: application/json"), 406),
    ],
)
def test_a_bad_event_is_refused_clearly(server: Served, body: bytes, headers: tuple[str, ...], status: int) -> None:
    assert ask(server, body, *headers).status == status
    assert ask(server, BODY).status == 200
