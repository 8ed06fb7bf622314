"""TorchServe: a handler in one worker, batched by its front end. Run with five ports, it packs the model and starts.

The same file is the handler inside the archive.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path


@functools.cache
def loaded():
    import peer_models

    return peer_models, peer_models.load()


def handle(data, _context):
    """What TorchServe calls with a batch of requests, and once before the first, without."""
    models, model = loaded()
    if data is None:
        return None
    bodies = [request.get("body") or request.get("data") for request in data]
    return models.answer_all(model, [body["instances"] for body in bodies])


def pack(name):
    """The model's archive with its batching, as torch-model-archiver makes it."""
    Path("config.yaml").write_text("minWorkers: 1\nmaxWorkers: 1\nbatchSize: 64\nmaxBatchDelay: 1\n")
    Path("store").mkdir()
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    which = ["--model-name", name, "--version", "1.0", "--handler", __file__, "--config-file", "config.yaml"]
    subprocess.run([archiver, *which, "--export-path", "store"], check=True)


def write_settings(port, management, metrics, grpc, grpc_management):
    lines = [
        f"inference_address=http://127.0.0.1:{port}",
        f"management_address=http://127.0.0.1:{management}",
        f"metrics_address=http://127.0.0.1:{metrics}",
        f"grpc_inference_port={grpc}",
        f"grpc_management_port={grpc_management}",
        "disable_token_authorization=true",
        "async_logging=true",
        "job_queue_size=1000",
    ]
    Path("config.properties").write_text("\n".join(lines))


if __name__ == "__main__":
    name = os.environ["PEER_MODEL"]
    pack(name)
    write_settings(*sys.argv[1:6])
    server = Path(sys.executable).with_name("torchserve")
    os.environ["PATH"] = f"{server.parent}:{os.environ['PATH']}"
    settings = ["--ts-config", "config.properties", "--model-store", "store", "--models", f"{name}={name}.mar"]
    os.execv(server, [server, "--start", "--foreground", "--ncs", *settings])
