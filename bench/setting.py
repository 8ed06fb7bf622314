"""What every benchmark needs: the digits model, a served home, the echo server, wrk."""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def make_digits(work):
    """digits.onnx and train.npy, the model of the demo."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((64,), max_iter=200, random_state=0).fit(rows[:1257], labels[:1257])
        graph = to_onnx(model, rows[:1], options={"zipmap": False})
    (work / "digits.onnx").write_bytes(graph.SerializeToString())
    np.save(work / "train.npy", rows)
    return rows


def digits_home(work):
    """A home in which the digits model is registered with its profile, and the rows."""
    rows, home = make_digits(work), work / "home"
    salver(home, "register", "digits", str(work / "digits.onnx"), "--profile", str(work / "train.npy"))
    return home, rows


def salver(home, *words):
    subprocess.run([sys.executable, "-m", "salver", "--home", str(home), *words], check=True, capture_output=True)


@contextlib.contextmanager
def served(home, *words):
    """`salver serve`; yields its ready line and the seconds until the line came."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "salver", "--home", str(home), "serve"),
            *("--http", "0", "--grpc", "0", "--control", "0", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"SALVER_SERVER_LAME_DUCK_S": "0"},
    )
    try:
        ready = json.loads(process.stdout.readline())
        ready["began"] = began
        yield ready
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def echo(script="echo.py"):
    process = subprocess.Popen([sys.executable, HERE / script], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def json_body(rows):
    tensor = {"name": "X", "shape": list(rows.shape), "datatype": "FP32", "data": rows.reshape(-1).tolist()}
    return json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"}


def binary_body(rows):
    raw = rows.astype("<f4").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "X",
                    "shape": list(rows.shape),
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    return head + raw, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}


def wrk(url, body, headers, *, connections=64, seconds=3):
    """Requests a second and the 99th percentile in seconds, by wrk with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "body")
        data.write_bytes(body)
        lines = [f'local f = io.open("{data}", "rb")', 'wrk.body = f:read("*a")', "f:close()", 'wrk.method = "POST"']
        lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
        script = Path(folder, "post.lua")
        script.write_text("\n".join(lines))
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", script, url],
            capture_output=True,
            text=True,
            check=True,
        )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"wrk met errors:\n{done.stdout}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout).groups()
    return rate, float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def grpc_message(rows):
    """A ModelInferRequest of gRPC, behind the five bytes that go before each message."""
    from salver.protocol.proto import message

    tensor = {"name": "X", "datatype": "FP32", "shape": rows.shape}
    request = message("inference.ModelInferRequest")(
        model_name="digits", inputs=[tensor], raw_input_contents=[rows.astype("<f4").tobytes()]
    )
    body = request.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


def h2load(url, body, *, connections, streams, seconds=3):
    """Calls a second by h2load with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "message")
        data.write_bytes(body)
        load = [f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=1"]
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        done = subprocess.run(
            ["h2load", "-t1", *load, "-d", data, *headers, f"{url}/inference.GRPCInferenceService/ModelInfer"],
            capture_output=True,
            text=True,
            check=True,
        )
    if (
        not re.search(r"status codes: [1-9]\d* 2xx, 0 3xx, 0 4xx, 0 5xx", done.stdout)
        or " 0 errored" not in done.stdout
    ):
        raise SystemExit(f"h2load met errors:\n{done.stdout}")
    return float(re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)[1])


def require_successes(url, endpoint, at_least):
    """End with an error unless an endpoint has answered so many requests, and failed none."""
    with urllib.request.urlopen(f"{url}/v2/models/{endpoint}/stats") as answer:
        counted = json.load(answer)["model_stats"][0]["inference_stats"]
    if counted["fail"]["count"] or counted["success"]["count"] < at_least:
        raise SystemExit(f"the load met errors: {counted}")


def need(program, package):
    """Install a load generator where that is possible; it is not needed to use Salver."""
    if shutil.which(program) is None and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", package], check=False, stdout=subprocess.DEVNULL)
    if shutil.which(program) is None:
        raise SystemExit(f"the benchmarks need {program}: install {package} with the system's package manager")


def median(values):
    return statistics.median(values)


def machine():
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False
    ).stdout.strip()
    return f"commit {commit or 'unknown'}, {os.cpu_count()} processors ({model}), Python {platform.python_version()}"
