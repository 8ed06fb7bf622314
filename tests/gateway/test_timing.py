"""How long a request took, for a client that asks."""

from __future__ import annotations

import json

import pytest
from tests.gateway.servers import Served
from tests.gateway.wire import request, row


@pytest.mark.parametrize("encoding", [(), ("Accept-Encoding: gzip",)])
def test_a_client_that_asks_is_told_how_long_its_request_waited_computed_and_took(
    server: Served, encoding: tuple[str, ...]
) -> None:
    assert "server-timing" not in server.infer(row(), *encoding).headers
    assert "server-timing" not in server.infer({**row(), "parameters": {"salver_timing": False}}).headers
    for more in ({}, {"binary_data_output": True}):
        asked = {**row(), "parameters": {"salver_timing": True, **more}}
        client = server.connect()
        client.send(request("POST", "/v2/models/held/infer", json.dumps(asked).encode(), encoding))
        server.answer_held()
        told = client.read().headers["server-timing"]
        spans = dict(span.split(";", 1) for span in told.split(", "))
        assert (spans["queue"], spans["hold"], spans["compute"]) == ("dur=250.000", "dur=0.000", "dur=500.000")
        assert (spans["batch"], spans["placement"]) == ('desc="1"', 'desc="thread"')
        assert float(spans["total"].removeprefix("dur=")) > 0
    refused = server.infer({**row(), "parameters": {"salver_timing": 1}})
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER")


def test_what_it_waited_for_before_the_queue_is_told_first(server: Served) -> None:
    client = server.connect()
    client.send(request("POST", "/v2/models/held/infer", json.dumps(row()).encode(), ("X-Salver-Timing: 1",)))
    server.answer_held(waits=(("load", 0.125), ("turn", 0.0625)))
    told = client.read().headers["server-timing"]
    assert told.startswith("load;dur=125.000, turn;dur=62.500, queue;dur=250.000, hold;dur=0.000, compute;dur=500.000")


def test_one_that_is_refused_is_told_how_long_that_took_if_its_header_asks(server: Served) -> None:
    asked = "X-Salver-Timing: 1"
    for body, code in ((row() | {"parameters": {"timeout": -1}}, "INVALID_PARAMETER"), ({}, "INVALID_JSON")):
        refused = server.infer(body, asked)
        assert refused.code == code
        assert refused.headers["server-timing"].startswith("total;dur=")
        assert "server-timing" not in server.infer(body).headers


def test_a_timeout_of_thousands_of_digits_is_refused_like_any_other(server: Served) -> None:
    for timeout in (10**400, -(10**400), 10**4000, 3_600_000_001):
        body = row() | {"parameters": {"timeout": timeout}}
        assert server.infer(body).code == "INVALID_PARAMETER"
