"""A client of the Open Inference Protocol: for threads or an event loop, over HTTP or gRPC.

    with salver.Client("http://127.0.0.1:8080") as client:
        scores = client.predict("digits", images)["probabilities"]

Tensors travel in binary both ways. Every failure, the server's or the network's, is raised as a
`SalverError` with a code of the catalogue. `predict` is one request; `predict_all` takes any
number of rows and makes as many requests as they need.

`asking` holds what is asked, step by step and without any I/O; `oip_http` and `oip_grpc` write and
read it; `http_sync`, `http_async` and `grpc_transport` carry it. HTTP runs on sockets and
httptools of our own: a request costs 0.05 ms there, where httpx took 0.65 ms and 1.1 ms when
awaited, for servers that answer in less (`docs/client.md` has the measurement).
"""

from salver.client.async_client import AsyncClient
from salver.client.client import Client
from salver.client.errors import CallError
from salver.client.prediction import EndpointMetadata, Prediction, Timing
from salver.client.retries import NO_RETRIES, Retries

__all__ = [
    "NO_RETRIES",
    "AsyncClient",
    "CallError",
    "Client",
    "EndpointMetadata",
    "Prediction",
    "Retries",
    "Timing",
]
