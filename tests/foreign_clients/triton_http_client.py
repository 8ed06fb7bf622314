"""Runs in an environment of its own, with Triton's client: what a user of it does, unmodified.

Arguments: URL of the data listener, URL of the control listener, a token. Prints `ok NAME` for
each step; an exception ends it with a non-zero code.
"""

import asyncio
import sys

import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from triton_numbers import NUMBERS
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

DATA, CONTROL, TOKEN = sys.argv[1:4]
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
NUMPY = NUMBERS | {"BYTES": np.array([['é:"x', ""]], dtype=object)}


def echo_inputs(binary, names=tuple(NUMPY)):
    inputs = []
    for name in names:
        tensor = http.InferInput(name, [1, 2], np_to_triton_dtype(NUMPY[name].dtype) or name)
        tensor.set_data_from_numpy(NUMPY[name], binary_data=binary)
        inputs.append(tensor)
    return inputs


def check_echo(result, names=tuple(NUMPY)):
    for name in names:
        got = result.as_numpy(f"{name}_OUT")
        want = NUMPY[name]
        if name == "BYTES":
            got = np.array([[x.decode() if isinstance(x, bytes) else x for x in row] for row in got], dtype=object)
        assert got.shape == want.shape, (name, got.shape)
        assert (got == want).all(), (name, got, want)


def digits(rows):
    tensor = http.InferInput("X", [rows, 64], "FP32")
    tensor.set_data_from_numpy(np.full((rows, 64), 4, np.float32))
    return [tensor]


def refused(call, *words):
    try:
        call()
    except InferenceServerException as error:
        assert all(word in str(error) for word in words), str(error)
    else:
        raise AssertionError(f"not refused: {words}")


def sync():
    client = http.InferenceServerClient(DATA.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1.0.0")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("nothing")
    print("ok health")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("digits")
    assert metadata["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 64]}], metadata
    assert client.get_model_config("digits")["max_batch_size"] > 1
    print("ok metadata")
    check_echo(client.infer("echo", echo_inputs(binary=True)))
    print("ok binary in, binary out: every datatype")
    plain = tuple(name for name in NUMPY if name != "FP16")
    outputs = [http.InferRequestedOutput(f"{name}_OUT", binary_data=name == "FP16") for name in NUMPY]
    mixed = echo_inputs(False, plain) + echo_inputs(True, ("FP16",))
    check_echo(client.infer("echo", mixed, outputs=outputs))
    print("ok JSON in, JSON out: every datatype JSON can carry")
    result = client.infer("digits", digits(3), request_id='a "quoted" id', model_version="1.0.0")
    response = result.get_response()
    assert response["id"] == 'a "quoted" id'
    assert response["model_version"] == "1.0.0"
    assert result.as_numpy("probabilities").shape == (3, 10)
    print("ok ids and versions")
    for algorithm in ("gzip", "deflate"):
        result = client.infer(
            "digits",
            digits(64),
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert result.as_numpy("label").shape == (64,)
    print("ok compression both ways")
    top = client.infer("digits", digits(1), outputs=[http.InferRequestedOutput("probabilities", class_count=2)])
    first = top.as_numpy("probabilities")[0][0]
    assert len(first.split(b":")) >= 2, first
    print("ok classification")
    handles = [client.async_infer("digits", digits(1)) for _ in range(8)]
    assert all(handle.get_result().as_numpy("label").shape == (1,) for handle in handles)
    print("ok async_infer")
    refused(lambda: client.infer("nothing", digits(1)), "nothing")
    refused(lambda: client.infer("digits", digits(1), model_version="7"), "version")
    wrong = http.InferInput("X", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    refused(lambda: client.infer("digits", [wrong]), "shape")
    refused(lambda: client.get_system_shared_memory_status(), "shared memory")
    refused(lambda: client.update_log_settings({"log_verbose_level": 1}), "read-only")
    assert client.get_log_settings()["log_info"] is True
    assert "trace_rate" in client.get_trace_settings()
    print("ok refusals")
    stats = client.get_inference_statistics("digits")["model_stats"][0]
    assert stats["inference_count"] >= 64
    assert stats["inference_stats"]["success"]["count"] > 0
    assert {"cache_hit", "cache_miss"} <= stats["inference_stats"].keys()
    print("ok statistics")
    client.close()


def sequences():
    with http.InferenceServerClient(DATA.removeprefix("http://")) as client:
        assert {"sequence", "sequence(string_id)"} <= set(client.get_server_metadata()["extensions"])
        assert client.get_model_config("sums")["sequence_batching"]["max_sequence_idle_microseconds"] == 60_000_000
        x = http.InferInput("x", [1, 2], "FP32")
        for name, first in ((7, 1), ("7", 10), (2**64 - 1, 100)):
            sums = []
            for step in range(3):
                x.set_data_from_numpy(np.array([[first, step]], np.float32))
                options = {"sequence_id": name, "sequence_start": step == 0, "sequence_end": step == 2}
                sums.append(client.infer("sums", [x], **options).as_numpy("y").tolist())
            assert sums == [[[first, 0]], [[2 * first, 1]], [[3 * first, 3]]], sums
        refused(lambda: client.infer("sums", [x], sequence_id=7), "there is no session 7", "sequence_start")
        refused(lambda: client.infer("sums", [x]), "sequence_id")
    print("ok sequences")


def repository():
    client = http.InferenceServerClient(CONTROL.removeprefix("http://"))
    index = client.get_model_repository_index(headers=HEADERS)
    assert {row["name"]: row["state"] for row in index} == dict.fromkeys(
        ("digits", "echo", "numbers", "sums"), "READY"
    ), index
    # `numbers` is an endpoint of the model `digits`: its name is what counts.
    client.unload_model("numbers", headers=HEADERS)
    index = client.get_model_repository_index(headers=HEADERS)
    assert sorted(row["name"] for row in index) == ["digits", "echo", "sums"], index
    refused(lambda: client.load_model("numbers", headers=HEADERS), "failed to load", "numbers")
    client.unload_model("digits", headers=HEADERS)
    client.load_model("digits", headers=HEADERS)
    assert http.InferenceServerClient(DATA.removeprefix("http://")).is_model_ready("digits")
    refused(lambda: client.load_model("nothing", headers=HEADERS), "nothing")
    refused(lambda: client.load_model("digits", headers=HEADERS, config="{}"), "config")
    refused(lambda: client.load_model("digits"), "token")
    print("ok repository on the control listener")
    client.close()


async def asynchronous():
    async with http_aio.InferenceServerClient(DATA.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("digits"))["name"] == "digits"
        results = await asyncio.gather(*(client.infer("digits", digits(2)) for _ in range(16)))
        assert all(result.as_numpy("label").shape == (2,) for result in results)
        check_echo(await client.infer("echo", echo_inputs(binary=True)))
        plain = tuple(name for name in NUMPY if name != "FP16")
        mixed = echo_inputs(False, plain) + echo_inputs(True, ("FP16",))
        check_echo(await client.infer("echo", mixed))
    print("ok aio client")


sync()
asyncio.run(asynchronous())
sequences()
repository()
