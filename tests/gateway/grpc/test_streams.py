"""Streams: answers in the order of the messages, errors among them, and no stream that outlives its client."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.gateway.grpc.client import OIP, Http2Client, data_frames, dial, framed, row
from tests.gateway.servers import Served
from tests.gateway.wire import eventually

from salver.gateway.grpc import frames as f
from salver.gateway.grpc.frames import ErrorCode, pack_frame
from salver.gateway.grpc.streams import Stream
from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError
from salver.protocol.proto import message

HEALTH = "/grpc.health.v1.Health/"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
CHECK, STATE = message("grpc.health.v1.HealthCheckRequest"), message("grpc.health.v1.HealthCheckResponse")
ASK, TOLD = (
    message("grpc.reflection.v1.ServerReflectionRequest"),
    message("grpc.reflection.v1.ServerReflectionResponse"),
)
RAISES = [("triton_grpc_error", "true")]


def first(streamed: Any) -> float:
    assert not streamed.error_message
    return float(np.frombuffer(streamed.infer_response.raw_output_contents[1], np.float32)[0])


def tasks(server: Served) -> int:
    """Coroutines of calls that have not ended."""

    def count() -> int:
        return sum("streaming" in repr(task.get_coro()) for task in asyncio.all_tasks())

    return server.thread.run(count)


def test_messages_are_answered_in_their_order(server: Served, client: Http2Client) -> None:
    stream_id = client.start("ModelStreamInfer", *[row(n, 0, 0, 0) for n in range(200)])
    answer = client.answer(stream_id)
    assert answer.status == 0
    assert [first(client.message(stream_id, n + 1)) for n in range(200)] == list(range(200))
    assert (server.gateway.inflight_bytes, tasks(server)) == (0, 0)


def test_an_answer_comes_before_the_next_message(client: Http2Client) -> None:
    stream_id = client.start("ModelStreamInfer", end=False)
    for n in range(3):
        client.send(data_frames(stream_id, framed(row(n, 0, 0, 0)), last=False))
        assert first(client.message(stream_id, n + 1)) == n
    client.end(stream_id)
    assert client.answer(stream_id).status == 0


def test_messages_may_be_cut_anywhere(client: Http2Client) -> None:
    stream_id = client.start("ModelStreamInfer", end=False)
    body = b"".join(framed(row(n, 0, 0, 0)) for n in range(3))
    for at in range(0, len(body), 7):
        client.send(pack_frame(0, 0, stream_id, body[at : at + 7]))
    client.end(stream_id)
    assert client.answer(stream_id).status == 0
    assert [first(client.message(stream_id, n + 1)) for n in range(3)] == [0, 1, 2]


def test_an_empty_stream_ends_well(client: Http2Client) -> None:
    assert client.call("ModelStreamInfer", b"").messages
    client.send(client.head(OIP + "ModelStreamInfer", last=True))
    answer = client.answer(client.next_id - 2)
    assert (answer.status, answer.data) == (0, b"")


def test_an_error_is_one_of_the_answers(client: Http2Client) -> None:
    wrong = [row(model="nothing", id="b"), b"\xff", row(1, 2, 3, 4, id="d")]
    stream_id = client.start("ModelStreamInfer", row(7, 0, 0, 0, id="a"), *wrong)
    assert client.answer(stream_id).status == 0
    assert first(client.message(stream_id, 1)) == 7
    assert "nothing" in client.message(stream_id, 2).error_message
    assert client.message(stream_id, 2).infer_response.id == "b"
    assert "no ModelInferRequest" in client.message(stream_id, 3).error_message
    assert client.message(stream_id, 4).infer_response.id == "d"


def test_an_error_ends_the_stream_of_a_client_that_wants_it_raised(server: Served, client: Http2Client) -> None:
    wrong = [row(model="nothing")] * 5
    stream_id = client.start("ModelStreamInfer", row(7, 0, 0, 0), *wrong, row(model="held"), headers=RAISES, end=False)
    answer = client.answer(stream_id)
    assert (answer.status, answer.code, len(answer.messages)) == (5, "NOT_FOUND", 1)
    assert answer.reset is None
    eventually(lambda: tasks(server) == 0)
    assert all(answer.cancelled() for _, answer in server.held.asked)
    assert server.gateway.inflight_bytes == 0


@pytest.mark.parametrize("rest", [b"\0\0", b"\0\xff\xff\xff\xff", framed(row())[:-1]])
def test_what_came_before_a_broken_message_is_answered(server: Served, client: Http2Client, rest: bytes) -> None:
    client.send(client.head(OIP + "ModelStreamInfer"))
    client.send(data_frames(1, framed(row(model="held")) + framed(row(5, 0, 0, 0)) + rest))
    server.answer_held()
    answer = client.answer(1)
    assert answer.status in (3, 8)
    assert len(answer.messages) == 2
    eventually(lambda: tasks(server) == 0)


def test_a_failure_of_the_model_is_counted_once_and_a_fault_tells_nothing(
    server: Served, client: Http2Client, no_faults: list[Any]
) -> None:
    stream_id = client.start("ModelStreamInfer", row(model="held"), row(model="held"), row(3, 0, 0, 0))
    eventually(lambda: len(server.held.asked) == 2)
    (_, one), (_, two) = server.held.asked
    server.thread.run(lambda: one.set_exception(SalverError("MODEL_ERROR", "it fell over")))
    server.thread.run(lambda: two.set_exception(RuntimeError("secret")))
    assert client.answer(stream_id).status == 0
    assert client.message(stream_id, 1).error_message == "it fell over"
    assert client.message(stream_id, 2).error_message == "the request met a fault of this server"
    assert first(client.message(stream_id, 3)) == 3
    assert len(no_faults) == 1
    no_faults.clear()


def test_few_messages_are_under_way_at_a_time_and_no_more_than_a_window_waits(
    server: Served, client: Http2Client
) -> None:
    size = len(framed(row(model="held")))
    stream_id = client.start("ModelStreamInfer", *[row(model="held")] * 100, end=False)
    eventually(lambda: len(server.held.asked) == 32)
    assert client.call("ServerLive").status == 0
    assert len(server.held.asked) == 32
    assert server.gateway.inflight_bytes <= 100 * size
    server.answer_held(100)
    client.end(stream_id)
    assert len(client.answer(stream_id).messages) == 100
    assert server.gateway.inflight_bytes == 0


def test_tiny_messages_widen_the_window_only_by_what_was_taken(server: Served, client: Http2Client) -> None:
    stream_id = client.start("ModelStreamInfer", *[row(model="held")] * 32, end=False)
    eventually(lambda: len(server.held.asked) == 32)
    empty = framed(b"") * 150_000
    client.send(data_frames(stream_id, empty, last=False))
    assert client.call("ServerLive").status == 0
    server.answer_held(5)
    client.message(stream_id, 5)
    assert client.call("ServerLive").status == 0
    assert client.windows.get(stream_id, 0) <= 32 * 200
    client.cancel(stream_id)
    eventually(lambda: server.gateway.inflight_bytes == 0)


def test_many_tiny_messages_leave_the_others_their_turn() -> None:
    lane = SimpleNamespace(gateway=SimpleNamespace(limits=Limits(), now_s=0.0), give_back=lambda *_: None)
    call: Any = SimpleNamespace(lane=lane, buffer=framed(b"") * 1000, half_closed=True, owed=0, headers={})
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read() -> None:
        task = asyncio.create_task(other())
        assert [message async for message in Stream(call).messages()] == [b""] * 1000
        task.cancel()

    asyncio.run(read())
    assert turns >= 900
    assert call.owed == 1000


@pytest.mark.parametrize("paused", [False, True])
def test_a_cancelled_stream_leaves_nothing(server: Served, paused: bool) -> None:
    client = Http2Client(server.connect(), settings=[(4, 10 if paused else 2**30)])
    stream_id = client.start("ModelStreamInfer", row(), *[row(model="held")] * 50, end=False)
    eventually(lambda: len(server.held.asked) >= 31)
    client.cancel(stream_id)
    eventually(lambda: tasks(server) == 0)
    assert all(answer.cancelled() for _, answer in server.held.asked)
    assert server.gateway.inflight_bytes == 0
    assert client.call("ServerLive") if not paused else True


def test_a_stream_refused_while_it_sends_ends_with_the_refusal(hasty: Served) -> None:
    client = Http2Client(hasty.connect(), settings=[(4, 10)])
    stream_id = client.start("ModelStreamInfer", row(), end=False)
    eventually(lambda: client.frame() and client.answers[stream_id].data)
    client.send(pack_frame(0, 0, stream_id, framed(row())[:-1]))
    answer = client.answer(stream_id)
    assert (answer.status, answer.code) == (4, "REQUEST_TIMEOUT")
    assert len(answer.data) == 10
    eventually(lambda: tasks(hasty) == 0)


def test_a_stream_refused_while_nothing_is_under_way_leaves_nothing(hasty: Served) -> None:
    client = dial(hasty)
    stream_id = client.start("ModelStreamInfer", end=False)
    client.send(pack_frame(0, 0, stream_id, b"\0\0"))
    assert client.answer(stream_id).code == "REQUEST_TIMEOUT"
    eventually(lambda: tasks(hasty) == 0)
    assert hasty.gateway.inflight_bytes == 0


def test_a_stream_may_be_quiet_and_full_and_is_not_taken_for_slow(hasty: Served) -> None:
    client = dial(hasty)
    stream_id = client.start("ModelStreamInfer", *[row(model="held")] * 50, end=False)
    eventually(lambda: len(hasty.held.asked) == 32)
    begun_s = hasty.gateway.now_s
    eventually(lambda: hasty.gateway.now_s > begun_s + 0.8)
    hasty.answer_held(50)
    client.message(stream_id, 50)
    body = framed(row(9, 0, 0, 0))
    client.send(pack_frame(0, 0, stream_id, body[:-5]))
    swept_s = hasty.gateway.now_s
    eventually(lambda: hasty.gateway.now_s > swept_s + 0.06)
    client.send(pack_frame(0, 0, stream_id, body[-5:]))
    assert first(client.message(stream_id, 51)) == 9


def test_a_stream_has_the_time_its_client_gives_it(server: Served, client: Http2Client) -> None:
    stream_id = client.start(
        "ModelStreamInfer", row(), row(model="held"), end=False, headers=[("grpc-timeout", "100m")]
    )
    answer = client.answer(stream_id)
    assert (answer.status, answer.code, len(answer.messages)) == (4, "DEADLINE_EXCEEDED", 1)
    eventually(lambda: tasks(server) == 0)
    assert all(answer.cancelled() for _, answer in server.held.asked)


def test_each_message_of_a_stream_has_a_deadline_of_its_own(server: Served, client: Http2Client) -> None:
    begun_s = server.gateway.clock.monotonic_s()
    stream_id = client.start("ModelStreamInfer", end=False)
    eventually(lambda: server.gateway.clock.monotonic_s() > begun_s + 0.1)
    client.send(data_frames(stream_id, framed(row(model="held"))))
    eventually(lambda: server.held.asked)
    request, _ = server.held.asked[0]
    assert request.received_s > begun_s + 0.05
    assert request.deadline_s > request.received_s


def test_the_last_answer_is_marked_for_those_who_ask(client: Http2Client) -> None:
    request = row()
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    stream_id = client.start("ModelStreamInfer", request)
    client.answer(stream_id)
    response = client.message(stream_id, 1).infer_response
    assert response.parameters["triton_final_response"].bool_param is True
    assert len(response.outputs) == 2


# Health and reflection.


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("toy", "", True), ("toy", "1", True), ("toy", "9.9.9", False), ("broken", "", False), ("nothing", "", False)],
)
def test_a_model_that_is_not_there_is_not_ready(client: Http2Client, name: str, version: str, ready: bool) -> None:
    answer = client.call("ModelReady", message("inference.ModelReadyRequest")(name=name, version=version))
    assert answer.status == 0
    assert message("inference.ModelReadyResponse").FromString(answer.messages[0]).ready is ready


def test_health_of_the_server_its_services_and_its_endpoints(client: Http2Client) -> None:
    for name, status in (("", 1), ("inference.GRPCInferenceService", 1), ("toy", 1), ("broken", 2)):
        (body,) = client.call(HEALTH + "Check", CHECK(service=name)).messages
        assert STATE.FromString(body).status == status
    unknown = client.call(HEALTH + "Check", CHECK(service="nothing"))
    assert (unknown.status, unknown.code) == (5, "NOT_FOUND")


def test_a_watch_tells_what_changes(server: Served, client: Http2Client) -> None:
    stream_id = client.start(HEALTH + "Watch", CHECK())
    answer = client.answers[stream_id]
    eventually(lambda: client.frame() and answer.data)
    server.gateway.draining = True
    try:
        assert client.answer(stream_id).status == 0
    finally:
        server.gateway.draining = False
    assert [STATE.FromString(body).status for body in answer.messages] == [1, 2]
    assert STATE.FromString(client.call(HEALTH + "Check", CHECK()).messages[0]).status == 1


def test_reflection_answers_every_kind_of_question(client: Http2Client) -> None:
    questions = [
        ASK(list_services=""),
        ASK(file_containing_symbol="inference.GRPCInferenceService"),
        ASK(file_by_filename="inference.proto"),
        ASK(file_by_filename="nothing.proto"),
        ASK(all_extension_numbers_of_type="inference.ModelInferRequest"),
        ASK(all_extension_numbers_of_type="no.Type"),
        ASK(host="h"),
    ]
    told = [TOLD.FromString(body) for body in client.answer(client.start(REFLECT, *questions)).messages]
    names = [service.name for service in told[0].list_services_response.service]
    assert "inference.GRPCInferenceService" in names
    assert "grpc.health.v1.Health" in names
    assert [answer.WhichOneof("message_response") for answer in told[1:]] == [
        "file_descriptor_response",
        "file_descriptor_response",
        "error_response",
        "all_extension_numbers_response",
        "error_response",
        "error_response",
    ]
    assert told[1].file_descriptor_response == told[2].file_descriptor_response
    assert told[6].valid_host == "h"


def test_a_client_that_does_not_read_its_stream_holds_no_more_than_its_window(server: Served) -> None:
    server.held.width = 100_000
    client = Http2Client(server.connect(), settings=[(4, 100)])
    stream_id = client.start("ModelStreamInfer", *[row(model="held")] * 3)
    server.answer_held(3)
    eventually(lambda: client.frame() and len(client.answers[stream_id].data) == 100)
    client.send(f.pack_window_update(stream_id, 2**30))
    assert len(client.answer(stream_id).messages) == 3
    assert client.answers[stream_id].reset != ErrorCode.INTERNAL_ERROR
