"""Triton's gRPC client and gRPC's own health and reflection clients, unmodified, against `salver serve`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from onnx import TensorProto, helper
from tests.foreign_clients.test_tritonclient import PYTHON, digits_model, echo_model, write_sums

HERE = Path(__file__).parent


def wide_model() -> bytes:
    """A graph that doubles rows of any width."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "wide"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "wide"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.fixture(scope="module")
def served(trees, models, tmp_path_factory):
    """A server with the models that the clients ask for."""
    directory = tmp_path_factory.mktemp("foreign")
    tree = trees()
    for name, content in (("digits", digits_model()), ("echo", echo_model()), ("wide", wide_model())):
        (directory / f"{name}.onnx").write_bytes(content)
        tree.salver("register", name, directory / f"{name}.onnx")
        tree.salver("deploy", name)
    tree.salver("register", "sums", write_sums(directory / "sums"))
    tree.salver("deploy", "sums")
    tree.salver("register", "loop", models / "loop.onnx")
    tree.salver("deploy", "loop", "--placement", "thread")
    tree.start("--grpc", "0", SALVER_SERVER_REPOSITORY_ON_DATA="1")
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert not tree.events("fault")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_tritons_grpc_client_works_unmodified(served) -> None:
    assert PYTHON.exists(), "make venv-tritonclient makes the environment this test drives"
    done = subprocess.run(
        [PYTHON, HERE / "triton_grpc_client.py", served.ready["grpc"], served.admin_token],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 19, done.stdout


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_health_client_works_unmodified(served) -> None:
    with grpc.insecure_channel(served.ready["grpc"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "inference.GRPCInferenceService", "echo"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_client_that_knows_nothing_learns_all_by_reflection(served) -> None:
    with grpc.insecure_channel(served.ready["grpc"]) as channel:
        known = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in known.get_services()
        pool = DescriptorPool(known)
        method = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ServerMetadata"]
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerMetadata",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = ask(GetMessageClass(method.input_type)(), timeout=10)
        assert "statistics" in answer.extensions
        known._stub = None
