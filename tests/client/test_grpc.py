"""The client over gRPC, against servers that fail in gRPC's own ways."""

from __future__ import annotations

import asyncio
import sys
import threading

import grpc
import pytest
from tests.client.fakes import serving_grpc

from salver.client import AsyncClient, CallError, Retries
from salver.protocol.errors import SalverError
from salver.protocol.proto import message
from salver.testing import eventually

AT_ONCE = Retries(first_s=0.0)
METADATA = message("inference.ModelMetadataResponse")(name="m", versions=["1.0.0"])
METADATA.inputs.add(name="X", datatype="FP32", shape=[-1, 1])
ANSWER = message("inference.ModelInferResponse")(model_version="1.0.0", raw_output_contents=[b"\0" * 8])
ANSWER.outputs.add(name="y", datatype="FP32", shape=[1, 2])


def says(answer):
    return lambda _: answer.SerializeToString()


def aborts(status: grpc.StatusCode, details: str = "no", *metadata: tuple[str, str]):
    def act(context):
        context.set_trailing_metadata(metadata)
        context.abort(status, details)

    return act


def config(idempotent: str):
    found = message("inference.ModelConfigResponse")()
    found.config.parameters["salver_idempotent"].string_value = idempotent
    return says(found)


@pytest.mark.parametrize("status", list(grpc.StatusCode)[1:])
def test_a_status_without_a_code_gets_the_one_it_stands_for(kind, status):
    with (
        serving_grpc(ModelStatistics=[aborts(status)]) as fake,
        kind(fake.url, retries=Retries(attempts=1)) as client,
        pytest.raises(CallError) as caught,
    ):
        client.models()
    assert caught.value.grpc == status.name or caught.value.code == "INTERNAL"


def test_a_code_of_the_catalogue_is_taken_as_it_is(kind):
    said = aborts(
        grpc.StatusCode.INVALID_ARGUMENT, "text", ("x-salver-error", "TOO_MANY_ROWS"), ("x-request-id", "a-1")
    )
    with serving_grpc(ModelStatistics=[said]) as fake, kind(fake.url) as client, pytest.raises(CallError) as caught:
        client.models()
    assert (caught.value.code, caught.value.message, caught.value.request_id) == ("TOO_MANY_ROWS", "text", "a-1")


def test_a_refused_call_is_made_again(kind):
    down = aborts(grpc.StatusCode.UNAVAILABLE, "no", ("x-salver-error", "NOT_READY"))
    with serving_grpc(ModelMetadata=[down, says(METADATA)], ModelInfer=[down, down, says(ANSWER)]) as fake:
        with kind(fake.url, retries=AT_ONCE) as client:
            assert client.predict("m", [[1.0]])["y"].tolist() == [[0.0, 0.0]]
        asked = [method for method, _, _ in fake.asked]
    assert asked == ["ModelMetadata"] * 2 + ["ModelInfer"] * 3


def test_the_configuration_says_which_inputs_may_be_left_out(kind):
    found = message("inference.ModelConfigResponse")()
    found.config.input.add(name="X", optional=True)
    missing = aborts(grpc.StatusCode.UNIMPLEMENTED)
    with (
        serving_grpc(ModelMetadata=[says(METADATA)] * 2, ModelConfig=[says(found), missing]) as fake,
        kind(fake.url) as client,
    ):
        assert client.metadata("m").inputs[0].optional
        assert not client.metadata("m").inputs[0].optional


@pytest.mark.parametrize(("declared", "calls"), [("true", 2), ("false", 1), ("", 1)])
def test_a_call_that_may_have_run_is_made_again_if_the_model_allows_it(kind, declared, calls):
    lost = aborts(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    infer = [lost, says(ANSWER)][:calls]
    with (
        serving_grpc(ModelMetadata=[says(METADATA)], ModelInfer=infer, ModelConfig=[config(declared)]) as fake,
        kind(fake.url, retries=AT_ONCE) as client,
    ):
        if calls == 2:
            client.predict("m", [[1.0]])
        else:
            with pytest.raises(CallError, match="Socket closed"):
                client.predict("m", [[1.0]])


@pytest.mark.parametrize(
    "broken",
    [
        b"\xff",
        message("inference.ModelInferResponse")(raw_output_contents=[b""]).SerializeToString(),
        message("inference.ModelInferResponse")(
            outputs=[{"name": "y", "datatype": "FP32", "shape": [2]}], raw_output_contents=[b"1234"]
        ).SerializeToString(),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(kind, broken):
    with (
        serving_grpc(ModelMetadata=[says(METADATA)], ModelInfer=[lambda _: broken]) as fake,
        kind(fake.url) as client,
        pytest.raises(CallError) as caught,
    ):
        client.predict("m", [[1.0]])
    assert caught.value.code == "INTERNAL"


def test_a_call_says_who_and_until_when(kind):
    left = []

    def infer(context):
        left.append(context.time_remaining())
        return ANSWER.SerializeToString()

    with serving_grpc(ModelMetadata=[says(METADATA)], ModelInfer=[infer]) as fake:
        with kind(fake.url, token="secret", timeout_s=5) as client:
            client.predict("m", [[1.0]], request_id="a-2", parameters={"a": 1, "b": True, "c": "x", "d": 0.5})
        _, body, metadata = fake.asked[1]
    assert 3 < left[0] < 5.1  # gRPC writes few digits, and rounds up
    assert (metadata["authorization"], metadata["x-request-id"]) == ("Bearer secret", "a-2")
    request = message("inference.ModelInferRequest").FromString(body)
    said = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in request.parameters.items()}
    assert said == {"a": 1, "b": True, "c": "x", "d": 0.5}
    assert request.raw_input_contents == [b"\0\0\x80?"]


@pytest.mark.parametrize("value", [2**70, None, [1]])
def test_a_parameter_that_grpc_cannot_carry_is_refused(kind, value):
    with (
        serving_grpc(ModelMetadata=[says(METADATA)]) as fake,
        kind(fake.url) as client,
        pytest.raises(SalverError) as caught,
    ):
        client.predict("m", [[1.0]], parameters={"x": value})
    assert caught.value.code == "INVALID_PARAMETER"


def test_a_cancelled_call_is_cancelled_at_the_server():
    cancelled, begun = threading.Event(), threading.Event()

    def hold(context):
        context.add_callback(cancelled.set)
        begun.set()
        cancelled.wait(10)
        return b""

    async def main(fake):
        async with AsyncClient(fake.url) as client:
            call = asyncio.create_task(client.models())
            await eventually(begun.is_set)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await eventually(cancelled.is_set)

    with serving_grpc(ModelStatistics=[hold]) as fake:
        asyncio.run(main(fake))


def test_without_grpcio_the_extra_is_named(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "salver.client.grpc_transport", raising=False)
    with pytest.raises(SalverError, match=r"salver\[grpc\]") as caught:
        kind("grpc://127.0.0.1:1")
    assert caught.value.code == "UNSUPPORTED"
