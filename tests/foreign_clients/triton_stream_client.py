"""Runs in the environment of tritonclient: a version that streams, by its gRPC client."""

import queue
import sys

import numpy as np
import tritonclient.grpc as grpc

TARGET = sys.argv[1]


def words(count, text="of the", **more):
    tensors = [grpc.InferInput("text_input", [1, 1], "BYTES"), grpc.InferInput("max_words", [1, 1], "INT32")]
    tensors[0].set_data_from_numpy(np.array([[text]], dtype=object))
    tensors[1].set_data_from_numpy(np.array([[count]], np.int32))
    return {"model_name": "words", "inputs": tensors} | more


def text_of(result):
    return result.as_numpy("text_output")[0, 0].decode()


answers = queue.Queue()
with grpc.InferenceServerClient(TARGET) as client:
    assert client.get_model_config("words").config.model_transaction_policy.decoupled
    whole = text_of(client.infer(**words(12)))
    assert len(whole.split()) == 12
    print("ok one answer")

    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer(**words(12, request_id="a", enable_empty_final_response=True))
    client.async_stream_infer(**words(3, request_id="b", enable_empty_final_response=True))
    got = {"a": [], "b": []}
    for _ in range(12 + 3 + 2):
        result, error = answers.get(timeout=20)
        assert error is None, error
        response = result.get_response()
        if response.parameters["triton_final_response"].bool_param:
            assert not response.outputs
            got[response.id].append(None)
        else:
            got[response.id].append(text_of(result))
    assert got["a"][-1] is got["b"][-1] is None
    assert "".join(got["a"][:-1]) == whole
    assert len(got["b"]) == 4
    print("ok several answers to each message, and the last")

    client.async_stream_infer(**words(0, text="", request_id="c", enable_empty_final_response=True))
    result, error = answers.get(timeout=20)
    assert error is None, error
    assert result.get_response().parameters["triton_final_response"].bool_param
    client.async_stream_infer(**words(2) | {"inputs": words(2)["inputs"][:1][:0]})
    result, error = answers.get(timeout=20)
    assert "text_input" in str(error), error
    client.async_stream_infer(**words(1))
    assert text_of(answers.get(timeout=20)[0]) == whole[: len(" " + whole.split()[0])]
    print("ok nothing, an error, and on")

    client.async_stream_infer(**words(10**9))
    for _ in range(100):
        assert answers.get(timeout=20)[1] is None
    client.stop_stream(cancel_requests=True)
    print("ok a stream without end that is left")

with grpc.InferenceServerClient(TARGET) as client:
    client.start_stream(callback=lambda result, error: answers.put((result, error)), stream_timeout=0.3)
    client.async_stream_infer(**words(10**9))
    while (error := answers.get(timeout=20)[1]) is None:
        pass
    assert error.status() in ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"), error
    client.stop_stream()
    print("ok a deadline")
