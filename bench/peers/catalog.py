"""The peers: what each is given, how it is asked, and how its answer is read."""

import dataclasses
import json

__all__ = ["MODELS", "PEERS", "Peer", "request", "values_of"]

MODELS = ("digits", "noop", "minilm")
TENSORS = {"digits": ("X", "FP32", [64]), "noop": ("X", "FP32", [64]), "minilm": ("text", "BYTES", [])}
ANSWERS = {"digits": "label", "noop": "first", "minilm": "embedding"}
OIP, COLUMNS, ITEMS = "oip", "columns", "items"
"""Bodies: the Open Inference Protocol; {"instances": [...]} answered by named columns; the same, by a list of rows."""


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    title: str
    package: str
    path: str
    body: str
    ports: int
    given: str
    """Its settings and processes, as the page tells them."""
    command: tuple[str, ...] = ()
    """What to run in its environment; by default `apps/NAME_app.py` with its ports."""
    dims: bool = False
    """Whether a number or text of its own in each row has a dimension of 1, too."""
    warm_s: int = 0
    """Warm-up where it needs more than the others'."""
    grpc: int = 0
    """Which of its ports takes ModelInfer of the Open Inference Protocol over gRPC; 0 for none."""


PEERS = (
    Peer(
        "fastapi",
        "FastAPI + ONNX Runtime",
        "fastapi",
        "/predict",
        COLUMNS,
        1,
        "uvicorn with uvloop and httptools, 1 worker; no batching of its own; digits on the event loop, texts in "
        "1 thread; answers by declared models",
        ("uvicorn", "fastapi_app:app", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
    ),
    Peer(
        "litserve",
        "LitServe",
        "litserve",
        "/predict",
        COLUMNS,
        1,
        "1 API server, 1 worker process; `max_batch_size=64, batch_timeout=0.001`, `fast_queue=True`",
    ),
    Peer(
        "mlserver",
        "MLServer",
        "mlserver",
        "/v2/models/{model}/infer",
        OIP,
        3,
        "a custom runtime in the server process (`parallel_workers=0`); `max_batch_size=64, max_batch_time=0.0001`",
    ),
    Peer(
        "bentoml",
        "BentoML",
        "bentoml",
        "/predict",
        ITEMS,
        1,
        "1 worker; `batchable=True, max_batch_size=64, max_latency_ms=10000`",
    ),
    Peer(
        "mosec",
        "mosec",
        "mosec",
        "/inference",
        COLUMNS,
        1,
        "1 worker process; `max_batch_size=64, max_wait_time=1` (ms, its least)",
        ("python", "{apps}/mosec_app.py", "--address", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
    ),
    Peer(
        "triton",
        "Triton",
        "nvidia-pytriton",
        "/v2/models/{model}/infer",
        OIP,
        3,
        "the server binary and Python backend of the `nvidia-pytriton` wheel; 1 instance, `dynamic_batching {}`, "
        "`max_batch_size: 64`",
        dims=True,
        grpc=1,
    ),
    Peer(
        "rayserve",
        "Ray Serve",
        "ray",
        "/predict",
        COLUMNS,
        3,
        "1 replica, `serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)`, HAProxy in front and "
        "`RAY_SERVE_THROUGHPUT_OPTIMIZED=1`",
    ),
    Peer(
        "torchserve",
        "TorchServe",
        "torchserve",
        "/predictions/{model}",
        COLUMNS,
        5,
        "1 worker process; `batchSize: 64, maxBatchDelay: 1` (ms), `async_logging=true`; 5 s of warm-up for its JVM",
        warm_s=5,
    ),
)


def request(kind, model, instances, *, dims=False):
    """One body with these instances: rows of numbers, or texts."""
    if kind != OIP:
        return json.dumps({"instances": instances}).encode()
    name, datatype, shape = TENSORS[model]
    data = [number for row in instances for number in row] if shape else instances
    shape = [len(instances), *(shape or ([1] if dims else []))]
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}).encode()


def values_of(kind, model, answer):
    """What a model's first output says, flat: labels, numbers or embeddings. Raises what a wrong shape raises."""
    found = json.loads(answer)
    if kind == OIP:
        return next(output["data"] for output in found["outputs"] if output["name"] == ANSWERS[model])
    if kind == ITEMS:
        return flat([row[ANSWERS[model]] for row in found])
    return flat(found[ANSWERS[model]])


def flat(values):
    return [number for value in values for number in (flat(value) if isinstance(value, list) else [value])]
