"""A server process that is killed under a client's calls: its user does not notice."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from salver.client import Client


def test_a_server_says_which_models_may_run_twice(tree, models, tmp_path):
    once = tmp_path / "once"
    once.mkdir()
    (once / "model.onnx").write_bytes((models / "times2.onnx").read_bytes())
    (once / "salver-model.toml").write_text("idempotent = false\n")
    for name, artifact in (("once", once), ("double", models / "times2.onnx")):
        tree.salver("register", name, artifact)
        tree.salver("deploy", name)
    tree.start("--grpc", "0")
    for url in (tree.http, f"grpc://{tree.ready['grpc']}"):
        with Client(url) as client:
            asked = {name: client._run(client._asking.configuration(name, None)) for name in client.models()}
        assert {name: found.idempotent for name, found in asked.items()} == {"double": True, "once": False}


def test_calls_go_on_when_the_server_process_is_killed(tree, models):
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start("--grpc", "0")
    stop = threading.Event()
    counts = [0, 0, 0, 0]

    def ask(number: int, url: str) -> None:
        with Client(url) as client:
            while not stop.is_set():
                value = np.float32([[number, counts[number]]])
                assert np.array_equal(client.predict("double", value)["y"], value * 2)
                counts[number] += 1

    def has_gone_on(before: list[int]) -> bool:
        """Whether all have had answers since, or one has failed."""
        return all(n > m + 20 for n, m in zip(counts, before, strict=True)) or any(each.done() for each in asking)

    urls = [tree.http, f"grpc://{tree.ready['grpc']}"] * 2
    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, number, url) for number, url in enumerate(urls)]
        try:
            before, pid = list(counts), tree.server_pid
            tree.until(lambda: has_gone_on(before), "answers")
            os.kill(pid, signal.SIGKILL)
            tree.until(lambda: tree.server_pid not in (None, pid), "a new server process")
            before = list(counts)
            tree.until(lambda: has_gone_on(before), "answers of the new one")
        finally:
            stop.set()
        for each in asking:
            each.result()
