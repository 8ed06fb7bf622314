"""Whether loading a version moves another one's p99: open loop at a small part of what the server can do."""

import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import bounds
import numpy as np
import report
import setting

from salver.loadgen import Arrivals, LoadPlan, Mode, run_load

PAIRS = 20
RATE = 1000
"""Requests a second, of some 50 000 that the server answers."""
EVERY_S = 1.0
LARGE = 4
WIDTH, LAYERS = 1024, 5
"""20 MB of weights."""


def make_large(path, seed):
    """A chain of matrix products."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.03, (WIDTH, WIDTH)).astype(np.float32), f"w{layer}")
        for layer in range(LAYERS)
    ]
    names = ["x", *(f"h{layer}" for layer in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(LAYERS)]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())


class Loading:
    """Asks large versions in turn, for which there is memory for one: each request loads one and unloads another."""

    def __init__(self, url):
        self._url = url
        self._body = json.dumps(
            {"inputs": [{"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [0.5] * WIDTH}]}
        ).encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)
        self.cold_s = []

    def _ask_on(self):
        turn = 0
        while not self._stop.wait(EVERY_S):
            began = time.perf_counter()
            request = urllib.request.Request(f"{self._url}/v2/models/large{turn % LARGE}/infer", self._body)
            request.add_header("content-type", "application/json")
            urllib.request.urlopen(request).read()
            self.cold_s.append(time.perf_counter() - began)
            turn += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def measure(home, rows, work, seconds):
    """Lines of a text and a table: p99 of digits while nothing is loaded, and while versions come and go."""
    setting.salver(home, "deploy", "digits", "--endpoint", "steady")
    for number in range(LARGE):
        make_large(work / f"large{number}.onnx", number)
        setting.salver(home, "register", f"large{number}", str(work / f"large{number}.onnx"))
        setting.salver(home, "deploy", f"large{number}", "--load", "lazy")
    body, headers = setting.json_body(rows[:1])
    still, moved, cold_s = [], [], []
    os.environ["SALVER_SERVER_MEMORY_BYTES"] = str(60 * 2**20)
    try:
        with setting.served(home) as ready:
            with Loading(ready["http"]):
                p99(ready["http"], body, headers, 3)  # what is paid once: libraries, first sizes
            for turn in range(PAIRS):
                print(f"... many, pair {turn + 1} of {PAIRS}", file=sys.stderr, flush=True)
                still.append(p99(ready["http"], body, headers, seconds))
                with Loading(ready["http"]) as loading:
                    moved.append(p99(ready["http"], body, headers, seconds))
                cold_s += loading.cold_s
    finally:
        del os.environ["SALVER_SERVER_MEMORY_BYTES"]
    for name in ("steady", *(f"large{number}" for number in range(LARGE))):
        setting.salver(home, "undeploy", name)
    text, _ = bounds.relative(still, moved, 1.2)
    megabytes = WIDTH * WIDTH * LAYERS * 4 / 1e6
    return [
        f"Digits on the event loop at {RATE} requests a second (Poisson, latency from the intended send time),",
        f"{PAIRS} interleaved pairs of {seconds} s; in the second of each a version of {megabytes:.0f} MB is loaded",
        f"every {EVERY_S:g} s because a request asks for it, and another one is unloaded for it. That request took",
        f"{setting.median(cold_s):.2f} s (median of {len(cold_s)}).",
        "",
        "| p99 without loads | p99 with loads | ratio (95 % interval) | A/A spread | bound | |",
        "|---|---|---|---|---|---|",
        f"| {setting.median(still) * 1e3:.2f} ms | {setting.median(moved) * 1e3:.2f} ms | {text} |",
        "",
    ]


def p99(url, body, headers, seconds):
    plan = LoadPlan(
        url,
        "/v2/models/steady/infer",
        body,
        tuple((name.lower(), value) for name, value in headers.items()),
        mode=Mode.OPEN,
        arrivals=Arrivals.POISSON,
        rate_per_s=RATE,
        connections=16,
        duration_s=seconds,
    )
    report = run_load(plan)
    if report.failed:
        raise SystemExit(f"the load met errors: {report.errors}")
    return report.latency.p99_s


def main():
    given = report.arguments(__doc__, seconds=6).parse_args()
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        work = Path(folder)
        home, rows = setting.digits_home(work)
        report.tell("many", measure(home, rows, work, given.seconds), write=given.write)


if __name__ == "__main__":
    main()
