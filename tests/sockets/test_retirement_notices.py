"""A version that is to be retired says so in every answer, whatever it is asked through."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import grpc
import numpy as np
import pytest
from tests.conftest import Tree, rows

from salver.protocol.proto import message

REQUEST = message("inference.ModelInferRequest")
SERVICE = "/inference.GRPCInferenceService"
NOTICE_S = 30 * 86_400.0
POLICY = '[[retirement]]\nname = "old"\nolder_than_days = 0\nnotice_days = 30\n'


@pytest.fixture(scope="module")
def tree(trees, models, tmp_path_factory) -> Iterator[Tree]:
    """A server of a version that is proposed for retirement."""
    tree = trees()
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.salver("policy", "set", policy)
    tree.salver("retire", "propose")
    tree.start("--grpc", "0")
    yield tree
    tree.stop()


@pytest.fixture
def channel(tree: Tree) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(tree.ready["grpc"]) as channel:
        yield channel


def request() -> Any:
    made = REQUEST(model_name="double")
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    made.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    return made


def assert_told(headers: dict[str, str]) -> None:
    since_s = int(headers["deprecation"].removeprefix("@"))
    assert parsedate_to_datetime(headers["sunset"]).timestamp() - since_s == pytest.approx(NOTICE_S, abs=1)


def told(call: grpc.Call) -> dict[str, str]:
    return {name: value for name, value in call.initial_metadata() if isinstance(value, str)}


def test_an_answer_of_grpc_says_it(channel: grpc.Channel) -> None:
    ask = channel.unary_unary(
        f"{SERVICE}/ModelInfer",
        request_serializer=REQUEST.SerializeToString,
        response_deserializer=message("inference.ModelInferResponse").FromString,
    )
    answer, call = ask.with_call(request(), timeout=20)
    assert answer.model_version == "1.0.0"
    assert_told(told(call))


def test_a_stream_of_grpc_says_it(channel: grpc.Channel) -> None:
    ask = channel.stream_stream(
        f"{SERVICE}/ModelStreamInfer",
        request_serializer=REQUEST.SerializeToString,
        response_deserializer=message("inference.ModelStreamInferResponse").FromString,
    )
    call = ask(iter([request()]), timeout=20)
    assert [answer.infer_response.model_version for answer in call] == ["1.0.0"]
    assert_told(told(call))


def test_the_acceptance_of_a_job_says_it(tree: Tree) -> None:
    accepted = tree.ask(tree.http, "POST", "/v2/models/double/jobs", rows([1, 2]))
    assert accepted.status == 202
    assert_told(accepted.headers)
