from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest


def test_the_ready_line_has_the_documented_keys_and_names_living_processes(tree, models) -> None:
    tree.salver("register", "triple", models / "times3.py")
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "triple")
    tree.salver("deploy", "double")
    line = tree.start()
    assert set(line) == {"ready", "http", "grpc", "control", "pid", "pids", "failed"}
    assert line["ready"] is True
    assert line["grpc"] is None
    assert line["failed"] == []
    assert line["pid"] == tree.process.pid
    assert line["http"].startswith("http://127.0.0.1:")
    pids = line["pids"]
    assert pids == {"controller": tree.controller_pid, "servers": [tree.server_pid], "workers": pids["workers"]}
    assert len(pids["workers"]) == 1
    assert {process.pid for process in tree.processes()} == {
        line["pid"],
        pids["controller"],
        *pids["servers"],
        *pids["workers"],
    }
    # Ready means ready: both answer at once.
    assert tree.predict("triple", [1, 2]) == [3, 6]
    assert tree.predict("double", [1, 2]) == [2, 4]
    assert tree.get("/v2/health/ready").status == 200
    assert tree.stop() == 0


def test_a_version_that_cannot_load_is_in_failed_and_takes_readiness_only_if_required(tree, models) -> None:
    for name, model, flag in (
        ("good", "times2", "--required"),
        ("bad", "times3", "--required"),
        ("extra", "times4", "--optional"),
    ):
        tree.salver("register", name, models / f"{model}.onnx")
        tree.salver("deploy", name, flag)
    _flip_a_byte(tree, models / "times3.onnx")
    _flip_a_byte(tree, models / "times4.onnx")
    line = tree.start()
    failed = {row["endpoint"]: row for row in line["failed"]}
    assert set(failed) == {"bad", "extra"}
    assert set(failed["bad"]) == {"endpoint", "version", "code", "error", "cause"}
    assert failed["bad"]["code"] == "CORRUPT_ARTIFACT"
    assert failed["bad"]["version"] == "bad@1.0.0"
    assert tree.get("/v2/health/ready").status == 503
    assert tree.get("/v2/health/live").status == 200
    assert tree.get("/v2/models/bad/ready").status == 503
    assert tree.infer("bad", [1, 2]).status == 503
    assert tree.predict("good", [1, 2]) == [2, 4]
    tree.deploy("bad", required=False)
    tree.until(lambda: tree.get("/v2/health/ready").status == 200, "ready without what is optional")


def test_a_second_serve_on_one_home_is_refused_naming_the_holder(shared) -> None:
    refused = shared.command("--json", "serve", "--http", "0", "--control", "0")
    assert refused.returncode == 1
    assert not refused.stdout
    assert f"held by process {shared.process.pid} (serve)".encode() in refused.stderr
    assert shared.predict("double", [1, 2]) == [2, 4]


@pytest.mark.parametrize("name", ["a home with spaces", "x" * 120])
def test_a_home_may_have_spaces_and_a_path_too_long_for_sockets(trees, tmp_path, monkeypatch, models, name) -> None:
    tree = trees(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    tree.environment["SALVER_HOME"] = name  # given relatively
    tree.salver("register", "double", models / "times2.onnx")
    tree.start()
    tree.salver("deploy", "double", "--wait")
    assert tree.predict("double", [1, 2]) == [2, 4]
    assert tree.stop() == 0
    assert not tree.left_behind()
    assert not (tree.home / "run").exists()
    tree.until(tree.is_gone, "nothing is left")


def test_commands_work_while_the_server_still_loads_and_sigterm_ends_it_then(tree, models, tmp_path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text((models / "times3.py").read_text() + "\n    def load(self, directory):\n        time.sleep(600)\n")
    # One never loads in a worker, the other never warms up in a thread of the server process.
    np.save(tmp_path / "endless.npy", np.full((4, 2), 1e15))
    tree.salver("register", "slow", slow)
    tree.salver("register", "endless", models / "loop.onnx", "--profile", tmp_path / "endless.npy")
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "slow")
    tree.salver("deploy", "endless")
    tree.salver("deploy", "double")
    tree.launch()
    tree.until((tree.home / "serve.json").exists, "somebody serves")
    status = tree.salver("status")
    tree.ready = status["serving"]
    tree.until(lambda: tree.get("/v2/models/double/ready").status == 200, "what has loaded serves")
    states = {row["endpoint"]: row["state"] for row in tree.salver("status")["endpoints"]}
    assert states == {"double": "ready", "slow": "loading", "endless": "loading"}
    assert tree.get("/v2/health/ready").status == 503
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0


def test_sigterm_in_the_first_moment_ends_everything_with_0(tree) -> None:
    tree.launch()
    tree.until((tree.home / "run" / "controller.order").exists, "the first child is about to start")
    tree.until(lambda: len(tree.processes()) > 1, "a child")
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0


def test_serve_ends_with_the_program_that_started_it(tree) -> None:
    program = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-m', 'salver', 'serve', '--http', '0',"
        " '--control', '0', '--until-stdin-closes'], stdin=subprocess.PIPE); child.wait()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | tree.environment,
    )
    try:
        assert b'"ready":true' in parent.stdout.readline()
        parent.kill()
        parent.wait()
        tree.until(tree.is_gone, "nothing is left", 5)
    finally:
        parent.kill()
        parent.stdout.close()


def _flip_a_byte(tree, original) -> None:
    content = original.read_bytes()
    blobs = [path for path in (tree.home / "blobs").rglob("*") if path.is_file() and path.read_bytes() == content]
    for blob in blobs:
        blob.chmod(0o600)
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
