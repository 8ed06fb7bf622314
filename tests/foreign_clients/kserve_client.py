"""Runs in an environment of its own, with KServe's clients: what a user of them does, unmodified.

Arguments: URL of the data listener, host and port of the gRPC listener. Prints `ok NAME` for each step; an
exception ends it with a non-zero code. Importing the package as a whole would import Kubernetes' client and
pandas, which are many times as large as the rest and which these calls do not touch; so its `__init__` is
passed over, and pandas is an empty module.
"""

import asyncio
import base64
import importlib.util
import sys
import types

package = types.ModuleType("kserve")
package.__path__ = list(importlib.util.find_spec("kserve").submodule_search_locations)
sys.modules["kserve"] = package
pandas = types.ModuleType("pandas")
pandas.DataFrame = type("DataFrame", (), {})
sys.modules["pandas"] = pandas

import grpc
import httpx
import numpy as np
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import InferInput, InferRequest

URL, GRPC = sys.argv[1:3]
ROW = [4.0] * 64


async def refused(call, status, words):
    try:
        await call
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == status, error
        assert words in str(error), error
    else:
        raise AssertionError(f"not refused: {words}")


async def health(client):
    assert await client.is_server_live(URL) is True
    assert await client.is_model_ready(URL, "digits") is True
    assert await client.is_model_ready(URL, "broken") is False
    await refused(client.is_model_ready(URL, "nothing"), 404, "Could not find any versions of model nothing")


async def predict(client):
    answer = await client.infer(URL, {"instances": [ROW, ROW]}, model_name="digits")
    assert len(answer["predictions"]) == 2
    assert answer["predictions"][0]["label"] == answer["predictions"][1]["label"]
    assert np.isclose(sum(answer["predictions"][0]["probabilities"]), 1)
    columns = await client.infer(URL, {"inputs": {"X": [ROW]}}, model_name="digits")
    assert columns["outputs"]["label"] == [answer["predictions"][0]["label"]]


async def binary_values(client):
    encoded = {"b64": base64.b64encode("bär".encode()).decode()}
    answer = await client.infer(URL, {"instances": [encoded, "text"]}, model_name="copy")
    assert answer == {"predictions": [encoded, {"b64": base64.b64encode(b"text").decode()}]}


async def events(client):
    body = {"instances": [ROW]}
    plain = await client.infer(URL, body, model_name="digits")
    attributes = {"specversion": "1.0", "id": "1", "source": "here", "type": "a.request"}
    told = {}
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    assert await client.infer(URL, body, model_name="digits", headers=headers, response_headers=told) == plain
    assert told["ce-type"] == "io.kserve.inference.response"
    headers = {"content-type": "application/cloudevents+json"}
    event = await client.infer(URL, {**attributes, "data": body}, model_name="digits", headers=headers)
    assert (event["data"], event["source"]) == (plain, "io.kserve.inference.digits")


async def errors(client):
    await refused(client.explain(URL, "digits", {"instances": [ROW]}), 501, "no explanations")
    await refused(client.infer(URL, {"instances": [[1]]}, model_name="digits"), 400, "has shape [1, 1]")
    await refused(
        client.infer(URL, {"instances": [[1]]}, model_name="no"), 404, "Servable not found for request: Latest"
    )
    await refused(client.infer(URL, {"instances": [[1]]}, model_name="broken"), 503, "is not ready")


async def second_protocol(client):
    assert await client.is_server_live(URL)
    assert await client.is_model_ready(URL, "digits")
    for binary in (False, True):
        tensor = InferInput("X", [1, 64], "FP32")
        tensor.set_data_from_numpy(np.array([ROW], np.float32), binary_data=binary)
        answer = await client.infer(URL, InferRequest("digits", [tensor]), model_name="digits")
        assert answer.outputs[0].name == "label"


async def over_grpc(client):
    assert await client.is_server_live() is True
    assert await client.is_server_ready() is True
    ready = {name: await client.is_model_ready(name) for name in ("digits", "broken", "nothing")}
    assert ready == {"digits": True, "broken": False, "nothing": False}
    labels = []
    for raw in (True, False):
        tensor = InferInput("X", [2, 64], "FP32")
        if raw:
            tensor.set_data_from_numpy(np.array([ROW, ROW], np.float32), binary_data=True)
        else:
            tensor.data = ROW * 2
        answer = await client.infer(InferRequest("digits", [tensor]))
        assert (answer.outputs[0].name, list(answer.outputs[0].shape)) == ("label", [2])
        labels.append(answer.outputs[0].as_numpy().tolist())
    assert labels[0] == labels[1]
    try:
        await client.infer(InferRequest("nothing", [tensor]))
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND, error
    else:
        raise AssertionError("not refused")


async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        for step in (health, predict, binary_values, events, errors):
            await step(client)
            print("ok", step.__name__)
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        await second_protocol(client)
        print("ok second_protocol")
    async with InferenceGRPCClient(GRPC) as client:
        await over_grpc(client)
        print("ok over_grpc")


asyncio.run(main())
