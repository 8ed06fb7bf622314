"""The main job from end to end: train, export, register, deploy, serve, predict over HTTP.

Run it with `make demo`. Everything happens in a throw-away directory and on free ports.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import salver

CONNECTIONS = 16
ROUNDS = 10


def main() -> int:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="salver-demo-") as folder:
        work = Path(folder)
        print("1. Train a classifier on the UCI digits and export it to ONNX")
        held_out, truth, in_process = train(work)
        home = work / "home"
        print("\n2. Register it with a profile of its training inputs, and deploy it")
        files = work / "digits.onnx", "--version", "1.0.0", "--profile", work / "train.npy"
        command("register", "digits", *files, home=home)
        command("deploy", "digits", home=home)
        print("\n3. Serve, and send the held-out digits over HTTP")
        served, latencies, seconds, batches = asyncio.run(serve_and_send(home, held_out))
    return report(truth, in_process, served, latencies, seconds, batches, time.perf_counter() - began)


def train(work: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write digits.onnx and train.npy; return the held-out rows, their labels, and the answers computed here."""
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    pixels, labels = load_digits(return_X_y=True)
    rows = pixels.astype(np.float32)
    fit_rows, held_out, fit_labels, truth = train_test_split(
        rows, labels, test_size=0.3, random_state=0, stratify=labels
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((64,), max_iter=200, random_state=0).fit(fit_rows, fit_labels)
        graph = to_onnx(model, fit_rows[:1], options={"zipmap": False})
    (work / "digits.onnx").write_bytes(graph.SerializeToString())
    np.save(work / "train.npy", fit_rows)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    in_process = session.run(["label"], {"X": held_out})[0]
    print(f"   {len(fit_rows)} rows to train on, {len(held_out)} held out")
    return held_out, truth, in_process


def command(*words: object, home: Path) -> None:
    """Run one `salver` command as a user would, and show it."""
    shown = [word.name if isinstance(word, Path) else str(word) for word in words]
    print(f"   $ salver {' '.join(shown)}")
    line = [sys.executable, "-m", "salver", "--home", str(home), *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    print("".join(f"   {line}\n" for line in (done.stdout + done.stderr).splitlines()), end="")
    if done.returncode:
        raise SystemExit(done.returncode)


async def serve_and_send(home: Path, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, Counter[int]]:
    """Serve the home and send each held-out row `ROUNDS` times over `CONNECTIONS` connections."""
    async with salver.Server(home=home) as server:
        print(f"   ready at {server.http}")
        bodies = [
            json.dumps({"inputs": [{"name": "X", "shape": [1, 64], "datatype": "FP32", "data": row.tolist()}]}).encode()
            for row in held_out
        ]
        address = urlsplit(server.http)
        todo = [index for _ in range(ROUNDS) for index in range(len(bodies))]
        answers = np.full(len(bodies), -1)
        latencies: list[float] = []
        host, port = str(address.hostname), int(address.port or 80)
        shares = [todo[start::CONNECTIONS] for start in range(CONNECTIONS)]
        began = time.perf_counter()
        await asyncio.gather(*(send(host, port, bodies, share, answers, latencies) for share in shares))
        seconds = time.perf_counter() - began
        with urllib.request.urlopen(f"{server.http}/v2/models/digits/stats") as page:
            stats = json.load(page)["model_stats"][0]
    batches = Counter({row["batch_size"]: row["compute_infer"]["count"] for row in stats["batch_stats"]})
    return answers, np.array(latencies), seconds, batches


async def send(
    host: str, port: int, bodies: list[bytes], todo: list[int], answers: np.ndarray, latencies: list[float]
) -> None:
    """One client connection: one request after the other."""
    reader, writer = await asyncio.open_connection(host, port)
    head = "POST /v2/models/digits/infer HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n"
    for index in todo:
        began = time.perf_counter()
        writer.write(head.format(host, len(bodies[index])).encode() + bodies[index])
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        length = next(int(line[15:]) for line in headers if line.lower().startswith(b"content-length:"))
        reply = json.loads(await reader.readexactly(length))
        latencies.append(time.perf_counter() - began)
        if b" 200 " not in status:
            raise SystemExit(f"request failed: {reply}")
        answers[index] = reply["outputs"][0]["data"][0]
    writer.close()
    await writer.wait_closed()


def next_steps() -> list[tuple[str, str]]:
    """Commands that work from here, and what they are for."""
    salver_command = os.path.relpath(Path(sys.executable).with_name("salver"))
    language = os.path.relpath(Path(__file__).parents[1] / "python_model" / "language")
    return [
        (f"{salver_command} dev {language}", "serve a Python class; or a model of yours"),
        (f"{salver_command} bench language --url http://127.0.0.1:8080", "then load it, from another terminal"),
        ("docs/tour.md", "everything once, step by step"),
    ]


def report(
    truth: np.ndarray,
    in_process: np.ndarray,
    served: np.ndarray,
    latencies: np.ndarray,
    seconds: float,
    batches: Counter[int],
    total: float,
) -> int:
    here, there = (in_process == truth).mean(), (served == truth).mean()
    same = bool((served == in_process).all())
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    print(f"   {len(latencies)} requests over {CONNECTIONS} connections")
    verdict = "every answer equal" if same else "DIFFERENT"
    print(f"   accuracy   {there:.4f} over HTTP, {here:.4f} in process: {verdict}")
    print(f"   latency    p50 {p50:.2f} ms, p99 {p99:.2f} ms (this Python client included)")
    print(f"   rate       {len(latencies) / seconds:,.0f} requests a second (this Python client's limit)")
    print("   batches that formed, by rows:")
    most = max(batches.values())
    for size, count in sorted(batches.items()):
        print(f"   {size:>6} {'#' * max(1, round(40 * count / most))} {count}")
    print(f"\nDone in {total:.1f} s. What to try next:")
    for what, why in next_steps():
        print(f"   {what:<60}  {why}")
    return 0 if same and here == there else 1


if __name__ == "__main__":
    raise SystemExit(main())
