"""Runs in an environment of its own, with Triton's client: what a user of it does over gRPC, unmodified.

Arguments: HOST:PORT of the gRPC listener, a token. Prints `ok NAME` for each step; an exception
ends it with a non-zero code.
"""

import asyncio
import contextlib
import queue
import sys
import threading

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
from triton_numbers import NUMBERS
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TARGET, TOKEN = sys.argv[1:3]
HEADERS = {"authorization": f"Bearer {TOKEN}"}
NUMPY = NUMBERS | {"BYTES": np.array([["é:x".encode(), b""]], dtype=object)}


def echo_inputs():
    inputs = []
    for name, values in NUMPY.items():
        tensor = grpc.InferInput(name, [1, 2], np_to_triton_dtype(values.dtype) or name)
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return inputs


def check_echo(result):
    for name, want in NUMPY.items():
        got = result.as_numpy(f"{name}_OUT")
        assert got.shape == want.shape, (name, got.shape)
        assert (got == want).all(), (name, got, want)


def digits(rows, value=4):
    tensor = grpc.InferInput("X", [rows, 64], "FP32")
    tensor.set_data_from_numpy(np.full((rows, 64), value, np.float32))
    return [tensor]


def loop(turns):
    tensor = grpc.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[1, turns]], np.float32))
    return [tensor]


def refused(call, status, *words):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}", (error.status(), error.message())
        assert all(word in error.message() for word in words), error.message()
    else:
        raise AssertionError(f"not refused: {words}")


def questions(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1.0.0")
    assert client.is_model_ready("digits", "1")
    print("ok health")
    assert "statistics" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("digits", as_json=True)
    assert metadata["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["-1", "64"]}], metadata
    assert client.get_model_config("digits").config.max_batch_size > 1
    print("ok metadata")
    assert client.get_log_settings().settings["log_info"].bool_param is True
    assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]
    refused(lambda: client.update_log_settings({"log_verbose_level": 1}), "UNIMPLEMENTED", "read-only")
    refused(lambda: client.update_trace_settings("digits", {"trace_rate": "1"}), "UNIMPLEMENTED", "read-only")
    refused(client.get_system_shared_memory_status, "UNIMPLEMENTED", "SystemSharedMemoryStatus")
    print("ok settings")


def inferences(client):
    check_echo(client.infer("echo", echo_inputs()))
    print("ok every datatype")
    result = client.infer("digits", digits(3), request_id="an id", model_version="1.0.0", timeout=5_000_000)
    response = result.get_response()
    assert (response.id, response.model_version) == ("an id", "1.0.0")
    assert result.as_numpy("probabilities").shape == (3, 10)
    print("ok ids and versions")
    for algorithm in ("gzip", "deflate"):
        assert client.infer("digits", digits(64), compression_algorithm=algorithm).as_numpy("label").shape == (64,)
    print("ok compression")
    wanted = [grpc.InferRequestedOutput("probabilities", class_count=2)]
    top = client.infer("digits", digits(1), outputs=wanted).as_numpy("probabilities")
    assert top.shape == (1, 2)
    assert len(top[0][0].split(b":")) >= 2
    print("ok classification")
    answers = queue.Queue()
    for _ in range(50):
        client.async_infer("digits", digits(1), lambda result, error: answers.put((result, error)))
    for _ in range(50):
        result, error = answers.get(timeout=20)
        assert error is None, error
        assert result.as_numpy("label").shape == (1,)
    print("ok async_infer")
    big = grpc.InferInput("x", [1, 4_000_000], "FP32")
    values = np.arange(4_000_000, dtype=np.float32).reshape(1, -1)
    big.set_data_from_numpy(values)
    assert (client.infer("wide", [big]).as_numpy("y") == values * 2).all()
    print("ok 16 MB each way")


def refusals(client):
    refused(lambda: client.infer("nothing", digits(1)), "NOT_FOUND", "nothing")
    refused(lambda: client.infer("digits", digits(1), model_version="7"), "NOT_FOUND", "version")
    wrong = grpc.InferInput("X", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    refused(lambda: client.infer("digits", [wrong]), "INVALID_ARGUMENT", "shape")
    refused(lambda: client.infer("digits", digits(1), headers={"authorization": "Bearer x"}), "UNAUTHENTICATED")
    refused(lambda: client.get_model_metadata("nothing"), "NOT_FOUND", "nothing")
    huge = grpc.InferInput("x", [1, 16_800_000], "FP32")
    huge.set_data_from_numpy(np.zeros((1, 16_800_000), np.float32))
    refused(lambda: client.infer("wide", [huge]), "RESOURCE_EXHAUSTED", "67")
    print("ok refusals")
    refused(lambda: client.infer("loop", loop(3e5), client_timeout=0.05), "DEADLINE_EXCEEDED")
    refused(lambda: client.infer("loop", loop(3e5), timeout=20_000), "DEADLINE_EXCEEDED")
    gone = queue.Queue()
    call = client.async_infer("loop", loop(3e5), lambda result, error: gone.put(error))
    call.cancel()
    assert gone.get(timeout=20).status() == "StatusCode.CANCELLED"
    assert client.infer("loop", loop(1)).as_numpy("y").tolist() == [[1, 1]]
    print("ok deadlines and cancellation")


def streams(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for n in range(40):
        model = "nothing" if n == 20 else "digits"
        client.async_stream_infer(model, digits(1 + n % 3), request_id=str(n))
    for n in range(40):
        result, error = answers.get(timeout=20)
        if n == 20:
            assert "nothing" in error.message(), error
            continue
        assert error is None, error
        assert (result.get_response().id, result.as_numpy("label").shape) == (str(n), (1 + n % 3,))
    client.stop_stream()
    print("ok stream with an error in its middle")
    client.start_stream(
        callback=lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"}
    )
    client.async_stream_infer("digits", digits(1))
    client.async_stream_infer("nothing", digits(1))
    result, error = answers.get(timeout=20)
    assert error is None, error
    result, error = answers.get(timeout=20)
    assert error.status() == "StatusCode.NOT_FOUND", error
    client.stop_stream()
    print("ok stream that raises its errors")
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer("loop", loop(3e5))
    client.stop_stream(cancel_requests=True)
    assert answers.get(timeout=20)[1].status() == "StatusCode.CANCELLED"
    client.start_stream(callback=lambda result, error: answers.put((result, error)), stream_timeout=0.2)
    client.async_stream_infer("digits", digits(1))
    assert answers.get(timeout=20)[1] is None
    assert answers.get(timeout=20)[1].status() == "StatusCode.DEADLINE_EXCEEDED"
    client.stop_stream()
    print("ok streams cancelled and timed out")


def sequences(client):
    x = grpc.InferInput("x", [1, 2], "FP32")
    for name, first in ((7, 1), ("7", 10), (2**63 - 1, 100)):
        for step in range(3):
            x.set_data_from_numpy(np.array([[first, step]], np.float32))
            result = client.infer(
                "sums", [x], sequence_id=name, sequence_start=step == 0, sequence_end=step == 2
            ).as_numpy("y")
            assert result[0, 0] == first * (step + 1), result
    try:
        client.infer("sums", [x], sequence_id=7)
    except InferenceServerException as error:
        assert error.status() == "StatusCode.NOT_FOUND", error
    else:
        raise AssertionError("a step of no session was answered")
    # Steps of several sequences in one stream, sent without waiting.
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for step in range(5):
        for name in ("a", "b"):
            x.set_data_from_numpy(np.array([[1, 10]], np.float32))
            client.async_stream_infer(
                "sums",
                [x],
                request_id=f"{name}{step}",
                sequence_id=name,
                sequence_start=not step,
                sequence_end=step == 4,
            )
    for step in range(5):
        for name in ("a", "b"):
            result, error = answers.get(timeout=20)
            assert error is None, error
            assert result.get_response().id == f"{name}{step}"
            assert result.as_numpy("y").tolist() == [[step + 1, 10 * (step + 1)]]
    client.stop_stream()
    print("ok sequences")


def many():
    problems = []

    def work(value):
        try:
            with grpc.InferenceServerClient(TARGET) as client:
                for _ in range(20):
                    want = np.full((3, 2), value * 2, np.float32)
                    tensor = grpc.InferInput("x", [3, 2], "FP32")
                    tensor.set_data_from_numpy(want / 2)
                    assert (client.infer("wide", [tensor]).as_numpy("y") == want).all()
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems
    print("ok concurrent clients")


def repository(client):
    index = client.get_model_repository_index(headers=HEADERS).models
    assert {row.name: row.state for row in index} == dict.fromkeys(
        ("digits", "echo", "loop", "sums", "wide"), "READY"
    ), index
    client.unload_model("digits", headers=HEADERS)
    index = client.get_model_repository_index(headers=HEADERS).models
    assert sorted(row.name for row in index if row.state == "READY") == ["echo", "loop", "sums", "wide"], index
    client.load_model("digits", headers=HEADERS)
    assert client.is_model_ready("digits")
    refused(lambda: client.load_model("nothing", headers=HEADERS), "NOT_FOUND", "nothing")
    refused(lambda: client.load_model("digits", headers=HEADERS, config="{}"), "INVALID_ARGUMENT", "config")
    refused(lambda: client.load_model("digits"), "UNAUTHENTICATED", "token")
    print("ok repository")


def statistics(client):
    stats = client.get_inference_statistics("digits").model_stats[0]
    assert stats.inference_count >= 64
    assert stats.inference_stats.success.count > 0
    assert len(client.get_inference_statistics().model_stats) == 5
    print("ok statistics")


async def asynchronous():
    async with grpc_aio.InferenceServerClient(TARGET) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("digits")).name == "digits"
        results = await asyncio.gather(*(client.infer("digits", digits(2)) for _ in range(100)))
        assert all(result.as_numpy("label").shape == (2,) for result in results)
        check_echo(await client.infer("echo", echo_inputs()))

        async def ask():
            for n in range(10):
                yield {"model_name": "nothing" if n == 5 else "digits", "inputs": digits(1), "request_id": str(n)}

        seen = [(result, error) async for result, error in client.stream_infer(ask())]
        assert [error is None for _, error in seen] == [n != 5 for n in range(10)], seen
        assert [result.get_response().id for result, error in seen if not error] == [
            str(n) for n in range(10) if n != 5
        ]
        task = asyncio.ensure_future(client.infer("loop", loop(3e5)))
        await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert (await client.infer("loop", loop(1))).as_numpy("y").tolist() == [[1, 1]]
    print("ok aio client")


with grpc.InferenceServerClient(TARGET) as triton:
    questions(triton)
    inferences(triton)
    refusals(triton)
    streams(triton)
    sequences(triton)
    many()
    asyncio.run(asynchronous())
    statistics(triton)
    repository(triton)
