"""Ray Serve: one replica behind `serve.batch`, with the settings for throughput that its documentation names.

Run with the port of the requests and two more for its HAProxy; what Ray writes goes below the working directory.
"""

import os
import signal
import sys
import threading
from pathlib import Path

# Read when Ray is imported, and by the processes it starts.
os.environ |= {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(Path("ha/haproxy.cfg").resolve()),
    "RAY_SERVE_HAPROXY_SOCKET_PATH": str(Path("ha/admin.sock").resolve()),
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(Path("ha").resolve()),
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(Path("ha/server-state").resolve()),
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(Path("ha/metrics.sock").resolve()),
    "RAY_SERVE_HAPROXY_METRICS_PORT": sys.argv[2],
    "RAY_SERVE_HAPROXY_STATS_PORT": sys.argv[3],
    "RAY_USAGE_STATS_ENABLED": "0",
}

import peer_models
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=4 * peer_models.MAX_BATCH)
class Peer:
    def __init__(self):
        self.model = peer_models.load()

    @serve.batch(max_batch_size=peer_models.MAX_BATCH, batch_wait_timeout_s=0.001)
    async def batched(self, requests):
        return peer_models.answer_all(self.model, requests)

    async def __call__(self, request: Request):
        return await self.batched((await request.json())["instances"])


if __name__ == "__main__":
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    ray.init(_temp_dir=os.path.realpath("r"), include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, proxy_location="HeadOnly")
    serve.run(Peer.bind(), route_prefix="/predict")
    end.wait()
    serve.shutdown()
    ray.shutdown()
