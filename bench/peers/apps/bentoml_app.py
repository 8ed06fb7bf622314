"""BentoML: one service, one worker, an endpoint with adaptive batching."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
import peer_models
from bentoml.validators import DType, Shape

Rows = Annotated[np.ndarray, Shape((-1, 64)), DType("float32")]
Instances = list[str] if os.environ["PEER_MODEL"] == "minilm" else Rows


@bentoml.service(workers=1, traffic={"timeout": 30})
class Peer:
    def __init__(self) -> None:
        self.model = peer_models.load()

    @bentoml.api(batchable=True, max_batch_size=peer_models.MAX_BATCH, max_latency_ms=10_000)
    def predict(self, instances: Instances) -> list[dict[str, Any]]:
        columns = {name: values.tolist() for name, values in self.model(instances).items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


if __name__ == "__main__":
    server = Path(sys.executable).with_name("bentoml")
    at = ["--host", "127.0.0.1", "--port", sys.argv[1], "--working-dir", str(Path(__file__).parent)]
    os.execv(server, [server, "serve", "bentoml_app:Peer", *at])
