"""MLServer: a custom runtime behind its adaptive batching. Run with three ports, it writes the settings and
starts. Without `parallel_workers` and with the shortest wait it measured best; a wait of 0 turns batching off.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import peer_models
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Peer(MLModel):
    async def load(self):
        self.model = peer_models.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        found = self.model(list(given.data) if given.datatype == "BYTES" else NumpyCodec.decode_input(given))
        outputs = [NumpyCodec.encode_output(name, np.asarray(values)) for name, values in found.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def write_settings(port, grpc_port, metrics_port):
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": os.environ["PEER_MODEL"],
        "implementation": "mlserver_app.Peer",
        "max_batch_size": peer_models.MAX_BATCH,
        "max_batch_time": 0.0001,
    }
    Path("settings.json").write_text(json.dumps(settings))
    Path("model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    write_settings(*map(int, sys.argv[1:4]))
    server = Path(sys.executable).with_name("mlserver")
    os.execv(server, [server, "start", "."])
