"""Messages of inference that are wrong, on a connection that goes on: as a call's status, or as answers of a stream."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from tests.gateway.grpc.client import RESPONSE, Http2Client, row
from tests.gateway.servers import Served
from tests.protocol.test_oip_grpc import wrong

from salver.protocol.errors import CATALOGUE

WRONG = wrong()
RAISES = [("triton_grpc_error", "true")]


def status_of(code: str) -> int:
    """What the catalogue says, as a number."""
    number: int = grpc.StatusCode[CATALOGUE[code].grpc].value[0]
    return number


def label(response: Any) -> int:
    return int(np.frombuffer(response.raw_output_contents[0], np.int64)[0])


def check_right(client: Http2Client) -> None:
    """See that the connection takes a right message."""
    answer = client.call("ModelInfer", row(0, 5, 0, 0))
    assert answer.status == 0
    assert label(RESPONSE.FromString(answer.messages[0])) == 1


@pytest.mark.parametrize("what", WRONG)
def test_a_call_with_one_has_its_status_and_code(server: Served, client: Http2Client, what: str) -> None:
    message, code = WRONG[what]
    counted = server.gateway.metrics.refusals["other", code]
    answer = client.call("ModelInfer", message)
    assert (answer.status, answer.code, answer.messages) == (status_of(code), code, [])
    assert 0 < len(answer.trailers["grpc-message"]) < 1000
    assert server.gateway.metrics.refusals["other", code] == counted + 1
    check_right(client)


@pytest.mark.parametrize("what", WRONG)
def test_one_in_a_stream_is_one_of_the_answers(server: Served, client: Http2Client, what: str) -> None:
    message, code = WRONG[what]
    counted = server.gateway.metrics.refusals["other", code]
    stream = client.start("ModelStreamInfer", row(id="a"), message, row(0, 5, 0, 0, id="c"))
    answer = client.answer(stream)
    assert (answer.status, answer.code, len(answer.messages)) == (0, None, 3)
    before, told, behind = (client.message(stream, number) for number in (1, 2, 3))
    assert 0 < len(told.error_message) < 1000
    assert not told.infer_response.outputs
    assert [(each.infer_response.id, label(each.infer_response)) for each in (before, behind)] == [("a", 2), ("c", 1)]
    assert server.gateway.metrics.refusals["other", code] == counted + 1
    check_right(client)


@pytest.mark.parametrize("what", WRONG)
def test_one_ends_the_stream_of_a_client_that_wants_it_raised(client: Http2Client, what: str) -> None:
    message, code = WRONG[what]
    stream = client.start("ModelStreamInfer", row(id="a"), message, row(id="c"), headers=RAISES)
    answer = client.answer(stream)
    assert (answer.status, answer.code, len(answer.messages)) == (status_of(code), code, 1)
    assert client.message(stream, 1).infer_response.id == "a"
    check_right(client)
