"""Messages of gRPC: as strict as JSON on the way in, what protobuf itself would write on the way out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salver.protocol.codecs.oip_grpc import GrpcEncoder, decode_infer
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.proto import POOL, message
from salver.protocol.request import BatchOutputs, Request, RequestedOutput, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite
from salver.protocol.tensor import Tensor, pack_bytes_elements, unpack_bytes_elements

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "src" / "salver" / "protocol" / "proto"
REQUEST, RESPONSE = message("inference.ModelInferRequest"), message("inference.ModelInferResponse")
STREAMED = message("inference.ModelStreamInferResponse")
MOST = 2**20
VALUES: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("bool_contents", [True, False]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32_contents", [0.5, float("inf")]),
    "FP64": ("fp64_contents", [0.1, -1e300]),
    "BYTES": ("bytes_contents", [b"", b"\xff\0"]),
}


def asked(datatype: str = "FP32", shape: tuple[int, ...] = (2,), raw: bytes | None = None, **contents: Any) -> Any:
    request = REQUEST(model_name="m")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def decoded(request: Any) -> Any:
    return decode_infer(request.SerializeToString(), MOST)


def refused(request: Any) -> str:
    with pytest.raises(SalverError) as caught:
        decode_infer(request if isinstance(request, bytes) else request.SerializeToString(), MOST)
    assert len(str(caught.value)) < 1000
    return caught.value.code


# In.


@pytest.mark.parametrize("datatype", VALUES)
def test_typed_and_raw_contents_mean_the_same(datatype: str) -> None:
    field, values = VALUES[datatype]
    dtype = DATATYPES[datatype].dtype
    raw = pack_bytes_elements(values) if datatype == "BYTES" else np.array(values, dtype).tobytes()
    typed = decoded(asked(datatype, **{field: values}))
    binary = decoded(asked(datatype, raw=raw))
    assert (typed.typed, binary.typed) == (True, False)
    assert bytes(typed.inputs["x"].data) == bytes(binary.inputs["x"].data) == raw
    assert typed.inputs["x"].numpy().tolist() == values


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_no_field_can_hold_travels_raw_only(datatype: str) -> None:
    assert bytes(decoded(asked(datatype, raw=b"abcd")).inputs["x"].data) == b"abcd"
    assert refused(asked(datatype, fp32_contents=[1, 2])) == "WRONG_DATATYPE"


@pytest.mark.parametrize(
    ("datatype", "values"),
    [("UINT8", [0, 256]), ("UINT16", [0, 65536]), ("INT8", [0, 128]), ("INT8", [0, -129]), ("INT16", [0, 32768])],
)
def test_values_beyond_their_datatype_are_refused(datatype: str, values: list[int]) -> None:
    assert refused(asked(datatype, **{VALUES[datatype][0]: values})) == "INVALID_VALUE"


def test_head_and_parameters_come_in() -> None:
    request = asked(fp32_contents=[1, 2])
    request.id, request.model_version = "é", "3"
    for name, (kind, value) in {
        "b": ("bool_param", True),
        "i": ("int64_param", -5),
        "s": ("string_param", "x"),
        "d": ("double_param", 0.5),
        "u": ("uint64_param", 2**64 - 1),
    }.items():
        setattr(request.parameters[name], kind, value)
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    request.outputs.add(name="z")
    got = decoded(request)
    assert (got.model, got.version, got.id) == ("m", "3", "é")
    assert got.parameters == {"b": True, "i": -5, "s": "x", "d": 0.5, "u": 2**64 - 1}
    assert got.outputs == (RequestedOutput("y", None, 2), RequestedOutput("z"))
    bare = decoded(REQUEST(model_name="m"))
    assert (bare.version, bare.id, bare.parameters, bare.outputs, bare.inputs) == (None, None, None, None, {})


def wrong() -> dict[str, tuple[Any, str]]:
    two = asked(raw=bytes(8))
    two.inputs.add(name="x", datatype="FP32", shape=[1])
    two.raw_input_contents.append(bytes(4))
    outputs = asked(raw=bytes(8))
    outputs.outputs.add(name="y")
    outputs.outputs.add(name="y")
    shared = asked(raw=bytes(8))
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    shared_out = asked(raw=bytes(8))
    shared_out.outputs.add(name="y").parameters["shared_memory_region"].string_param = "r"
    empty = asked(raw=bytes(8))
    empty.parameters["p"].SetInParent()
    both = asked(raw=bytes(8), fp32_contents=[1, 2])
    fewer = asked(raw=bytes(8))
    fewer.inputs.add(name="y", datatype="FP32", shape=[1])
    classes = asked(raw=bytes(8))
    classes.outputs.add(name="y").parameters["classification"].int64_param = -1
    binary = asked(raw=bytes(8))
    binary.parameters["binary_data_output"].string_param = "yes"
    named = asked(raw=bytes(8))
    named.inputs[0].name = "x" * 300
    return {
        "noise": (b"\xff\xff", "BAD_MESSAGE"),
        "a name that is no text": (b"\x0a\x01\xff", "BAD_MESSAGE"),
        "an input twice": (two, "INVALID_TENSOR"),
        "an output twice": (outputs, "INVALID_TENSOR"),
        "shared memory in": (shared, "UNSUPPORTED"),
        "shared memory out": (shared_out, "UNSUPPORTED"),
        "a parameter without a value": (empty, "INVALID_PARAMETER"),
        "raw and typed": (both, "INVALID_TENSOR"),
        "fewer raw contents than inputs": (fewer, "INVALID_TENSOR"),
        "negative classes": (classes, "INVALID_PARAMETER"),
        "binary as text": (binary, "INVALID_PARAMETER"),
        "a long name": (named, "INVALID_TENSOR"),
        "an unknown datatype": (asked("FP128", raw=bytes(8)), "WRONG_DATATYPE"),
        "a long datatype": (asked("X" * 100_000, raw=bytes(8)), "WRONG_DATATYPE"),
        "too few bytes": (asked(raw=bytes(7)), "INVALID_TENSOR"),
        "too many bytes": (asked(raw=bytes(9)), "INVALID_TENSOR"),
        "BOOL of 2": (asked("BOOL", raw=b"\0\2"), "INVALID_VALUE"),
        "BYTES cut short": (asked("BYTES", raw=b"\5\0\0\0abc"), "INVALID_TENSOR"),
        "too few values": (asked(fp32_contents=[1]), "WRONG_SHAPE"),
        "too many values": (asked(fp32_contents=[1, 2, 3]), "WRONG_SHAPE"),
        "no values": (asked(), "WRONG_SHAPE"),
        "values of another type": (asked(fp64_contents=[1, 2]), "INVALID_TENSOR"),
        "values of two types": (asked(fp32_contents=[1, 2], fp64_contents=[1]), "INVALID_TENSOR"),
        "a negative dimension": (asked(shape=(-1, 2), raw=bytes(8)), "INVALID_TENSOR"),
        "a dimension that overflows": (asked(shape=(2**62, 2**62, 4), raw=bytes(8)), "INVALID_TENSOR"),
        "a product that overflows": (asked(shape=(2**20, 2**20), raw=bytes(8)), "INVALID_TENSOR"),
        "too many dimensions": (asked(shape=(1,) * 10_000, raw=bytes(8)), "INVALID_TENSOR"),
    }


@pytest.mark.parametrize("what", wrong())
def test_what_is_wrong_is_refused(what: str) -> None:
    request, code = wrong()[what]
    assert refused(request) == code


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        decode_infer(data, MOST)
    except SalverError as error:
        assert error.http in (400, 501)


# Out.

TYPES = ["BOOL", "UINT8", "INT64", "FP16", "FP32", "FP64", "BYTES"]


def array_of(datatype: str, rows: int, width: int) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    if datatype == "BYTES":
        elements = st.lists(st.binary(max_size=200), min_size=rows * width, max_size=rows * width)
        return elements.map(lambda found: np.array([*found, None], object)[:-1].reshape(rows, width))
    return hnp.arrays(DATATYPES[datatype].dtype, (rows, width))


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    rows = draw(st.integers(1, 4))
    types = draw(st.dictionaries(st.text(max_size=10), st.sampled_from(TYPES), min_size=1, max_size=3))
    widths = {name: draw(st.integers(0, 40)) for name in types}
    return types, {name: draw(array_of(datatype, rows, widths[name])) for name, datatype in types.items()}


def plain(types: dict[str, str], response: Response, *, typed: bool = False) -> Any:
    """The answer as protobuf's own classes write it."""
    answer = RESPONSE(model_name="e", model_version="1.0.0", id="i")
    answer.parameters["salver_model"].string_param = "m"
    for name, datatype in types.items():
        array = response.array(name)
        output = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if typed:
            getattr(output.contents, VALUES[datatype][0]).extend(array.reshape(-1).tolist())
        elif datatype == "BYTES":
            answer.raw_output_contents.append(pack_bytes_elements(array.reshape(-1).tolist()))
        else:
            answer.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
    return answer


def encoder(types: dict[str, str], model: str = "m", labels: tuple[str, ...] = ()) -> GrpcEncoder:
    specs = {name: TensorSpec(name, datatype, (-1, -1), labels=labels) for name, datatype in types.items()}
    return GrpcEncoder("e", model, "1.0.0", specs, Nonfinite.ERROR)


@given(batches(), st.data())
def test_joined_bytes_are_what_protobuf_would_write(batch: Any, data: st.DataObject) -> None:
    types, arrays = batch
    rows = len(next(iter(arrays.values())))
    made = encoder(types)
    shared = BatchOutputs(arrays)
    request = Request("e", {}, id="i")
    for _ in range(3):
        start = data.draw(st.integers(0, rows - 1))
        response = Response("m", "1.0.0", shared, start, data.draw(st.integers(start + 1, rows)))
        encoded = made.encode(request, response, typed=False)
        assert same(RESPONSE.FromString(encoded), plain(types, response))
        one = STREAMED.FromString(made.encode_streamed(request, response, typed=False))
        assert (one.error_message, same(one.infer_response, plain(types, response))) == ("", True)
        if "FP16" not in types.values():
            typed = made.encode(request, response, typed=True)
            assert same(RESPONSE.FromString(typed), plain(types, response, typed=True))


def same(one: Any, two: Any) -> bool:
    """Whether two messages are the same, NaN included."""
    return one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)


def respond(values: Any, datatype: str = "FP32", **more: Any) -> tuple[GrpcEncoder, Response]:
    array = np.array(values, DATATYPES[datatype].dtype)
    return encoder({"y": datatype}, **more), Response("m", "1.0.0", BatchOutputs({"y": array}), 0, len(array))


def test_model_warnings_and_id_are_told_only_when_there_are_any() -> None:
    made, response = respond([[1.0]], model="e")
    bare = RESPONSE.FromString(made.encode(Request("e", {}), response, typed=False))
    assert (bare.id, dict(bare.parameters)) == ("", {})
    made, response = respond([[1.0]])
    response.warnings = ("a is low", "b is high")
    told = RESPONSE.FromString(made.encode(Request("e", {}, id="7"), response, typed=False))
    assert (told.id, told.parameters["salver_model"].string_param) == ("7", "m")
    assert told.parameters["salver_warnings"].string_param == "a is low\nb is high"


def test_outputs_come_as_they_were_asked_for() -> None:
    made = encoder({"a": "FP32", "b": "FP32"})
    arrays = {"a": np.ones((2, 1), np.float32), "b": np.zeros((2, 1), np.float32)}
    response = Response("m", "1.0.0", BatchOutputs(arrays), 1, 2)
    for typed in (False, True):
        request = Request("e", {}, outputs=(RequestedOutput("b"), RequestedOutput("a")))
        answer = RESPONSE.FromString(made.encode(request, response, typed=typed))
        assert [output.name for output in answer.outputs] == ["b", "a"]


@pytest.mark.parametrize("typed", [False, True])
def test_classes_are_named(typed: bool) -> None:
    made, response = respond([[0.1, 0.7, 0.2]], labels=("ant", "bee", "cat"))
    request = Request("e", {}, outputs=(RequestedOutput("y", None, 2),))
    answer = RESPONSE.FromString(made.encode(request, response, typed=typed))
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [1, 2])
    raw = output.contents.bytes_contents if typed else unpack_bytes_elements(answer.raw_output_contents[0], 2, "y")
    assert [text.split(b":")[1:] for text in raw] == [[b"1", b"bee"], [b"2", b"cat"]]


def test_values_that_are_no_numbers_pass() -> None:
    made, response = respond([[float("nan"), float("inf")]])
    (raw,) = RESPONSE.FromString(made.encode(Request("e", {}), response, typed=False)).raw_output_contents
    assert np.isnan(np.frombuffer(raw, np.float32)[0])
    (output,) = RESPONSE.FromString(made.encode(Request("e", {}), response, typed=True)).outputs
    assert output.contents.fp32_contents[1] == float("inf")


def test_what_no_field_can_hold_is_answered_raw_also_to_typed_requests() -> None:
    made, response = respond([[1.5]], "FP16")
    answer = RESPONSE.FromString(made.encode(Request("e", {}), response, typed=True))
    assert answer.raw_output_contents[0] == np.float16(1.5).tobytes()


def test_what_is_decoded_can_be_a_tensor() -> None:
    assert isinstance(decoded(asked(raw=bytes(8))).inputs["x"], Tensor)


# The contract.

DESCRIBE = """
import json, sys
from tritonclient.grpc import service_pb2
def fields(m, found):
    found[m.full_name] = sorted(
        [f.name, f.number, f.type, f.is_repeated, f.message_type.full_name if f.message_type else ""]
        for f in m.fields
    )
    for inner in m.nested_types:
        fields(inner, found)
found = {}
for m in service_pb2.DESCRIPTOR.message_types_by_name.values():
    fields(m, found)
service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
print(json.dumps([found, {m.name: [m.input_type.full_name, m.output_type.full_name] for m in service.methods}]))
"""


def ours(name: str) -> list[list[Any]]:
    return sorted(
        [
            field.name,
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else "",
        ]
        for field in POOL.FindMessageTypeByName(name).fields
    )


def test_messages_and_methods_are_those_of_tritons_client() -> None:
    python = ROOT / ".venvs" / "tritonclient" / "bin" / "python"
    assert python.exists(), "make venv-tritonclient makes the environment this test drives"
    done = subprocess.run([python, "-W", "ignore", "-c", DESCRIBE], capture_output=True, text=True, check=True)
    messages, methods = json.loads(done.stdout)
    service = POOL.FindServiceByName("inference.GRPCInferenceService")
    assert service.methods
    compared = 0
    for method in service.methods:
        assert [method.input_type.full_name, method.output_type.full_name] == methods[method.name]
    for name, fields in messages.items():
        try:
            mine = ours(name)
        except KeyError:
            assert "SharedMemory" in name, name
            continue
        compared += 1
        theirs = {tuple(field[:4]): field[4] for field in fields}
        for field in mine:
            assert tuple(field[:4]) in theirs, (name, field)
            assert theirs[tuple(field[:4])] == field[4]
        assert len(mine) == len(theirs), (name, mine, theirs)
    assert compared > 40


def test_what_is_checked_in_is_what_the_proto_files_say(tmp_path: Path) -> None:
    out = tmp_path / "made.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTO), f"--descriptor_set_out={out}"]
    subprocess.run([*command, *map(str, sorted(PROTO.glob("*.proto")))], check=True)
    assert FileDescriptorSet.FromString(out.read_bytes()) == FileDescriptorSet.FromString(
        (PROTO / "salver.binpb").read_bytes()
    )
