from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from salver.cli import develop
from salver.cli.context import Context
from salver.protocol.signature import Signature, TensorSpec
from salver.testing import make_manifest

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.0, 0.0]}]}


@pytest.fixture
def dev(tree):
    """Start `salver dev`; its tree may be asked like any other."""

    def start(*arguments: object):
        log = tree.log_path.open("ab")
        with log:
            tree.process = subprocess.Popen(
                [sys.executable, "-m", "salver", "--json", "dev", "--http", "0", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | tree.environment,
            )
        return tree.wait_ready()

    return start


def test_a_file_is_served_at_once_and_nothing_is_left_after_sigterm(dev, tree, models) -> None:
    line = dev(models / "times2.onnx")
    assert line["endpoint"] == "times2"
    assert tree.predict("times2", [1, 2]) == [2, 4]
    assert len(tree.left_behind()) == 1
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert tree.left_behind() == []
    assert not tree.home.exists()


def test_a_python_file_is_deployed_again_when_it_is_saved_and_a_broken_one_is_not(dev, tree, models, tmp_path) -> None:
    code = (models / "times3.py").read_text()
    path = tmp_path / "My Model.py"
    path.write_text(code)
    assert dev(path)["endpoint"] == "my-model"
    assert tree.predict("my-model", [1, 2]) == [3, 6]
    (tmp_path / "saved").write_text(code.replace("x * 3", "x * 5"))
    (tmp_path / "saved").rename(path)  # as editors do
    tree.until(lambda: tree.predict("my-model", [1, 2]) == [5, 10], "the new code serves")
    path.write_text("this is no Python")
    path.write_text(code.replace("x * 3", "x * 7"))
    tree.until(lambda: tree.predict("my-model", [1, 2]) == [7, 14], "the newest code serves")
    (tmp_path / "neighbour.py").write_text("nobody asked for this")
    tree.signal(signal.SIGINT)
    assert tree.wait() == 0


def test_a_dev_in_the_background_of_a_shell_ends_at_sigint_too(dev, tree, models) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a shell's & leaves to its children
    try:
        dev(models / "times2.onnx")
    finally:
        signal.signal(signal.SIGINT, before)
    tree.signal(signal.SIGINT)
    assert tree.wait() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert tree.left_behind() == []


def test_what_is_printed_for_people_can_be_pasted(tree, models) -> None:
    with tree.log_path.open("ab") as log:
        tree.process = subprocess.Popen(
            [sys.executable, "-m", "salver", "dev", models / "times2.onnx", "--http", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | tree.environment,
        )
    said = [tree.process.stdout.readline().decode() for _ in range(4)]
    command = next(line for line in said if line.split()[0] == "predict").partition("curl")[2]
    answer = subprocess.run(["sh", "-c", f"curl -s {command}"], capture_output=True, check=True, timeout=30).stdout
    assert json.loads(answer)["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]
    tree.signal(signal.SIGINT)
    assert tree.wait() == 0


READY = {"http": "http://h:1", "failed": [{"endpoint": "m", "error": "m@1.0.0 raised OSError", "cause": "OSError: w"}]}


@pytest.mark.parametrize(
    ("manifest", "body"),
    [
        ({"kind": "sequence"}, ROW | {"parameters": {"sequence_id": "a", "sequence_start": True}}),
        ({"streams": True}, ROW),
    ],
)
def test_the_request_it_prints_is_one_that_the_model_takes(home, capsys, manifest, body) -> None:
    made = make_manifest(signature=SIGNATURE, **manifest)
    develop._announce(Context(home, json=False), json.dumps(READY).encode(), "m", made)
    said = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: shlex.split(line)[1:] for line in said if "curl" in line}
    asks = ["-H", "content-type: application/json", "-d"]
    assert lines["predict"][:-1] == ["curl", "http://h:1/v2/models/m/infer", *asks]
    assert json.loads(lines["predict"][-1]) == body
    assert ("stream" in lines) is bool(manifest.get("streams"))
    if "stream" in lines:
        assert lines["stream"][:-1] == ["curl", "-N", "http://h:1/v2/models/m/infer_stream", *asks]
        assert json.loads(lines["stream"][-1]) == body
    assert said[-1] == "  failed: m: OSError: w"


def test_code_without_syntax_is_refused_with_its_line(tree, tmp_path) -> None:
    (tmp_path / "spread.py").write_text("import salver\n\nclass Spread(salver.Model:\n")
    for words in (("dev",), ("register", "spread")):
        code, _, complaint = tree.attempt(*words, tmp_path / "spread.py")
        assert code == 1
        message = json.loads(complaint.splitlines()[-1])["error"]["message"]
        assert "SyntaxError: " in message
        assert "(spread.py, line 3)" in message
        assert str(tmp_path) not in message


def test_nothing_survives_a_dev_that_is_killed(dev, tree, models) -> None:
    dev(models / "times2.onnx", "--no-reload")
    tree.process.kill()
    tree.wait()
    tree.until(tree.is_gone, "nothing is left", 5)
    for path in tree.left_behind():  # nobody is left to remove it
        subprocess.run(["rm", "-r", path], check=True)


def test_a_port_that_is_taken_ends_it_with_1(dev, tree, models, shared) -> None:
    port = shared.http.rpartition(":")[2]
    done = tree.command("--json", "dev", models / "times2.onnx", "--http", port)
    assert done.returncode == 1
    assert done.stdout == b""
    assert f"port {port}" in json.loads(done.stderr.splitlines()[-1])["error"]["message"]
