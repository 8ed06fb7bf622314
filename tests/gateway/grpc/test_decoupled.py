"""A version that streams answers one message of ModelStreamInfer several times."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from tests.gateway.grpc.client import REQUEST, RESPONSE, STREAMED, dial, row
from tests.gateway.streaming import check_timing_of_stream, publish_talk, spans
from tests.gateway.wire import eventually

from salver.clock import SYSTEM_CLOCK
from salver.gateway.grpc.frames import pack_window_update
from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError
from salver.protocol.proto import message
from salver.protocol.tensor import pack_bytes_elements
from salver.runtime.lazy import LazyVersion
from salver.telemetry.metrics import VersionMetrics


@pytest.fixture(scope="module")
def grpc_ordinary(serve_model):
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits(), grpc=True)


def talk(text="hi", *, final=False, **more):
    request = REQUEST(model_name="talk", **more)
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(pack_bytes_elements([text.encode()]))
    if final:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


def twice(text):
    return (f"{text}{n}" for n in range(2))


def parts(answer):
    return [STREAMED.FromString(each) for each in answer.messages]


def text_of(part):
    (raw,) = part.infer_response.raw_output_contents
    return raw[4:].decode()


def test_each_part_is_an_answer_in_the_order_of_the_messages(server, client):
    publish_talk(server, twice)
    answer = client.answer(client.start("ModelStreamInfer", talk("a", id="1"), row(), talk("b", id="3")))
    assert answer.status == 0
    got = parts(answer)
    assert [each.infer_response.id for each in got] == ["1", "1", "", "3", "3"]
    assert [text_of(got[n]) for n in (0, 1, 3, 4)] == ["a0", "a1", "b0", "b1"]
    assert all(not each.infer_response.parameters for each in got)


def test_a_client_that_asks_is_told_which_answer_is_the_last(server, client):
    publish_talk(server, twice)
    got = parts(client.answer(client.start("ModelStreamInfer", talk(id="7", final=True))))
    told = [each.infer_response.parameters["triton_final_response"].bool_param for each in got]
    assert told == [False, False, True]
    last = got[-1].infer_response
    assert (last.model_name, last.model_version, last.id, len(last.outputs)) == ("talk", "1.2.3", "7", 0)


@pytest.mark.parametrize("by", ["metadata", "parameter"])
def test_a_client_that_asks_is_told_its_timing_behind_the_last_answer(server, client, by):
    publish_talk(server, twice)
    asked = [talk(id="1"), row(id="2"), talk(id="3", final=True)]
    headers = [("x-salver-timing", "1")] if by == "metadata" else []
    if by == "parameter":
        for each in asked:
            each.parameters["salver_timing"].bool_param = True
    got = [
        each.infer_response for each in parts(client.answer(client.start("ModelStreamInfer", *asked, headers=headers)))
    ]
    told = [each.parameters["salver_timing"].string_param for each in got]
    assert [each.id for each in got] == [*"1112333"]
    assert [bool(each) for each in told] == [False, False, True, True, False, False, True]
    for at in (2, 6):
        check_timing_of_stream(told[at], 2)
        assert (got[at].parameters["triton_final_response"].bool_param, len(got[at].outputs)) == (True, 0)
    assert list(spans(told[3])) == ["queue", "hold", "compute", "batch", "placement", "total"]
    assert len(got[3].outputs) == 2


def test_a_message_without_answers_leaves_nothing_owed(server, client):
    publish_talk(server, lambda _: iter(()))
    stream = client.start("ModelStreamInfer", talk(), end=False)
    (lane,) = server.gateway.lanes
    eventually(lambda: lane._calls and lane._calls[stream].is_quiet)
    client.end(stream)
    assert client.answer(stream).messages == []


def test_an_answer_comes_when_its_part_does(server, client):
    go = server.thread.run(asyncio.Event)
    publish_talk(server, lambda _: iter(("first", go, "second")))
    stream = client.start("ModelStreamInfer", talk())
    assert text_of(client.message(stream, 1)) == "first"
    server.thread.run(go.set)
    assert text_of(client.message(stream, 2)) == "second"


def test_a_failure_is_an_answer_and_the_stream_goes_on(server, client):
    talking = publish_talk(
        server, lambda text: iter(("a", SalverError("WORKER_LOST", "the worker died")) if text == "bad" else ("b",))
    )
    got = parts(client.answer(client.start("ModelStreamInfer", talk("bad", id="1"), talk("good", id="2"))))
    assert [each.error_message for each in got] == ["", "the worker died", ""]
    assert [each.infer_response.id for each in got] == ["1", "1", "2"]
    assert [each.closed for each in talking.opened] == [1, 1]


def test_a_client_that_wants_errors_as_status_gets_them_so(server, client):
    publish_talk(server, lambda _: iter(("a", SalverError("WORKER_LOST", "the worker died"))))
    stream = client.start("ModelStreamInfer", talk(), headers=[("triton_grpc_error", "true")])
    answer = client.answer(stream)
    assert (len(parts(answer)), answer.code) == (1, "WORKER_LOST")


def test_a_refusal_at_opening_is_an_answer(server, client):
    publish_talk(server, twice).refusal = SalverError("QUEUE_FULL", "too many streams")
    (told,) = parts(client.answer(client.start("ModelStreamInfer", talk(id="9"))))
    assert (told.error_message, told.infer_response.id) == ("too many streams", "9")


@pytest.mark.parametrize("leave", ["cancel", "close"])
def test_a_call_that_ends_closes_all_that_it_has_opened(server, client, leave):
    talking = publish_talk(server, lambda _: itertools.repeat("word"))
    stream = client.start("ModelStreamInfer", talk(), talk())
    client.message(stream, 3)
    eventually(lambda: len(talking.opened) == 2)
    if leave == "cancel":
        client.cancel(stream)
    else:
        client.raw.close()
    eventually(lambda: [each.closed > 0 for each in talking.opened] == [True, True])


@pytest.mark.parametrize("leave", ["cancel", "close"])
def test_a_call_that_ends_while_the_version_loads_opens_nothing(server, client, leave):
    talking = publish_talk(server, lambda _: itertools.repeat("word"))
    router = server.plane.router
    target = dict(router.targets())["talk"]
    cold = LazyVersion(target.spec, target.manifest, VersionMetrics(), SYSTEM_CLOCK, lambda: None)
    targets = dict(router.targets()) | {"talk": target._replace(service=cold)}
    server.thread.run(lambda: router.publish(targets, {}))
    stream = client.start("ModelStreamInfer", *[talk()] * 4)
    eventually(lambda: cold.waiting == 4)
    if leave == "cancel":
        client.cancel(stream)
    else:
        client.raw.close()
    eventually(lambda: cold.waiting == 0)
    server.thread.run(lambda: cold.serve(talking))
    assert talking.opened == []


def test_a_client_without_window_pauses_the_model(server):
    talking = publish_talk(server, lambda _: itertools.repeat("x" * 1000))
    client = dial(server, settings=((4, 5000),), window=0)
    stream = client.start("ModelStreamInfer", talk())
    while len(client.answers[stream].data) < 5000:
        client.frame()
    (opened,) = talking.opened
    given = opened.given
    for _ in range(20):
        server.thread.run(lambda: asyncio.sleep(0))
    assert opened.given == given
    client.send(pack_window_update(stream, 50_000))
    eventually(lambda: opened.given >= given + 20)


def test_the_deadline_of_the_call_ends_it(server, client):
    go = server.thread.run(asyncio.Event)
    talking = publish_talk(server, lambda _: iter(("a", go)))
    answer = client.answer(client.start("ModelStreamInfer", talk(), headers=[("grpc-timeout", "100m")]))
    assert answer.code == "DEADLINE_EXCEEDED"
    eventually(lambda: talking.opened[0].closed)


def test_a_unary_call_gets_one_answer(server, client):
    publish_talk(server, twice)
    answer = client.call("ModelInfer", talk())
    (raw,) = RESPONSE.FromString(answer.messages[0]).raw_output_contents
    assert raw[4:] == b"hi0hi1"


def test_the_configuration_says_that_it_is_decoupled(server, client):
    publish_talk(server, twice)
    kind = message("inference.ModelConfigRequest")
    config = message("inference.ModelConfigResponse").FromString(
        client.call("ModelConfig", kind(name="talk")).messages[0]
    )
    assert config.config.model_transaction_policy.decoupled
    config = message("inference.ModelConfigResponse").FromString(
        client.call("ModelConfig", kind(name="toy")).messages[0]
    )
    assert not config.config.model_transaction_policy.decoupled


def test_a_server_that_stops_waits_for_the_rest(serve_model):
    server = serve_model(Limits(), grpc=True)
    go = server.thread.run(asyncio.Event)
    publish_talk(server, lambda _: iter(("a", "b", go, "c")))
    client = dial(server)
    stream = client.start("ModelStreamInfer", talk(), end=False)
    client.message(stream, 2)
    server.thread.run(server.gateway.drain)
    enough_s = time.monotonic() + 0.5
    eventually(lambda: server.thread.run(server.gateway.close_idle) or time.monotonic() > enough_s)
    server.thread.run(go.set)
    assert text_of(client.message(stream, 3)) == "c"
    client.end(stream)
    assert client.answer(stream).status == 0
