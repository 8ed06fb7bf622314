"""Inference over HTTP: right answers to right requests, one clear error to each wrong one."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from tests.gateway.conftest import WEIGHTS
from tests.gateway.servers import HeldService, Layered, Serve, Served
from tests.gateway.wire import eventually, held_request, request, row

from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError
from salver.protocol.request import Request
from salver.routing.router import Target


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**row()["inputs"][0], **changes}]}


def binary(values: np.ndarray, **changes: Any) -> tuple[bytes, str]:
    """A body with one binary tensor, and the header that tells where it begins."""
    data = values.tobytes()
    described = {
        "name": "X",
        "shape": list(values.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [{**described, **changes}]}).encode()
    return head + data, f"Inference-Header-Content-Length: {len(head)}"


# Right answers.


def test_an_answer_is_that_of_the_model(server: Served) -> None:
    reply = server.infer(row(1, 2, 3, 4))
    assert reply.json == {
        "model_name": "toy",
        "model_version": "1.0.0",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [2]},
            {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": [5, 6, 7]},
        ],
    }


def test_many_rows_flat_or_nested_are_answered_alike(server: Served) -> None:
    values = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    flat = server.infer(tensor(shape=[50, 4], data=values.reshape(-1).tolist()))
    nested = server.infer(tensor(shape=[50, 4], data=values.tolist()))
    assert flat.json == nested.json
    answered = np.array(flat.json["outputs"][1]["data"], np.float32).reshape(50, 3)
    np.testing.assert_allclose(answered, values @ WEIGHTS, rtol=1e-5)


def test_each_of_many_clients_gets_its_own_answer(server: Served) -> None:
    clients = [server.connect() for _ in range(50)]
    for n, client in enumerate(clients):
        client.send(request("POST", "/v2/models/toy/infer", json.dumps({**row(n, 0, 0, 1), "id": str(n)}).encode()))
    for n, client in enumerate(clients):
        reply = client.read().json
        assert (reply["id"], reply["outputs"][1]["data"]) == (str(n), [n + 1, 1, 1])


@pytest.mark.parametrize("version", ["1.0.0", "1"])
def test_a_version_may_be_named_in_full_or_by_ordinal(server: Served, version: str) -> None:
    reply = server.post(f"/v2/models/toy/versions/{version}/infer", json.dumps(row()).encode())
    assert reply.json["model_version"] == "1.0.0"


def test_binary_tensors_go_both_ways(server: Served) -> None:
    values = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    body, header = binary(values)
    assert server.infer(body, header).json["outputs"][1]["data"] == (values @ WEIGHTS).reshape(-1).tolist()
    body = json.dumps({**row(1, 2, 3, 4), "parameters": {"binary_data_output": True}}).encode()
    reply = server.infer(body)
    assert reply.headers["content-type"] == "application/octet-stream"
    at = int(reply.headers["inference-header-content-length"])
    head = json.loads(reply.body[:at])
    assert [output["parameters"]["binary_data_size"] for output in head["outputs"]] == [8, 12]
    assert struct.unpack("<q3f", reply.body[at:]) == (2, 5, 6, 7)


def test_a_raw_body_is_the_one_input(server: Served) -> None:
    reply = server.infer(struct.pack("<4f", 1, 2, 3, 4), "Inference-Header-Content-Length: 0")
    at = int(reply.headers["inference-header-content-length"])
    assert struct.unpack("<q3f", reply.body[at:]) == (2, 5, 6, 7)


def test_outputs_are_selected_and_ordered_by_the_client(server: Served) -> None:
    chosen = server.infer({**row(), "outputs": [{"name": "scores"}]}).json["outputs"]
    assert [output["name"] for output in chosen] == ["scores"]
    both = server.infer({**row(), "outputs": [{"name": "scores"}, {"name": "label"}]}).json["outputs"]
    assert [output["name"] for output in both] == ["scores", "label"]


def test_one_output_may_be_binary_and_another_not(server: Served) -> None:
    outputs = [{"name": "label"}, {"name": "scores", "parameters": {"binary_data": True}}]
    reply = server.infer({**row(1, 2, 3, 4), "outputs": outputs})
    at = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.body[:at])["outputs"][0]["data"] == [2]
    assert struct.unpack("<3f", reply.body[at:]) == (5, 6, 7)


def test_the_largest_classes_are_named(server: Served) -> None:
    outputs = [{"name": "scores", "parameters": {"classification": 2}}]
    answered = server.infer({**row(1, 5, 3, 0), "outputs": outputs}).json["outputs"][0]
    assert answered["datatype"] == "BYTES"
    assert answered["data"] == ["5.000000:1:bee", "3.000000:2:cat"]


def test_the_id_of_the_body_comes_back_in_the_body_and_that_of_the_header_in_the_header(server: Served) -> None:
    reply = server.infer({**row(), "id": "body \u20ac"}, "X-Request-Id: header")
    assert reply.json["id"] == "body \u20ac"
    assert reply.headers["x-request-id"] == "header"
    assert "id" not in server.infer(row()).json


# JSON that is none, or too much of it: F25.


def nested(depth: int) -> bytes:
    return b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"


HOSTILE_JSON = {
    "not JSON": (b"hello", "INVALID_JSON"),
    "empty": (b"", "INVALID_JSON"),
    "NUL": (b"\0", "INVALID_JSON"),
    "an array": (b"[]", "INVALID_JSON"),
    "null": (b"null", "INVALID_JSON"),
    "no inputs": (b"{}", "INVALID_JSON"),
    "cut short": (json.dumps(row()).encode()[:-1], "INVALID_JSON"),
    "followed by more": (json.dumps(row()).encode() + b"{}", "INVALID_JSON"),
    "250 000 deep": (nested(250_000), "INVALID_JSON"),
    "250 000 deep and never closed": (b"[" * 250_000, "INVALID_JSON"),
    "250 000 deep in data": (
        b'{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":' + b"[" * 250_000,
        "INVALID_JSON",
    ),
    "250 000 deep objects": (b'{"inputs":' + b'{"a":' * 250_000, "INVALID_JSON"),
    "250 000 deep in a key that is ignored": (
        json.dumps(row()).encode()[:-1] + b',"more":' + b"[" * 250_000 + b"]" * 250_000 + b"}",
        "INVALID_JSON",
    ),
    "NaN": (json.dumps(row(float("nan"), 1, 2, 3)).encode(), "INVALID_JSON"),
    "Infinity": (json.dumps(row(float("inf"), 1, 2, 3)).encode(), "INVALID_JSON"),
    "a BOM": (b"\xef\xbb\xbf" + json.dumps(row()).encode(), "INVALID_JSON"),
    "UTF-16": (json.dumps(row()).encode("utf-16"), "INVALID_JSON"),
    "bytes that are no UTF-8": (json.dumps({**row(), "id": "@"}).encode().replace(b"@", b"\xff"), "INVALID_JSON"),
    "a lone surrogate": (json.dumps({**row(), "id": "@"}).encode().replace(b"@", b"\\ud800"), "INVALID_JSON"),
    "a control character in a string": (
        json.dumps({**row(), "id": "@"}).encode().replace(b"@", b"\x01"),
        "INVALID_JSON",
    ),
    "single quotes": (str(row()).encode(), "INVALID_JSON"),
    "a comment": (b"/* */" + json.dumps(row()).encode(), "INVALID_JSON"),
    "a comma too many": (json.dumps(row()).encode()[:-1] + b",}", "INVALID_JSON"),
    "the inputs twice": (json.dumps(row()).encode()[:-1] + b',"inputs":[]}', "DUPLICATE_KEY"),
    "the data twice": (json.dumps(row()).encode().replace(b'"data"', b'"data":[9,9,9,9],"data"'), "DUPLICATE_KEY"),
    "the shape twice": (json.dumps(row()).encode().replace(b'"shape"', b'"shape":[2,4],"shape"'), "DUPLICATE_KEY"),
    "a parameter twice": (
        json.dumps(row()).encode()[:-1] + b',"parameters":{"timeout":1,"timeout":2}}',
        "DUPLICATE_KEY",
    ),
    "an ignored key twice": (json.dumps(row()).encode()[:-1] + b',"a":1,"a":2}', "DUPLICATE_KEY"),
    "a key twice, once escaped": (json.dumps(row()).encode()[:-1] + b',"\\u0069nputs":[]}', "DUPLICATE_KEY"),
    "a number beyond all": (json.dumps(row()).encode().replace(b"[1, 2, 3, 0]", b"[1e999,1,1,1]"), None),
    "a number with a plus": (json.dumps(row()).encode().replace(b"[1, 2, 3, 0]", b"[+1,1,1,1]"), "INVALID_JSON"),
    "a number in hexadecimal": (json.dumps(row()).encode().replace(b"[1, 2, 3, 0]", b"[0x1,1,1,1]"), "INVALID_JSON"),
}


@pytest.mark.parametrize("kind", HOSTILE_JSON)
def test_hostile_json_is_refused(server: Served, kind: str) -> None:
    body, code = HOSTILE_JSON[kind]
    client = server.connect()
    reply = client.ask(request("POST", "/v2/models/toy/infer", body))
    assert reply.status == 400
    assert len(reply.error) < 500
    if code:
        assert reply.code == code, reply
    assert client.ask(request("POST", "/v2/models/toy/infer", json.dumps(row()).encode())).status == 200


@pytest.fixture(scope="module")
def roomy(serve_model: Serve) -> Served:
    """With the limits that are the default."""
    return serve_model(Limits())


@pytest.mark.parametrize("within", ["", '"parameters":{', '"more":{'])
def test_a_million_keys_are_read_or_refused_before_the_client_loses_patience(roomy: Served, within: str) -> None:
    # Comparing each with each would take hours.
    keys = within + ",".join(f'"{n:x}":0' for n in range(1_000_000)) + ("}" if within else "")
    body = json.dumps(row())[:-1] + "," + keys + "}"
    assert roomy.infer(body.encode()).status in (200, 400)
    assert roomy.infer(row()).status == 200


def test_a_number_of_10_mb_is_refused_without_being_converted(roomy: Served) -> None:
    for where in (b"[1, 2, 3, 0]", b"[1, 4]"):
        body = json.dumps(row()).encode().replace(where, b"[" + b"1" * 10_000_000 + b",1,1,1]")
        reply = roomy.infer(body)
        assert reply.status == 400
        assert len(reply.error) < 500
    assert roomy.infer(row()).status == 200


# Tensors that contradict themselves or the model: F30.

LIES = {
    "an unknown input": (tensor(name="Y"), "UNKNOWN_INPUT", "'Y'"),
    "no input": ({"inputs": []}, "MISSING_INPUT", "'X'"),
    "an input twice": ({"inputs": row()["inputs"] * 2}, "INVALID_TENSOR", "twice"),
    "another input as well": ({"inputs": [*row()["inputs"], tensor(name="Z")["inputs"][0]]}, "UNKNOWN_INPUT", "'Z'"),
    "an unknown datatype": (tensor(datatype="FP99"), "WRONG_DATATYPE", "'FP99'"),
    "another datatype": (tensor(datatype="INT32"), "WRONG_DATATYPE", "INT32"),
    "a datatype JSON cannot carry": (tensor(datatype="FP16"), "WRONG_DATATYPE", "FP16"),
    "too few values": (tensor(data=[1, 2, 3]), "WRONG_SHAPE", "3 elements"),
    "too many values": (tensor(data=[1, 2, 3, 4, 5]), "WRONG_SHAPE", "5 elements"),
    "no data": ({"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32"}]}, "INVALID_TENSOR", "no data"),
    "another width": (tensor(shape=[1, 5], data=[1] * 5), "WRONG_SHAPE", "[1, 5]"),
    "another rank": (tensor(shape=[4]), "WRONG_SHAPE", "[4]"),
    "no rows": (tensor(shape=[0, 4], data=[]), "WRONG_SHAPE", "0 rows"),
    "a scalar": (tensor(shape=[], data=[1]), "WRONG_SHAPE", "[]"),
    "a negative dimension": (tensor(shape=[-1, 4]), "INVALID_TENSOR", "-1"),
    "two negative dimensions": (tensor(shape=[-1, -4]), "INVALID_TENSOR", "-1"),
    "a product that overflows to what is there": (tensor(shape=[2**62, 16]), "INVALID_TENSOR", str(2**62)),
    "a product that overflows to nothing": (tensor(shape=[2**32, 2**32]), "INVALID_TENSOR", str(2**32)),
    "an overflow hidden behind a zero": (tensor(shape=[2**60, 0, 2**60], data=[]), "INVALID_TENSOR", str(2**60)),
    "rank 1000": (tensor(shape=[1] * 1000), "INVALID_TENSOR", "1000"),
    "more elements than allowed": (tensor(shape=[2**24, 4]), "INVALID_TENSOR", str(2**26)),
    "more rows than a batch": (tensor(shape=[257, 4], data=[0] * 1028), "TOO_MANY_ROWS", "257"),
    "a dimension that is no integer": (tensor(shape=[1.5, 4]), "INVALID_JSON", "shape"),
    "a dimension that is text": (tensor(shape=["1", 4]), "INVALID_JSON", "shape"),
    "a shape that is no list": (tensor(shape=4), "INVALID_JSON", "shape"),
    "a dimension beyond 64 bits": (tensor(shape=[2**70, 4]), "INVALID_TENSOR", ""),
    "text for a number": (tensor(data=["1", 2, 3, 4]), "INVALID_VALUE", "X"),
    "a boolean for a number": (tensor(data=[True, 2, 3, 4]), "INVALID_VALUE", "X"),
    "null for a number": (tensor(data=[None, 2, 3, 4]), "INVALID_VALUE", "X"),
    "an object for a number": (tensor(data=[{}, 2, 3, 4]), "INVALID_VALUE", "X"),
    "a number for data": (tensor(data=4), "INVALID_VALUE", "X"),
    "a value too large for its type": (tensor(data=[1e300, 2, 3, 4]), "INVALID_VALUE", "1e+300"),
    "a ragged nest": (tensor(shape=[2, 2], data=[[1, 2], [3]]), "WRONG_SHAPE", "[2, 2]"),
    "a nest of another shape": (tensor(shape=[1, 4], data=[[1, 2], [3, 4]]), "WRONG_SHAPE", "[1, 4]"),
    "a nest too deep": (tensor(data=[[[1, 2, 3, 4]]]), "INVALID_VALUE", "X"),
    "a binary size without bytes": (tensor(parameters={"binary_data_size": 16}), "INVALID_TENSOR", "16"),
    "shared memory": (
        {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}}]},
        "UNSUPPORTED",
        "shared memory",
    ),
    "shared memory for an output": (
        {**row(), "outputs": [{"name": "scores", "parameters": {"shared_memory_region": "r"}}]},
        "UNSUPPORTED",
        "shared memory",
    ),
    "an unknown output": ({**row(), "outputs": [{"name": "nope"}]}, "UNKNOWN_OUTPUT", "'nope'"),
    "an output twice": ({**row(), "outputs": [{"name": "label"}] * 2}, "INVALID_TENSOR", "twice"),
    "classes counted backwards": (
        {**row(), "outputs": [{"name": "scores", "parameters": {"classification": -1}}]},
        "INVALID_PARAMETER",
        "-1",
    ),
    "a timeout of text": ({**row(), "parameters": {"timeout": "1"}}, "INVALID_PARAMETER", "'1'"),
    "a negative timeout": ({**row(), "parameters": {"timeout": -1}}, "INVALID_PARAMETER", "-1"),
    "a timeout of days": ({**row(), "parameters": {"timeout": 10**12}}, "INVALID_PARAMETER", "1000000000000"),
    "a timeout that is true": ({**row(), "parameters": {"timeout": True}}, "INVALID_PARAMETER", "True"),
    "an id that is a number": ({**row(), "id": 5}, "INVALID_JSON", "id"),
    "a name that is a number": (tensor(name=5), "INVALID_JSON", "name"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_is_refused_naming_the_lie(server: Served, lie: str) -> None:
    body, code, named = LIES[lie]
    client = server.connect()
    reply = client.ask(request("POST", "/v2/models/toy/infer", json.dumps(body).encode()))
    assert reply.code == code, reply
    assert named in reply.error
    assert len(reply.error) < 6000
    assert "connection" not in reply.headers
    assert client.ask(request("GET", "/v2/health/live")).status == 200


FOUR = np.array([[1, 2, 3, 4]], np.float32)
BINARY_LIES = {
    "longer than the body": (FOUR, {}, lambda n: n + 1000, "INVALID_TENSOR"),
    "no number": (FOUR, {}, lambda _: "abc", "INVALID_TENSOR"),
    "negative": (FOUR, {}, lambda n: -n, "INVALID_TENSOR"),
    "with a plus": (FOUR, {}, lambda n: f"+{n}", "INVALID_TENSOR"),
    "of 5000 digits": (FOUR, {}, lambda n: f"{n:05000d}", "INVALID_TENSOR"),
    "in superscript": (FOUR, {}, lambda _: "\N{SUPERSCRIPT TWO}", "INVALID_TENSOR"),
    "short of the JSON": (FOUR, {}, lambda n: n - 1, "INVALID_JSON"),
    "a size beyond the body": (FOUR, {"parameters": {"binary_data_size": 17}}, None, "INVALID_TENSOR"),
    "a size short of the body": (FOUR, {"parameters": {"binary_data_size": 12}}, None, "INVALID_TENSOR"),
    "a negative size": (FOUR, {"parameters": {"binary_data_size": -16}}, None, "INVALID_TENSOR"),
    "a size of text": (FOUR, {"parameters": {"binary_data_size": "16"}}, None, "INVALID_TENSOR"),
    "a size that is true": (FOUR, {"parameters": {"binary_data_size": True}}, None, "INVALID_TENSOR"),
    "a shape of more": (FOUR, {"shape": [2, 4]}, None, "INVALID_TENSOR"),
    "a shape that overflows": (FOUR, {"shape": [2**62, 4]}, None, "INVALID_TENSOR"),
    "data as well": (FOUR, {"data": [1, 2, 3, 4]}, None, "INVALID_TENSOR"),
    "half a header": (FOUR, {"parameters": {}}, None, "INVALID_TENSOR"),
}


@pytest.mark.parametrize("lie", BINARY_LIES)
def test_a_binary_tensor_that_lies_is_refused(server: Served, lie: str) -> None:
    values, changes, length, code = BINARY_LIES[lie]
    body, header = binary(values, **changes)
    if length:
        header = f"Inference-Header-Content-Length: {length(int(header.partition(': ')[2]))}"
    data = request("POST", "/v2/models/toy/infer", body).replace(b"Host:", header.encode("latin-1") + b"\r\nHost:")
    reply = server.ask(data)
    assert reply.code == code, reply


def test_a_raw_body_of_the_wrong_size_is_refused(server: Served) -> None:
    reply = server.infer(bytes(15), "Inference-Header-Content-Length: 0")
    assert reply.code == "INVALID_TENSOR"
    assert "15 bytes" in reply.error


# Models.


@pytest.mark.parametrize("path", ["/v2/models/none/infer", "/v2/models/toy/versions/2.0.0/infer"])
def test_an_unknown_model_or_version_is_not_found(server: Served, path: str) -> None:
    reply = server.post(path, json.dumps(row()).encode())
    assert (reply.status, reply.code) == (404, "NOT_FOUND")
    assert "toy" in reply.error or "1.0.0" in reply.error


def test_a_model_that_did_not_load_is_not_ready(server: Served) -> None:
    reply = server.infer(row(), model="broken")
    assert (reply.status, reply.code) == (503, "NOT_READY")
    assert reply.headers["retry-after"] == "1"


def test_the_deadline_is_the_sooner_of_the_requests_and_the_deployments(server: Served) -> None:
    def waits(parameters: Any) -> float:
        client = server.connect()
        client.send(held_request(**parameters))
        asked = eventually(lambda: server.held.asked)[0][0]
        server.answer_held()
        assert client.read().status == 200
        return asked.deadline_s - asked.received_s

    assert waits({}) == pytest.approx(30)
    assert waits({"parameters": {"timeout": 250_000}}) == pytest.approx(0.25)
    assert waits({"parameters": {"timeout": 0}}) == pytest.approx(30)
    assert waits({"parameters": {"timeout": 3_000_000_000}}) == pytest.approx(30)


def test_a_body_is_let_go_once_its_tensors_are_taken(server: Served) -> None:
    client = server.connect()
    client.send(held_request())
    eventually(lambda: server.held.asked)
    (lane,) = server.gateway.lanes
    assert lane._answering.body == b""
    assert server.gateway.inflight_bytes == lane._answering.body_bytes > 0
    server.answer_held()
    assert client.read().status == 200
    assert server.gateway.inflight_bytes == 0


def test_a_service_that_fails_in_an_unforeseen_way_is_a_fault_of_the_server(
    server: Served, no_faults: list, thread: Any
) -> None:
    client = server.connect()
    client.send(held_request())
    eventually(lambda: server.held.asked)
    thread.run(lambda: server.held.asked.pop()[1].set_exception(RuntimeError("secret")))
    reply = client.read()
    assert (reply.status, reply.code) == (500, "INTERNAL")
    assert "secret" not in reply.error
    assert len(no_faults) == 1
    no_faults.clear()
    assert client.ask(request("GET", "/v2/health/live")).status == 200


def test_a_service_may_be_a_coroutine(server: Served, thread: Any) -> None:
    """Layers such as fallback or shadow are."""
    router = server.plane.router
    before = dict(router.targets())

    async def layered(asked):
        return await before["toy"].service(asked)

    layered_target = Target(before["toy"].spec, before["toy"].manifest, Layered(layered))
    thread.run(lambda: router.publish({**before, "toy": layered_target}, {}))
    try:
        assert server.infer(row()).status == 200
    finally:
        thread.run(lambda: router.publish(before, {"broken": None}))


def test_contracts_of_endpoints_that_are_no_more_are_let_go(server: Served, thread: Any) -> None:
    router = server.plane.router
    before = dict(router.targets())
    (door,) = {route.open.__self__ for route in server.gateway.routes.routes if route.template.endswith("/infer")}
    again = Target(before["toy"].spec, before["toy"].manifest, before["toy"].service)
    thread.run(lambda: router.publish({**before, "gone": Target(*before["held"])}, {}))
    server.infer(row(), model="toy")
    client = server.connect()
    client.send(held_request())
    server.answer_held()
    client.read()
    assert set(door._contracts._prepared) >= {"toy", "held"}
    thread.run(lambda: router.publish({"toy": again}, {}))
    assert server.infer(row()).status == 200
    assert set(door._contracts._prepared) == {"toy"}
    thread.run(lambda: router.publish(before, {"broken": None}))


def test_a_nonfinite_answer_is_an_error_in_json_and_bits_in_binary(server: Served) -> None:
    body = json.dumps(row()).encode().replace(b"[1, 2, 3, 0]", b"[3e38,0,0,3e38]")
    reply = server.infer(body)
    assert (reply.status, reply.code) == (500, "NONFINITE_OUTPUT")
    reply = server.infer(body[:-1] + b',"parameters":{"binary_data_output":true}}')
    assert reply.status == 200


def test_values_outside_a_small_element_limit_are_refused(serve_model: Serve) -> None:
    server = serve_model(Limits(tensor_elements=8))
    assert server.infer(tensor(shape=[2, 4], data=[0] * 8)).status == 200
    assert server.infer(tensor(shape=[3, 4], data=[0] * 12)).code == "INVALID_TENSOR"


def test_a_full_queue_is_told_at_once(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(asked: Request) -> Any:
        raise SalverError("QUEUE_FULL", f"1024 requests wait for {asked.endpoint}; at most 1024 may", "retry later")

    monkeypatch.setattr(HeldService, "__call__", lambda _, asked: full(asked))
    client = server.connect()
    reply = client.ask(held_request())
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (429, "QUEUE_FULL", "1")
    assert client.ask(request("GET", "/v2/health/live")).status == 200
