"""Triton: the server binary and Python backend that the nvidia-pytriton wheel carries, and a model repository.

Run with three ports, it writes the repository and becomes the server, which starts one process that imports the
model file. The wheel has no ONNX backend, so the session runs in the Python backend.
"""

import os
import shutil
import sys
from pathlib import Path

import peer_models

MODEL = """
import peer_models
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.model = peer_models.load()

    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(request, self.model.input[0]).as_numpy() for request in requests]
        found = self.model(np.concatenate(rows).reshape(-1, *self.model.input[2]))
        answers, at = [], 0
        for one in rows:
            upto = at + len(one)
            shapes = {name: shape or [1] for name, _, shape in self.model.outputs}
            tensors = [pb.Tensor(name, found[name][at:upto].reshape(-1, *shape)) for name, shape in shapes.items()]
            answers.append(pb.InferenceResponse(tensors))
            at = upto
        return answers
"""


def write_repository():
    """The model's folder; dynamic batching as the documentation begins with it: no delay, no preferred sizes."""
    name = os.environ["PEER_MODEL"]
    kind = peer_models.KINDS[name]
    folder = Path("repository", name)
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(MODEL)
    shutil.copy(peer_models.__file__, folder / "1")
    tensors = {"input": [kind.input], "output": kind.outputs}
    lines = [f'name: "{name}"', 'backend: "python"', f"max_batch_size: {peer_models.MAX_BATCH}"]
    for what, those in tensors.items():
        for tensor, datatype, shape in those:
            of = f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}"
            lines.append(f'{what} [{{ name: "{tensor}", data_type: {of}, dims: {shape or [1]} }}]')
    lines += ["dynamic_batching {}", "instance_group [{ count: 1, kind: KIND_CPU }]"]
    (folder / "config.pbtxt").write_text("\n".join(lines))


def copy_server():
    """The wheel's server beside the stub of this Python, where the backend looks for it."""
    import pytriton

    wheel = Path(pytriton.__file__).parent / "tritonserver"
    shutil.copytree(wheel, "server", ignore=shutil.ignore_patterns("python_backend_stubs"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(wheel / "python_backend_stubs" / version / "triton_python_backend_stub", "server/backends/python")


if __name__ == "__main__":
    write_repository()
    copy_server()
    port, grpc_port, metrics_port = sys.argv[1:4]
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    # For the server; the stub finds its Python through PATH.
    os.environ["LD_LIBRARY_PATH"] = f"{packages}/nvidia_pytriton.libs"
    at = [f"--http-port={port}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics_port}"]
    folders = ["--model-repository=repository", f"--backend-directory={Path('server/backends').resolve()}"]
    hosts = [f"--{what}-address=127.0.0.1" for what in ("http", "grpc", "metrics")]
    os.execv(
        "server/bin/tritonserver",
        ["tritonserver", *folders, *at, *hosts, "--log-info=false", "--allow-gpu-metrics=false"],
    )
